"""One output tensor, or some channels of it, read a few cells at a time.

Whatever the layout, nothing is transposed or dequantised as a whole: a comparison with an
integer threshold finds the cells, and only those are gathered.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rkzoo.contract import TensorSpec

Array = NDArray[Any]
F32 = NDArray[np.float32]
Cells = NDArray[np.intp]


@dataclass(frozen=True)
class Plane:
    """Channels `first` to `first + count` of the output `index`.

    Layouts: NCHW 1xCxHxW (or 1xCxN), NHWC 1xHxWxC (or 1xNxC), NC1HWC2 1xC1xHxWxC2, the
    NPU's own, where channel c is [c // C2, ..., c % C2] and the last block is padded.
    """

    index: int
    spec: TensorSpec
    first: int
    count: int

    def cells_over(self, outputs: Sequence[Array], value: float) -> Cells:
        """The cells, ascending, where a channel stands for at least `value`."""
        limit = self.stored(value)
        if limit is None:
            return np.empty(0, np.intp)
        block = self._block(outputs)
        if self.spec.layout == "NHWC":
            # One comparison and a look at the few hits is cheaper than a maximum of each cell.
            hits = np.flatnonzero(np.ascontiguousarray(block >= limit))
            return np.unique(hits // self.count)
        if self.spec.layout == "NC1HWC2":
            return self._native_over(block, limit)
        top = block[0] if self.count == 1 else block.max(axis=0)
        return np.flatnonzero(top >= limit)

    def _native_over(self, block: Array, limit: Any) -> Cells:
        width = block.shape[2]
        head, tail = self.first % width, (self.first + self.count) % width
        if self.count == 1:
            return np.flatnonzero(block[0, :, head] >= limit)
        whole = block >= limit
        if head:
            whole[0, :, :head] = False
        if tail:
            whole[-1, :, tail:] = False
        any_block = whole[0] if len(whole) == 1 else np.logical_or.reduce(whole, axis=0)
        if width % 8:
            return np.flatnonzero(any_block.any(axis=1))
        # Eight flags at a time, and no reduction over the short last axis, which is slow.
        words = any_block.view(np.uint64)
        merged = words[:, 0]
        for column in range(1, words.shape[1]):
            merged = merged | words[:, column]
        return np.flatnonzero(merged)

    def gather(self, outputs: Sequence[Array], cells: Cells) -> Array:
        """(K, count): the channels of these cells, as stored, contiguous."""
        block = self._block(outputs)
        if self.spec.layout == "NHWC":
            # `take` would first copy the whole of a block that is a part of its rows.
            part = not block.flags.c_contiguous
            return np.ascontiguousarray(block[cells]) if part else block.take(cells, axis=0)
        if self.spec.layout == "NC1HWC2":
            blocks, _, width = block.shape
            if width == 16:
                # A block of a cell as one element of 16 bytes: it is moved at once.
                whole = block.view(_SIXTEEN[block.dtype.itemsize])[..., 0]
                taken = np.ascontiguousarray(whole.take(cells, axis=1).T).view(block.dtype)
            else:
                taken = block.take(cells, axis=1).transpose(1, 0, 2).reshape(-1, blocks * width)
            start = self.first % width
            if self.count == taken.shape[1]:
                return taken
            return np.ascontiguousarray(taken[:, start : start + self.count])
        return np.ascontiguousarray(block.take(cells, axis=1).T)

    def maps(self, outputs: Sequence[Array]) -> Array:
        """A view (blocks, h, w, channels of a block) of the whole tensor, as stored: one channel
        a block in NCHW, one block in NHWC."""
        array = outputs[self.index]
        if self.spec.layout == "NCHW":
            return np.asarray(array[0][..., None])
        return array if self.spec.layout == "NHWC" else np.asarray(array[0])

    def size(self, outputs: Sequence[Array]) -> int:
        """How many cells there are."""
        block = self._block(outputs)
        return int(block.shape[0 if self.spec.layout == "NHWC" else 1])

    def _block(self, outputs: Sequence[Array]) -> Array:
        """A view of no more than these channels (whole blocks of them where native)."""
        array = outputs[self.index]
        stop = self.first + self.count
        if self.spec.layout == "NHWC":
            return array.reshape(-1, array.shape[-1])[:, self.first : stop]
        if self.spec.layout == "NC1HWC2":
            width = array.shape[-1]
            block = array.reshape(array.shape[1], -1, width)
            return block[self.first // width : -(-stop // width)]
        # Key points of all levels come as 1xKxVxN and are described as 1x(K*V)xN.
        channels = self.spec.shape[1] if self.spec.shape[1] > 0 else array.shape[1]
        return array.reshape(channels, -1)[self.first : stop]

    def stored(self, value: float) -> Any:
        """The smallest stored number that stands for at least `value`, in the tensor's own
        type; None when no stored number does."""
        if self.spec.scale is None:
            return np.float32(value)
        # The slack keeps a value that lies on the lattice from being lost to rounding.
        code = math.ceil(value / self.spec.scale + self.spec.zero_point - 1e-4)
        least, most, type_ = self._range
        return None if code > most else type_(max(code, least))

    @cached_property
    def _range(self) -> tuple[int, int, type[np.integer[Any]]]:
        limits = np.iinfo(self.spec.dtype)
        return int(limits.min), int(limits.max), limits.dtype.type

    @property
    def step(self) -> float:
        """The scale, 0 for floats."""
        return self.spec.scale or 0.0

    @cached_property
    def _table(self) -> F32 | None:
        """The values of all 8-bit codes, indexed by the byte's unsigned value."""
        if self.spec.scale is None or self.spec.dtype not in ("int8", "uint8"):
            return None
        codes = np.arange(256, dtype=np.uint8).view(self.spec.dtype).astype(np.float32)
        codes -= np.float32(self.spec.zero_point)
        codes *= np.float32(self.spec.scale)
        return np.asarray(codes, np.float32)

    def values(self, stored: Array) -> F32:
        """What stored numbers stand for."""
        if self._table is not None and stored.flags.c_contiguous:
            return self._table.take(stored.view(np.uint8))
        values = stored.astype(np.float32)
        if self.spec.scale is not None:
            values -= np.float32(self.spec.zero_point)
            values *= np.float32(self.spec.scale)
        return values

    @cached_property
    def exponents(self) -> F32 | None:
        """exp(scale * q) for every 8-bit q, indexed by the byte's unsigned value."""
        if self.spec.scale is None or self.spec.dtype not in ("int8", "uint8"):
            return None
        codes = np.arange(256, dtype=np.uint8)
        signed = codes.view(np.int8) if self.spec.dtype == "int8" else codes
        # The largest code becomes exp(0): nothing overflows. The zero point cancels.
        steps = signed.astype(np.float64) - float(signed.max())
        return np.exp(steps * self.spec.scale).astype(np.float32)


