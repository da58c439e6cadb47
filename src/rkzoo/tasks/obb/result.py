"""Oriented bounding box (OBB) result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rkzoo.tasks.collection import ClassifiedCollection, Rows, bounding_boxes
from rkzoo.tasks.detect.result import Detections, TrackIds

if TYPE_CHECKING:
    import supervision


@dataclass(frozen=True, slots=True)
class OrientedBoxes(ClassifiedCollection):
    """Oriented boxes of one image, best first.

    Attributes:
        boxes: (N, 5) float32 cx, cy, w, h in source-image pixels and the angle of side w in
            radians, clockwise on the screen. Not clipped to the image, since that would move the
            box (upstream clamps).
        score: (N,) float32 in 0..1.
        class_id: (N,) int32, index into `labels`.
        labels: class names; may be empty.
    """

    boxes: NDArray[np.float32]
    score: NDArray[np.float32]
    class_id: NDArray[np.int32]
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        n = len(self.boxes)
        if self.boxes.shape != (n, 5) or self.score.shape != (n,) or self.class_id.shape != (n,):
            raise ValueError("boxes must be (N, 5), score and class_id (N,)")

    def __len__(self) -> int:
        return len(self.boxes)

    def _take(self, rows: Rows) -> OrientedBoxes:
        return OrientedBoxes(self.boxes[rows], self.score[rows], self.class_id[rows], self.labels)

    @property
    def xyxy(self) -> NDArray[np.float32]:
        """Axis-aligned bounding boxes (N, 4), not clipped to the image."""
        return bounding_boxes(self.quads())

    @property
    def polygons(self) -> NDArray[np.float32]:
        """Corners, (N, 4, 2); same as `quads()`."""
        return self.quads()

    def quads(self) -> NDArray[np.float32]:
        """Corners x, y, clockwise on the screen: (N, 4, 2)."""
        from rkzoo.vision.rotated import corners

        return corners(self.boxes)

    def upright(self) -> Detections:
        """Axis-aligned bounding boxes as `Detections`, not clipped to the image."""
        return Detections(self.xyxy, self.score, self.class_id, self.labels)

    def record(self) -> dict[str, NDArray[Any]]:
        """Arrays for evaluation (accuracy/answers.py)."""
        return {"xywhr": self.boxes, "score": self.score, "class_id": self.class_id}

    def to_json(self) -> list[dict[str, Any]]:
        """One record per box: label, class_id, score, box [cx, cy, w, h] in pixels, angle in
        radians, corners [[x, y], ...].
        """
        return [
            record
            | {
                "box": [round(value, 2) for value in box[:4]],
                "angle": round(box[4], 5),
                "corners": [[round(x, 2), round(y, 2)] for x, y in quad],
            }
            for record, box, quad in zip(
                self.upright().to_json(), self.boxes.tolist(), self.quads().tolist(), strict=True
            )
        ]

    def to_supervision(self) -> supervision.Detections:
        """Convert to supervision.Detections: axis-aligned boxes, with the corners `xyxyxyxy` in its
        data."""
        detections = self.upright().to_supervision()
        detections.data["xyxyxyxy"] = self.quads()
        return detections

    def draw(self, image: NDArray[np.uint8], track_ids: TrackIds = None) -> NDArray[np.uint8]:
        """A copy of the BGR image with boxes, names and scores, colored by class, or by track
        where `track_ids` (N,) are given (0 for none)."""
        from rkzoo.vision.draw import rotated_boxes
        from rkzoo.vision.palettes import things

        by = self.class_id if track_ids is None else track_ids
        captions = self.upright().captions(track_ids)
        return rotated_boxes(image, self.quads(), captions, things(by.tolist()))

    def lines(self) -> list[str]:
        """Text output for a terminal, one line per box."""
        upright = self.upright()
        return [
            f"{upright.label(int(c)):<16} {s:.3f}  "
            f"({x:.0f}, {y:.0f}) {w:.0f}x{h:.0f} turned {np.degrees(a):.1f} degrees"
            for (x, y, w, h, a), s, c in zip(self.boxes, self.score, self.class_id, strict=True)
        ]
