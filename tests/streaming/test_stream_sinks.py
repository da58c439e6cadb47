"""Sinks: the video file, JSON lines, the window; the figures of the stages."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from rkzoo.errors import RkzooError
from rkzoo.streaming import encoders
from rkzoo.streaming import meter as clock
from rkzoo.streaming.meter import StreamMeter
from rkzoo.streaming.sinks import JsonLines, RenderedFrame, VideoFile, Window, check_window
from rkzoo.streaming.sources import Frame
from rkzoo.tasks.detect.result import Detections

FOUND = Detections(
    np.array([[1, 2, 30, 40]], np.float32),
    np.array([0.5], np.float32),
    np.array([0], np.int32),
    ("cat",),
)


def shown(
    number: int, taken: float = 0.0, size: tuple[int, int] = (48, 64), grey: int = 90
) -> RenderedFrame:
    frame = Frame(np.full((*size, 3), grey, np.uint8), number, taken, 0.001)
    return RenderedFrame(frame, FOUND, lambda found, image: image)


def read_back(path: Path) -> tuple[list[np.ndarray], float]:
    capture = cv2.VideoCapture(str(path))
    frames = []
    while True:
        there, image = capture.read()
        if not there:
            return frames, capture.get(cv2.CAP_PROP_FPS)
        frames.append(image)


@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".mkv", ".mov"])
def test_a_file_becomes_a_video_of_as_many_frames(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out{suffix}"
    if suffix == ".mov" and not any(one.works for one in encoders._ENCODERS[suffix]):
        pytest.skip("nothing here encodes H.264, which alone is written into .mov")
    with VideoFile(path, 12.5, live=False) as sink:
        for number in range(9):
            sink.take(shown(number, grey=20 * number))
        assert not path.exists()  # it appears when it is complete
    frames, fps = read_back(path)
    assert fps == pytest.approx(12.5, abs=0.1)
    assert [round(f.mean() / 20) for f in frames] == list(range(9))


def test_frames_of_other_sizes_are_fitted_into_the_first(tmp_path: Path) -> None:
    with VideoFile(tmp_path / "out.avi", 10, live=False) as sink:
        for number, size in enumerate([(49, 65), (100, 30), (20, 300)]):
            sink.take(shown(number, size=size))
    frames, _ = read_back(tmp_path / "out.avi")
    assert {f.shape for f in frames} == {(48, 64, 3)}
    assert frames[1][24, 2].mean() < 20  # black beside the tall one


def test_a_live_video_runs_at_the_speed_of_the_world(tmp_path: Path) -> None:
    # 10 a second asked for; 3 a second came, then a burst, then a hole of a minute.
    moments = [0.0, 0.33, 0.67, 1.0, 1.01, 1.02, 61.0, 61.5]
    with VideoFile(tmp_path / "out.avi", 10, live=True) as sink:
        for number, taken in enumerate(moments):
            sink.take(shown(number, taken, grey=25 * number))
    greys = [round(f.mean() / 25) for f in read_back(tmp_path / "out.avi")[0]]
    assert 15 <= len(greys) <= 18
    assert greys[:10] == [0, 0, 0, 1, 1, 1, 1, 2, 2, 2]
    assert greys == sorted(greys)


def test_an_error_leaves_the_old_video_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    path.write_bytes(b"old")

    def broken() -> None:
        with VideoFile(path, 10, live=False) as sink:
            sink.take(shown(0))
            raise RkzooError("The model broke.")

    with pytest.raises(RkzooError, match="model broke"):
        broken()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["out.mp4"]


def test_no_frame_no_video(tmp_path: Path) -> None:
    with VideoFile(tmp_path / "out.mp4", 10, live=False):
        pass
    assert os.listdir(tmp_path) == []


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    script = (
        "import resource, numpy as np, pathlib\n"
        "from rkzoo.streaming.sinks import *\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))\n"
        "noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3)).astype(np.uint8)\n"
        "try:\n"
        "    with VideoFile(pathlib.Path('out.mp4'), 10, live=False) as sink:\n"
        "        for number in range(40):\n"
        "            frame = Frame(np.roll(noise, number), number, 0.0, 0.0)\n"
        "            sink.take(RenderedFrame(frame, None, lambda found, image: image))\n"
        "except RkzooError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True
    )
    assert "out.mp4 cannot be written." in done.stdout
    assert os.listdir(tmp_path) == []


def test_a_reader_that_has_gone_ends_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone:
        def write(self, text: str) -> None:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stdout", Gone())
    with JsonLines(None) as sink:
        assert not sink.over
        sink.take(shown(0))
        assert sink.over


def test_an_unknown_kind_of_video_is_said_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(RkzooError, match="not a video format"):
        VideoFile(tmp_path / "out.txt", 10, live=False)
    assert os.listdir(tmp_path) == []


def test_json_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "out.jsonl"
    with JsonLines(path) as sink:
        for number in range(3):
            sink.take(shown(number, 5 + number / 10))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["frame"] for line in lines] == [0, 1, 2]
    assert [line["seconds"] for line in lines] == [0.0, 0.1, 0.2]
    assert lines[0]["results"] == FOUND.to_json()
    assert (lines[0]["width"], lines[0]["height"]) == (64, 48)
    with JsonLines(None) as sink:
        sink.take(shown(7))
        assert json.loads(capsys.readouterr().out)["frame"] == 7


def test_a_picture_is_drawn_once_and_only_when_asked_for() -> None:
    drawn = []
    frame = Frame(np.zeros((4, 4, 3), np.uint8), 0, 0.0, 0.0)
    one = RenderedFrame(frame, FOUND, lambda found, image: drawn.append(1) or image)
    assert not drawn
    assert one.picture is one.picture
    assert drawn == [1]
    assert set(one.seconds) == {"draw"}


def test_no_window_without_a_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "getBuildInformation", lambda: "  GUI:    GTK3\n")
    monkeypatch.setattr("sys.platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(RkzooError, match="no screen here"):
        check_window()
    monkeypatch.setenv("DISPLAY", ":0")
    check_window()
    monkeypatch.setattr(cv2, "getBuildInformation", lambda: "  GUI:    NONE\n")
    with pytest.raises(RkzooError, match="headless"):
        check_window()


def test_q_ends_the_window(monkeypatch: pytest.MonkeyPatch) -> None:
    # The OpenCV of the tests has no windows: what it would be asked is recorded.
    keys, asked = [-1, ord("q")], []
    monkeypatch.setattr("rkzoo.streaming.sinks.check_window", lambda: None)
    for name, answer in {
        "namedWindow": lambda *a: None,
        "imshow": lambda title, image: asked.append(image.shape),
        "waitKey": lambda wait: keys.pop(0),
        "getWindowProperty": lambda *a: 1.0,
        "destroyWindow": lambda title: asked.append(title),
    }.items():
        monkeypatch.setattr(cv2, name, answer)
    with Window("cats") as window:
        window.take(shown(0))
        assert not window.over
        window.take(shown(1))
        assert window.over
    assert asked == [(48, 64, 3), (48, 64, 3), "cats"]


def test_a_window_that_opencv_refuses_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rkzoo.streaming.sinks.check_window", lambda: None)

    def refuse(*args: object) -> None:
        raise cv2.error("no backend")

    monkeypatch.setattr(cv2, "namedWindow", refuse)
    monkeypatch.setattr(cv2, "destroyWindow", refuse)
    with pytest.raises(RkzooError, match="No window can be shown"):
        Window("cats")


def test_figures_of_the_last_moments(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(clock, "perf_counter", lambda: now[0])
    meter = StreamMeter()
    for number in range(1000):
        now[0] += 0.1
        meter.event("answered")
        meter.stages({"infer": number / 1000, "draw": 0.002})
        meter.latency(0.05)
    figures = meter.figures()
    assert figures["fps"] == {"answered": 10.0}
    assert figures["mean_fps"] == {"answered": 10.0}
    assert figures["counts"] == {"answered": 1000}
    assert list(figures["stages_ms"]) == ["infer", "draw"]
    # The last 200 of them: 0.8 to 1 second.
    assert figures["stages_ms"]["infer"]["p50"] == pytest.approx(900, abs=2)
    assert figures["stages_ms"]["infer"]["p90"] == pytest.approx(980, abs=2)
    assert figures["latency_ms"] == {"p50": 50.0, "p90": 50.0}
    now[0] += 10
    assert meter.figures()["fps"] == {"answered": 0.0}
    json.dumps(figures)


def test_a_stream_without_a_frame_leaves_the_old_lines(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_text("old")
    with JsonLines(path) as sink:
        pass
    assert path.read_text() == "old"
    assert sink.place == ""
