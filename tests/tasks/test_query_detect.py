"""Detections of heads of DETR's kind, held to the answers of the projects' own postprocessing.

query_answers.npz: random scores and boxes, and what transformers 5.24.0
(`RTDetrImageProcessor`, `DetrImageProcessor.post_process_object_detection`) and rfdetr 1.11.2
(`PostProcess`) gave for them on a picture of 640x480, threshold .3; RF-DETR's without one, and with
the columns that are no classes of COCO at -20.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rkzoo.contract.inputs import ImageInput, TensorSpec
from rkzoo.contract.model import Contract
from rkzoo.contract.query_detect import QueryDetectHead, QueryOutput
from rkzoo.errors import RkzooError
from rkzoo.graph.families.queries import _COCO
from rkzoo.tasks.detect.query import QueryDetector
from rkzoo.tasks.detect.result import Detections
from rkzoo.tasks.detect.task import DetectOptions
from rkzoo.tasks.registry import spec_of, validate_options
from rkzoo.tasks.spec import TaskOptions, TaskParts

ANSWERS = np.load(Path(__file__).with_name("query_answers.npz"))
TWO = (QueryOutput(name="logits", role="score"), QueryOutput(name="boxes", role="box"))
HEADS = {
    "rtdetr": QueryDetectHead(outputs=TWO, classes=8),
    "detr": QueryDetectHead(outputs=TWO, classes=8, activation="softmax"),
    "rfdetr": QueryDetectHead(outputs=TWO, classes=80, columns=_COCO),
}
SIDE = 320


class Fixed:
    """A session that gives the same tensors for any picture."""

    label = "onnx"

    def __init__(self, outputs: dict[str, np.ndarray], **scales: tuple[float, int]) -> None:
        self._values = list(outputs.values())
        self.inputs = (TensorSpec(name="images", shape=(1, SIDE, SIDE, 3), dtype="uint8"),)
        self.outputs = tuple(
            TensorSpec(
                name=name,
                shape=value.shape,
                dtype=value.dtype.name,
                scale=scales.get(name, (None, 0))[0],
                zero_point=scales.get(name, (None, 0))[1],
            )
            for name, value in outputs.items()
        )

    def run(self, arrays: Any) -> list[np.ndarray]:
        return self._values


def found(head: QueryDetectHead, session: Fixed, **options: Any) -> Detections:
    image = ImageInput(size=(SIDE, SIDE), fit="stretch")
    contract = Contract(family="rtdetr", picture=image, head=head)
    task = QueryDetector(contract, session, DetectOptions(**options))  # type: ignore[arg-type]
    return task(np.zeros((480, 640, 3), np.uint8))


def outputs_of(name: str) -> dict[str, np.ndarray]:
    return {"logits": ANSWERS[f"{name}_logits"], "boxes": ANSWERS[f"{name}_boxes"]}


@pytest.mark.parametrize("name", HEADS)
def test_answers_are_those_of_the_project(name: str) -> None:
    head, columns = HEADS[name], HEADS[name].columns
    confidence = 0.0 if name == "rfdetr" else 0.3
    ours = found(head, Fixed(outputs_of(name)), confidence=confidence)
    score, label, xyxy = (ANSWERS[f"{name}_{part}"] for part in ("score", "class", "xyxy"))
    order = np.argsort(-score, kind="stable")
    np.testing.assert_allclose(ours.score, score[order], atol=1e-6)
    expected = label[order] if not columns else [columns.index(n) for n in label[order]]
    np.testing.assert_array_equal(ours.class_id, expected)
    inside = np.clip(xyxy[order], 0, (640, 480, 640, 480))
    np.testing.assert_allclose(ours.xyxy, inside, atol=1e-3)


def test_one_query_may_be_of_two_classes() -> None:
    logits = np.full((1, 3, 4), -9, np.float32)
    logits[0, 1, :2] = 3, 2
    boxes = np.full((1, 3, 4), 0.5, np.float32)
    ours = found(QueryDetectHead(outputs=TWO, classes=4), Fixed({"logits": logits, "boxes": boxes}))
    assert ours.class_id.tolist() == [0, 1]
    np.testing.assert_array_equal(ours.xyxy[0], ours.xyxy[1])


def test_classes_and_limit() -> None:
    head, session = HEADS["rtdetr"], Fixed(outputs_of("rtdetr"))
    every = found(head, session, confidence=0.1)
    some = found(head, session, confidence=0.1, classes=(2, 5))
    np.testing.assert_array_equal(some.score, every.score[np.isin(every.class_id, (2, 5))])
    assert len(found(head, session, confidence=0.1, limit=3)) == 3


@pytest.mark.parametrize("name", ["rtdetr", "rfdetr", "detr"])
def test_int8_answers_are_those_of_its_numbers_as_floats(name: str) -> None:
    plain = outputs_of(name)
    scales = {"logits": (0.1, 20), "boxes": (1 / 255, -128)}
    codes = {
        key: np.clip(np.rint(value / scales[key][0]) + scales[key][1], -128, 127).astype(np.int8)
        for key, value in plain.items()
    }
    floats = {
        key: ((value.astype(np.float32) - scales[key][1]) * np.float32(scales[key][0]))
        for key, value in codes.items()
    }
    ours = found(HEADS[name], Fixed(codes, **scales), confidence=0.3)
    expected = found(HEADS[name], Fixed(floats), confidence=0.3)
    assert len(ours) == len(expected) > 0
    np.testing.assert_allclose(ours.score, expected.score, atol=1e-6)
    np.testing.assert_allclose(ours.xyxy, expected.xyxy, atol=1e-2)


@pytest.mark.parametrize("renamed", [False, True])
def test_forms_of_exports_say_the_same(renamed: bool) -> None:
    """One tensor for both, and what the graph picked itself, of the same numbers."""
    plain = outputs_of("rtdetr")
    scores = 1 / (1 + np.exp(-plain["logits"]))
    joined = np.concatenate((plain["boxes"], scores), axis=2)
    name = "t1" if renamed else "output0"
    decoded = QueryDetectHead(
        outputs=(QueryOutput(name="output0", role="decoded"),), classes=8, activation="none"
    )
    expected = found(HEADS["rtdetr"], Fixed(plain), confidence=0.3)
    ours = found(decoded, Fixed({name: joined}), confidence=0.3)
    np.testing.assert_array_equal(ours.class_id, expected.class_id)
    np.testing.assert_allclose(ours.xyxy, expected.xyxy, atol=1e-3)
    flat = scores[0].ravel()
    best = np.argsort(-flat, kind="stable")[:40]
    half = plain["boxes"][0, :, 2:] / 2
    middle = plain["boxes"][0, :, :2]
    corners = np.concatenate((middle - half, middle + half), axis=1)[best // 8]
    picked = QueryDetectHead(
        outputs=(
            QueryOutput(name="scores", role="score"),
            QueryOutput(name="boxes", role="box"),
            QueryOutput(name="labels", role="label"),
        ),
        classes=8,
        activation="none",
        corners=True,
    )
    tensors = {"scores": flat[best][None], "boxes": corners[None], "labels": (best % 8)[None]}
    ours = found(picked, Fixed(tensors), confidence=0.3)
    np.testing.assert_array_equal(ours.class_id, expected.class_id)
    np.testing.assert_allclose(ours.xyxy, expected.xyxy, atol=1e-3)


def test_the_task_heeds_no_suppression() -> None:
    head = HEADS["rtdetr"]
    assert spec_of(head).name == "detect"
    validate_options(head, {"confidence", "classes", "max_boxes"})
    with pytest.raises(RkzooError, match="--iou does not go with this model"):
        validate_options(head, {"iou"})
    contract = Contract(family="rtdetr", picture=ImageInput(size=(SIDE, SIDE)), head=head)
    parts = TaskParts(head, {"model": (contract, Fixed(outputs_of("rtdetr")))}, {})  # type: ignore[dict-item]
    assert isinstance(spec_of(head).open(parts, TaskOptions()), QueryDetector)
