"""Sparse access to output tensors, a few cells at a time.

Nothing is transposed or dequantized as a whole, in any layout: a comparison with an integer
threshold finds the cells, and only those are gathered.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rkzoo.contract.inputs import TensorSpec

Array = NDArray[Any]
F32 = NDArray[np.float32]
Cells = NDArray[np.intp]


@dataclass(frozen=True)
class Plane:
    """Channels `first` to `first + count` of the output `index`.

    Layouts: NCHW 1xCxHxW (or 1xCxN), NHWC 1xHxWxC (or 1xNxC), and NC1HWC2 1xC1xHxWxC2, the native
    layout of the NPU, where channel c is [c // C2, ..., c % C2]. Padding channels are undefined
    and never read.
    """

    index: int
    spec: TensorSpec
    first: int
    count: int

    @property
    def cells(self) -> int:
        """Number of cells by the spec; 0 where it is dynamic."""
        shape, layout = self.spec.shape, self.spec.layout
        sizes = shape[1:-1] if layout == "NHWC" else shape[2 : 4 if layout == "NC1HWC2" else None]
        return math.prod(sizes) if min(sizes, default=0) > 0 else 0

    def mark(self, outputs: Sequence[Array], limit: Any, over: NDArray[np.bool_]) -> None:
        """Write into `over` (cells,) whether any channel is stored as at least `limit`."""
        if limit is None:
            over[:] = False
            return
        block = self._block(outputs)
        if self.spec.layout == "NHWC":
            if self.count == 1:
                np.greater_equal(block[:, 0].copy(), limit, out=over)
                return
            # Comparing all and visiting the few hits is cheaper than a maximum per cell.
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
            # Copied first: only a comparison of contiguous values is fast.
            np.greater_equal(block[0, :, head].copy(), limit, out=over)
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
        # Eight flags at a time: a reduction over the short last axis is slow.
        words = flags.view(np.uint64)
        merged = words[:, 0]
        for column in range(1, words.shape[1]):
            merged = merged | words[:, column]
        np.not_equal(merged, 0, out=over)

    def gather(self, outputs: Sequence[Array], cells: Cells) -> Array:
        """Channels of the given cells as stored, (K, count)."""
        rows = np.empty((len(cells), self.count), outputs[self.index].dtype)
        self.fill(outputs, cells, rows)
        return rows

    def fill(self, outputs: Sequence[Array], cells: Cells, rows: Array) -> None:
        """As `gather`, into contiguous `rows` of the tensor's dtype."""
        if self.spec.layout == "NC1HWC2":
            self._fill_native(outputs[self.index], cells, rows)
            return
        block = self._block(outputs)
        if self.spec.layout != "NHWC":
            rows[:] = block.take(cells, axis=1).T
        elif block.flags.c_contiguous:
            block.take(cells, axis=0, out=rows, mode="clip")
        else:
            # `take` would first copy the whole non-contiguous block.
            rows[:] = block[cells]

    def _fill_native(self, array: Array, cells: Cells, rows: Array) -> None:
        width = array.shape[-1]
        # Treat the block of a cell as one element, so that it is copied at once.
        size = width * array.itemsize
        kind = _QUICK.get(size) or np.dtype((np.void, size))
        flat, places = array.view(kind), cells[:, None] + self._blocks
        if self.count % width or self.first % width:
            start = self.first % width
            taken = flat.take(places, mode="clip").view(array.dtype)
            rows[:] = taken[:, start : start + self.count]
        else:
            flat.take(places, out=rows.view(kind), mode="clip")

    @cached_property
    def _blocks(self) -> Cells:
        """Offsets of the first cell of each block, in blocks; native layout."""
        _, _, height, columns, width = self.spec.shape
        blocks = np.arange(self.first // width, -(-(self.first + self.count) // width))
        return np.asarray(blocks * height * columns, np.intp)

    def maps(self, outputs: Sequence[Array]) -> Array:
        """View (blocks, h, w, channels per block) of these channels, as stored: one channel per
        block in NCHW, one block in NHWC. The last block may have more channels.
        """
        array, stop = outputs[self.index], self.first + self.count
        if self.spec.layout == "NHWC":
            return array[..., self.first : stop]
        if self.spec.layout == "NC1HWC2":
            width = array.shape[-1]
            return np.asarray(array[0, self.first // width : -(-stop // width)])
        return np.asarray(array[0, self.first : stop, ..., None])

    def size(self, outputs: Sequence[Array]) -> int:
        """Number of cells."""
        block = self._block(outputs)
        return int(block.shape[0 if self.spec.layout == "NHWC" else 1])

    def _block(self, outputs: Sequence[Array]) -> Array:
        """View of these channels only (of whole blocks in the native layout)."""
        array = outputs[self.index]
        stop = self.first + self.count
        if self.spec.layout == "NHWC":
            return array.reshape(-1, array.shape[-1])[:, self.first : stop]
        if self.spec.layout == "NC1HWC2":
            width = array.shape[-1]
            block = array.reshape(array.shape[1], -1, width)
            return block[self.first // width : -(-stop // width)]
        # Keypoints of all levels arrive as 1xKxVxN and are described as 1x(K*V)xN.
        channels = self.spec.shape[1] if self.spec.shape[1] > 0 else array.shape[1]
        return array.reshape(channels, -1)[self.first : stop]

    def stored(self, value: float) -> Any:
        """Quantize a threshold: the smallest stored number that stands for at least `value`, in the
        tensor's dtype; None when there is none.
        """
        if self.spec.scale is None:
            return np.float32(value)
        # The slack keeps values on the quantization grid from being lost to rounding.
        code = math.ceil(value / self.spec.scale + self.spec.zero_point - 1e-4)
        least, most, type_ = self._range
        return None if code > most else type_(max(code, least))

    @cached_property
    def _range(self) -> tuple[int, int, type[np.integer[Any]]]:
        limits = np.iinfo(self.spec.dtype)
        return int(limits.min), int(limits.max), limits.dtype.type

    @property
    def step(self) -> float:
        """Quantization scale; 0 for floats."""
        return self.spec.scale or 0.0

    @property
    def coded(self) -> bool:
        """Whether the tensor is quantized to 8 bits, so that a 256-entry table can decode it."""
        return self.spec.scale is not None and self.spec.dtype in ("int8", "uint8")

    @property
    def table(self) -> F32:
        """Dequantized value of every 8-bit code (256,), indexed by the unsigned byte."""
        return self.values(np.arange(256, dtype=np.uint8).view(self.spec.dtype))

    @property
    def exponents(self) -> F32:
        """exp(scale * q) for every 8-bit q (256,), indexed by the unsigned byte."""
        signed = np.arange(256, dtype=np.uint8).view(self.spec.dtype).astype(np.float64)
        # The largest code becomes exp(0), so nothing overflows. The zero point cancels out.
        return np.asarray(np.exp((signed - signed.max()) * self.step), np.float32)

    def values(self, stored: Array) -> F32:
        """Dequantize stored numbers."""
        values = stored.astype(np.float32)
        if self.spec.scale is not None:
            values -= np.float32(self.spec.zero_point)
            values *= np.float32(self.spec.scale)
        return values


# dtypes by size in bytes, which numpy copies faster than void types.
_QUICK = {8: np.dtype(np.int64), 16: np.dtype(np.complex128)}


class Stack:
    """One plane of every level, read as one tensor with the cells concatenated.

    8-bit numbers stay as stored until `values`, though every level has its own scale; other
    dtypes are dequantized when gathered.

    Args:
        planes: one plane per level.
        starts: (levels + 1,) first cell of each level, and the end.
    """

    def __init__(self, planes: Sequence[Plane], starts: Sequence[int]) -> None:
        self._planes = tuple(planes)
        *self._starts, end = starts
        self._stops = [*self._starts[1:], end if len(self._starts) > 1 else None]
        self._edges = np.array(self._starts[1:], np.intp)
        self.count = self._planes[0].count
        # The largest scale; 0 for floats.
        self.step = max(plane.step for plane in planes)
        kinds = {(p.spec.dtype, p.spec.scale, p.spec.zero_point) for p in planes}
        self.coded = all(p.coded for p in planes) and len({dtype for dtype, *_ in kinds}) == 1
        self._dtype = np.dtype(self._planes[0].spec.dtype if self.coded else np.float32)
        # One plane suffices where all share dtype and quantization.
        self._scaled = self._planes[:1] if len(kinds) == 1 else self._planes

    @cached_property
    def _tables(self) -> list[F32]:
        return [plane.table for plane in self._scaled]

    @cached_property
    def _exponents(self) -> list[F32]:
        return [plane.exponents for plane in self._scaled]

    def cells_over(self, outputs: Sequence[Array], value: float) -> Cells:
        """Cells, ascending, where any channel is at least `value`."""
        over = np.empty(self.size(outputs), bool)
        limits = [plane.stored(value) for plane in self._scaled]
        limits *= len(self._planes) // len(limits)
        for plane, limit, start, stop in zip(
            self._planes, limits, self._starts, self._stops, strict=True
        ):
            plane.mark(outputs, limit, over[start:stop])
        return np.flatnonzero(over)

    def size(self, outputs: Sequence[Array]) -> int:
        """Number of cells. A single tensor may hold selected boxes only, so its own size counts."""
        return self._stops[-1] or self._planes[0].size(outputs)

    def gather(self, outputs: Sequence[Array], cells: Cells) -> Array:
        """Channels of ascending cells, (K, count)."""
        rows = np.empty((len(cells), self.count), self._dtype)
        for plane, start, low, high in zip(
            self._planes, self._starts, *self._parts(cells), strict=True
        ):
            if high > low and (self.coded or plane.spec.dtype == "float32"):
                plane.fill(outputs, cells[low:high] - start, rows[low:high])
            elif high > low:
                rows[low:high] = plane.values(plane.gather(outputs, cells[low:high] - start))
        return rows

    def values(self, gathered: Array, cells: Cells) -> F32:
        """Dequantize gathered numbers, (K,) or (K, n), of these cells."""
        return self._looked_up(self._tables, gathered, cells) if self.coded else gathered

    def exponents(self, gathered: Array, cells: Cells) -> F32:
        """exp of the values, up to a factor per cell. Only where `coded`."""
        return self._looked_up(self._exponents, gathered, cells)

    def _looked_up(self, tables: list[F32], gathered: Array, cells: Cells) -> F32:
        codes = gathered.view(np.uint8)
        values = np.empty(codes.shape, np.float32)
        parts = self._parts(cells) if len(tables) > 1 else ([0], [len(cells)])
        for table, low, high in zip(tables, *parts, strict=True):
            if high > low:
                # Twice as fast as numpy, which first converts the codes to 64-bit indices.
                cv2.LUT(codes[low:high], table, dst=values[low:high])
        return values

    def _parts(self, cells: Cells) -> tuple[list[int], list[int]]:
        """First and last row of each level among ascending cells."""
        edges = cells.searchsorted(self._edges).tolist()
        return [0, *edges], [*edges, len(cells)]


def sigmoid(logits: F32) -> F32:
    """1 / (1 + exp(-x)) as float32, without overflow."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * logits)), np.float32)


def logit(probability: float) -> float:
    """Inverse of the sigmoid, with the probability clamped to 1e-9..1 - 1e-9."""
    p = min(max(probability, 1e-9), 1 - 1e-9)
    return float(np.log(p / (1 - p)))
