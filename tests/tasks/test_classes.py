"""Only some classes: chosen by name or number, and dropped before NMS and the limit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import rkzoo
from rkzoo.errors import RkzooError
from rkzoo.tasks.detect.classes import class_numbers

LABELS = ("person", "bicycle", "Traffic light", "7")


@pytest.mark.parametrize(
    ("wanted", "numbers"),
    [(["person"], (0,)), (["2", "0"], (0, 2)), ([1, "PERSON"], (0, 1)), (["traffic LIGHT"], (2,)),
     (["7"], (3,))],
)  # fmt: skip
def test_names_and_numbers(wanted: list[str | int], numbers: tuple[int, ...]) -> None:
    assert class_numbers(wanted, LABELS, 4) == numbers


def test_an_unknown_class_is_told_with_the_nearest() -> None:
    with pytest.raises(RkzooError, match="Did you mean bicycle") as caught:
        class_numbers(["bycicle"], LABELS, 4)
    assert caught.value.typo == ("bycicle", "bicycle")
    with pytest.raises(RkzooError, match="0 to 3"):
        class_numbers(["4"], LABELS, 4)
    with pytest.raises(RkzooError, match="have no names"):
        class_numbers(["person"], (), 4)


@pytest.mark.parametrize("classes", [[], "", [-1]])
def test_what_selects_nothing_is_refused(classes: list[str]) -> None:
    with pytest.raises(RkzooError):
        rkzoo.Request(classes=classes or [])


def test_the_rest_is_what_the_whole_answer_has_of_them(assets: Path) -> None:
    model, picture = assets / "models/yolov8n.onnx", assets / "data/images/bus.jpg"
    if not picture.is_file():
        picture = next((assets / "data/coco128_val/images").iterdir())
    with rkzoo.load(model, confidence=0.05) as every:
        whole = every(picture)
    kinds, counts = np.unique(whole.class_ids, return_counts=True)
    chosen = [int(kinds[counts.argmax()]), int(kinds[0])]
    mine = np.isin(whole.class_ids, chosen)
    with rkzoo.load(model, confidence=0.05, classes=chosen) as some:
        part = some(picture)
    np.testing.assert_array_equal(part.boxes, whole.boxes[mine])
    np.testing.assert_array_equal(part.scores, whole.scores[mine])
    # The limit counts what is left.
    last = whole.class_ids[-1]
    with rkzoo.load(model, confidence=0.05, classes=[int(last)], max_boxes=1) as one:
        assert one(picture).class_ids.tolist() == [last]


def test_a_model_without_such_classes_and_an_evaluation_refuse_them(assets: Path) -> None:
    with pytest.raises(RkzooError, match="--classes does not go with this model"):
        rkzoo.load(assets / "models/mobilenetv2.onnx", classes=["dog"])
    with pytest.raises(RkzooError, match="does not go with an evaluation"):
        rkzoo.evaluate(
            str(assets / "models/yolov8n.onnx"),
            str(assets / "data/coco128_val/instances_bbox.json"),
            classes=["person"],
        )
