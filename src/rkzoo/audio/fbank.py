"""Kaldi's filter bank features, of a whole sound or as it comes in.

25 ms every 10 ms at 16 kHz; the mean of each frame taken off, pre-emphasis .97, Povey's window,
power of 512 frequencies, triangles in the mel scale from 20 Hz to 7600 Hz, natural logarithm.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

RATE = 16000
HOP = 160
_FRAME = 400
_SIZE = 512
_LOW, _HIGH = 20.0, RATE / 2 - 400.0
_EMPHASIS = 0.97
_LEAST = float(np.finfo(np.float32).eps)
_BEFORE = (_FRAME - HOP) // 2  # the first frame begins so many samples before the sound

Floats = NDArray[np.float32]


def fbank(samples: Floats, bins: int = 80) -> Floats:
    """(round(N / 160), bins) of float32 (N,) in -1..1; the sound is mirrored at both ends."""
    count = (len(samples) + HOP // 2) // HOP
    if not count:
        return np.zeros((0, bins), np.float32)
    ringed = np.pad(samples, (_BEFORE, _FRAME), mode="symmetric")
    return features(ringed, count, bins)


def features(samples: Floats, count: int, bins: int) -> Floats:
    """(count, bins) of frames that begin at sample 0, 160 and so on."""
    frames = np.lib.stride_tricks.sliding_window_view(samples, _FRAME)[::HOP][:count]
    frames = frames - frames.mean(axis=1, keepdims=True, dtype=np.float64)
    before = np.concatenate((frames[:, :1], frames[:, :-1]), axis=1)
    power = np.abs(np.fft.rfft((frames - _EMPHASIS * before) * _window(), _SIZE)) ** 2
    return np.asarray(np.log(np.maximum(power[:, :-1] @ _bands(bins).T, _LEAST)), np.float32)


class Stream:
    """The features of a sound as it comes in. What comes last is mirrored by nobody: let some
    silence follow."""

    def __init__(self, bins: int = 80) -> None:
        self._bins = bins
        self._kept: Floats = np.zeros(0, np.float32)
        self._mirrored = False

    def accept(self, samples: Floats) -> Floats:
        """(K, bins): the frames that these samples complete."""
        self._kept = np.concatenate((self._kept, samples))
        if not self._mirrored and len(self._kept) >= _BEFORE:
            self._kept = np.concatenate((self._kept[:_BEFORE][::-1], self._kept))
            self._mirrored = True
        count = max((len(self._kept) - _FRAME) // HOP + 1, 0)
        if not self._mirrored or not count:
            return np.zeros((0, self._bins), np.float32)
        found = features(self._kept, count, self._bins)
        self._kept = self._kept[count * HOP :]
        return found


@cache
def _window() -> NDArray[np.float64]:
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(_FRAME) / (_FRAME - 1))
    return np.asarray(hann**0.85)


@cache
def _bands(bins: int) -> NDArray[np.float64]:
    """(bins, 256): triangles whose sides are straight in mel."""
    low, high = _mel(np.array([_LOW, _HIGH]))
    corners = np.linspace(low, high, bins + 2)[:, None]
    places = _mel(np.arange(_SIZE // 2) * RATE / _SIZE)
    step = (high - low) / (bins + 1)
    rising, falling = (places - corners[:-2]) / step, (corners[2:] - places) / step
    return np.asarray(np.maximum(0.0, np.minimum(rising, falling)))


def _mel(hertz: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(1127.0 * np.log(1.0 + hertz / 700.0))
