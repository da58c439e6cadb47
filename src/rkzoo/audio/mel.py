"""Log mel spectrogram of Whisper."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

RATE = 16000
HOP = 160
_SIZE = 400

Floats = NDArray[np.float32]


def log_mel(samples: Floats, bins: int = 80) -> Floats:
    """Log mel spectrogram.

    25 ms frames every 10 ms, the first centred at sample 0 (reflected at the ends); power in Slaney
    mel bands, log10 clipped to 80 dB below the maximum, scaled as (log10 + 4) / 4.

    Args:
        samples: float32 (N,) in -1..1 at 16 kHz.
        bins: number of mel bins.

    Returns:
        float32 (bins, N // 160).

    Raises:
        ValueError: at most half a frame of samples.
    """
    if len(samples) <= _SIZE // 2:
        raise ValueError("the sound is too short")
    ringed = np.pad(samples, _SIZE // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(ringed, _SIZE)[::HOP][: len(samples) // HOP]
    power = np.abs(np.fft.rfft(frames * _window(), axis=1)) ** 2
    logs = np.log10(np.maximum(slaney_bands(bins) @ power.T, 1e-10))
    logs = np.maximum(logs, logs.max() - 8.0)
    return np.asarray((logs + 4.0) / 4.0, np.float32)


@cache
def _window() -> NDArray[np.float64]:
    """Periodic Hann window."""
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(_SIZE) / _SIZE)


@cache
def slaney_bands(bins: int) -> NDArray[np.float64]:
    """Slaney mel filters (bins, 201): triangles of area 1 in Hz, evenly spaced in mel (linear below
    1 kHz, logarithmic above) from 0 to 8 kHz.
    """
    corners = _hertz(np.linspace(0.0, _mel(RATE / 2), bins + 2))
    width = np.diff(corners)
    away = corners[:, None] - np.linspace(0, RATE / 2, _SIZE // 2 + 1)
    rising, falling = -away[:-2] / width[:-1, None], away[2:] / width[1:, None]
    triangles = np.maximum(0.0, np.minimum(rising, falling))
    return np.asarray(triangles * (2.0 / (corners[2:] - corners[:-2]))[:, None])


# Slaney's scale: 3 mel per 200 Hz up to 1 kHz; above, 27 mel are a factor of 6.4.
_LINEAR = 200 / 3
_BREAK = 1000.0
_STEP = np.log(6.4) / 27


def _mel(hertz: float) -> float:
    if hertz < _BREAK:
        return hertz / _LINEAR
    return float(_BREAK / _LINEAR + np.log(hertz / _BREAK) / _STEP)


def _hertz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    above = _BREAK * np.exp(_STEP * (mel - _BREAK / _LINEAR))
    return np.where(mel < _BREAK / _LINEAR, mel * _LINEAR, above)
