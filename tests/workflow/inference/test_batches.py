"""Models that take several pictures at once, seen picture by picture."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
import tiny_yolo
from numpy.typing import NDArray

import rkzoo
from npu_standin import build
from npu_standin.recording import In, Out, Recording
from rkzoo.contract.inputs import TensorSpec
from rkzoo.errors import RkzooError
from rkzoo.files import sha256_of
from rkzoo.graph.rknn import reader
from rkzoo.progress import Failure
from rkzoo.runtime.batched import BatchedSession
from rkzoo.session import Label
from rkzoo.vision.decoders import decoder
from rkzoo.vision.image import read
from rkzoo.workflow.evaluation.jobs import answer_all, answer_of
from rkzoo.workflow.inference import board


class Sums:
    """A session of three: the sum of each picture, and the picture itself."""

    label: Label = "onnx"

    def __init__(self, rows: int = 3) -> None:
        self.inputs = (TensorSpec(name="x", shape=(3, 2, 2, 3), dtype="uint8", layout="NHWC"),)
        self.outputs = (
            TensorSpec(name="sum", shape=(rows, 1), dtype="float32", layout="plain"),
            TensorSpec(name="same", shape=(3, 2, 2, 3), dtype="uint8", layout="NHWC"),
        )
        self.seen: list[NDArray[Any]] = []

    def run(self, arrays: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        (x,) = arrays
        assert x.shape == (3, 2, 2, 3)
        self.seen.append(x.copy())
        return [x.reshape(3, -1).sum(1, keepdims=True).astype(np.float32), x.copy()]

    def close(self) -> None:
        self.seen = []

    def __enter__(self) -> Sums:
        return self

    def __exit__(self, *rest: object) -> None:
        self.close()


def test_samples_are_run_together_and_told_apart() -> None:
    inner = Sums()
    session = BatchedSession(inner)
    assert [spec.shape for spec in session.inputs] == [(1, 2, 2, 3)]
    assert [spec.shape for spec in session.outputs] == [(1, 1), (1, 2, 2, 3)]
    pictures = [np.full((1, 2, 2, 3), value, np.uint8) for value in (5, 7)]
    answers = session.run_many([[picture] for picture in pictures])
    assert [float(total[0, 0]) for total, _ in answers] == [60.0, 84.0]
    assert all(np.array_equal(a[1], p) for a, p in zip(answers, pictures, strict=True))
    assert len(inner.seen) == 1, "one run"
    assert (inner.seen[0][2] == 7).all(), "what is missing is the last again"
    total, _ = session.run([pictures[0]])
    assert total.tolist() == [[60.0]]


def test_outputs_without_a_row_for_each_sample_are_refused() -> None:
    with pytest.raises(RkzooError, match="told apart by sample"):
        BatchedSession(Sums(rows=1))


@pytest.fixture
def npu(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """This machine, as if it had an NPU."""
    built = build.compiled(tmp_path_factory.mktemp("standin"))
    monkeypatch.setenv(board.LIBRARY, str(built))
    monkeypatch.setenv("STANDIN_STRICT", "1")
    yield
    gc.collect()
    after = build.state(built)
    assert (after.contexts, after.memories, after.misuse) == (0, 0, 0)


@pytest.mark.toolkit
@pytest.mark.usefixtures("npu")
def test_a_batch_answers_as_single_pictures_do(tmp_path: Path) -> None:
    """Three pictures by a model of two at once: the same boxes, and a file that says so."""
    onnx.save(tiny_yolo.stock(), tmp_path / "tiny.onnx")
    random = np.random.default_rng(0)
    for n in range(3):
        cv2.imwrite(str(tmp_path / f"{n}.png"), random.integers(0, 256, (80, 60, 3), np.uint8))
    pictures = sorted(tmp_path.glob("*.png"))
    (built,) = rkzoo.convert(
        tmp_path / "tiny.onnx",
        "rk3588",
        calibration=str(tmp_path / "*.png"),
        batch=2,
        output=tmp_path / "two.rknn",
    )
    assert reader.read(built.rknn).batch == 2
    with rkzoo.load(built.rknn, runtime="simulator", confidence=0.05) as model:
        assert model.batch == 2
        together = model.many(pictures)
        # As eval asks: the records of a batch, and of what cannot be read none.
        answer = answer_of(model.answer.args[0], decoder("opencv"))
        files = [(None, picture) for picture in pictures] + [(b"no picture", tmp_path / "x.png")]
        *records, failure = answer_all(answer, files)
        alike = [answer(picture.read_bytes(), picture) for picture in pictures]
        recording = _recorded(model, pictures)
        alone = [model(picture) for picture in pictures]
    with _playing(built.rknn, built.sidecar, recording) as model:
        assert model.batch == 2
        on_board = model.many(pictures)
    options: Any = {"runtime": "simulator", "confidence": 0.05}
    options["calibration"] = str(tmp_path / "*.png")
    with rkzoo.load(tmp_path / "tiny.onnx", **options) as model:
        assert model.batch == 1
        single = model.many(pictures)
    assert sum(map(len, single)) > 0
    assert isinstance(failure, Failure)
    for record, one in zip(records, alike, strict=True):
        assert all(np.array_equal(record[key], one[key]) for key in one)
    for one, other in zip(together, on_board, strict=True):
        assert one.to_json()["results"] == other.to_json()["results"]
    for one, other, third in zip(together, single, alone, strict=True):
        assert one.to_json()["results"] == other.to_json()["results"]
        assert one.to_json()["results"] == third.to_json()["results"]
        assert one.path == other.path


def _recorded(model: rkzoo.Model, pictures: Sequence[Path]) -> Recording:
    """What the NPU is to answer to the batches of these pictures: what the simulator does."""
    task = model.answer.args[0]
    whole = task.session._session
    ins = [In("images", whole.inputs[0].shape)]
    outs = [Out(s.name, s.shape, s.dtype, s.scale, s.zero_point, native=0) for s in whole.outputs]
    recording = Recording(ins, outs)
    for part in (pictures[:2], [pictures[2], pictures[2]]):
        fed = np.concatenate([task.preprocess(read(picture))[0][0].copy() for picture in part])
        recording.answer([fed], whole.run([fed]))
    return recording


def _playing(rknn: Path, sidecar: Path, recording: Recording) -> rkzoo.Model:
    rknn.write_bytes(recording.bytes(rknn.read_bytes()))
    told = json.loads(sidecar.read_text()) | {"rknn": sha256_of(rknn)}
    sidecar.write_text(json.dumps(told))
    return rkzoo.load(rknn, runtime="board", confidence=0.05)
