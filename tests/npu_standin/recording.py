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


@dataclass(frozen=True)
class In:
    """An input; a picture is NHWC. `w_stride`: pixels of a row in memory, 0 for the width."""

    name: str
    shape: tuple[int, ...]
    dtype: str = "int8"
    w_stride: int = 0
    format: int = NHWC


@dataclass(frozen=True)
class Out:
    """An output in the graph's shape. `native` NC1HWC2 with `depth` channels a block and
    `spare` cells behind the last of each block, or as the graph has it."""

    name: str
    shape: tuple[int, ...]
    dtype: str = "int8"
    scale: float | None = None
    zero_point: int = 0
    native: int = NC1HWC2
    depth: int = 16
    spare: int = 0

    @property
    def blocks(self) -> bool:
        return self.native == NC1HWC2 and len(self.shape) == 4

    @property
    def native_shape(self) -> tuple[int, ...]:
        if not self.blocks:
            return self.shape
        batch, channels, height, width = self.shape
        rows = (height, width) if not self.spare else (1, height * width + self.spare)
        return batch, -(-channels // self.depth), *rows, self.depth

    def stored(self, array: Array) -> Array:
        """A tensor as the NPU would lay it out. What is padding holds the largest number, so
        that a reader who takes it for a score shows it."""
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
    them. Records are added by `answer`."""

    inputs: Sequence[In]
    outputs: Sequence[Out]
    cores: int = 3
    delay_us: int = 0
    custom: str = ""
    weights: int = 3_000_000
    shapes: Sequence[tuple[Sequence[In], Sequence[Out]]] = ()
    _records: list[bytes] = field(default_factory=list)

    def answer(self, inputs: Sequence[Array], outputs: Sequence[Array], shape: int = 0) -> None:
        """For these inputs (bytes as the library is to see them) those outputs, in the graph's
        layout and stored type."""
        outs = [self.outputs, *(outs for _, outs in self.shapes)][shape]
        data = b"".join(o.stored(a).tobytes() for o, a in zip(outs, outputs, strict=True))
        self._records.append(struct.pack("<IIQ", shape, 0, hashed(inputs)) + data)

    def _lines(self) -> list[str]:
        lines = [
            "rkzoo-stand-in 1",
            f"cores {self.cores}",
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
                head = f"{number} {index} {TYPES[given.dtype]} {given.format} {given.w_stride}"
                lines.append(f"input {head} {_dims(given.shape)} {given.name}")
            for index, out in enumerate(outs):
                quantised = 0 if out.scale is None else 2
                head = f"{number} {index} {TYPES[out.dtype]} {quantised} {out.scale or 0!r}"
                native = out.native if out.blocks else NCHW if len(out.shape) == 4 else UNDEFINED
                lines.append(
                    f"output {head} {out.zero_point} {_dims(out.shape)}"
                    f" {native} {_dims(out.native_shape)} {out.name}"
                )
        return [*lines, "data"]

    def bytes(self, before: bytes = b"") -> bytes:
        """`before` (a real .rknn, or nothing) and the recording."""
        body = "".join(f"{line}\n" for line in self._lines()).encode() + b"".join(self._records)
        return before + body + struct.pack("<Q", len(body)) + b"RKZSTAND"


def _dims(shape: tuple[int, ...]) -> str:
    return f"{len(shape)} " + " ".join(map(str, shape))
