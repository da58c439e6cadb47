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
from rkzoo.progress import NoteKeeper
from rkzoo.tasks.detect.task import DetectOptions
from rkzoo.toolkit.scales import ceiling
from rkzoo.vision.image import read
from rkzoo.workflow.comparison.compare import compare
from rkzoo.workflow.compile.dry_run import dry_run
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


@pytest.fixture(scope="module")
def int8(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A detector, and its INT8 .rknn of both sizes; the pictures are beside it."""
    folder = tmp_path_factory.mktemp("int8")
    random = np.random.default_rng(0)
    (folder / "photos").mkdir()
    for number in range(2):
        picture = random.integers(0, 256, (80, 60, 3), np.uint8)
        cv2.imwrite(str(folder / f"photos/{number}.png"), picture)
    spec = replace(tiny_yolo.Spec(), size=SIZES[0])
    onnx.save(tiny_yolo.stock(spec), folder / "net.onnx")
    asked: dict[str, Any] = {"dtype": "int8", "calibration": str(folder / "photos")}
    for name, sizes in (("one", []), ("two", [SIZES[1]])):
        file = folder / f"{name}.rknn"
        rkzoo.convert(folder / "net.onnx", "rk3588", sizes=sizes, output=file, **asked)
    return folder / "net.onnx", folder / "two.rknn"


@pytest.mark.toolkit
def test_int8_scores_of_several_sizes_reach_1(int8: tuple[Path, Path]) -> None:
    """As those of a build of one size, whose other ranges are the same calibration's."""
    graph, built = int8
    several, one = reader.read(built), reader.read(graph.with_name("one.rknn"))
    assert set(several.shapes["images"]) == {(1, 3, *size) for size in SIZES}
    scales = [(spec.name, spec.scale, spec.zero_point) for spec in several.outputs]
    tops = [ceiling(spec) for spec in several.outputs if spec.name.startswith("score")]
    assert tops == pytest.approx([1, 1, 1])
    assert scales == [(spec.name, spec.scale, spec.zero_point) for spec in one.outputs]


@pytest.mark.toolkit
def test_compare_and_run_follow_the_size(int8: tuple[Path, Path]) -> None:
    """The float side by ONNX Runtime on the network exported at that very size."""
    graph, built = int8
    picture = graph.parent / "photos/0.png"
    own = graph.with_name("32.onnx")
    onnx.save(tiny_yolo.stock(replace(tiny_yolo.Spec(), size=SIZES[1])), own)
    with rkzoo.load(own, confidence=0.05) as model:
        expected = model(picture).prediction
    request = Request(size=SIZES[1], confidence=0.05)
    found = compare(str(built), request=request, images=[picture], layers=False)
    assert found.ran[0].counts == (len(expected.xyxy),)
    assert all((row.cosine or 0) > 0.98 for run in found.ran[1:] for row in run.outputs)

    asked: dict[str, Any] = {"dtype": "int8", "calibration": str(graph.parent / "photos")}
    asked |= {"runtime": "simulator", "sizes": [SIZES[1]], "confidence": 0.05}
    answers = []
    for file, how in ((built, {"runtime": "simulator", "confidence": 0.05}), (graph, asked)):
        with rkzoo.load(file, size=SIZES[1], **how) as model:
            answers.append(model(picture).prediction)
    assert np.array_equal(answers[0].xyxy, answers[1].xyxy)
    with pytest.raises(RkzooError, match="96x96"):
        rkzoo.load(graph, size=(96, 96), **asked)


def test_sizes_that_change_nothing_are_told(tmp_path: Path) -> None:
    onnx.save(tiny_yolo.stock(replace(tiny_yolo.Spec(), size=SIZES[0])), tmp_path / "net.onnx")
    model = str(tmp_path / "net.onnx")
    with pytest.raises(RkzooError, match="--sizes") as caught:
        plan(model, Request(sizes=[(32, 64)]))
    assert "--runtime simulator" in caught.value.fix
    for sizes, words, left in (
        ([(32, 64), (32, 64)], "32x64 more than once", [SIZES[0], (32, 64)]),
        ([SIZES[0]], "only 64x96", [SIZES[0]]),
    ):
        notes = NoteKeeper()
        (one,) = dry_run(model, ["rk3588"], Request(dtype="fp16", sizes=sizes), report=notes)
        assert words in " ".join(notes.notes)
        assert list(one.sizes) == left
