"""Compiles the stand-in for librga. It is no Rockchip software, and its times say nothing."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from pathlib import Path

from npu_standin import build

HERE = Path(__file__).parent


def compiled(folder: Path) -> Path:
    """The stand-in as a library in `folder`."""
    return build.compiled(folder, "-fno-math-errno", name="librga.so", source=HERE / "standin.c")


@dataclass(frozen=True)
class State:
    handles: int
    misuse: int
    pictures: int
    imports: int


def state(path: Path) -> State:
    """What the stand-in has counted since it was loaded into this process."""
    told = (ctypes.c_int64 * 4)()
    ctypes.CDLL(str(path)).rga_standin_state(told)
    return State(*told)


def misuse(path: Path) -> str:
    function = ctypes.CDLL(str(path)).rga_standin_misuse
    function.restype = ctypes.c_char_p
    return str(function().decode())


def forgive(path: Path) -> None:
    """For the test that misuses it on purpose."""
    ctypes.CDLL(str(path)).rga_standin_forgive()
