"""Python interpreter discovery for the toolkit (3.8 to 3.12), whatever rkzoo runs on."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from rkzoo.errors import RkzooError
from rkzoo.toolkit.versions import Release

_PREFERRED = ("3.11", "3.12", "3.10", "3.9", "3.8")
_ASK = (
    "import json,platform,struct,sys;"
    "print(json.dumps([list(sys.version_info[:3]),"
    "platform.python_implementation(),struct.calcsize('P')*8]))"
)


@dataclass(frozen=True)
class Interpreter:
    """A Python interpreter and its version."""

    path: str
    version: tuple[int, int, int]

    @property
    def text(self) -> str:
        """The version as text, such as "3.11.4"."""
        return ".".join(map(str, self.version))


def unfit_platform() -> RkzooError | None:
    """Why no RKNN-Toolkit2 of any version runs on this machine; None when one does."""
    system, machine = platform.system(), platform.machine()
    fix = (
        "Convert on a 64-bit Linux PC, in a Linux container or in WSL2;"
        " running ONNX models works here."
    )
    what = "RKNN-Toolkit2 does not run on this machine."
    if system != "Linux":
        return RkzooError(
            what, f"Rockchip publishes it for Linux (x86-64, aarch64) only; this is {system}.", fix
        )
    if machine not in ("x86_64", "aarch64") or sys.maxsize < 2**32:
        return RkzooError(
            what, f"Rockchip publishes it for 64-bit x86 and Arm only, and this is {machine}.", fix
        )
    if platform.libc_ver()[0] not in ("glibc", ""):
        return RkzooError(what, "It needs glibc, which this Linux does not use.", fix)
    if shutil.which("ldd") is None and Path("/lib/ld-musl-x86_64.so.1").exists():
        return RkzooError(what, "It needs glibc, and this Linux uses musl.", fix)
    return None


def find(release: Release) -> Interpreter:
    """Find a CPython that `release` has wheels for; the running one if it fits.

    Raises:
        RkzooError: There is none; the message says what to install.
    """
    for path in _candidates(release):
        interpreter = examine(path)
        if interpreter is not None and interpreter.version[:2] in release.pythons:
            return interpreter
    low, high = release.pythons[0], release.pythons[-1]
    raise RkzooError(
        f"RKNN-Toolkit2 {release.version} cannot be installed: no suitable Python was found.",
        f"It needs Python {low[0]}.{low[1]} to {high[0]}.{high[1]}, and rkzoo itself runs on"
        f" {sys.version_info[0]}.{sys.version_info[1]}.",
        "Install one beside the Python you use, for example with `uv python install 3.11`"
        " or `apt install python3.11`; rkzoo finds it by itself.",
    )


def _candidates(release: Release) -> Iterator[str]:
    fitting = [f"{major}.{minor}" for major, minor in release.pythons]
    requested = [version for version in _PREFERRED if version in fitting]
    yield sys.executable
    for version in requested:
        if path := shutil.which(f"python{version}"):
            yield path
    yield from _by_uv(fitting)
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    for version in requested:
        yield from (str(path) for path in sorted(root.glob(f"versions/{version}.*/bin/python")))
    for name in ("python3", "python"):
        if path := shutil.which(name):
            yield path


def _by_uv(fitting: Sequence[str]) -> Iterator[str]:
    try:
        answer = subprocess.run(
            [uv(), "python", "find", "--no-project", f">={fitting[0]},<={fitting[-1]}.99"],
            capture_output=True,
            text=True,
            timeout=30,
            env=os.environ | {"UV_PYTHON_DOWNLOADS": "never"},
        )
    except (OSError, subprocess.TimeoutExpired, RkzooError):
        return
    if answer.returncode == 0 and answer.stdout.strip():
        yield answer.stdout.strip()


@cache
def examine(path: str) -> Interpreter | None:
    """Query the interpreter at `path`; None when it is no working 64-bit CPython."""
    if not path:
        return None
    try:
        answer = subprocess.run(
            [path, "-I", "-c", _ASK], capture_output=True, text=True, timeout=30
        )
        version, implementation, bits = json.loads(answer.stdout)
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None
    if implementation != "CPython" or bits != 64:
        return None
    major, minor, micro = version
    return Interpreter(path, (major, minor, micro))


def uv() -> str:
    """The path of the uv program. Raises RkzooError when it is missing."""
    try:
        from uv import find_uv_bin

        return str(find_uv_bin())
    except (ImportError, FileNotFoundError):
        pass
    if path := shutil.which("uv"):
        return path
    raise RkzooError(
        "The toolkit's environment cannot be made.",
        "The program uv, which installs it, is missing.",
        "Install it with `pip install uv`.",
    )
