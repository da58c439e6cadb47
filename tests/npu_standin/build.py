"""Compiles the stand-in library. It is no Rockchip software and computes nothing."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def compiler() -> str:
    """The C compiler; the test is skipped where there is none."""
    found = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if not found:
        pytest.skip("there is no C compiler to build a stand-in with")
    return found


def compiled(
    folder: Path,
    *flags: str,
    name: str = "librknnrt.so",
    source: Path = HERE / "standin.c",
) -> Path:
    """The stand-in as a library in `folder`; librknnmrt.so is that of RV1103 and RV1106."""
    if sys.platform != "linux":
        pytest.skip("a stand-in needs Linux, as the real one does")
    target = folder / name
    command = [compiler(), "-O2", "-g", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    small = ["-DSTANDIN_SMALL"] if name.startswith("librknnmrt") else []
    done = subprocess.run(
        [*command, "-pthread", *small, *flags, str(source), "-o", str(target)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return target


@dataclass(frozen=True)
class State:
    contexts: int
    memories: int
    misuse: int
    runs: int
    memory_bytes: int
    most_running: int


def state(path: Path) -> State:
    """What the stand-in has counted since it was loaded into this process."""
    told = (ctypes.c_int64 * 6)()
    ctypes.CDLL(str(path)).standin_state(told)
    return State(*told)


def misuse(path: Path) -> str:
    function = ctypes.CDLL(str(path)).standin_misuse
    function.restype = ctypes.c_char_p
    return str(function().decode())
