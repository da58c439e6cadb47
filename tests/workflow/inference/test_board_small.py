"""run, stream and bench on RV1103 and RV1106, whose library (librknnmrt) shares no weights and
makes no floats: with the stand-in for it. Nothing here was measured on a board."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from test_board import Bus

import rkzoo
from npu_standin import build
from rkzoo.cli.bench import _print_summary
from rkzoo.errors import RkzooError
from rkzoo.progress import SILENT
from rkzoo.runtime.npu import NpuSession
from rkzoo.workflow.apps.stream import StreamOptions, StreamOutputs, stream
from rkzoo.workflow.inference import board
from rkzoo.workflow.inference.board import BoardBackend, open_board
from rkzoo.workflow.inference.plan import in_floats, open_part, plan
from rkzoo.workflow.performance.bench import NO_FLOATS, bench
from rkzoo.workflow.request.request import Request


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build.compiled(tmp_path_factory.mktemp("standin"), name="librknnmrt.so")


@pytest.fixture
def npu(built: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv(board.LIBRARY, str(built))
    monkeypatch.setenv("STANDIN_STRICT", "1")
    yield built
    after = build.state(built)
    assert (after.contexts, after.memories, after.misuse) == (0, 0, 0), build.misuse(built)


@pytest.fixture(scope="module")
def bus(assets: Path, tmp_path_factory: pytest.TempPathFactory) -> Bus:
    return Bus(assets, tmp_path_factory.mktemp("bus"))


def test_the_same_boxes_are_found(npu: Path, bus: Bus) -> None:
    with rkzoo.load(bus.rknn) as model:
        found = model(bus.image).prediction
    wanted = bus.expected()
    np.testing.assert_array_equal(found.xyxy, wanted.xyxy)
    np.testing.assert_array_equal(found.score, wanted.score)
    assert len(wanted) == 5


def test_outputs_are_read_in_nhwc_where_they_lie(npu: Path, bus: Bus) -> None:
    with open_board(BoardBackend(bus.rknn, str(npu)), bus.contract) as session:
        assert isinstance(session, NpuSession)
        assert {spec.layout for spec in session.outputs} == {"NHWC"}


def test_a_stream_has_its_two_workers(
    npu: Path, bus: Bus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STANDIN_STRICT", "0")  # a film's pictures are not to the bit
    film, size = tmp_path / "film.avi", bus.image.shape[1::-1]
    writer = cv2.VideoWriter(str(film), cv2.VideoWriter.fourcc(*"MJPG"), 30, size)
    for _ in range(6):
        writer.write(bus.image)
    writer.release()
    out = tmp_path / "out.jsonl"
    summary = stream(str(bus.rknn), str(film), StreamOutputs(jsonl=out), options=StreamOptions())
    assert (summary.frames, summary.failed, summary.figures["workers"]) == (6, 0, 2)
    assert len(out.read_text().splitlines()) == 6


def test_bench_leaves_the_floats_out_and_says_so(
    npu: Path, bus: Bus, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    notes: list[str] = []

    class Heard(type(SILENT)):  # type: ignore[misc]
        def note(self, message: str) -> None:
            notes.append(message)

    found = bench(bus.rknn, picture=bus.picture, frames=3, warm_up=1, report=Heard())
    assert [(way.name, way.workers) for way in found.ways] == [("rkzoo", 1), ("pool", 2)]
    assert notes.count(NO_FLOATS) == 1
    _print_summary(found)
    assert "floats in and out" not in capsys.readouterr().out
    with pytest.raises(RkzooError, match="does not convert to float"):
        open_part(in_floats(plan(bus.rknn, Request())).parts["model"])
