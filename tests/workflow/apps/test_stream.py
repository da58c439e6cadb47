"""rkzoo stream from end to end, on ONNX and a video made here."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from tiny_yolo import Spec, stock

import rkzoo
from rkzoo.cli import signals
from rkzoo.cli.main import main
from rkzoo.errors import RkzooError
from rkzoo.remote.client import ConnectionLost
from rkzoo.runtime.onnx import OnnxSession
from rkzoo.streaming.sources import Frame, open_source
from rkzoo.workflow.apps import stream as room
from rkzoo.workflow.apps.stream import StopSignal, StreamOptions, StreamOutputs, stream
from rkzoo.workflow.request.request import Request


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny.onnx"
    onnx.save(stock(Spec()), path)
    return path


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 frames, all different."""
    path = tmp_path_factory.mktemp("film") / "film.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 30, (96, 64))
    chance = np.random.default_rng(3)
    for _ in range(60):
        blocks = chance.integers(0, 255, (8, 12, 3)).astype(np.uint8)
        writer.write(cv2.resize(blocks, (96, 64), interpolation=cv2.INTER_NEAREST))
    writer.release()
    return path


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def frames_of(path: Path) -> list[np.ndarray]:
    capture, found = cv2.VideoCapture(str(path)), []
    while True:
        there, image = capture.read()
        if not there:
            return found
        found.append(image)


_BEFORE: set[threading.Thread] = set()


@pytest.fixture(autouse=True)
def threads_of_other_tests() -> None:
    """The toolkit's and Dask's threads outlive the tests that started them."""
    _BEFORE.clear()
    _BEFORE.update(threading.enumerate())


def threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t not in _BEFORE]


