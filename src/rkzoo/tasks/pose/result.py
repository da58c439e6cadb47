"""Pose estimation result: boxes and keypoints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rkzoo.tasks.collection import Rows
from rkzoo.tasks.detect.result import BoxCollection, Detections, TrackIds

if TYPE_CHECKING:
    import supervision

# Upstream's threshold for drawing a keypoint.
VISIBLE = 0.5


@dataclass(frozen=True, slots=True)
class Poses(BoxCollection):
    """Objects with keypoints, best first.

    Attributes:
        boxes: the object boxes.
        keypoints: (N, K, 3) float32: x, y in source-image pixels (not clipped) and visibility in
            0..1 (1 where the model gives none).
    """

    boxes: Detections
    keypoints: NDArray[np.float32]

    def __post_init__(self) -> None:
        shape = self.keypoints.shape
        if len(shape) != 3 or shape[0] != len(self.boxes) or shape[2] != 3:
            raise ValueError("keypoints must be (N, K, 3), as many as boxes")

    def _take(self, rows: Rows) -> Poses:
        return Poses(self.boxes[rows], self.keypoints[rows])

    def record(self) -> dict[str, NDArray[Any]]:
        """Arrays for evaluation (accuracy/answers.py)."""
        return {**self.boxes.record(), "keypoints": self.keypoints}

    def to_json(self) -> list[dict[str, Any]]:
        """The records of the boxes, each with `keypoints` [[x, y, visibility], ...]."""
        return [
            record | {"keypoints": [[round(x, 2), round(y, 2), round(v, 4)] for x, y, v in points]}
            for record, points in zip(self.boxes.to_json(), self.keypoints.tolist(), strict=True)
        ]

    def to_supervision(self) -> supervision.Detections:
        """Convert to supervision.Detections, with `keypoints` (N, K, 3) in its data."""
        detections = self.boxes.to_supervision()
        detections.data["keypoints"] = self.keypoints.copy()
        return detections

    def draw(self, image: NDArray[np.uint8], track_ids: TrackIds = None) -> NDArray[np.uint8]:
        """A copy of the BGR image with skeletons, boxes, names and scores, a color for each object,
        or for each track where `track_ids` (N,) are given."""
        from rkzoo.vision.draw import boxes, skeletons

        colors = self._colors(track_ids)
        painted = boxes(image, self.xyxy, self.boxes.captions(track_ids), colors)
        return skeletons(
            painted, self.keypoints[..., :2], self.keypoints[..., 2] >= VISIBLE, colors
        )

    def lines(self) -> list[str]:
        """Text output for a terminal, one line per object."""
        seen = (self.keypoints[..., 2] >= VISIBLE).sum(axis=1).tolist()
        total = self.keypoints.shape[1]
        return [
            f"{line}  {count} of {total} points"
            for line, count in zip(self.boxes.lines(), seen, strict=True)
        ]
