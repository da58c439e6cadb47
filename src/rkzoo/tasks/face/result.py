"""Faces: boxes, and five points of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rkzoo.tasks.collection import Rows
from rkzoo.tasks.detect.result import Boxed, Detections
from rkzoo.tasks.face.align import aligned

if TYPE_CHECKING:
    import supervision

# As seen by who looks at the picture.
POINTS = ("left_eye", "right_eye", "nose", "left_mouth", "right_mouth")


@dataclass(frozen=True, slots=True)
class Faces(Boxed):
    """Faces in source-image pixels, the surest first.

    `boxes` as a detector gives them; `points` (N, 5, 2) float32: x, y of the eyes, the nose and
    the corners of the mouth, those on the left of the picture first; not clipped.
    """

    boxes: Detections
    points: NDArray[np.float32]

    def __post_init__(self) -> None:
        if self.points.shape != (len(self.boxes), 5, 2):
            raise ValueError("points must be (N, 5, 2), as many as boxes")

    def _take(self, rows: Rows) -> Faces:
        return Faces(self.boxes[rows], self.points[rows])

    @property
    def keypoints(self) -> NDArray[np.float32]:
        """`points`, (N, 5, 2)."""
        return self.points

    def record(self) -> dict[str, NDArray[Any]]:
        """The arrays by which a data set scores it (accuracy/answers.py)."""
        return self.boxes.record()

    def to_json(self) -> list[dict[str, Any]]:
        """The records of the boxes, and with each `points` {left_eye: [x, y], ...}."""
        return [
            record
            | {
                "points": {
                    name: [round(x, 2), round(y, 2)]
                    for name, (x, y) in zip(POINTS, points, strict=True)
                }
            }
            for record, points in zip(self.boxes.to_json(), self.points.tolist(), strict=True)
        ]

    def to_supervision(self) -> supervision.Detections:
        """The boxes as supervision.Detections, `points` (N, 5, 2) in their data."""
        found = self.boxes.to_supervision()
        found.data["points"] = self.points.copy()
        return found

    def draw(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A copy of the BGR picture with boxes, scores and points."""
        from rkzoo.vision.draw import boxes, skeletons

        painted = boxes(image, self.boxes.to_supervision(), self.boxes.captions())
        return skeletons(painted, self.points, np.ones(self.points.shape[:2], np.bool_))

    def aligned(self, image: NDArray[np.uint8], size: int = 112) -> NDArray[np.uint8]:
        """(N, size, size, 3) uint8: the faces cut out of the BGR picture, turned upright and
        scaled so that their points lie where face recognisers expect them."""
        return aligned(image, self.points, size)

    def lines(self) -> list[str]:
        """What a terminal shows: one line a face."""
        return self.boxes.lines()
