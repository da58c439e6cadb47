"""Float against INT8 where a picture has one answer, or faces."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from test_diagnosis import FINE, INPUT, coded

from rkzoo.contract.classify import ClassifyHead
from rkzoo.contract.faces import FaceHead
from rkzoo.contract.model import Contract
from rkzoo.tasks.classify.result import Classes
from rkzoo.tasks.detect.result import Detections
from rkzoo.tasks.face.result import Faces
from rkzoo.workflow.comparison.diagnosis import causes
from rkzoo.workflow.comparison.matching import above, compared, summed


def classes(*ids: int) -> Classes:
    score = np.linspace(0.9, 0.1, len(ids)).astype(np.float32)
    return Classes(np.array(ids, np.int32), score, ("ant", "bee", "cow"))


def test_only_the_best_class_counts() -> None:
    same = summed([compared(classes(1, 0), classes(1, 2), 0.0)])
    assert (same.found, same.same_text, same.share) == (1, 1, 1)
    other = summed([compared(classes(1, 0), classes(0, 1), 0.0)])
    assert (other.found, other.same_text) == (1, 0)
    assert len(above(classes(1, 0), 0.0)) == 1


def faces(shift: float) -> Faces:
    boxes = Detections(
        np.array([[10, 10, 60, 80]], np.float32),
        np.array([0.9], np.float32),
        np.zeros(1, np.int32),
        ("face",),
    )
    return Faces(boxes, np.full((1, 5, 2), 20 + shift, np.float32))


def test_points_of_faces_are_measured_in_pixels() -> None:
    found = summed([compared(faces(0), faces(3), 0.25)])
    assert found.points_px == pytest.approx(3 * 2**0.5)
    assert found.iou == pytest.approx(1)


@pytest.mark.parametrize(
    ("head", "said"),
    [
        (ClassifyHead(classes=3), False),
        (ClassifyHead(classes=3, activated=True), True),
        (FaceHead(), False),
    ],
)
def test_large_steps_are_a_fault_of_probabilities_only(head: object, said: bool) -> None:
    contract = Contract(family="tiny", picture=INPUT, head=head)  # type: ignore[arg-type]
    rows = {"int8": [coded("out", "classes", scale=0.6)]}
    facts = replace(FINE, contract=contract, outputs=rows)
    assert ("collapsed-scale" in [cause.kind for cause in causes(facts)]) is said
