"""Kaldi's features against Kaldi's own code, whole and as the sound comes in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rkzoo.audio.fbank import HOP, RATE, Stream, fbank, stacked_fbank

CHANCE = np.random.default_rng(2)
SOUND = (
    0.3 * np.sin(np.arange(RATE) * 0.1) * np.linspace(0, 1, RATE) + 0.02 * CHANCE.normal(size=RATE)
).astype(np.float32)


@pytest.mark.parametrize("length", [200, 4000, 16000, 15999])
def test_equals_kaldi(length: int) -> None:
    kaldi = pytest.importorskip("kaldi_native_fbank", reason="kaldi-native-fbank is not installed")
    options = kaldi.FbankOptions()
    options.frame_opts.samp_freq = RATE
    options.frame_opts.dither = 0
    options.frame_opts.snip_edges = False
    options.mel_opts.num_bins = 80
    options.mel_opts.high_freq = -400
    online = kaldi.OnlineFbank(options)
    online.accept_waveform(RATE, SOUND[:length].tolist())
    online.input_finished()
    wanted = np.stack([online.get_frame(i) for i in range(online.num_frames_ready)])
    np.testing.assert_allclose(fbank(SOUND[:length]), wanted, atol=2e-3)


def test_equals_the_definition_term_by_term() -> None:
    """Two frames, with plain loops."""
    found = fbank(SOUND)
    for frame in (0, 7):
        window = []
        for n in range(400):
            at = frame * 160 - 120 + n
            window.append(float(SOUND[at if at >= 0 else -at - 1]))
        mean = sum(window) / 400
        window = [value - mean for value in window]
        raised = [window[n] - 0.97 * window[max(n - 1, 0)] for n in range(400)]
        shaped = [
            value * (0.5 - 0.5 * np.cos(2 * np.pi * n / 399)) ** 0.85
            for n, value in enumerate(raised)
        ]
        power = (
            np.abs(
                [
                    sum(v * np.exp(-2j * np.pi * k * n / 512) for n, v in enumerate(shaped))
                    for k in range(60)
                ]
            )
            ** 2
        )
        mel = [1127 * np.log(1 + k * 31.25 / 700) for k in range(60)]
        low, high = 1127 * np.log(1 + 20 / 700), 1127 * np.log(1 + 7600 / 700)
        step = (high - low) / 81
        for band in (0, 5, 20):
            middle = low + (band + 1) * step
            shares = [max(0.0, 1 - abs(m - middle) / step) for m in mel]
            wanted = np.log(sum(s * p for s, p in zip(shares, power, strict=True)))
            assert found[frame, band] == pytest.approx(wanted, abs=1e-3)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 900), min_size=1, max_size=12))
def test_pieces_of_a_sound_give_the_frames_of_the_whole(sizes: list[int]) -> None:
    stream, at = Stream(), 0
    frames = []
    for size in sizes:
        frames.append(stream.accept(SOUND[at : at + size]))
        at += size
    found = np.concatenate(frames)
    whole = fbank(SOUND)
    # All frames that end before the sound does.
    assert len(found) == (max(0, (at - 280) // HOP + 1) if at >= 280 else 0)
    np.testing.assert_allclose(found, whole[: len(found)], atol=1e-4)


def test_stacked_features_equal_funasrs() -> None:
    """`features` and `short` were made by FunASR 1.4.16's WavFrontend (hamming, lfr_m 7, lfr_n 6,
    dither 0) of `sound` and of its first 400 samples."""
    made = np.load(Path(__file__).parent / "funasr_features.npz")
    sound = made["sound"].astype(np.float32) / 32768
    np.testing.assert_allclose(stacked_fbank(sound), made["features"], atol=2e-3)
    np.testing.assert_allclose(stacked_fbank(sound[:400]), made["short"], atol=2e-3)


@pytest.mark.parametrize("length", [0, 1, 399, 401, 3000, 12345])
def test_rows_stack_seven_frames_every_sixth(length: int) -> None:
    """Against Kaldi's frames, stacked by a loop."""
    kaldi = pytest.importorskip("kaldi_native_fbank", reason="kaldi-native-fbank is not installed")
    found = stacked_fbank(SOUND[:length])
    if length < 400:
        assert found.shape == (min(length, 1), 560)
        return
    options = kaldi.FbankOptions()
    options.frame_opts.dither = 0
    options.frame_opts.window_type = "hamming"
    options.mel_opts.num_bins = 80
    online = kaldi.OnlineFbank(options)
    online.accept_waveform(RATE, (SOUND[:length] * 32768).tolist())
    online.input_finished()
    frames = [online.get_frame(i) for i in range(online.num_frames_ready)]
    rows = []
    for first in range(0, len(frames), 6):
        at = [min(max(first - 3 + i, 0), len(frames) - 1) for i in range(7)]
        rows.append(np.concatenate([frames[i] for i in at]))
    np.testing.assert_allclose(found, np.stack(rows), atol=2e-3)
