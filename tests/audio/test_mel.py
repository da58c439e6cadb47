"""The mel spectrogram against its definition: a transform summed term by term."""

from __future__ import annotations

import numpy as np
import pytest

from rkzoo.audio.mel import HOP, RATE, log_mel, slaney_bands


def by_definition(samples: np.ndarray, bins: int, frame: int) -> np.ndarray:
    """One column of power in mel bands, in float64: no Fourier transform of a library, no
    vectors of filters."""
    size = 400
    powers = []
    for k in range(size // 2 + 1):
        total = 0j
        for n in range(size):
            at = frame * HOP + n - size // 2
            at = -at if at < 0 else at
            at = 2 * (len(samples) - 1) - at if at >= len(samples) else at
            hann = 0.5 * (1 - np.cos(2 * np.pi * n / size))
            total += samples[at] * hann * np.exp(-2j * np.pi * k * n / size)
        powers.append(abs(total) ** 2)
    top = 15 + 27 * np.log(8000 / 1000) / np.log(6.4)  # 8 kHz in Slaney's mel
    corners = []
    for i in range(bins + 2):
        mel = top * i / (bins + 1)
        corners.append(mel * 200 / 3 if mel < 15 else 1000 * 6.4 ** ((mel - 15) / 27))
    column = []
    for low, middle, high in zip(corners, corners[1:], corners[2:], strict=False):
        total = 0.0
        for k, power in enumerate(powers):
            hertz = k * RATE / size
            if low < hertz <= middle:
                total += power * (hertz - low) / (middle - low) * 2 / (high - low)
            elif middle < hertz < high:
                total += power * (high - hertz) / (high - middle) * 2 / (high - low)
        column.append(total)
    return np.array(column)


@pytest.mark.parametrize("bins", [80, 128])
def test_equals_the_definition(bins: int) -> None:
    chance = np.random.default_rng(3)
    time = np.arange(1600) / RATE
    samples = 0.4 * np.sin(2 * np.pi * 440 * time) + 0.1 * chance.normal(size=1600)
    found = log_mel(samples.astype(np.float32), bins)
    assert found.shape == (bins, 10)
    frames = (0, 4, 9)  # both ends are mirrored, the last frame of the transform is dropped
    powers = np.stack([by_definition(samples, bins, frame) for frame in frames], axis=1)
    logs = np.log10(np.maximum(powers, 1e-10))
    kept = found[:, frames] * 4 - 4
    top = found.max() * 4 - 4
    np.testing.assert_allclose(kept, np.maximum(logs, top - 8), atol=2e-4)


def test_the_bands_are_those_that_upstream_publishes() -> None:
    """Values of mel_filters.npz of openai/whisper, which librosa made."""
    bands = slaney_bands(80)
    assert bands.shape == (80, 201)
    assert bands[0, 1] == pytest.approx(0.02486259, abs=1e-7)
    assert bands[1, 1:3] == pytest.approx([0.00199082, 0.02287177], abs=1e-7)
    # Each has the area 1 in Hz; narrow ones are sampled too coarsely to show it.
    assert bands[48:].sum(axis=1) * 40 == pytest.approx(np.ones(32), rel=0.02)


def test_silence_is_even_and_quiet_is_no_deeper_than_80_db() -> None:
    assert np.unique(log_mel(np.zeros(3200, np.float32))).tolist() == [-1.5]
    loud = np.zeros(16000, np.float32)
    loud[:800] = np.sin(np.arange(800, dtype=np.float32))
    found = log_mel(loud)
    assert found.max() - found.min() == pytest.approx(2.0, abs=1e-6)


def test_a_sound_shorter_than_half_a_frame_is_refused() -> None:
    with pytest.raises(ValueError, match="too short"):
        log_mel(np.zeros(200, np.float32))
