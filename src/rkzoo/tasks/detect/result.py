"""Object detection result, stored as arrays."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rkzoo.errors import RkzooError
from rkzoo.tasks.collection import ClassifiedCollection, Collection, Rows

if TYPE_CHECKING:
    import supervision

TrackIds = NDArray[np.int64] | None


@dataclass(frozen=True, slots=True)
class Detections(ClassifiedCollection):
    """Detected boxes of one image, best first.

    Attributes:
        xyxy: (N, 4) float32, x1, y1, x2, y2 in source-image pixels.
        score: (N,) float32 in 0..1.
        class_id: (N,) int32, index into `labels`.
        labels: class names; may be empty.
    """

    xyxy: NDArray[np.float32]
    score: NDArray[np.float32]
    class_id: NDArray[np.int32]
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        n = len(self.xyxy)
        if self.xyxy.shape != (n, 4) or self.score.shape != (n,) or self.class_id.shape != (n,):
            raise ValueError("xyxy must be (N, 4), score and class_id (N,)")

    def __len__(self) -> int:
        return len(self.xyxy)

    def _take(self, rows: Rows) -> Detections:
        return Detections(self.xyxy[rows], self.score[rows], self.class_id[rows], self.labels)

    @property
    def boxes(self) -> NDArray[np.float32]:
        """Boxes, (N, 4) x1, y1, x2, y2 in source-image pixels; same as `xyxy`."""
        return self.xyxy

    def label(self, class_id: int) -> str:
        """Name of a class, or its index as text where it has no name."""
        return self.labels[class_id] if class_id < len(self.labels) else str(class_id)

    def record(self) -> dict[str, NDArray[Any]]:
        """Arrays for evaluation (accuracy/answers.py)."""
        return {"xyxy": self.xyxy, "score": self.score, "class_id": self.class_id}

    def to_json(self) -> list[dict[str, Any]]:
        """One record per box: label, class_id, score, box [x1, y1, x2, y2] in pixels."""
        return [
            {
                "label": self.label(int(class_id)),
                "class_id": int(class_id),
                "score": round(float(score), 4),
                "box": [round(float(value), 2) for value in box],
            }
            for box, score, class_id in zip(self.xyxy, self.score, self.class_id, strict=True)
        ]

    def to_supervision(self) -> supervision.Detections:
        """Convert to supervision.Detections, with `class_name` in its data. Raises RkzooError where
        the package supervision is missing."""
        sv = _supervision()
        names = np.array([self.label(int(c)) for c in self.class_id], dtype=str)
        detections: supervision.Detections = sv.Detections(
            xyxy=self.xyxy.copy(),
            confidence=self.score.copy(),
            class_id=self.class_id.astype(int),
            data={"class_name": names},
        )
        return detections

    def captions(self, track_ids: TrackIds = None) -> list[str]:
        """Label and score of each box, as drawn, after the number of its track."""
        texts = [
            f"{self.label(int(c))} {s:.2f}" for c, s in zip(self.class_id, self.score, strict=True)
        ]
        if track_ids is None:
            return texts
        return [
            f"#{track} {text}" if track else text
            for track, text in zip(track_ids.tolist(), texts, strict=True)
        ]

    def draw(self, image: NDArray[np.uint8], track_ids: TrackIds = None) -> NDArray[np.uint8]:
        """A copy of the BGR image with boxes, labels and scores, colored by class, or by track
        where `track_ids` (N,) are given (0 for none)."""
        from rkzoo.vision.draw import boxes
        from rkzoo.vision.palettes import things

        by = self.class_id if track_ids is None else track_ids
        return boxes(image, self.xyxy, self.captions(track_ids), things(by.tolist()))

    def lines(self) -> list[str]:
        """Text output for a terminal, one line per box."""
        return [
            f"{self.label(int(c)):<16} {s:.3f}  ({x1:.0f}, {y1:.0f}, {x2:.0f}, {y2:.0f})"
            for (x1, y1, x2, y2), s, c in zip(self.xyxy, self.score, self.class_id, strict=True)
        ]


def _supervision() -> ModuleType:
    try:
        return import_module("supervision")
    except ImportError as error:
        raise RkzooError(
            "The boxes cannot be given as supervision.Detections.",
            f"The package supervision is not installed ({error}).",
            # Before 0.30 it asks for opencv-python, whose files are those of the headless one.
            'Install it with: pip install "supervision>=0.30"',
        ) from error


class BoxCollection(Collection):
    """Base class of results with boxes and more; exposes the arrays of `boxes` under the same
    names."""

    __slots__ = ()

    boxes: Detections

    def __len__(self) -> int:
        return len(self.boxes)

    @property
    def xyxy(self) -> NDArray[np.float32]:
        """Boxes (N, 4) x1, y1, x2, y2 in source-image pixels."""
        return self.boxes.xyxy

    @property
    def scores(self) -> NDArray[np.float32]:
        """Scores (N,) float32 in 0..1."""
        return self.boxes.score

    @property
    def class_ids(self) -> NDArray[np.int32]:
        """Class indices (N,) int32."""
        return self.boxes.class_id

    @property
    def names(self) -> list[str]:
        """The class name of each item, or the class index as text where it has no name."""
        return self.boxes.names

    def _colors(self, track_ids: TrackIds) -> list[tuple[int, int, int]]:
        """A color for each item, so that two of a class can be told apart."""
        from rkzoo.vision.palettes import things

        return things(range(len(self)) if track_ids is None else track_ids.tolist())
