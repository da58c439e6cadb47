"""Oriented object detection (OBB)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rkzoo.tasks.detect.postprocess import Candidates
from rkzoo.tasks.detect.task import HeadTask
from rkzoo.tasks.obb.result import OrientedBoxes
from rkzoo.vision.letterbox import Letterbox


class OrientedDetector(HeadTask[OrientedBoxes]):
    """Oriented object detector. Construct once, call once per image."""

    def answer(
        self, outputs: list[NDArray[Any]], kept: Candidates, letterbox: Letterbox
    ) -> OrientedBoxes:
        return OrientedBoxes(
            boxes_to_source(kept.boxes, letterbox), kept.score, kept.class_id, self.contract.labels
        )


def boxes_to_source(boxes: NDArray[np.float32], letterbox: Letterbox) -> NDArray[np.float32]:
    """Map rotated boxes (N, 5) from model pixels to source pixels, unclipped.

    A uniform scale (letterbox) keeps the angle. Stretching turns a rectangle into a parallelogram:
    each side is mapped, which gives an approximating rectangle.
    """
    sx, sy = letterbox.scale
    source = np.empty_like(boxes)
    source[:, :2] = letterbox.to_source(boxes[:, :2])
    cos, sin = np.cos(boxes[:, 4]), np.sin(boxes[:, 4])
    source[:, 2] = boxes[:, 2] * np.hypot(cos * sx, sin * sy)
    source[:, 3] = boxes[:, 3] * np.hypot(sin * sx, cos * sy)
    source[:, 4] = np.arctan2(sin * sy, cos * sx)
    return source
