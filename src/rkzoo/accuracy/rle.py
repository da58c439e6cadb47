"""COCO run-length encoding (RLE) of masks: column-major runs of 0 and 1, as printable bytes.

From the fourth on, a run is stored as the difference to the run two before; five bits per byte,
the lowest first; bit 5 marks continuation, bit 4 of the last byte is the sign; 48 is added.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

U8 = NDArray[np.uint8]
I64 = NDArray[np.int64]

# Runs are below 2**30 in any supported image, so differences fit into seven groups of 5 bits.
_GROUPS = 7


def encode(crop: U8, corner: tuple[int, int], size: tuple[int, int]) -> bytes:
    """Encode a mask of an image of `size` (height, width) that is 0 outside the crop.

    The cost depends on the crop, not on the image.

    Args:
        crop: (h, w), 0 is background.
        corner: x, y of its top-left pixel.
        size: (height, width) of the image.
    """
    return to_bytes(runs(crop, corner, size))


def runs(crop: U8, corner: tuple[int, int], size: tuple[int, int]) -> I64:
    """Run lengths, background first; their sum is height * width."""
    height, width = size
    x, y = corner
    # A background pixel above and below each column separates the columns.
    framed = np.zeros((crop.shape[1], crop.shape[0] + 2), np.int8)
    framed[:, 1:-1] = (crop != 0).T
    column, row = np.nonzero(np.diff(framed, axis=1))
    edges = (column + x) * height + row + y
    # A run that continues in the next column is merged.
    starts, ends = edges[::2], edges[1::2]
    apart = starts[1:] != ends[:-1]
    kept = np.empty(2 * (np.count_nonzero(apart) + (len(starts) > 0)), np.int64)
    if len(kept):
        kept[0::2] = starts[np.concatenate(([True], apart))]
        kept[1::2] = ends[np.concatenate((apart, [True]))]
    run_lengths = np.diff(kept, prepend=0, append=height * width)
    return run_lengths if run_lengths[-1] or len(run_lengths) == 1 else run_lengths[:-1]


def to_bytes(lengths: NDArray[Any]) -> bytes:
    """Encode run lengths."""
    values = np.asarray(lengths, np.int64)
    steps = values.copy()
    steps[3:] -= values[1:-2]
    groups = steps[:, None] >> (5 * np.arange(_GROUPS + 1))
    # Last group: the rest is only the sign, 0 with bit 4 clear or -1 with bit 4 set.
    last = (groups[:, 1:] == 0) & (groups[:, :-1] & 16 == 0)
    last |= (groups[:, 1:] == -1) & (groups[:, :-1] & 16 != 0)
    used = np.arange(_GROUPS) <= last.argmax(axis=1)[:, None]
    more = np.arange(_GROUPS) < last.argmax(axis=1)[:, None]
    coded = (groups[:, :-1] & 31) + 32 * more + 48
    return bytes(coded[used].astype(np.uint8))


def from_bytes(code: bytes) -> I64:
    """Decode run lengths. Raises ValueError for an invalid code."""
    return decode(np.frombuffer(code, np.uint8), np.array([len(code)]))[0]


def decode(codes: U8, lengths: NDArray[Any]) -> tuple[I64, I64, I64]:
    """Decode many concatenated codes of `lengths` bytes each.

    Returns:
        All run lengths, the index of the code of each run, and its position in the code.

    Raises:
        ValueError: an invalid code.
    """
    digits = codes.astype(np.int64) - 48
    if not len(digits):
        none = np.zeros(0, np.int64)
        return none, none, none
    ends = digits & 32 == 0
    last_bytes = np.cumsum(lengths)[np.asarray(lengths) > 0] - 1
    if digits.min() < 0 or digits.max() > 63 or not ends[last_bytes].all():
        raise ValueError("no run-length code")
    stops = np.flatnonzero(ends)
    starts = np.concatenate(([0], stops[:-1] + 1))
    counts = stops - starts + 1
    if counts.max() > _GROUPS:
        raise ValueError("no run-length code")
    place = np.arange(len(digits)) - np.repeat(starts, counts)
    steps = np.add.reduceat((digits & 31) << (5 * place), starts)
    steps -= ((digits[stops] & 16) > 0) * (np.int64(1) << (5 * counts))

    owner = np.repeat(np.arange(len(lengths)), lengths)[starts]
    first = np.flatnonzero(np.diff(owner, prepend=-1))
    number = np.arange(len(owner)) - np.repeat(first, np.diff(first, append=len(owner)))
    # Cumulative sums over every second run, except for the first.
    run_lengths = steps.copy()
    for chain in (np.flatnonzero(number % 2), np.flatnonzero((number % 2 == 0) & (number > 0))):
        sums = np.cumsum(steps[chain])
        begins = number[chain] < 3
        before = (sums - steps[chain])[begins]
        run_lengths[chain] = sums - before[np.cumsum(begins) - 1]
    if (run_lengths < 0).any():
        raise ValueError("no run-length code")
    return run_lengths, owner.astype(np.int64), number.astype(np.int64)


def areas(codes: U8, lengths: NDArray[Any]) -> tuple[I64, I64]:
    """Mask area and image area, in pixels, of each code. Raises ValueError for an invalid code."""
    runs_of_all, owner, number = decode(codes, lengths)
    count = len(lengths)
    whole = np.bincount(owner, runs_of_all, count)
    inside = np.bincount(owner, runs_of_all * (number % 2), count)
    return inside.astype(np.int64), whole.astype(np.int64)


def area(lengths: NDArray[Any]) -> int:
    """Mask area in pixels of run lengths."""
    return int(np.asarray(lengths)[1::2].sum())
