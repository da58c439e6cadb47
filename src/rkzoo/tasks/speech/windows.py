"""Splitting of long sounds at pauses, by energy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
_FRAME = 0.02  # seconds
_SPARED = 0.1  # seconds
_PAUSE = 10  # frames per energy window
_SEARCHED = 10.0  # seconds at a window's end that are searched for a pause
_FAINT = 0.1  # amplitude relative to the loud parts: vowels are above, pauses below


def _frames(samples: Floats, rate: int) -> NDArray[np.float64]:
    """Mean energy of each whole frame, (N,)."""
    size = round(rate * _FRAME)
    count = len(samples) // size
    return np.asarray(
        (samples[: count * size].reshape(count, size).astype(np.float64) ** 2).mean(axis=1)
    )


def loud_seconds(samples: Floats, rate: int) -> NDArray[np.float64]:
    """Cumulative seconds, (N + 1,), that are as loud as speech, before each 20 ms frame."""
    power = _frames(samples, rate)
    if not len(power):
        return np.zeros(1)
    loud = power > max(float(np.percentile(power, 95)) * _FAINT**2, 1e-9)
    return np.concatenate(([0.0], np.cumsum(loud) * _FRAME))


def loud_between(loud: NDArray[np.float64], start: float, end: float) -> float:
    """Loud seconds from `start` to `end`, given the result of `loud_seconds`."""
    first, last = (min(max(round(at / _FRAME), 0), len(loud) - 1) for at in (start, end))
    return float(loud[last] - loud[first])


def without_quiet(loud: NDArray[np.float64], start: float, end: float) -> tuple[float, float]:
    """Trim silence at both ends of a segment, but for 0.1 s; unchanged where it is all silence."""
    first, last = (min(max(round(at / _FRAME), 0), len(loud) - 1) for at in (start, end))
    heard = np.flatnonzero(np.diff(loud[first : last + 1]) > 0)
    if not len(heard):
        return start, end
    begin, finish = (first + heard[0]) * _FRAME, (first + heard[-1] + 1) * _FRAME
    return float(max(start, begin - _SPARED)), float(min(end, finish + _SPARED))


def pause_in(samples: Floats, rate: int, least: int) -> int:
    """Return the centre sample of the quietest 0.2 s that start at sample `least` or later, the
    last of equals: a place to split without cutting a word.
    """
    power = _frames(samples[least:], rate)
    if len(power) < _PAUSE:
        return len(samples)
    loudness = np.lib.stride_tricks.sliding_window_view(power, _PAUSE).sum(axis=1)
    quietest = len(loudness) - 1 - int(np.argmin(loudness[::-1]))
    return least + (quietest + _PAUSE // 2) * round(rate * _FRAME)


def window_at(samples: Floats, at: int, size: int, rate: int) -> Floats:
    """Samples of a window of at most `size` that begins at `at`, and ends in a pause or with the
    sound."""
    window = samples[at : at + size]
    if at + len(window) == len(samples):
        return window
    searched = min(round(_SEARCHED * rate), len(window) // 2)
    return window[: pause_in(window, rate, len(window) - searched)]
