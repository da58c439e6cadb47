"""bench on a small real graph: every stage is there, the report is whole, cores come back."""

from __future__ import annotations

import json
import time
from pathlib import Path

import cv2
import msgspec
import numpy as np
import onnx
import pytest
import yaml
from board_trees import board
from test_semantic_graphs import graph as segmentation
from tiny_whole import classifier, lprnet
from tiny_yolo import stock

from rkzoo.audio.sound import Sound, write
from rkzoo.cli.main import main
from rkzoo.errors import RkzooError
from rkzoo.soc.machine import read_machine
from rkzoo.tasks.voice.result import SynthesizedSpeech
from rkzoo.workflow.performance import bench as module
from rkzoo.workflow.performance import machine_setup
from rkzoo.workflow.performance.bench import (
    AnswerReport,
    BenchReport,
    TimedSession,
    bench,
    bench_answers,
    rounded,
    write_report,
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bench") / "tiny.onnx"
    onnx.save(stock(), path)
    return path


def test_every_stage_is_timed_by_itself(model: Path) -> None:
    found = bench(model, frames=6, warm_up=1)
    assert found.runtime == "onnx"
    assert found.label.startswith("Not NPU times")
    assert "inference alone" in found.published
    stages = found.time_cost_ms
    assert list(stages) == ["decode", "preprocess", "inference", "postprocess", "total"]
    parts = [stages[name].mean for name in list(stages)[:-1]]
    assert stages["total"].mean == pytest.approx(sum(parts), rel=1e-6)
    assert all(part > 0 for part in parts)
    speed = found.throughput_fps
    assert speed.inference > speed.sequential > 0
    assert speed.sequential == pytest.approx(1000 / stages["total"].mean)
    assert speed.pipelined > 0
    if Path("/proc/self/status").exists():
        assert found.memory_info.peak_mib is not None
        assert found.memory_info.peak_mib > 20


class Slow:
    """A model whose time is known."""

    label = "onnx"
    inputs = outputs = ()

    def run(self, arrays: object) -> list[object]:
        time.sleep(0.03)
        return []

    def close(self) -> None: ...


def test_time_inside_the_model_is_told_apart_from_all_around_it() -> None:
    session = TimedSession(Slow())  # type: ignore[arg-type]

    def page(image: object) -> None:
        session.run([])
        time.sleep(0.01)
        session.run([])

    stages = module._whole(page, [session], np.zeros((1, 1, 3), np.uint8))
    assert stages["inference"] >= 0.06
    assert 0.01 <= stages["around"] < stages["inference"]


@pytest.mark.parametrize("graph", [segmentation, classifier, lprnet])
def test_what_finds_no_boxes_is_timed(graph, tmp_path: Path) -> None:
    onnx.save(graph(), tmp_path / "model.onnx")
    found = bench(tmp_path / "model.onnx", frames=2, warm_up=0)
    assert found.time_cost_ms["inference"].p50 > 0


@pytest.mark.parametrize("voice", [False, True])
def test_whole_answers_are_timed_by_the_second_of_sound(
    voice: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that is heard or speaks, and takes a known time."""
    session = TimedSession(Slow())  # type: ignore[arg-type]
    spoken = SynthesizedSpeech(Sound(np.zeros(4000, np.float32), 16000), ())
    asked: list[object] = []

    def task(given: object) -> object:
        asked.append(given)
        session.run([])
        return spoken if voice else None

    monkeypatch.setattr(module, "plan", lambda *_: module.Plan("toy", "onnx", {}))
    monkeypatch.setattr(module, "_open", lambda *_: {"model": (None, session)})
    monkeypatch.setattr(module, "task_of", lambda *_: task)
    write(tmp_path / "a.wav", Sound(np.zeros(8000, np.float32), 16000))
    model, given = ("piper-joe", "Hello.") if voice else ("whisper-base", str(tmp_path / "a.wav"))
    found = bench_answers(model, given, answers=3)
    assert len(asked) == 4  # one to warm up
    assert asked[0] == "Hello." if voice else len(asked[0].at(16000)) == 8000
    seconds = 0.25 if voice else 0.5
    total = found.time_cost_ms["total"].p50
    assert found.model_info.sound_seconds == seconds
    assert found.real_time_factor == pytest.approx(total / 1000 / seconds)
    assert total >= found.time_cost_ms["inference"].p50 >= 30
    assert "cannot be compared" in found.published
    write_report(tmp_path / "report.yml", found)
    again = msgspec.convert(yaml.safe_load((tmp_path / "report.yml").read_text()), AnswerReport)
    assert again.model_info == found.model_info


def test_sounds_are_given_one_at_a_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "whisper-base"]) == 2
    assert "--input" in capsys.readouterr().err
    for name in ("a.wav", "b.wav"):
        write(tmp_path / name, Sound(np.zeros(160, np.float32), 16000))
    assert main(["bench", "whisper-base", "--input", str(tmp_path)]) == 2
    assert "was given 2" in capsys.readouterr().err
    with pytest.raises(RkzooError):
        bench_answers("whisper-base", str(tmp_path / "a.wav"), answers=0)


def test_frames_in_flight_overlap() -> None:
    def work(image: object) -> dict[str, float]:
        time.sleep(0.02)
        return {}

    frame = np.zeros((1, 1, 3), np.uint8)
    run = module._pipelined([work] * 2, lambda: frame, 10, module.SILENT)
    assert 0.1 <= run.seconds < 0.19


def test_a_failure_in_flight_ends_it_all() -> None:
    def work(image: object) -> dict[str, float]:
        raise RkzooError("It broke.")

    frame = np.zeros((1, 1, 3), np.uint8)
    with pytest.raises(RkzooError, match="It broke"):
        module._pipelined([work] * 2, lambda: frame, 10**6, module.SILENT)


def test_the_report_is_whole_and_reads_back(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "report.yml"
    found = bench(model, frames=2, warm_up=0)
    write_report(path, found)
    again = msgspec.convert(yaml.safe_load(path.read_text()), BenchReport)
    assert again.time_cost_ms["inference"].p50 == pytest.approx(
        found.time_cost_ms["inference"].p50, abs=1e-3
    )
    assert again.model_info.picture == "made"
    assert list(tmp_path.iterdir()) == [path]


def test_the_verb_writes_a_report_and_json_does_not(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    picture = tmp_path / "p.png"
    cv2.imwrite(str(picture), np.full((40, 60, 3), 90, np.uint8))
    asked = ["bench", str(model), "--frames", "2", "--image", str(picture)]
    assert main(asked) == 0
    shown = capsys.readouterr().out
    for word in ("Not NPU times", "decode", "inference", "in flight"):
        assert word in shown
    assert yaml.safe_load(Path("report.yml").read_text())["model_info"]["width"] == 60
    Path("report.yml").unlink()
    assert main([*asked, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["frames"] == 2
    assert not Path("report.yml").exists()


@pytest.mark.parametrize(("frames", "warm_up"), [(0, 0), (-1, 0), (5, -1)])
def test_nothing_to_measure_is_refused(model: Path, frames: int, warm_up: int) -> None:
    with pytest.raises(RkzooError):
        bench(model, frames=frames, warm_up=warm_up)


def test_a_picture_that_is_none_is_refused(model: Path, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"nothing of the kind")
    with pytest.raises(RkzooError, match=r"a\.jpg"):
        bench(model, picture=tmp_path / "a.jpg", frames=1)
    with pytest.raises(RkzooError, match="cannot be read"):
        bench(model, picture=tmp_path / "b.jpg", frames=1)


def test_clocks_are_not_said_to_be_held_where_there_are_none(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = read_machine(tmp_path)
    monkeypatch.setattr(machine_setup, "machine_on", lambda on: bare)
    with pytest.raises(RkzooError, match="no clock"):
        bench(model, frames=1, lock_clocks=True)


def test_clocks_are_held_while_measuring_and_given_back(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    b = board(tmp_path, "rk3588")
    governor = "sys/devices/system/cpu/cpufreq/policy4/scaling_governor"
    before = b.read(governor)
    for room in (module, machine_setup):
        monkeypatch.setattr(room, "machine_on", lambda on: read_machine(tmp_path))
    seen = []
    inner = module._sequential
    monkeypatch.setattr(
        module, "_sequential", lambda *a: (seen.append(b.read(governor)), inner(*a))[1]
    )
    found = bench(model, frames=2, warm_up=0, lock_clocks=True)
    assert seen == ["performance"]
    assert b.read(governor) == before
    assert found.board_info.clocks_locked
    assert found.board_info.chip == "rk3588"


def test_numbers_are_rounded_and_nothing_else_is_touched() -> None:
    assert rounded({"a": (1.23456, None, "x", [2])}) == {"a": [1.235, None, "x", [2]]}
