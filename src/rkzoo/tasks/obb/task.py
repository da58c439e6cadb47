"""A picture in, oriented boxes out."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rkzoo.tasks.detect.decode import Candidates
from rkzoo.tasks.detect.task import HeadTask
from rkzoo.tasks.obb.result import OrientedBoxes
from rkzoo.vision.letterbox import Letterbox


class OrientedDetector(HeadTask[OrientedBoxes]):
    """One model of oriented boxes, ready to run; made once, called for every picture."""

    def answer(
        self, outputs: list[NDArray[Any]], kept: Candidates, letterbox: Letterbox
    ) -> OrientedBoxes:
        return OrientedBoxes(
            boxes_to_source(kept.boxes, letterbox), kept.score, kept.class_id, self.contract.labels
        )


def boxes_to_source(boxes: NDArray[np.float32], letterbox: Letterbox) -> NDArray[np.float32]:
    """Rotated boxes (N, 5) in model pixels to source pixels, nothing clipped.

    Under a uniform scale, which letterboxing is, the angle stays. Stretching turns a box: its
    sides are followed each (and the rectangle is then the nearest there is).
    """
    sx, sy = letterbox.scale
    source = np.empty_like(boxes)
    source[:, :2] = letterbox.to_source(boxes[:, :2])
    cos, sin = np.cos(boxes[:, 4]), np.sin(boxes[:, 4])
    source[:, 2] = boxes[:, 2] * np.hypot(cos * sx, sin * sy)
    source[:, 3] = boxes[:, 3] * np.hypot(sin * sx, cos * sy)
    source[:, 4] = np.arctan2(sin * sy, cos * sx)
    return source
