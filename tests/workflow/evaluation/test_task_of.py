"""The task that data is opened for: by a model's head, in one table."""

from __future__ import annotations

from typing import get_args

import pytest

from rkzoo.contract.classify import ClassifyHead
from rkzoo.contract.detect import DetectHead, HeadOutput
from rkzoo.contract.inputs import ImageInput
from rkzoo.contract.model import Contract, Head
from rkzoo.contract.text import PlateHead
from rkzoo.tasks.registry import SPECS
from rkzoo.workflow.evaluation.evaluate import task_of

PICTURE = ImageInput(size=(64, 64))


@pytest.mark.parametrize(
    ("head", "task"),
    [
        (ClassifyHead(classes=10), "classify"),
        (PlateHead(), "plate"),
        (DetectHead(outputs=(HeadOutput(name="o", role="box"),), classes=2), "detect"),
        (DetectHead(outputs=(), classes=2, coefficients=32), "segment"),
        (DetectHead(outputs=(), classes=2, keypoints=17), "pose"),
        (DetectHead(outputs=(), classes=2, rotated=True), "obb"),
    ],
)
def test_a_model_without_a_card_has_the_task_of_its_head(head: object, task: str) -> None:
    assert task_of(Contract(family="x", picture=PICTURE, head=head)) == task


def test_every_head_has_a_task() -> None:
    kinds = {str(head.__struct_config__.tag) for head in get_args(Head)}
    assert kinds - {"detect"} <= set(SPECS)
