"""Package index client: the file of a release (PEP 503 and PEP 691)."""

from __future__ import annotations

import configparser
import json
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urldefrag, urljoin, urlsplit

from rkzoo.zoo.schema import Wheel
from rkzoo.zoo.store import base_name
from rkzoo.zoo.transfer import Unavailable, read_page, without_login

PYPI = "https://pypi.org/simple"
_JSON = "application/vnd.pypi.simple.v1+json"
_ACCEPT = f"{_JSON}, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"
_VARIABLES = ("RKZOO_PYPI", "PIP_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX_URL")


@dataclass(frozen=True)
class Offer:
    """A file of a release. `sha256` is None where the index gives none."""

    url: str
    filename: str
    sha256: str | None


def normalised(name: str) -> str:
    """A package name, normalized as in PEP 503."""
    return re.sub(r"[-_.]+", "-", name).lower()


def index_url(environ: Mapping[str, str] | None = None) -> str:
    """The package index that the user configured for rkzoo, pip or uv; PyPI otherwise."""
    environ = os.environ if environ is None else environ
    for variable in _VARIABLES:
        if environ.get(variable, "").strip():
            return environ[variable].strip().rstrip("/")
    return _from_pip_conf(environ) or PYPI


def _from_pip_conf(environ: Mapping[str, str]) -> str:
    text = ""
    for path in _pip_confs(environ):
        parser = configparser.RawConfigParser()
        try:
            parser.read(path, encoding="utf-8")
        except (configparser.Error, OSError, UnicodeDecodeError):
            continue  # pip itself reports it
        for section in ("global", "install"):
            text = parser.get(section, "index-url", fallback="").strip() or text
    return text.rstrip("/")


def _pip_confs(environ: Mapping[str, str]) -> list[Path]:
    """pip's configuration files; a later one wins."""
    named = environ.get("PIP_CONFIG_FILE", "")
    if named == os.devnull:
        return []
    home = Path(environ.get("HOME", "~")).expanduser()
    config = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
    shared = environ.get("XDG_CONFIG_DIRS", "/etc/xdg").split(os.pathsep)
    return [
        *(Path(folder) / "pip/pip.conf" for folder in shared),
        Path("/etc/pip.conf"),
        home / ".pip/pip.conf",
        config / "pip/pip.conf",
        Path(sys.prefix) / "pip.conf",
        *([Path(named)] if named else []),
    ]


def find(wheel: Wheel, index: str | None = None) -> Offer:
    """Find a wheel of exactly one version, for any Python.

    Args:
        wheel: Package and version.
        index: URL of the index; None for the configured one.

    Raises:
        Unavailable: The index cannot be read, or has no such wheel.
    """
    index = index or index_url()
    page = f"{index}/{normalised(wheel.package)}/"
    offers = parse(*read_page(page, _ACCEPT), login_from=page)
    fitting = sorted(
        (offer for offer in offers if is_wheel_of(offer.filename, wheel)),
        # A platform-independent wheel first; the extracted file is the same in all of them.
        key=lambda offer: (not offer.filename.endswith("-none-any.whl"), offer.filename),
    )
    if not fitting:
        raise Unavailable(
            f"The index {without_login(index)} has no wheel {wheel.package} {wheel.version}.",
            f"It offers {len(offers)} other files of that package.",
            "If it is a mirror, try RKZOO_PYPI=https://pypi.org/simple.",
        )
    return fitting[0]


def is_wheel_of(filename: str, wheel: Wheel) -> bool:
    """Whether a file name is a wheel of that package and version."""
    parts = filename.removesuffix(".whl").split("-")
    return (
        filename.endswith(".whl")
        and len(parts) in (5, 6)
        and normalised(parts[0]) == normalised(wheel.package)
        and parts[1].lower() == wheel.version.replace("-", "_").lower()
    )


def parse(body: bytes, kind: str, address: str, login_from: str = "") -> list[Offer]:
    """Parse a page of the simple index.

    Args:
        body: The page.
        kind: Its content type, json or html.
        address: Its own URL, the base of relative links.
        login_from: URL whose login is used for files on the same host.

    Returns:
        The files on it.

    Raises:
        Unavailable: It is not a page of a package index.
    """
    try:
        links = _json_links(body) if kind.endswith("json") else _html_links(body)
        offers = [
            Offer(_with_login(urljoin(address, url), login_from), base_name(filename), sha256)
            for url, filename, sha256 in links
        ]
    except (LookupError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise Unavailable(
            f"{without_login(address)} is not a page of a package index.",
            f"It could not be parsed: {str(error)[:120] or type(error).__name__}.",
            "Check RKZOO_PYPI; it should end in /simple.",
        ) from error
    return offers


def _with_login(url: str, page: str) -> str:
    login, at, host = urlsplit(page).netloc.rpartition("@")
    parts = urlsplit(url)
    if at and "@" not in parts.netloc and parts.netloc == host:
        return parts._replace(netloc=f"{login}@{host}").geturl()
    return url


_Link = tuple[str, str, "str | None"]


def _json_links(body: bytes) -> list[_Link]:
    files = json.loads(body)["files"] if body else []
    return [
        (str(file["url"]), str(file["filename"]), _hash(file.get("hashes", {}).get("sha256")))
        for file in files
    ]


def _html_links(body: bytes) -> list[_Link]:
    parser = _Anchors()
    parser.feed(body.decode("utf-8", "replace"))
    links: list[_Link] = []
    for href in parser.found:
        url, fragment = urldefrag(urljoin(parser.base, href))
        sha256 = fragment.removeprefix("sha256=") if fragment.startswith("sha256=") else None
        links.append((url, urlsplit(url).path, _hash(sha256)))
    return links


def _hash(text: object) -> str | None:
    digest = str(text).lower() if text else ""
    return digest if re.fullmatch(r"[0-9a-f]{64}", digest) else None


class _Anchors(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.base = ""
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        href = dict(attrs).get("href")
        if href and tag == "base":
            self.base = href
        elif href and tag == "a":
            self.found.append(href)
