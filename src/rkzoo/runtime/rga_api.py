"""C API of librga (Rockchip's 2D engine, RGA) as Python data, and the limits of its hardware.

Written from the headers of librga 1.8 to 1.10 and Rockchip's RGA developer guide 2.2.5, chapters
"Design index" and "Image Format Alignment". No device access here, and nothing was measured on a
board.
"""

from __future__ import annotations

import ctypes as c
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from typing import Any

from rkzoo.runtime.npu_api import HERE, POINTER, laid_out


class Format(IntEnum):
    """Pixel formats, named by the order of the bytes in memory."""

    RGB = 0x200
    BGR = 0x700
    NV12 = 0xA00


VERSION = 1
"""Argument of `querystring`: library and hardware."""

SYNC = 1 << 19
"""Flag of `improcess`: return when the image is complete."""

BT601_LIMITED = 1
"""Color space of the target: from limited range, as OpenCV converts NV12."""

SUCCESS = 1

# ---- structures ---------------------------------------------------------------------

STRUCTURES: dict[str, tuple[tuple[str, Any], ...]] = {
    "rga_buffer_t": (
        ("vir_addr", POINTER),
        ("phy_addr", POINTER),
        ("fd", c.c_int),
        ("width", c.c_int),
        ("height", c.c_int),
        ("wstride", c.c_int),
        ("hstride", c.c_int),
        ("format", c.c_int),
        ("color_space_mode", c.c_int),
        ("global_alpha", c.c_int),
        ("rd_mode", c.c_int),
        ("color", c.c_int),
        ("colorkey_range", c.c_int * 2),
        ("nn", c.c_int * 6),
        ("rop_code", c.c_int),
        ("handle", c.c_uint32),
    ),
    "im_rect": (("x", c.c_int), ("y", c.c_int), ("width", c.c_int), ("height", c.c_int)),
    "im_handle_param_t": (
        ("width", c.c_uint32),
        ("height", c.c_uint32),
        ("format", c.c_uint32),
    ),
}


@cache
def structure(name: str, bits: int = HERE) -> Any:
    """The ctypes class of a structure, for 64-bit or 32-bit processes."""
    return laid_out(name, STRUCTURES[name], bits)


_INT, _BUFFER, _RECT = c.c_int, structure("rga_buffer_t"), structure("im_rect")

FUNCTIONS: dict[str, tuple[Any, ...]] = {
    "querystring": (c.c_char_p, _INT),
    "imStrError_t": (c.c_char_p, _INT),
    "importbuffer_fd": (c.c_uint32, _INT, c.c_void_p),
    "importbuffer_virtualaddr": (c.c_uint32, c.c_void_p, c.c_void_p),
    "releasebuffer_handle": (_INT, c.c_uint32),
    "wrapbuffer_handle_t": (_BUFFER, c.c_uint32, _INT, _INT, _INT, _INT, _INT),
    "improcess": (_INT, _BUFFER, _BUFFER, _BUFFER, _RECT, _RECT, _RECT, _INT),
}
"""Result type, then argument types."""


# ---- hardware limits ----------------------------------------------------------------


@dataclass(frozen=True)
class Engine:
    """An RGA generation.

    Attributes:
        stride: A row in memory is a multiple of this many pixels.
        least: Smallest sides (width, height).
        reads: Largest side of a source.
        writes: Largest side of a target.
        scale: Largest scale factor, up or down.
        far: Whether it can access memory above 4 GB.
    """

    stride: int
    min_size: tuple[int, int]
    reads: int
    writes: int
    scale: int
    far: bool


ENGINES = {
    "RGA_2": Engine(4, (2, 2), 8192, 4096, 16, False),
    "RGA_2_Enhance": Engine(4, (2, 2), 8192, 4096, 16, False),
    "RGA_2_PRO": Engine(4, (2, 2), 8192, 8192, 16, True),
    "RGA_3": Engine(16, (68, 2), 8176, 8128, 8, True),
}
"""By their names in `querystring`: the engines beside an NPU of the second generation."""

_FAR = 4 << 30


def engines(reported: str) -> tuple[Engine, ...]:
    """The engines that `querystring` names. Empty where one of them is unknown."""
    names = re.findall(r"\bRGA_(?!api)\w+", reported)
    known = [ENGINES[name] for name in names if name in ENGINES]
    return tuple(known) if len(known) == len(names) else ()


@dataclass(frozen=True)
class Surface:
    """An image in memory: width and height in pixels, `stride` pixels per row."""

    width: int
    height: int
    stride: int
    format: Format


@dataclass(frozen=True)
class Rect:
    """The rectangle of the scaled image in the target, in pixels."""

    x: int
    y: int
    width: int
    height: int


def unsupported_reason(
    able: tuple[Engine, ...], source: Surface, target: Surface, place: Rect, memory: int
) -> str:
    """Why RGA cannot scale a source into a rectangle of a target; "" where it can.

    Args:
        able: The engines of the machine.
        source: The source image.
        target: The target image.
        place: The rectangle in the target.
        memory: The machine's memory in bytes: the kernel may place a page anywhere in it.
    """
    if not able:
        return "This generation of RGA is unknown to rkzoo."
    # The driver chooses among several engines, so the strictest rule holds.
    step = max(engine.stride for engine in able)
    rules: tuple[Callable[[], Iterator[str]], ...] = (
        lambda: _rows(step, source, target),
        lambda: _even(source),
        lambda: _reach(able, source, target, place, memory),
    )
    return next((reason for rule in rules for reason in rule()), "")


def _rows(step: int, source: Surface, target: Surface) -> Iterator[str]:
    for name, surface in (("picture", source), ("model's input", target)):
        if surface.stride % step:
            yield (
                f"A row of the {name} takes {surface.stride} pixels in memory,"
                f" and RGA needs a multiple of {step}."
            )


def _even(source: Surface) -> Iterator[str]:
    if source.format == Format.NV12 and (source.width % 2 or source.height % 2):
        yield f"An NV12 picture of {source.width}x{source.height} has odd sides."


def _reach(
    able: tuple[Engine, ...], source: Surface, target: Surface, place: Rect, memory: int
) -> Iterator[str]:
    fitting = [engine for engine in able if _fits(engine, source, target, place)]
    if not fitting:
        yield (
            f"RGA does not scale {source.width}x{source.height} to {place.width}x{place.height}:"
            " a side or the scale factor is out of range."
        )
    elif memory > _FAR and not any(engine.far for engine in fitting):
        yield "This RGA can access 4 GB of memory, and the machine has more."


def _fits(engine: Engine, source: Surface, target: Surface, place: Rect) -> bool:
    sides = ((source.width, place.width), (source.height, place.height))
    return (
        max(source.width, source.height) <= engine.reads
        and max(target.width, target.height) <= engine.writes
        and all(min(side) >= least for side, least in zip(sides, engine.min_size, strict=True))
        and all(max(side) <= engine.scale * min(side) for side in sides)
    )
