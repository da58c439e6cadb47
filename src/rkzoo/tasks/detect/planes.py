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

    def mark(self, outputs: Sequence[Array], value: float, over: NDArray[np.bool_]) -> None:
        """Writes into `over` (cells,) where a channel stands for at least `value`."""
        limit = self.stored(value)
        if limit is None:
            over[:] = False
            return
        block = self._block(outputs)
        if self.spec.layout == "NHWC":
            if self.count == 1:
                np.greater_equal(block[:, 0], limit, out=over)
                return
            # One comparison and a look at the few hits is cheaper than a maximum of each cell.
            hits = np.flatnonzero(np.ascontiguousarray(block >= limit))
            over[:] = False
            over[hits // self.count] = True
        elif self.spec.layout == "NC1HWC2":
            self._mark_native(block, limit, over)
        else:
            np.greater_equal(block[0] if self.count == 1 else block.max(axis=0), limit, out=over)

    def _mark_native(self, block: Array, limit: Any, over: NDArray[np.bool_]) -> None:
        width = block.shape[2]
        head, tail = self.first % width, (self.first + self.count) % width
        if self.count == 1:
            np.greater_equal(block[0, :, head], limit, out=over)
            return
        if head or tail:
            flags = block >= limit
            flags[0, :, :head] = False
            if tail:
                flags[-1, :, tail:] = False
            flags = flags.any(axis=0)
        else:
            flags = block.max(axis=0) >= limit
        if width % 8:
            flags.any(axis=1, out=over)
            return
        # Eight flags at a time, and no reduction over the short last axis, which is slow.
        words = flags.view(np.uint64)
        merged = words[:, 0]
        for column in range(1, words.shape[1]):
            merged = merged | words[:, column]
        np.not_equal(merged, 0, out=over)

    def gather(self, outputs: Sequence[Array], cells: Cells) -> Array:
        """(K, count): the channels of these cells, as stored."""
        block = self._block(outputs)
        if self.spec.layout == "NHWC":
            # `take` would first copy the whole of a block that is a part of its rows.
            part = not block.flags.c_contiguous
            return np.asarray(block[cells]) if part else block.take(cells, axis=0)
        if self.spec.layout == "NC1HWC2":
            blocks, _, width = block.shape
            if width == 16:
                # A block of a cell as one element of 16 bytes: it is moved at once.
                whole = block.view(_SIXTEEN[block.dtype.itemsize])[..., 0]
                taken = np.ascontiguousarray(whole.take(cells, axis=1).T).view(block.dtype)
            else:
                taken = block.take(cells, axis=1).transpose(1, 0, 2).reshape(-1, blocks * width)
            start = self.first % width
            return np.asarray(taken[:, start : start + self.count])
        return np.asarray(block.take(cells, axis=1).T)

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

    @property
    def coded(self) -> bool:
        """Whether the numbers are 8-bit codes, so that a table tells what they stand for."""
        return self.spec.scale is not None and self.spec.dtype in ("int8", "uint8")

    @property
    def table(self) -> F32:
        """(256,) the values of all 8-bit codes, indexed by the byte's unsigned value."""
        return self.values(np.arange(256, dtype=np.uint8).view(self.spec.dtype))

    @property
    def exponents(self) -> F32:
        """(256,) exp(scale * q) for every 8-bit q, indexed by the byte's unsigned value."""
        signed = np.arange(256, dtype=np.uint8).view(self.spec.dtype).astype(np.float64)
        # The largest code becomes exp(0): nothing overflows. The zero point cancels.
        return np.asarray(np.exp((signed - signed.max()) * self.step), np.float32)

    def values(self, stored: Array) -> F32:
        """What stored numbers stand for."""
        values = stored.astype(np.float32)
        if self.spec.scale is not None:
            values -= np.float32(self.spec.zero_point)
            values *= np.float32(self.spec.scale)
        return values


# The type as large as 16 numbers of so many bytes.
_SIXTEEN = {1: np.dtype(np.complex128)} | {n: np.dtype((np.void, 16 * n)) for n in (2, 4, 8)}


class Stack:
    """One plane of every level, read as if the levels were one tensor whose cells follow one
    another. `starts` (levels + 1,): where each begins, and the end.

    8-bit numbers stay as they are stored until `values`, though every level has a scale of its
    own; others are values as soon as they are gathered.
    """

    def __init__(self, planes: Sequence[Plane], starts: Sequence[int]) -> None:
        self._planes = tuple(planes)
        *self._starts, end = starts
        self._stops = [*self._starts[1:], end if len(self._starts) > 1 else None]
        self._edges = np.array(self._starts[1:], np.intp)
        self.count = self._planes[0].count
        # The coarsest scale, 0 for floats.
        self.step = max(plane.step for plane in planes)
        kinds = {plane.spec.dtype for plane in planes}
        self.coded = all(plane.coded for plane in planes) and len(kinds) == 1
        self._dtype = np.dtype(self._planes[0].spec.dtype if self.coded else np.float32)
        # Where the table of a cell's level begins, when they are not all the same.
        self._base: Cells | None = None
        if self.coded and len({(p.spec.scale, p.spec.zero_point) for p in planes}) > 1:
            self._base = (np.arange(len(planes)) * 256).repeat(np.diff(starts))

    @cached_property
    def _values(self) -> F32:
        return np.concatenate([plane.table for plane in self._planes])

    @cached_property
    def _exponents(self) -> F32:
        return np.concatenate([plane.exponents for plane in self._planes])

    def cells_over(self, outputs: Sequence[Array], value: float) -> Cells:
        """The cells, ascending, where a channel stands for at least `value`."""
        over = np.empty(self.size(outputs), bool)
        for plane, start, stop in zip(self._planes, self._starts, self._stops, strict=True):
            plane.mark(outputs, value, over[start:stop])
        return np.flatnonzero(over)

    def size(self, outputs: Sequence[Array]) -> int:
        """How many cells there are. A tensor by itself tells: it may hold chosen boxes only."""
        return self._stops[-1] or self._planes[0].size(outputs)

    def gather(self, outputs: Sequence[Array], cells: Cells) -> Array:
        """(K, count): the channels of ascending cells."""
        rows = np.empty((len(cells), self.count), self._dtype)
        bounds = [0, *cells.searchsorted(self._edges).tolist(), len(cells)]
        for plane, start, low, high in zip(
            self._planes, self._starts, bounds, bounds[1:], strict=False
        ):
            if high > low:
                stored = plane.gather(outputs, cells[low:high] - start)
                rows[low:high] = stored if self.coded else plane.values(stored)
        return rows

    def values(self, gathered: Array, cells: Cells) -> F32:
        """What gathered numbers (K,) or (K, n) of these cells stand for."""
        return self._values.take(self._codes(gathered, cells)) if self.coded else gathered

    def exponents(self, gathered: Array, cells: Cells) -> F32:
        """exp of the same times a factor for each cell, where `coded`."""
        return self._exponents.take(self._codes(gathered, cells))

    def _codes(self, gathered: Array, cells: Cells) -> Array:
        codes = gathered.view(np.uint8)
        if self._base is None:
            return codes
        base = self._base.take(cells)
        return codes + (base if codes.ndim == 1 else base[:, None])


def sigmoid(logits: F32) -> F32:
    """1 / (1 + exp(-x)), without overflow."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * logits)), np.float32)


def logit(probability: float) -> float:
    p = min(max(probability, 1e-9), 1 - 1e-9)
    return float(np.log(p / (1 - p)))