# The type as large as 16 numbers of so many bytes.
_SIXTEEN = {1: np.dtype(np.complex128)} | {n: np.dtype((np.void, 16 * n)) for n in (2, 4, 8)}


@dataclass(frozen=True)
class Stack:
    """One plane of every level, read as if the levels were one tensor whose cells follow one
    another. What it gathers are values already, for every level has a scale of its own."""

    planes: tuple[Plane, ...]
    starts: NDArray[np.intp]

    @property
    def count(self) -> int:
        return self.planes[0].count

    @cached_property
    def step(self) -> float:
        """The coarsest scale, 0 for floats."""
        return max(plane.step for plane in self.planes)

    @property
    def exponents(self) -> None:
        return None

    def cells_over(self, outputs: Sequence[Array], value: float) -> Cells:
        parts = [plane.cells_over(outputs, value) for plane in self.planes]
        for part, start in zip(parts, self.starts.tolist(), strict=True):
            part += start
        return np.concatenate(parts)

    def gather(self, outputs: Sequence[Array], cells: Cells) -> F32:
        """(K, count) values of ascending cells."""
        bounds = [0, *cells.searchsorted(self.starts[1:]).tolist(), len(cells)]
        parts = [
            plane.values(plane.gather(outputs, cells[low:high] - start))
            for plane, start, low, high in zip(
                self.planes, self.starts.tolist(), bounds, bounds[1:], strict=False
            )
            if high > low
        ]
        if len(parts) == 1:
            return parts[0]
        return np.concatenate(parts) if parts else np.empty((0, self.count), np.float32)

    def size(self, outputs: Sequence[Array]) -> int:
        return sum(plane.size(outputs) for plane in self.planes)

    def values(self, stored: Array) -> F32:
        return stored

    def stored(self, value: float) -> Any:
        return np.float32(value)


def sigmoid(logits: F32) -> F32:
    """1 / (1 + exp(-x)), without overflow."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * logits)), np.float32)


def logit(probability: float) -> float:
    p = min(max(probability, 1e-9), 1 - 1e-9)
    return float(np.log(p / (1 - p)))
