"""Where a long sound is parted, and where in it somebody seems to speak."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
_FRAME = 0.02  # seconds
_SPARED = 0.1  # seconds
_PAUSE = 10  # frames that are looked at together
_FAINT = 0.1  # of what is loud in a sound: vowels are above, pauses below


def _frames(samples: Floats, rate: int) -> NDArray[np.float64]:
    """(N,) mean squares of whole frames."""
    size = round(rate * _FRAME)
    count = len(samples) // size
    return np.asarray(
        (samples[: count * size].reshape(count, size).astype(np.float64) ** 2).mean(axis=1)
    )


def loud_seconds(samples: Floats, rate: int) -> NDArray[np.float64]:
    """(N + 1,): how many seconds before frame i of 20 ms are loud, as speech is."""
    power = _frames(samples, rate)
    if not len(power):
        return np.zeros(1)
    loud = power > max(float(np.percentile(power, 95)) * _FAINT**2, 1e-9)
    return np.concatenate(([0.0], np.cumsum(loud) * _FRAME))


def loud_between(loud: NDArray[np.float64], start: float, end: float) -> float:
    """Loud seconds from `start` to `end`, by what `loud_seconds` gave."""
    first, last = (min(max(round(at / _FRAME), 0), len(loud) - 1) for at in (start, end))
    return float(loud[last] - loud[first])


def without_quiet(loud: NDArray[np.float64], start: float, end: float) -> tuple[float, float]:
    """The part from `start` to `end` without the quiet at its ends, save a tenth of a second;
    all of it where it is quiet throughout."""
    first, last = (min(max(round(at / _FRAME), 0), len(loud) - 1) for at in (start, end))
    heard = np.flatnonzero(np.diff(loud[first : last + 1]) > 0)
    if not len(heard):
        return start, end
    begin, finish = (first + heard[0]) * _FRAME, (first + heard[-1] + 1) * _FRAME
    return float(max(start, begin - _SPARED)), float(min(end, finish + _SPARED))


def pause_in(samples: Floats, rate: int, least: int) -> int:
    """The sample in the middle of the quietest 0.2 s that begin at `least` or later: a place to
    part where no word is cut, where there is one. The later of equals."""
    power = _frames(samples[least:], rate)
    if len(power) < _PAUSE:
        return len(samples)
    loudness = np.lib.stride_tricks.sliding_window_view(power, _PAUSE).sum(axis=1)
    quietest = len(loudness) - 1 - int(np.argmin(loudness[::-1]))
    return least + (quietest + _PAUSE // 2) * round(rate * _FRAME)
