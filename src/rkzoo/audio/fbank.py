"""Kaldi log mel filter bank features, offline and streaming; and FunASR's, made of them.

At 16 kHz: 25 ms frames every 10 ms, DC offset removed, pre-emphasis 0.97, a window, 512-point power
spectrum, triangular mel filters from 20 Hz, natural logarithm. Icefall takes Povey's window and
filters to 7600 Hz; FunASR Hamming's, filters to 8000 Hz, samples of 16 bits and whole frames only.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

RATE = 16000
HOP = 160
_FRAME = 400
_SIZE = 512
_LOW = 20.0
_EMPHASIS = 0.97
_LEAST = float(np.finfo(np.float32).eps)
_BEFORE = (_FRAME - HOP) // 2  # samples by which the first frame precedes the sound

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Bank:
    """Kaldi's options that differ: the window, and where the filters end, in Hz."""

    window: Literal["povey", "hamming"] = "povey"
    high: float = RATE / 2 - 400.0


_POVEY, _HAMMING = Bank(), Bank("hamming", RATE / 2)


def fbank(samples: Floats, bins: int = 80) -> Floats:
    """Features of a whole sound, mirrored at both ends.

    Args:
        samples: float32 (N,) in -1..1 at 16 kHz.
        bins: number of mel bins.

    Returns:
        float32 (round(N / 160), bins).
    """
    count = (len(samples) + HOP // 2) // HOP
    if not count:
        return np.zeros((0, bins), np.float32)
    ringed = np.pad(samples, (_BEFORE, _FRAME), mode="symmetric")
    return features(ringed, count, bins)


def stacked_fbank(samples: Floats, bins: int = 80, stack: int = 7, stride: int = 6) -> Floats:
    """FunASR's features at a low frame rate: frames as `stack` successive ones, every `stride`.

    The first frame is repeated before the sound, the last after it. No noise is added (dither 0),
    so a sound has the same features each time.

    Args:
        samples: float32 (N,) in -1..1 at 16 kHz; shorter than a frame, it is padded with silence.
        bins: Number of mel bins.
        stack: Frames in a row.
        stride: Frames from row to row.

    Returns:
        float32 (ceil(frames / stride), stack * bins).
    """
    if not len(samples):
        return np.zeros((0, stack * bins), np.float32)
    scaled = np.pad(samples * np.float32(1 << 15), (0, max(0, _FRAME - len(samples))))
    frames = features(scaled, (len(scaled) - _FRAME) // HOP + 1, bins, _HAMMING)
    before = (stack - 1) // 2
    rows = -(-len(frames) // stride)
    at = np.arange(rows)[:, None] * stride + np.arange(stack) - before
    return np.asarray(frames[np.clip(at, 0, len(frames) - 1)].reshape(rows, -1))


def features(samples: Floats, count: int, bins: int, bank: Bank = _POVEY) -> Floats:
    """Features (count, bins) of frames that start at samples 0, 160, ..."""
    frames = np.lib.stride_tricks.sliding_window_view(samples, _FRAME)[::HOP][:count]
    frames = frames - frames.mean(axis=1, keepdims=True, dtype=np.float64)
    before = np.concatenate((frames[:, :1], frames[:, :-1]), axis=1)
    power = np.abs(np.fft.rfft((frames - _EMPHASIS * before) * _window(bank.window), _SIZE)) ** 2
    return np.asarray(
        np.log(np.maximum(power[:, :-1] @ _bands(bins, bank.high).T, _LEAST)), np.float32
    )


class Stream:
    """Streaming features. The end of the sound is not mirrored: feed some silence after it."""

    def __init__(self, bins: int = 80) -> None:
        self._bins = bins
        self._kept: Floats = np.zeros(0, np.float32)
        self._mirrored = False

    def accept(self, samples: Floats) -> Floats:
        """Return the frames (K, bins) that these samples complete."""
        self._kept = np.concatenate((self._kept, samples))
        if not self._mirrored and len(self._kept) >= _BEFORE:
            self._kept = np.concatenate((self._kept[:_BEFORE][::-1], self._kept))
            self._mirrored = True
        count = max((len(self._kept) - _FRAME) // HOP + 1, 0)
        if not self._mirrored or not count:
            return np.zeros((0, self._bins), np.float32)
        new_frames = features(self._kept, count, self._bins)
        self._kept = self._kept[count * HOP :]
        return new_frames


@cache
def _window(kind: str) -> NDArray[np.float64]:
    wave = np.cos(2 * np.pi * np.arange(_FRAME) / (_FRAME - 1))
    return np.asarray(0.54 - 0.46 * wave if kind == "hamming" else (0.5 - 0.5 * wave) ** 0.85)


@cache
def _bands(bins: int, end: float) -> NDArray[np.float64]:
    """Triangular mel filters (bins, 256)."""
    low, high = _mel(np.array([_LOW, end]))
    corners = np.linspace(low, high, bins + 2)[:, None]
    places = _mel(np.arange(_SIZE // 2) * RATE / _SIZE)
    step = (high - low) / (bins + 1)
    rising, falling = (places - corners[:-2]) / step, (corners[2:] - places) / step
    return np.asarray(np.maximum(0.0, np.minimum(rising, falling)))


def _mel(hertz: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(1127.0 * np.log(1.0 + hertz / 700.0))
