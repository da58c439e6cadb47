"""Which encoder writes a file, and that it is what browsers play."""

from __future__ import annotations

import os
import re
import shutil
import stat
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from rkzoo.errors import RkzooError
from rkzoo.streaming import encoders
from rkzoo.streaming.encoders import _ENCODERS, Encoder, encoder_for, slow_hint
from rkzoo.streaming.sinks import RenderedFrame, VideoFile
from rkzoo.streaming.sources import Frame

# What browsers play (https://caniuse.com/mpeg4: part 2 is not among them), by the code in the file.
PLAYS = {".mp4": {b"avc1", b"vp09"}, ".mov": {b"avc1"}, ".webm": {b"V_VP8", b"V_VP9"}}


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """What works is asked once a process."""
    encoders._works.cache_clear()
    yield
    encoders._works.cache_clear()


def boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The boxes of an ISO base media file (ISO 14496-12), those inside others too."""
    at = 0
    while at + 8 <= len(data):
        size, kind = struct.unpack(">I4s", data[at : at + 8])
        body = data[at + 8 : at + size] if size else data[at + 8 :]
        yield kind, body
        if kind in (b"moov", b"trak", b"mdia", b"minf", b"stbl"):
            yield from boxes(body)
        at += size or len(data)


def codec_of(path: Path) -> bytes:
    data = path.read_bytes()
    if path.suffix == ".webm":
        # CodecID (86, a length, a name) within Tracks, whose track number is drawn.
        tracks = data[data.index(b"\x16\x54\xae\x6b") :]
        found = re.search(rb"\x86[\x80-\xff]([AV]_[A-Z0-9/]+)", tracks)
        assert found
        return found[1]
    table = next(body for kind, body in boxes(data) if kind == b"stsd")
    return table[12:16]


def write(path: Path, frames: int = 12, size: tuple[int, int] = (96, 128)) -> None:
    with VideoFile(path, 12.5, live=False) as sink:
        for number in range(frames):
            image = np.full((*size, 3), 20 * number, np.uint8)
            frame = Frame(image, number, 0.0, 0.0)
            sink.take(RenderedFrame(frame, None, lambda found, image: image))


@pytest.mark.parametrize("suffix", PLAYS)
def test_what_is_written_plays_in_browsers(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out{suffix}"
    try:
        write(path)
    except RkzooError as error:
        assert suffix == ".mov"  # H.264 alone goes in there
        assert "ffmpeg" in error.fix  # noqa: PT017
        return
    assert codec_of(path) in PLAYS[suffix]


def test_without_pyav_and_ffmpeg_it_still_plays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setitem(sys.modules, "av", None)
    path = tmp_path / "out.mp4"
    write(path)
    assert codec_of(path) in PLAYS[".mp4"]
    assert ".webm is faster" in slow_hint(encoder_for(path))
    assert not slow_hint(encoder_for(tmp_path / "out.webm"))


def test_nothing_that_plays_is_said_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoders, "_works", lambda one: one.codec in ("VP8", "Motion JPEG"))
    with pytest.raises(RkzooError, match="so that browsers play it") as caught:
        VideoFile(tmp_path / "out.mp4", 10, live=False)
    assert "out.webm" in caught.value.fix
    assert "apt install ffmpeg" in caught.value.fix
    assert encoder_for(tmp_path / "out.webm").codec == "VP8"
    assert os.listdir(tmp_path) == []


def test_no_suffix_ever_gets_mpeg4_part_2() -> None:
    codecs = {one.codec for table in _ENCODERS.values() for one in table}
    assert codecs == {"H.264", "VP9", "VP8", "Motion JPEG"}


def test_the_hardware_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = {"h264_rkmpp", "libx264", "avc1", "VP90"}
    monkeypatch.setattr(encoders, "_works", lambda one: one.name in here)
    assert encoder_for(tmp_path / "a.mp4") == Encoder("H.264", "ffmpeg", "h264_rkmpp")
    here.remove("h264_rkmpp")
    assert encoder_for(tmp_path / "a.mp4") == Encoder("H.264", "ffmpeg", "libx264")


def test_nothing_of_ours_asks_for_pyav() -> None:
    """Its wheels carry x264 and x265 (GPL); supervision needs it."""
    project = (Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8")
    asked = set(re.findall(r'"([A-Za-z0-9_-]+)(?:\[\w+\])?>=', project))
    assert {"numpy", "opencv-python-headless", "pillow"} <= asked
    assert not asked & {"av", "pyav", "supervision"}


@pytest.fixture
def ffmpeg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program ffmpeg that keeps what it is given: its words, and the pictures as the file."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "ffmpeg"
    program.write_text(
        f"#!{sys.executable}\n"
        "import os, sys\n"
        "name = sys.argv[sys.argv.index('-c:v') + 1]\n"
        "if name != 'libx264':\n"
        "    sys.exit(f'Unknown encoder {name!r}')\n"
        "data = sys.stdin.buffer.read()\n"
        "open(sys.argv[-1], 'wb').write(data)\n"
        "open(os.path.join(os.path.dirname(sys.argv[0]), 'words'), 'w').write(repr(sys.argv))\n"
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def test_ffmpeg_is_given_every_picture(ffmpeg: Path, tmp_path: Path) -> None:
    chosen = encoder_for(tmp_path / "a.mp4")
    assert chosen == Encoder("H.264", "ffmpeg", "libx264")
    writer = chosen.open(tmp_path / "a.mp4", 29.97, (4, 2))
    for number in range(3):
        writer.write(np.full((2, 4, 3), number, np.uint8))
    writer.close()
    assert (tmp_path / "a.mp4").read_bytes() == bytes([0] * 24 + [1] * 24 + [2] * 24)
    words = eval((ffmpeg / "words").read_text())
    assert words[words.index("-s") + 1] == "4x2"
    assert words[words.index("-r") + 1] == "30000/1001"
    assert "+faststart" in words


def test_an_ffmpeg_that_fails_is_quoted(ffmpeg: Path, tmp_path: Path) -> None:
    writer = Encoder("H.264", "ffmpeg", "nothing").open(tmp_path / "a.mp4", 25, (4, 2))
    with pytest.raises(RkzooError, match="Unknown encoder 'nothing'"):
        writer.close()


@pytest.mark.skipif(not encoders.Encoder("", "PyAV", "libx264").works, reason="no PyAV here")
def test_pyav_writes_the_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    path = tmp_path / "out.mp4"
    assert encoder_for(path).program == "PyAV"
    write(path)
    assert codec_of(path) == b"avc1"
    capture = cv2.VideoCapture(str(path))
    levels = []
    while (read := capture.read())[0]:
        levels.append(round(read[1].mean() / 20))
    assert levels == list(range(12))
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")  # it plays before all of it has arrived
