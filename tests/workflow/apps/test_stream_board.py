"""rkzoo stream on the stand-in for the NPU's library. Nothing here was measured on a board."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path

import cv2
import pytest

from npu_standin import build
from rkzoo.workflow.apps import stream as room
from rkzoo.workflow.apps.stream import StreamOutputs, stream
from rkzoo.workflow.inference import board
from workflow.inference.test_board import Bus


def test_three_cores_answer_every_picture_in_order_and_leave_nothing_open(
    assets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = build.compiled(tmp_path)
    monkeypatch.setenv(board.LIBRARY, str(library))
    monkeypatch.setenv("STANDIN_STRICT", "1")
    bus = Bus(assets, tmp_path)
    real = room.plan

    def three_cores(*args: object, **named: object) -> room.Plan:
        planned = real(*args, **named)  # type: ignore[arg-type]
        part = planned.parts["model"]
        assert isinstance(part.backend, board.BoardBackend)
        wide = replace(part, backend=replace(part.backend, available=3))
        return replace(planned, parts={"model": wide})

    monkeypatch.setattr(room, "plan", three_cores)
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    # The recording knows one picture only.
    for number in range(30):
        cv2.imwrite(str(pictures / f"{number:02}.bmp"), bus.image)
    out = tmp_path / "out.jsonl"
    summary = stream(str(bus.rknn), str(pictures), StreamOutputs(jsonl=out))
    assert (summary.runtime, summary.frames, summary.figures["workers"]) == ("board", 30, 6)
    found = [json.loads(line) for line in out.read_text().splitlines()]
    assert [record["frame"] for record in found] == list(range(30))
    wanted = places(bus.expected().to_json())
    assert len(wanted) == 5
    assert all(places(record["results"]) == wanted for record in found)
    after = build.state(library)
    assert (after.contexts, after.memories, after.misuse) == (0, 0, 0)
    assert [t for t in threading.enumerate() if t.name.startswith("pool-")] == []


def places(results: list[dict]) -> list[tuple]:
    """Without the names, which this file does not hold."""
    return [(result["class_id"], result["score"], result["box"]) for result in results]
