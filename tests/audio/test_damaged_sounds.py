"""Sounds that end early or are damaged are refused, and no library prints a line of its own."""

from __future__ import annotations

import struct
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import soundfile

from rkzoo.audio.sound import decode, read
from rkzoo.errors import RkzooError

TONE = np.sin(np.arange(48_000) / 20).astype(np.float32)


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3", "aiff"])
def test_a_whole_one_is_read_and_a_cut_one_refused(suffix: str, tmp_path: Path, capfd) -> None:
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, TONE, 16_000, format=suffix.upper())
    assert read(path).seconds == pytest.approx(3, abs=0.1)
    data = path.read_bytes()
    (tmp_path / f"cut.{suffix}").write_bytes(data[: len(data) * 2 // 3])
    with pytest.raises(RkzooError) as caught:
        read(tmp_path / f"cut.{suffix}")
    assert caught.value.why
    assert caught.value.fix
    assert capfd.readouterr().err == ""


def test_a_cut_wav_is_told_how_much_of_it_is_there(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, TONE, 16_000)
    data = path.read_bytes()
    with pytest.raises(RkzooError, match=r"cut short.* 3\.0 s, and 1\.0 can be read"):
        decode(data[: 44 + 32_000], path)


@pytest.mark.parametrize("length", [0xFFFFFFFF, 0x7FFFFFFF])
def test_a_recording_whose_header_knows_no_length_is_read(length: int, tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, TONE, 16_000)
    data = bytearray(path.read_bytes())
    data[40:44] = struct.pack("<I", length)
    assert decode(bytes(data), path).seconds == pytest.approx(3)


@pytest.mark.parametrize("seed", range(20))
def test_a_broken_mp3_says_nothing_of_its_own(seed: int, tmp_path: Path, capfd) -> None:
    path = tmp_path / "a.mp3"
    soundfile.write(path, TONE, 16_000, format="MP3")
    data = bytearray(path.read_bytes())
    random = np.random.default_rng(seed)
    for place in random.integers(0, len(data), 200):
        data[place] = random.integers(256)
    path.write_bytes(bytes(data))
    with suppress(RkzooError):
        read(path)
    assert capfd.readouterr().err == ""
