"""Sounds come in as one channel of floats, at any rate, and go out as they were."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rkzoo.audio.sound import Sound, expand, read, write
from rkzoo.errors import RkzooError


def tone(rate: int, hertz: float = 440, seconds: float = 0.5) -> np.ndarray:
    return np.sin(2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate).astype(np.float32)


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_what_is_written_comes_back(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    write(path, Sound(tone(16000) * 0.5, 16000))
    back = read(path)
    assert back.rate == 16000
    np.testing.assert_allclose(back.samples, tone(16000) * 0.5, atol=1 / 32768)
    assert back.seconds == pytest.approx(0.5)


@pytest.mark.parametrize("suffix", [".ogg", ".mp3", ".opus"])
def test_lossy_formats_keep_tone_and_length(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    write(path, Sound(tone(22050, seconds=2) * 0.5, 22050))
    back = read(path)
    assert back.seconds == pytest.approx(2, abs=0.06)
    middle = back.samples[back.rate // 2 : back.rate * 3 // 2]
    assert np.abs(np.fft.rfft(middle)).argmax() == 440
    assert np.sqrt((middle**2).mean()) == pytest.approx(0.5 / 2**0.5, rel=0.05)


def test_a_sound_of_minutes_is_written_as_ogg(tmp_path: Path) -> None:
    write(tmp_path / "a.ogg", Sound(np.zeros(8000 * 600, np.float32), 8000))
    assert read(tmp_path / "a.ogg").seconds == pytest.approx(600, abs=0.1)


def test_pcm_is_bare_samples_of_24_khz(tmp_path: Path) -> None:
    write(tmp_path / "a.pcm", Sound(tone(24000) * 0.5, 24000))
    values = np.frombuffer((tmp_path / "a.pcm").read_bytes(), "<i2")
    np.testing.assert_allclose(values / 32768, tone(24000) * 0.5, atol=1 / 32768)
    write(tmp_path / "b.pcm", Sound(tone(16000), 16000))
    assert (tmp_path / "b.pcm").stat().st_size == pytest.approx(24000, abs=8)


def test_channels_become_their_mean(tmp_path: Path) -> None:
    import soundfile

    both = np.stack([tone(8000), -0.5 * tone(8000)], axis=1)
    soundfile.write(tmp_path / "a.wav", both, 8000, subtype="FLOAT")
    np.testing.assert_allclose(read(tmp_path / "a.wav").samples, both.mean(axis=1), atol=1e-6)


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
def test_a_tone_keeps_its_pitch_at_another_rate(rate: int) -> None:
    made = Sound(tone(rate) * 0.9, rate).at(16000)
    assert abs(len(made) - 8000) <= 1
    # The ends ring; in the middle it is the closed form.
    np.testing.assert_allclose(made[1000:7000], 0.9 * tone(16000)[1000:7000], atol=2e-3)


@pytest.mark.parametrize("data", [b"", b"RIFF", b"RIFF\x00\x00\x00\x00WAVEfmt ", b"no sound" * 99])
def test_what_is_no_sound_is_told_in_a_sentence(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.wav").write_bytes(data)
    with pytest.raises(RkzooError, match=r"a\.wav"):
        read(tmp_path / "a.wav")


def test_without_samples_or_with_strange_ones_there_is_no_sound(tmp_path: Path) -> None:
    import soundfile

    soundfile.write(tmp_path / "a.wav", np.zeros(0), 8000)
    with pytest.raises(RkzooError, match="empty"):
        read(tmp_path / "a.wav")
    soundfile.write(tmp_path / "b.wav", np.array([0.1, np.nan]), 8000, subtype="FLOAT")
    with pytest.raises(RkzooError, match="not finite"):
        read(tmp_path / "b.wav")


def test_folders_and_globs_name_sounds(tmp_path: Path) -> None:
    for name in ("b.wav", "a.flac", "c.txt"):
        (tmp_path / name).touch()
    assert [p.name for p in expand([str(tmp_path)])] == ["a.flac", "b.wav"]
    assert [p.name for p in expand([str(tmp_path / "*.wav")])] == ["b.wav"]
    with pytest.raises(RkzooError, match="no sound at"):
        expand([str(tmp_path / "*.mp3")])
