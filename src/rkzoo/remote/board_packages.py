"""What a board is sent: rkzoo as it is installed here, and the packages that it asks for there.

The packages are fetched by this PC, for boards are often offline; a board needs Python alone.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import Distribution, distribution
from pathlib import Path

import rkzoo
from rkzoo.errors import RkzooError, printable
from rkzoo.files import cache_dir, locked, read_text, temporary_folder
from rkzoo.kept import keep, kept
from rkzoo.progress import ProgressReporter

EXTRA = "serve"
MANYLINUX = (17, 28, *range(31, 41))
"""Versions 2.N of glibc for which uv knows the wheels that fit."""
OLDEST_PYTHON = (3, 10)
_INFO = "dist-info"


@dataclass(frozen=True)
class Target:
    """What decides which wheels fit a board."""

    python: tuple[int, int]
    platform: str

    @property
    def python_text(self) -> str:
        return ".".join(map(str, self.python))


@dataclass(frozen=True)
class Layer:
    """A folder of the installation on the board. `name` tells its content, so what is there under
    that name is not sent again; `pack` makes the .tar.gz to send."""

    name: str
    title: str
    pack: Callable[[ProgressReporter], bytes]


def layers(target: Target) -> tuple[Layer, Layer]:
    """What a board is sent: rkzoo, and the packages it asks for.

    Args:
        target: What runs there.

    Returns:
        Both, in the order in which Python looks for modules.

    Raises:
        RkzooError: This installation of rkzoo does not tell what it asks for.
    """
    own = distribution("rkzoo")
    asked = _asked(own)
    files = dict(_own_files(own))
    content = hashlib.sha256()
    for name, data in files.items():
        content.update(f"{name} {hashlib.sha256(data).hexdigest()}\n".encode())
    version = f"{own.version}-{content.hexdigest()[:12]}"
    packages = hashlib.sha256(f"{asked} {target}".encode()).hexdigest()[:32]
    return (
        Layer(f"rkzoo-{version}", f"rkzoo {own.version}", lambda report: _tar(iter(files.items()))),
        Layer(
            f"packages-{packages[:12]}",
            "the packages it needs",
            lambda report: _packages(own, target, packages, report),
        ),
    )


def platform_for(glibc: tuple[int, int]) -> str | None:
    """uv's name of a 64-bit Arm Linux with this glibc; None where it is too old for any wheel."""
    fitting = [number for number in MANYLINUX if (2, number) <= glibc]
    return f"aarch64-manylinux_2_{fitting[-1]}" if fitting else None


# ---- rkzoo itself -------------------------------------------------------------------


def _own_files(own: Distribution) -> Iterator[tuple[str, bytes]]:
    """The package as it lies here, installed or in a checkout, and what is noted of it."""
    package = Path(rkzoo.__file__).parent
    yield from _files_of(package, "rkzoo")
    results = package.parents[1] / "results"  # of a checkout; a wheel has them in the package
    if not (package / "results").is_dir() and results.is_dir():
        yield from _files_of(results, "rkzoo/results")
    folder = f"rkzoo-{own.version}.{_INFO}"
    for name in ("METADATA", "entry_points.txt"):
        if text := own.read_text(name):
            yield f"{folder}/{name}", text.encode()


