"""Writes what the stand-in library plays back: shapes, layouts, and outputs by picture.

A recording goes behind any file, a real .rknn for one: its bytes, their number (64 bits) and
RKZSTAND. No output is computed from anything but what is handed in here.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
TYPES = {"float32": 0, "float16": 1, "int8": 2, "uint8": 3, "int16": 4, "int32": 6, "int64": 8}
NCHW, NHWC, NC1HWC2, UNDEFINED = range(4)


# Channels of a block for int8, and how many blocks an output is rounded to (inputs are not): read
# off the native shapes that the compiler wrote and the register commands of the real library. (Of
# RV1103 and RV1106 only the tight NHWC outputs are known; their blocks are a guess.)
BLOCKS = {
    "rk3588": (16, 2),
    "rk3576": (16, 2),
    "rv1126b": (16, 2),
    "rk3568": (8, 2),
    "rk3562": (16, 1),
    "rv1106": (16, 1),
}


def blocks_of(chip: str, channels: int, dtype: str, depth: int | None = None) -> tuple[int, int]:
    """How many blocks a native output has, and how many channels each."""
    usual, together = BLOCKS[chip]
    depth = depth or usual // np.dtype(dtype).itemsize
    return -(-channels // (depth * together)) * together, depth


@dataclass(frozen=True)
class In:
    """An input, in the order that the library announces: NHWC where it has four dimensions. A
    picture has 1, 3 or 4 channels, and `w_stride` pixels of a row in memory, 0 for the width;
    the NPU reads other tensors of four dimensions in blocks of channels."""

    name: str
    shape: tuple[int, ...]
    dtype: str = "int8"
    w_stride: int = 0
    format: int = NHWC
    scale: float | None = None
    zero_point: int = 0
    chip: str = "rk3588"

    @property
    def native(self) -> tuple[int, tuple[int, ...]]:
        """Format and shape in the NPU's memory."""
        if len(self.shape) != 4 or self.format != NHWC or self.shape[3] in (1, 3, 4):
            return self.format, self.shape
        batch, height, width, channels = self.shape
        depth = BLOCKS[self.chip][0] // np.dtype(self.dtype).itemsize
        return NC1HWC2, (batch, -(-channels // depth), height, width, depth)


@dataclass(frozen=True)
class Out:
    """An output in the graph's shape. `native` NC1HWC2 in the blocks of `chip` (with `depth`
    channels each, where that is given) and `spare` cells behind the last of each block, or as
    the graph has it."""

    name: str
    shape: tuple[int, ...]
    dtype: str = "int8"
    scale: float | None = None
    zero_point: int = 0
    native: int = NC1HWC2
    depth: int | None = None
    spare: int = 0
    chip: str = "rk3588"

    @property
    def blocks(self) -> bool:
        return self.native == NC1HWC2 and len(self.shape) == 4

    @property
    def native_shape(self) -> tuple[int, ...]:
        if not self.blocks:
            return self.shape
        batch, channels, height, width = self.shape
        rows = (height, width) if not self.spare else (1, height * width + self.spare)
        blocks, depth = blocks_of(self.chip, channels, self.dtype, self.depth)
        return batch, blocks, *rows, depth

    def stored(self, array: Array) -> Array:
        """A tensor as the NPU would lay it out. What is padding, whole blocks too, holds the
        largest number, so that a reader who takes it for a score shows it."""
        array = np.ascontiguousarray(array, self.dtype)
        assert array.shape == self.shape, (self.name, array.shape, self.shape)
        if not self.blocks:
            return array
        _, blocks, _, _, depth = shape = self.native_shape
        cells = shape[2] * shape[3]
        kind = np.dtype(self.dtype)
        worst = np.iinfo(kind).max if kind.kind == "i" else np.finfo(kind).max
        whole = np.full((blocks * depth, cells), worst, kind)
        channels = self.shape[1]
        whole[:channels, : self.shape[2] * self.shape[3]] = array.reshape(channels, -1)
        return whole.reshape(blocks, depth, cells).transpose(0, 2, 1).copy()


def hashed(inputs: Sequence[Array]) -> int:
    """The stand-in's sums over the bytes of all inputs."""
    total = weighted = np.uint64(0)
    place = 0
    with np.errstate(over="ignore"):
        for array in inputs:
            data = np.ascontiguousarray(array).tobytes()
            words = np.frombuffer(data + bytes(-len(data) % 8), "<u8")
            places = np.arange(place + 1, place + 1 + len(words), dtype=np.uint64)
            place += len(words)
            total += words.sum(dtype=np.uint64)
            weighted += (words * places).sum(dtype=np.uint64)
    mixed = int(weighted)
    return int(total) ^ ((mixed << 32 | mixed >> 32) & (1 << 64) - 1)


@dataclass
class Recording:
    """`shapes` beside the first: pairs of inputs and outputs, as a model of several shapes has
    them. `chip` is what the model is built for. Records are added by `answer`."""

    inputs: Sequence[In]
    outputs: Sequence[Out]
    cores: int = 3
    delay_us: int = 0
    custom: str = ""
    chip: str = "rk3588"
    weights: int = 3_000_000
    shapes: Sequence[tuple[Sequence[In], Sequence[Out]]] = ()
    _records: list[bytes] = field(default_factory=list)

    def answer(self, inputs: Sequence[Array], outputs: Sequence[Array], shape: int = 0) -> None:
        """For these inputs (bytes as the library is to see them: four dimensions as NHWC, and
        codes where the caller quantises) those outputs, in the graph's layout and stored type."""
        outs = [self.outputs, *(outs for _, outs in self.shapes)][shape]
        data = b"".join(o.stored(a).tobytes() for o, a in zip(outs, outputs, strict=True))
        self._records.append(struct.pack("<IIQ", shape, 0, hashed(inputs)) + data)

    def _lines(self) -> list[str]:
        lines = [
            "rkzoo-stand-in 1",
            f"cores {self.cores}",
            f"chip {self.chip}",
            f"delay_us {self.delay_us}",
            f"weights {self.weights}",
            f"shapes {1 + len(self.shapes)}",
            f"inputs {len(self.inputs)}",
            f"outputs {len(self.outputs)}",
            f"records {len(self._records)}",
        ]
        lines += [f"custom {self.custom}"] if self.custom else []
        for number, (ins, outs) in enumerate([(self.inputs, self.outputs), *self.shapes]):
            for index, given in enumerate(ins):
                fmt, native = given.native
                head = _head(number, index, given, given.w_stride)
                lines.append(f"input {head} {given.format} {_dims(given.shape)}")
                lines[-1] += f" {fmt} {_dims(native)} {given.name}"
            for index, out in enumerate(outs):
                plain = NCHW if len(out.shape) == 4 else UNDEFINED
                fmt = out.native if out.blocks else plain
                head = _head(number, index, out, 0)
                lines.append(f"output {head} {plain} {_dims(out.shape)}")
                lines[-1] += f" {fmt} {_dims(out.native_shape)} {out.name}"
        return [*lines, "data"]

    def bytes(self, before: bytes = b"") -> bytes:
        """`before` (a real .rknn, or nothing) and the recording."""
        body = "".join(f"{line}\n" for line in self._lines()).encode() + b"".join(self._records)
        return before + body + struct.pack("<Q", len(body)) + b"RKZSTAND"


def _head(number: int, index: int, tensor: In | Out, w_stride: int) -> str:
    quantised = 0 if tensor.scale is None else 2
    numbers = f"{TYPES[tensor.dtype]} {quantised} {tensor.scale or 0!r} {tensor.zero_point}"
    return f"{number} {index} {numbers} {w_stride}"


def _dims(shape: tuple[int, ...]) -> str:
    return f"{len(shape)} " + " ".join(map(str, shape))
