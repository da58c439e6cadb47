"""One .rknn for several input sizes: which it has, and how one is chosen."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
import tiny_yolo

import rkzoo
from npu_standin import build
from npu_standin.recording import In, Out, Recording
from rkzoo.errors import RkzooError
from rkzoo.files import sha256_of
from rkzoo.graph.rknn import reader
from rkzoo.tasks.detect.task import DetectOptions
from rkzoo.vision.image import read
from rkzoo.workflow.inference import board
from rkzoo.workflow.inference.load import detect_task
from rkzoo.workflow.inference.plan import open_part, plan
from rkzoo.workflow.request.request import Request

SIZES = ((64, 96), (32, 64))


@pytest.fixture
def npu(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """This machine, as if it had an NPU."""
    built = build.compiled(tmp_path_factory.mktemp("standin"))
    monkeypatch.setenv(board.LIBRARY, str(built))
    monkeypatch.setenv("STANDIN_STRICT", "1")
    yield built
    gc.collect()  # an error that was caught keeps what was around it
    after = build.state(built)
    assert (after.contexts, after.memories, after.misuse) == (0, 0, 0)


def alike(found: Any, expected: Any) -> bool:
    """Each box has its own in the other, to a fifth of a pixel; equal scores have no order."""
    a, b = found.xyxy, expected.xyxy
    apart = np.abs(a[:, None] - b).max(2)
    return len(a) == len(b) and apart.min(0).max() < 0.2 and apart.min(1).max() < 0.2


@pytest.mark.toolkit
def test_each_size_answers_as_a_model_of_that_size_does(npu: Path, tmp_path: Path) -> None:
    """By ONNX Runtime on the whole graph of each size, whose weights are the same: first the
    simulator, then the stand-in of the NPU's library, which plays what the simulator answered."""
    picture = tmp_path / "picture.png"
    cv2.imwrite(str(picture), np.random.default_rng(0).integers(0, 256, (80, 60, 3), np.uint8))
    for size in SIZES:
        graph = tiny_yolo.stock(replace(tiny_yolo.Spec(), size=size))
        onnx.save(graph, tmp_path / f"{size[0]}.onnx")
    (built,) = rkzoo.convert(
        tmp_path / "64.onnx", "rk3588", dtype="fp16", sizes=[(32, 64)], output=tmp_path / "x.rknn"
    )
    file = reader.read(built.rknn)
    assert set(file.shapes["images"]) == {(1, 3, *size) for size in SIZES}
    assert len(file.shapes) == 7, "each output too"

    ends: list[tuple[list[In], list[Out]]] = []
    played: list[tuple[Any, list[Any]]] = []
    wanted = {}
    for size in SIZES:
        with rkzoo.load(tmp_path / f"{size[0]}.onnx", confidence=0.05) as model:
            expected = model(picture)
        part = plan(built.rknn, Request(runtime="simulator", size=size)).parts["model"]
        with open_part(part) as session:
            task = detect_task(part.contract, session, DetectOptions(confidence=0.05))
            wanted[size] = task(read(picture))
            (fed,), _ = task.preprocess(read(picture))
            answers = [array.astype(np.float16) for array in session.run([fed])]
        assert len(expected) > 3
        assert alike(wanted[size], expected.prediction)
        outs = [
            Out(spec.name, array.shape, "float16")
            for spec, array in zip(session.outputs, answers, strict=True)
        ]
        ends.append(([In("images", fed.shape)], outs))
        played.append((fed, answers))

    recording = Recording(*ends[0], shapes=ends[1:])
    for number, (fed, answers) in enumerate(played):
        recording.answer([fed], answers, shape=number)
    built.rknn.write_bytes(recording.bytes(built.rknn.read_bytes()))
    sidecar = built.sidecar
    told = json.loads(sidecar.read_text()) | {"rknn": sha256_of(built.rknn)}
    sidecar.write_text(json.dumps(told))
    for beside in (True, False):
        for size in SIZES:
            with rkzoo.load(built.rknn, runtime="board", size=size, confidence=0.05) as model:
                assert alike(model(picture).prediction, wanted[size])
        if beside:
            sidecar.unlink()

    with pytest.raises(RkzooError, match="64x96") as caught:
        rkzoo.load(built.rknn, runtime="board", size=(96, 96))
    assert "--sizes 96x96" in caught.value.fix


def test_what_cannot_be_read_at_another_size_is_refused(tmp_path: Path) -> None:
    onnx.save(tiny_yolo.stock(), tmp_path / "tiny.onnx")
    for how, words in (
        ({"sizes": [(33, 64)]}, "33x64"),
        ({"sizes": [(32, 64)], "batch": 2}, "--sizes"),
        ({"sizes": [(32, 64)], "cut": False}, "--sizes"),
    ):
        with pytest.raises(RkzooError, match=words):
            rkzoo.convert(
                tmp_path / "tiny.onnx", "rk3588", dtype="fp16", output=tmp_path / "n.rknn", **how
            )