def _files_of(folder: Path, name: str) -> Iterator[tuple[str, bytes]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            yield f"{name}/{path.relative_to(folder).as_posix()}", path.read_bytes()


# ---- what it asks for ---------------------------------------------------------------


def _pyproject() -> Path | None:
    """Of the checkout that this package lies in, if it does: what is noted of an editable
    installation is as old as that."""
    source = Path(rkzoo.__file__).parents[1]
    path = source.with_name("pyproject.toml")
    return path if source.name == "src" and path.is_file() else None


def _asked(own: Distribution) -> str:
    """What decides which packages rkzoo asks for. Raises RkzooError."""
    if (pyproject := _pyproject()) is not None:
        return read_text(pyproject)
    if EXTRA not in (own.metadata.get_all("Provides-Extra") or ()):
        raise RkzooError(
            "A board cannot be set up from here.",
            f"What is noted of this installation of rkzoo knows no extra {EXTRA!r}.",
            "Install rkzoo again.",
        )
    return str(sorted(own.requires or ()))


def _source(own: Distribution, scratch: Path) -> list[str]:
    """What rkzoo asks for, as uv pip install takes it."""
    if (pyproject := _pyproject()) is not None:
        return ["--requirements", str(pyproject), "--extra", EXTRA]
    return [f"rkzoo[{EXTRA}] @ {_noted_alone(own, scratch).as_uri()}"]


def _packages(own: Distribution, target: Target, key: str, report: ProgressReporter) -> bytes:
    folder = cache_dir("installs")
    file = folder / f"{key}.tar.gz"
    with locked(cache_dir("locks") / f"installs-{file.name}"):
        if (data := kept(file, report)) is None:
            label = f"Fetching packages for Python {target.python_text} on {target.platform}"
            with report.task(label), temporary_folder() as scratch:
                data = _tar(_fetched(own, target, scratch))
            keep(file, data)
    return data


def _fetched(own: Distribution, target: Target, scratch: Path) -> Iterator[tuple[str, bytes]]:
    from rkzoo.toolkit import indexes, interpreter

    site = scratch / "site"
    line = [
        *(interpreter.uv(), "pip", "install", "--no-progress", "--link-mode", "copy"),
        *("--python", sys.executable, "--only-binary", ":all:", "--target", str(site)),
        *("--python-platform", target.platform, "--python-version", target.python_text),
        *_source(own, scratch),
    ]
    environ = dict(os.environ)
    environ |= indexes.uv_environment(environ)
    environ |= {"UV_PYTHON_DOWNLOADS": "never", "NO_COLOR": "1"}
    environ.pop("VIRTUAL_ENV", None)
    # Where no pyproject.toml or uv.toml of the user's project applies.
    done = subprocess.run(
        line, cwd=scratch, env=environ, capture_output=True, text=True, errors="replace"
    )
    if done.returncode:
        raise RkzooError(
            f"The packages for Python {target.python_text} on {target.platform} cannot be fetched.",
            f"uv says: {_first_error(done.stderr)}",
            "Check this PC's network, proxy and package index (PIP_INDEX_URL or"
            " UV_DEFAULT_INDEX); the board itself needs none.",
            code=1,
        )
    for unused in (site / "bin", site / "share", *site.glob(f"rkzoo-*.{_INFO}")):
        shutil.rmtree(unused, ignore_errors=True)
    yield from _files_of(site, ".")


def _noted_alone(own: Distribution, folder: Path) -> Path:
    """A wheel of nothing but what is noted of rkzoo, so that uv judges the markers of what it asks
    for as it would for rkzoo itself."""
    path = folder / f"rkzoo-{own.version}-py3-none-any.whl"
    notes = {
        "METADATA": own.read_text("METADATA") or "",
        "WHEEL": "Wheel-Version: 1.0\nGenerator: rkzoo\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "RECORD": "",
    }
    info = f"rkzoo-{own.version}.{_INFO}"
    with zipfile.ZipFile(path, "w") as wheel:
        for name, text in notes.items():
            wheel.writestr(f"{info}/{name}", text)
    return path


def _first_error(said: str) -> str:
    lines = [" ".join(line.split()) for line in said.splitlines() if line.strip()]
    first = next((line for line in lines if line.startswith(("error", "×"))), "")
    cause = next((line for line in reversed(lines) if "aused by" in line), "")
    return printable(" ".join(filter(None, (first, cause))) or "nothing.")[:500]


def _tar(files: Iterator[tuple[str, bytes]]) -> bytes:
    """A .tar.gz that depends on the files alone."""
    packed = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=_LEVEL, mtime=0) as stream,
        tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT) as tar,
    ):
        for name, data in files:
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode, entry.mtime = len(data), 0o644, _DAY
            tar.addfile(entry, io.BytesIO(data))
    return packed.getvalue()


_DAY = 315532800  # 1980-01-01
_LEVEL = 4  # half the time of the usual 6, for 2 % more
