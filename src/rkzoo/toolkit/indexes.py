"""Package index settings for uv, taken from pip's configuration, which uv does not read."""

from __future__ import annotations

import configparser
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

# pip's name of a setting -> the environment variable of uv.
_SETTINGS = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "trusted-host": "UV_INSECURE_HOST",
    "cert": "SSL_CERT_FILE",
    "proxy": "ALL_PROXY",
    "timeout": "UV_HTTP_TIMEOUT",
}
# pip's default-timeout has another name as an environment variable.
_ALIASES = {"default-timeout": "timeout"}


def uv_environment(
    environ: Mapping[str, str], files: tuple[Path, ...] | None = None
) -> dict[str, str]:
    """Environment variables that make uv use the indexes configured for pip.

    Args:
        environ: The present environment. Settings of uv's own (variables, or an index in its
            configuration file) are not overridden.
        files: pip's configuration files, the last wins; None for the usual ones.

    Returns:
        The variables to add.
    """
    settings: dict[str, str] = {}
    for path in pip_files(environ) if files is None else files:
        settings |= dict(_read(path))
    settings |= dict(_variables(environ))
    uv_has_index = any(
        environ.get(name) for name in ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_INDEX")
    ) or _uv_file_names_an_index(environ)
    added: dict[str, str] = {}
    for setting, variable in _SETTINGS.items():
        value = " ".join(settings.get(setting, "").split())
        if not value or variable in environ or (setting.endswith("index-url") and uv_has_index):
            continue
        added[variable] = value
    if "UV_INDEX" in added:
        # pip takes the best version of all its indexes; uv would stop at the first.
        added.setdefault("UV_INDEX_STRATEGY", "unsafe-best-match")
    return added


def pip_files(environ: Mapping[str, str]) -> tuple[Path, ...]:
    """pip's configuration files in the order in which it reads them."""
    named = environ.get("PIP_CONFIG_FILE")
    if named == os.devnull:
        return ()
    home = Path(environ.get("HOME", "~")).expanduser()
    config = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
    system = [
        Path(base) / "pip/pip.conf"
        for base in environ.get("XDG_CONFIG_DIRS", "/etc/xdg").split(":")
    ]
    paths = [
        *system,
        Path("/etc/pip.conf"),
        home / ".pip/pip.conf",
        config / "pip/pip.conf",
        Path(sys.prefix) / "pip.conf",
    ]
    return tuple(paths + ([Path(named)] if named else []))


def _read(path: Path) -> Iterator[tuple[str, str]]:
    parser = configparser.RawConfigParser()
    try:
        parser.read(path, encoding="utf-8")
    except (configparser.Error, OSError, UnicodeDecodeError):
        return  # pip itself reports it; here it only means "no setting"
    for section in ("global", "install"):
        if parser.has_section(section):
            for name, value in parser.items(section):
                yield _name(name), value


def _variables(environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for name, value in environ.items():
        if name.startswith("PIP_") and value:
            yield _name(name.removeprefix("PIP_")), value


def _name(name: str) -> str:
    name = name.lower().replace("_", "-")
    return _ALIASES.get(name, name)


def _uv_file_names_an_index(environ: Mapping[str, str]) -> bool:
    home = Path(environ.get("HOME", "~")).expanduser()
    config = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
    for path in (Path("/etc/uv/uv.toml"), config / "uv/uv.toml"):
        try:
            if "index" in path.read_text("utf-8"):
                return True
        except (OSError, UnicodeDecodeError):
            continue
    return False
