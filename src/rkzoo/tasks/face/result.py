"""Results of face detection (boxes and five landmarks) and of face recognition (whose they are)."""

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


@dataclass(frozen=True, slots=True)
class RecognizedFaces(Faces):
    """Faces and whose they are: the classes of `boxes` are the known persons, and "unknown".

    Attributes:
        embeddings: (N, D) float32 of length 1.
        cosine: (N,) float32 in -1..1, to the nearest known face; None where no faces are known.
    """

    embeddings: NDArray[np.float32]
    cosine: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        if self.points.shape != (len(self.boxes), 5, 2) or len(self.embeddings) != len(self.boxes):
            raise ValueError("points must be (N, 5, 2) and embeddings (N, D), as many as boxes")
        if self.cosine is not None and self.cosine.shape != (len(self.boxes),):
            raise ValueError("cosine must be (N,)")

    def _take(self, rows: Rows) -> RecognizedFaces:
        cosine = None if self.cosine is None else self.cosine[rows]
        return RecognizedFaces(self.boxes[rows], self.points[rows], self.embeddings[rows], cosine)

    def record(self) -> dict[str, NDArray[Any]]:
        """The embedding of the best face, (D,) or none, for evaluation (accuracy/answers.py)."""
        return {"embedding": self.embeddings[:1].reshape(-1)}

    def to_json(self) -> list[dict[str, Any]]:
        """The records of the faces, each with `cosine`, or with `embedding` where none is known."""
        records = Faces.to_json(self)
        if self.cosine is None:
            return [
                record | {"embedding": [round(value, 6) for value in row]}
                for record, row in zip(records, self.embeddings.tolist(), strict=True)
            ]
        return [
            record | {"cosine": round(cosine, 4)}
            for record, cosine in zip(records, self.cosine.tolist(), strict=True)
        ]

    def draw(self, image: NDArray[np.uint8], track_ids: TrackIds = None) -> NDArray[np.uint8]:
        """As of faces; where some are known, the captions are names and cosines."""
        return self._shown().draw(image, track_ids)

    def lines(self) -> list[str]:
        """Text output for a terminal, one line per face: name and cosine, or the detector's score
        where none is known."""
        return self._shown().lines()

    def _shown(self) -> Faces:
        """The faces with their cosines in place of the detector's scores."""
        boxes = self.boxes
        score = boxes.score if self.cosine is None else self.cosine
        return Faces(Detections(boxes.xyxy, score, boxes.class_id, boxes.labels), self.points)