def test_every_frame_is_answered_in_order_as_one_by_one(
    model: Path, film: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, video = tmp_path / "out.jsonl", tmp_path / "out.mp4"
    words = ["stream", str(model), str(film), "--conf", "0.3", "--workers", "3", "--json"]
    assert main([*words, "--jsonl", str(out), "--save", str(video)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["frames"], told["dropped"], told["failed_frames"]) == (60, 0, 0)
    assert told["runtime"] == "onnx"
    assert {"read", "prepare", "infer", "decode", "draw"} <= set(told["stages_ms"])
    found = lines(out)
    assert [record["frame"] for record in found] == list(range(60))
    with rkzoo.load(model, confidence=0.3) as one:
        expected = [one(image).prediction.to_json() for image in frames_of(film)]
    assert [record["results"] for record in found] == expected
    assert any(expected)
    assert len(frames_of(video)) == 60
    assert threads() == []


def test_a_number_of_frames_and_tracks(model: Path, film: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    options = StreamOptions(frames=7, track=True, workers=2)
    sure = Request(confidence=0.3)
    summary = stream(str(model), str(film), StreamOutputs(jsonl=out), request=sure, options=options)
    assert summary.frames == 7
    found = lines(out)
    assert [record["frame"] for record in found] == list(range(7))
    assert any(result["track"] for record in found for result in record["results"])
    assert threads() == []


def test_pictures_are_a_source_too(
    model: Path, film: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, image in enumerate(frames_of(film)[:4]):
        cv2.imwrite(str(tmp_path / f"{number}.png"), image)
    assert main(["stream", str(model), str(tmp_path), "--jsonl", "-"]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [Path(record["file"]).name for record in found] == [f"{n}.png" for n in range(4)]
    (tmp_path / "2.png").write_bytes(b"no picture")
    out = tmp_path / "out.jsonl"
    assert main(["stream", str(model), str(tmp_path), "--jsonl", str(out)]) == 1
    assert "2.png" in capsys.readouterr().err
    assert [Path(record["file"]).name for record in lines(out)] == ["0.png", "1.png", "3.png"]


def test_a_slow_model_leaves_frames_out_and_stays_up_to_date(
    model: Path, film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = OnnxSession.run

    def slow(self: OnnxSession, arrays: list) -> list:
        time.sleep(0.2)
        return real(self, arrays)

    monkeypatch.setattr(OnnxSession, "run", slow)
    out = tmp_path / "out.jsonl"
    options = StreamOptions(every_frame=False, workers=1)
    began = time.perf_counter()
    summary = stream(str(model), str(film), StreamOutputs(jsonl=out), options=options)
    # Two seconds of film, five answers a second.
    assert 1.8 < time.perf_counter() - began < 8
    assert summary.frames + summary.dropped == 60
    assert summary.dropped > 30
    numbers = [record["frame"] for record in lines(out)]
    assert numbers == sorted(set(numbers))
    assert numbers[-1] == 59
    # One waits, one is at work, at most two are done: each stands for 0.2 s and some noise.
    assert summary.figures["latency_ms"]["p50"] < 1500


def break_at(
    monkeypatch: pytest.MonkeyPatch,
    broken: Callable[[int], bool],
    error: Exception | None = None,
) -> None:
    real = room._answer

    def answer(task: object, frame: Frame):
        if broken(frame.number):
            raise error or ZeroDivisionError("the model broke")
        return real(task, frame)  # type: ignore[arg-type]

    monkeypatch.setattr(room, "_answer", answer)


def test_a_frame_that_breaks_the_model_ends_a_file(
    model: Path, film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_at(monkeypatch, lambda number: number == 20)
    out = tmp_path / "out.jsonl"
    with pytest.raises(ZeroDivisionError):
        stream(str(model), str(film), StreamOutputs(jsonl=out))
    assert os.listdir(tmp_path) == []
    assert threads() == []


def test_a_live_source_goes_on_after_a_broken_frame_but_not_for_ever(
    model: Path, film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        room, "open_source", lambda text, **named: room.PacedSource(open_source(text), fps=500)
    )
    broken = {5, 6, 20} | set(range(40, 60))
    break_at(monkeypatch, lambda number: number in broken)
    out = tmp_path / "out.jsonl"
    options = StreamOptions(every_frame=True)
    with pytest.raises(ZeroDivisionError):
        stream(str(model), str(film), StreamOutputs(jsonl=out), options=options)
    # What a live source gave up to there is kept.
    assert [record["frame"] for record in lines(out)] == sorted(set(range(60)) - broken)
    assert threads() == []


@pytest.mark.parametrize("live", [False, True])
def test_what_came_before_a_cut_is_kept_and_told(
    model: Path,
    film: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    live: bool,
) -> None:
    """As Ctrl-C keeps it. A live source does not try the board again, which stays lost."""
    if live:
        monkeypatch.setattr(
            room, "open_source", lambda text, **named: room.PacedSource(open_source(text), fps=100)
        )
    cut = ConnectionLost("The connection to ssh://b was cut.", "x.", "Check the cable.", code=1)
    break_at(monkeypatch, lambda number: number >= 20, cut)
    video, out = tmp_path / "out.mp4", tmp_path / "out.jsonl"
    words = ["stream", str(model), str(film), "--every-frame", "--save", str(video)]
    assert main([*words, "--jsonl", str(out)]) == 1
    said = capsys.readouterr().err
    assert "error: The connection to ssh://b was cut." in said
    told = f"x. It ended after 20 frames, which are kept: {video}, {out}."
    assert told in said
    assert "left out" not in said
    assert [record["frame"] for record in lines(out)] == list(range(20))
    assert len(frames_of(video)) >= 20
    assert sorted(os.listdir(tmp_path)) == ["out.jsonl", "out.mp4"]
    assert threads() == []


def test_a_cut_before_the_first_frame_leaves_no_file(
    model: Path, film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_at(monkeypatch, lambda number: True, ConnectionLost("The connection was cut.", code=1))
    with pytest.raises(ConnectionLost, match=r"^The connection was cut\.$"):
        stream(str(model), str(film), StreamOutputs(jsonl=tmp_path / "out.jsonl"))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["film.nothing"], "There is no source"),
        (["FILM", "--frames", "0"], "--frames is 0"),
        (["FILM", "--workers", "0"], "--workers is 0"),
        (["FILM", "--workers", "1000"], "is too many"),
        (["FILM", "--save", "FILM"], "would be overwritten"),
        (["FILM", "--http", "nowhere:x"], "not a valid address for the live page"),
        (["FILM", "--save", "out.txt"], "not a video format"),
        (["FILM", "--show"], "No window can be shown"),
        (["FILM", "--json", "--jsonl", "-"], "do not go together"),
        (["FILM", "--conf", "3"], "confidence is 3"),
    ],
)
def test_what_cannot_be_is_said(
    model: Path,
    film: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    said: str,
) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.chdir(tmp_path)
    assert main(["stream", str(model), *(str(film) if w == "FILM" else w for w in words)]) == 2
    assert said in capsys.readouterr().err
    assert os.listdir(tmp_path) == []
    assert threads() == []


def test_tracking_text_is_refused() -> None:
    with pytest.raises(RkzooError, match="no objects to track"):
        room._check_trackable(room.Plan("ppocr", "onnx", {}))


def test_stopping_from_another_thread_keeps_what_is_done(
    model: Path, film: Path, tmp_path: Path
) -> None:
    stop, out = StopSignal(), tmp_path / "out.jsonl"
    threading.Timer(1.0, lambda: setattr(stop, "is_set", True)).start()
    options = StreamOptions(every_frame=False)  # two seconds long
    summary = stream(str(model), str(film), StreamOutputs(jsonl=out), options=options, stop=stop)
    assert summary.stopped
    assert 0 < len(lines(out)) == summary.frames < 60


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("frames", [0, 20])
def test_what_a_signal_breaks_is_no_error(
    model: Path,
    film: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: signal.Signals,
    frames: int,
) -> None:
    """As where it reaches the ssh to the board, too, which ends the call that is being made."""

    def broken(at: int) -> bool:
        if at == frames:
            os.kill(os.getpid(), number)
            time.sleep(0.3)
        return at >= frames

    break_at(monkeypatch, broken, ConnectionLost("The connection was cut.", code=1))
    monkeypatch.setattr(signals, "_telling", threading.Lock())  # once a process
    out = tmp_path / "out.jsonl"
    words = ["stream", str(model), str(film), "--every-frame", "--workers", "1"]
    assert main([*words, "--jsonl", str(out)]) == 128 + number
    said = capsys.readouterr().err
    assert "cut" not in said
    assert (f"{frames} frames in" if frames else "Stopped.") in said
    assert (len(lines(out)) if out.exists() else 0) == frames


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_asks_it_to_stop(model: Path, film: Path, number: signal.Signals) -> None:
    before = signal.getsignal(number)
    ring = threading.Timer(0.7, os.kill, (os.getpid(), number))
    ring.start()
    summary = stream(
        str(model), str(film), StreamOutputs(), options=StreamOptions(every_frame=False)
    )
    ring.join()
    assert summary.stopped
    assert 0 < summary.frames < 60
    assert signal.getsignal(number) == before


def test_ctrl_c_ends_the_command_cleanly_and_two_viewers_saw_it(
    model: Path, film: Path, tmp_path: Path, hears_ctrl_c: Callable[[], None]
) -> None:
    # A film that does not end while it is looked at.
    long = tmp_path / "long"
    long.mkdir()
    for index, image in enumerate(frames_of(film)):
        for again in range(12):
            cv2.imwrite(str(long / f"{again:02}-{index:02}.bmp"), image)
    video, out = tmp_path / "out.mp4", tmp_path / "out.jsonl"
    command = [sys.executable, "-m", "rkzoo", "stream", str(model), str(long), "--drop"]
    command += ["--http", "0", "--save", str(video), "--jsonl", str(out)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=hears_ctrl_c)
    try:
        assert process.stderr
        told = ""
        while not (found := re.search(r"http://127\.0\.0\.1:(\d+)/", told)):
            line = process.stderr.readline()
            assert line, told
            told += line
        viewers = []
        for _ in range(2):
            viewer = http.client.HTTPConnection("127.0.0.1", int(found[1]), timeout=20)
            viewer.request("GET", "/stream.mjpg")
            viewers.append(viewer.getresponse())
        for _ in range(3):
            for answer in viewers:
                assert b"\xff\xd8" in answer.read(3000)
        process.send_signal(signal.SIGINT)
        rest = process.communicate(timeout=20)[1]
    finally:
        process.kill()
    assert process.returncode == 128 + signal.SIGINT, rest
    count = len(lines(out))
    assert f"{count} frames in" in rest
    assert len(frames_of(video)) >= count > 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["long", "out.jsonl", "out.mp4"]


ENDLESS = """
import gc, os, sys, threading, time
from pathlib import Path
import numpy as np
from rkzoo.streaming.sources import Frame
from rkzoo.workflow.apps import stream as room

picture = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
kept = []

class Endless:
    name, live, fps, total, reconnects = "endless", False, 30.0, None, 0

    def frames(self, stop):
        for number in range(2500):
            if number in (500, 2499):
                gc.collect()
                pages = int(Path("/proc/self/statm").read_text().split()[1])
                kept.append((pages * 4096, len(os.listdir("/proc/self/fd"))))
            yield Frame(picture.copy(), number, time.perf_counter(), 0.0)

    def close(self):
        pass

room.open_source = lambda text, **named: Endless()
options = room.StreamOptions(track=True)
summary = room.stream(sys.argv[1], "endless", room.StreamOutputs(), options=options)
(before, files), (after, files_after) = kept
print(summary.frames, after - before, files_after - files, threading.active_count())
"""


def test_2500_frames_take_no_more_memory_than_500(model: Path) -> None:
    """In a process of its own, where no other test leaves anything."""
    answer = subprocess.run(
        [sys.executable, "-c", ENDLESS, str(model)], capture_output=True, text=True, check=True
    )
    frames, grown, files, threads_left = map(int, answer.stdout.split()[-4:])
    # A frame has 18 KB: of 2000, a twentieth kept would be more.
    assert (frames, files, threads_left) == (2500, 0, 1)
    assert grown < 2 << 20


def test_the_loads_of_the_cores_are_read(tmp_path: Path) -> None:
    from rkzoo.soc.machine import npu_load
    from rkzoo.soc.tree import Tree

    file = tmp_path / "sys/kernel/debug/rknpu/load"
    file.parent.mkdir(parents=True)
    file.write_text("NPU load:  Core0: 41%, Core1:  7%, Core2:  0%,\n")
    assert npu_load(Tree(tmp_path)) == (41, 7, 0)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 frames of another size."""
    path = tmp_path_factory.mktemp("other") / "other.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 30, (64, 96))
    chance = np.random.default_rng(4)
    for _ in range(30):
        blocks = chance.integers(0, 255, (12, 8, 3)).astype(np.uint8)
        writer.write(cv2.resize(blocks, (64, 96), interpolation=cv2.INTER_NEAREST))
    writer.release()
    return path


def test_two_films_share_the_model_and_each_is_answered_as_alone(
    model: Path, film: Path, other: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, video = tmp_path / "out.jsonl", tmp_path / "out.avi"
    words = ["stream", str(model), str(film), str(other), "--conf", "0.3", "--json", "--track"]
    assert main([*words, "--jsonl", str(out), "--save", str(video)]) == 0
    told = capsys.readouterr()
    summary = json.loads(told.out)
    assert summary["frames"] == 90
    assert [one["frames"] for one in summary["sources"]] == [60, 30]
    assert [one["source"] for one in summary["sources"]] == [str(film), str(other)]
    assert f"{other}: 30 frames" in told.err
    found = lines(out)
    for path, count, size in ((film, 60, (64, 96)), (other, 30, (96, 64))):
        mine = [record for record in found if record["source"] == str(path)]
        assert [record["frame"] for record in mine] == list(range(count))
        assert {(record["height"], record["width"]) for record in mine} == {size}
        alone = tmp_path / "alone.jsonl"
        assert main(["stream", str(model), str(path), *words[4:], "--jsonl", str(alone)]) == 0
        assert [r["results"] for r in lines(alone)] == [r["results"] for r in mine]
    capsys.readouterr()
    # In turns while both last: neither waits for the other's end.
    first = [record["source"] for record in found[:40]]
    assert 10 <= first.count(str(other)) <= 30
    assert len(frames_of(tmp_path / "out-0.avi")) == 60
    assert len(frames_of(tmp_path / "out-1.avi")) == 30
    assert frames_of(tmp_path / "out-1.avi")[0].shape == (96, 64, 3)
    assert not video.exists()
    assert threads() == []


def test_a_quick_live_source_does_not_starve_a_slow_one(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = OnnxSession.run

    def slow(self: OnnxSession, arrays: list) -> list:
        time.sleep(0.04)
        return real(self, arrays)

    class Live:
        live, total, reconnects = True, None, 0

        def __init__(self, name: str, fps: float) -> None:
            self.name, self.fps = name, fps

        def frames(self, stop: threading.Event):
            end, number = time.perf_counter() + 3, 0
            while time.perf_counter() < end and not stop.wait(1 / self.fps):
                yield Frame(np.zeros((32, 32, 3), np.uint8), number, time.perf_counter(), 0.0)
                number += 1

        def close(self) -> None:
            pass

    monkeypatch.setattr(OnnxSession, "run", slow)
    monkeypatch.setattr(
        room, "open_source", lambda text, **named: Live(text, {"quick": 200, "slow": 5}[text])
    )
    out = tmp_path / "out.jsonl"
    summary = stream(
        str(model), ["quick", "slow"], StreamOutputs(jsonl=out), options=StreamOptions(workers=1)
    )
    quick, steady = summary.figures["sources"]
    assert quick["dropped"] > 50  # the newest frame wins
    assert steady["dropped"] <= 2
    assert steady["frames"] >= 8  # of about 14
    assert quick["frames"] > 2 * steady["frames"]


def test_where_one_of_two_fails_the_other_goes_on_and_is_kept(
    model: Path, film: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "1.png").write_bytes(b"no picture")
    out = tmp_path / "out.jsonl"
    assert main(["stream", str(model), str(folder), str(film), "--jsonl", str(out)]) == 2
    told = capsys.readouterr().err
    assert "1.png" in told
    assert "the others go on" in told
    assert sum(record["source"] == str(film) for record in lines(out)) == 60
    assert threads() == []


def test_frames_are_counted_for_each_source(
    model: Path, film: Path, other: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.jsonl"
    names = [str(film), str(other)]
    stream(str(model), names, StreamOutputs(jsonl=out), options=StreamOptions(frames=5))
    assert sorted(record["source"] for record in lines(out)) == sorted(names * 5)


def test_a_format_needs_a_camera(
    model: Path, film: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["stream", str(model), str(film), "--camera", "640x480"]) == 2
    assert "None of the sources is a camera" in capsys.readouterr().err
