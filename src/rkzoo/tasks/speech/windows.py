"""Where a long sound is parted."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
_FRAME = 0.02  # seconds
_PAUSE = 10  # frames that are looked at together


def pause_in(samples: Floats, rate: int, least: int) -> int:
    """The sample in the middle of the quietest 0.2 s that begin at `least` or later: a place to
    part where no word is cut, where there is one. The later of equals."""
    size = round(rate * _FRAME)
    count = (len(samples) - least) // size
    if count < _PAUSE:
        return len(samples)
    frames = samples[least : least + count * size].reshape(count, size).astype(np.float64)
    loudness = np.convolve((frames**2).sum(axis=1), np.ones(_PAUSE), "valid")
    quietest = len(loudness) - 1 - int(np.argmin(loudness[::-1]))
    return least + (quietest + _PAUSE // 2) * size
