"""Face detection result: boxes and five landmarks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rkzoo.tasks.collection import Rows
from rkzoo.tasks.detect.result import BoxCollection, Detections, TrackIds
from rkzoo.tasks.face.align import aligned

if TYPE_CHECKING:
    import supervision

# Left and right as seen in the image.
POINTS = ("left_eye", "right_eye", "nose", "left_mouth", "right_mouth")


@dataclass(frozen=True, slots=True)
class Faces(BoxCollection):
    """Detected faces of one image, best first.

    Attributes:
        boxes: the face boxes.
        points: (N, 5, 2) float32 x, y in source-image pixels, not clipped: eyes, nose and mouth
            corners, the image-left one first.
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
        """Landmarks, (N, 5, 2); same as `points`."""
        return self.points

    def record(self) -> dict[str, NDArray[Any]]:
        """Arrays for evaluation (accuracy/answers.py)."""
        return self.boxes.record()

    def to_json(self) -> list[dict[str, Any]]:
        """The records of the boxes, each with `points` {left_eye: [x, y], ...}."""
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
        """Convert to supervision.Detections, with `points` (N, 5, 2) in its data."""
        detections = self.boxes.to_supervision()
        detections.data["points"] = self.points.copy()
        return detections

    def draw(self, image: NDArray[np.uint8], track_ids: TrackIds = None) -> NDArray[np.uint8]:
        """A copy of the BGR image with boxes, scores and landmarks, a color for each face,
        or for each track where `track_ids` (N,) are given."""
        from rkzoo.vision.draw import boxes, skeletons

        colors = self._colors(track_ids)
        painted = boxes(image, self.xyxy, self.boxes.captions(track_ids), colors)
        return skeletons(painted, self.points, np.ones(self.points.shape[:2], np.bool_), colors)

    def aligned(self, image: NDArray[np.uint8], size: int = 112) -> NDArray[np.uint8]:
        """Crop and align the faces of the BGR image to the ArcFace template: uint8 (N, size, size,
        3) BGR.
        """
        return aligned(image, self.points, size)

    def lines(self) -> list[str]:
        """Text output for a terminal, one line per face."""
        return self.boxes.lines()
