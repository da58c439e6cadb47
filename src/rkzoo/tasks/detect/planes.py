"""One output tensor, or some channels of it, read a few cells at a time.

Whatever the layout, nothing is transposed or dequantised as a whole: a comparison with an
integer threshold finds the cells, and only those are gathered.
"""

from __future__ import annotations

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
        # Eight flags at a time, since a reduction over a short last axis is slow.
        words = np.ascontiguousarray(any_block).view(np.uint64)
        merged = words[:, 0] if words.shape[1] == 1 else np.bitwise_or.reduce(words, axis=1)
        return np.flatnonzero(merged)

    def gather(self, outputs: Sequence[Array], cells: Cells) -> Array:
        """(K, count): the channels of these cells, as stored, contiguous."""
        block = self._block(outputs)
        if self.spec.layout == "NHWC":
            return np.ascontiguousarray(block.take(cells, axis=0))
        if self.spec.layout == "NC1HWC2":
            blocks, _, width = block.shape
            taken = block.take(cells, axis=1).transpose(1, 0, 2).reshape(-1, blocks * width)
            start = self.first % width
            return np.ascontiguousarray(taken[:, start : start + self.count])
        return np.ascontiguousarray(block.take(cells, axis=1).T)

    def maps(self, outputs: Sequence[Array]) -> Array:
        """A view (blocks, channels of a block, h, w) of the whole tensor, as stored."""
        array = outputs[self.index]
        if self.spec.layout == "NC1HWC2":
            array = array[0]
        return array if self.spec.layout == "NCHW" else array.transpose(0, 3, 1, 2)

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
        return array.reshape(array.shape[1], -1)[self.first : stop]

    def stored(self, value: float) -> Any:
        """The smallest stored number that stands for at least `value`, in the tensor's own
        type; None when no stored number does."""
        if self.spec.scale is None:
            return np.float32(value)
        # The slack keeps a value that lies on the lattice from being lost to rounding.
        code = np.ceil(value / self.spec.scale + self.spec.zero_point - 1e-4)
        limits = np.iinfo(self.spec.dtype)
        if code > limits.max:
            return None
        return limits.dtype.type(max(code, limits.min))

    def values(self, stored: Array) -> F32:
        """What stored numbers stand for."""
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


def sigmoid(logits: F32) -> F32:
    """1 / (1 + exp(-x)), without overflow."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * logits)), np.float32)


def logit(probability: float) -> float:
    p = min(max(probability, 1e-9), 1 - 1e-9)
    return float(np.log(p / (1 - p)))
