"""Symbol durations and frame alignment of VITS."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rkzoo.errors import RkzooError

_LONGEST = 1 << 20  # frames: implausibly long


def durations(
    log_durations: NDArray[np.float32], mask: NDArray[np.float32], speed: float
) -> NDArray[np.int64]:
    """Frames of each symbol, (P,) int64: ceil(exp(log duration) / speed), 0 where the mask is 0, at
    least one frame in total.

    Raises:
        RkzooError: a duration is not finite or implausibly long.
    """
    with np.errstate(over="ignore"):
        frames = np.ceil(np.exp(log_durations.reshape(-1)) * mask.reshape(-1) / speed)
    if not np.isfinite(frames).all() or frames.sum() > _LONGEST:
        raise RkzooError(
            "The voice cannot say this.",
            "It gives a duration that is not finite, or implausibly long.",
            "Its weights are damaged, or overflow in half precision.",
            code=1,
        )
    counts: NDArray[np.int64] = frames.astype(np.int64)
    if not counts.sum():
        counts[0] = 1
    return counts


def symbols_of_frames(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Symbol index of each frame, (T,)."""
    return np.repeat(np.arange(len(counts)), counts)


def alignment(symbols: NDArray[np.int64], frames: int, count: int) -> NDArray[np.float32]:
    """One-hot alignment (1, 1, frames, count): 1 where a symbol sounds in a frame."""
    alignment = np.zeros((1, 1, frames, count), np.float32)
    alignment[0, 0, np.arange(len(symbols)), symbols] = 1
    return alignment
