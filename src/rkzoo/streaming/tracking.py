"""Multi-object tracking with ByteTrack, in numpy.

Written from the paper (Zhang et al., ByteTrack: Multi-Object Tracking by Associating Every
Detection Box, 2022). Each track has a constant-velocity Kalman filter of centre, width and height.
High-score boxes are matched first, then low-score boxes to the remaining tracks, so that a partly
occluded object keeps its id.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rkzoo.tasks.collection import Collection, Rows

Floats = NDArray[np.float64]

# Standard deviations per frame of position and velocity, relative to the box height.
_JUMP, _PUSH = 1 / 20, 1 / 160


@dataclass(frozen=True)
class TrackOptions:
    """Tracking thresholds.

    Attributes:
        sure: high score threshold, from which a box may start a track.
        unsure: low score threshold, below which a box is ignored.
        patience: frames that a track survives unmatched.
        overlap, overlap_unsure, overlap_new: minimum IoU to continue a track: with high-score
            boxes, with low-score boxes, and of a track seen only once.
    """

    high_threshold: float = 0.25
    low_threshold: float = 0.1
    track_buffer: int = 30
    match_iou: float = 0.2
    low_match_iou: float = 0.5
    new_match_iou: float = 0.3


class Tracker:
    """ByteTrack tracker. Construct once per stream, call once per frame, in order."""

    def __init__(self, options: TrackOptions | None = None) -> None:
        self.options = options or TrackOptions()
        self._next = 1
        self._first = True
        self._id = np.empty(0, np.int64)  # 0 while unconfirmed
        self._mean = np.empty((0, 4, 2))  # (tracks, cx cy w h, value and speed)
        self._spread = np.empty((0, 4, 2, 2))
        self._unseen = np.empty(0, np.int64)

    def __call__(self, xyxy: NDArray[Any], score: NDArray[Any]) -> NDArray[np.int64]:
        """Update with the boxes of a frame.

        Args:
            xyxy: (N, 4) x1, y1, x2, y2.
            score: (N,).

        Returns:
            Track id of each box from 1, (N,); 0 for none: a new box (confirmed when seen again; in
            the first frame at once), or a low-score box without a track.
        """
        boxes = np.asarray(xyxy, np.float64).reshape(-1, 4)
        scores = np.asarray(score, np.float64)
        # In the first frame tracks are confirmed at once.
        first, self._first = self._first, False
        self._predict()
        numbers = np.zeros(len(boxes), np.int64)
        sure = np.flatnonzero(scores >= self.options.high_threshold)
        unsure = np.flatnonzero(
            (scores < self.options.high_threshold) & (scores >= self.options.low_threshold)
        )
        known = np.flatnonzero(self._id > 0)
        new = np.flatnonzero(self._id == 0)
        seen: list[int] = []

        def associate(tracks: Any, chosen: Any, least: float) -> tuple[Any, Any]:
            rows, columns = match(self._iou(tracks, boxes[chosen]), least)
            for row, column in zip(rows, columns, strict=True):
                track, box = int(tracks[row]), int(chosen[column])
                self._see(track, boxes[box])
                seen.append(track)
                numbers[box] = self._id[track]
            return np.delete(tracks, rows), np.delete(chosen, columns)

        alone, sure = associate(known, sure, self.options.match_iou)
        recent = alone[self._unseen[alone] <= 1]
        associate(recent, unsure, self.options.low_match_iou)
        _, sure = associate(new, sure, self.options.new_match_iou)
        self._forget(seen)
        for box in sure:
            numbers[box] = self._begin(boxes[box], first)
        return numbers

    def _predict(self) -> None:
        """Kalman prediction of all tracks."""
        height = np.maximum(self._mean[:, 3, 0], 1.0)
        self._mean[:, :, 0] += self._mean[:, :, 1]
        move = np.array([[1.0, 1.0], [0.0, 1.0]])
        self._spread = move @ self._spread @ move.T
        self._spread[:, :, 0, 0] += ((_JUMP * height) ** 2)[:, None]
        self._spread[:, :, 1, 1] += ((_PUSH * height) ** 2)[:, None]
        self._unseen += 1

    def _see(self, track: int, box: Floats) -> None:
        """Kalman update; the four values are independent, so it is scalar four times."""
        mean, spread = self._mean[track], self._spread[track]
        noise = (_JUMP * max(float(mean[3, 0]), 1.0)) ** 2
        gain = spread[:, :, 0] / (spread[:, 0, 0] + noise)[:, None]
        mean += gain * (_centred(box) - mean[:, 0])[:, None]
        spread -= gain[:, :, None] * spread[:, 0:1, :]
        self._unseen[track] = 0
        if not self._id[track]:
            self._id[track] = self._number()

    def _begin(self, box: Floats, at_once: bool) -> int:
        number = self._number() if at_once else 0
        height = max(float(box[3] - box[1]), 1.0)
        spread = np.zeros((1, 4, 2, 2))
        spread[:, :, 0, 0] = (2 * _JUMP * height) ** 2
        spread[:, :, 1, 1] = (10 * _PUSH * height) ** 2
        mean = np.stack((_centred(box), np.zeros(4)), axis=1)[None]
        self._id = np.append(self._id, number)
        self._unseen = np.append(self._unseen, 0)
        self._mean = np.concatenate((self._mean, mean))
        self._spread = np.concatenate((self._spread, spread))
        return number

    def _forget(self, seen: list[int]) -> None:
        """Drop tracks unseen for too long, and unconfirmed ones that were not seen again."""
        keep = (self._unseen <= self.options.track_buffer) & ((self._id > 0) | (self._unseen == 0))
        self._id, self._unseen = self._id[keep], self._unseen[keep]
        self._mean, self._spread = self._mean[keep], self._spread[keep]

    def _number(self) -> int:
        self._next += 1
        return self._next - 1

    def _iou(self, tracks: NDArray[Any], boxes: Floats) -> Floats:
        """IoU (tracks, boxes) of the predicted boxes with the given ones."""
        middle, size = self._mean[tracks, :2, 0], self._mean[tracks, 2:, 0]
        return iou(np.concatenate((middle - size / 2, middle + size / 2), axis=1), boxes)


def iou(a: Floats, b: Floats) -> Floats:
    """IoU (N, M) of boxes x1, y1, x2, y2."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    inter = np.prod(np.clip(high - low, 0, None), axis=2)
    area_a, area_b = (np.prod(np.clip(x[:, 2:] - x[:, :2], 0, None), axis=1) for x in (a, b))
    return np.asarray(inter / np.maximum(area_a[:, None] + area_b[None] - inter, 1e-9))


def match(overlap: Floats, least: float) -> tuple[list[int], list[int]]:
    """Greedy one-to-one matching (rows, columns) by descending overlap, at least `least`."""
    rows, columns = np.nonzero(overlap >= least)
    best = np.argsort(-overlap[rows, columns], kind="stable")
    taken_rows: dict[int, int] = {}
    taken_columns: set[int] = set()
    for row, column in zip(rows[best].tolist(), columns[best].tolist(), strict=True):
        if row not in taken_rows and column not in taken_columns:
            taken_rows[row] = column
            taken_columns.add(column)
    return list(taken_rows), list(taken_rows.values())


def _centred(box: Floats) -> Floats:
    return np.array(
        [(box[0] + box[2]) / 2, (box[1] + box[3]) / 2, box[2] - box[0], box[3] - box[1]]
    )


@dataclass(frozen=True)
class Tracked(Collection):
    """A result with track ids. `found` is the task's result, `ids` (N,) int64 the track ids, 0 for
    none."""

    prediction: Any
    ids: NDArray[np.int64]

    @property
    def track_ids(self) -> NDArray[np.int64]:
        """Track ids, (N,); same as `ids`."""
        return self.ids

    @property
    def xyxy(self) -> NDArray[np.float32]:
        """Axis-aligned boxes (N, 4) x1, y1, x2, y2 in source-image pixels."""
        return corners(self.prediction)

    @property
    def scores(self) -> NDArray[np.float32]:
        """Scores (N,) in 0..1."""
        return score(self.prediction)

    @property
    def class_ids(self) -> NDArray[np.int32]:
        """Class indices (N,) int32."""
        return np.asarray(as_boxes(self.prediction).class_id, np.int32)

    @property
    def names(self) -> list[str]:
        """The class name of each item, or the class index as text where it has no name."""
        return list(as_boxes(self.prediction).names)

    def __len__(self) -> int:
        return len(self.prediction)

    def _take(self, rows: Rows) -> Tracked:
        return Tracked(self.prediction[rows], self.ids[rows])

    def to_json(self) -> list[dict[str, Any]]:
        """The task's records, each with `track` (null for none)."""
        return [
            record | {"track": int(number) or None}
            for record, number in zip(self.prediction.to_json(), self.ids, strict=True)
        ]

    def lines(self) -> list[str]:
        return [
            f"#{number:<4} {line}"
            for number, line in zip(self.ids.tolist(), self.prediction.lines(), strict=True)
        ]

    def draw(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The task's drawing, with track ids in the captions and a color for each track."""
        drawn: NDArray[np.uint8] = self.prediction.draw(image, self.ids)
        return drawn


class TrackedStream:
    """Adds track ids to the results of one stream, for any task with boxes."""

    def __init__(self, options: TrackOptions | None = None) -> None:
        self._tracker = Tracker(options)

    def __call__(self, prediction: Any) -> Tracked:
        """Update with a result. Low-score boxes without a track are dropped."""
        scores = score(prediction)
        ids = self._tracker(corners(prediction), scores)
        keep = np.flatnonzero((scores >= self._tracker.options.high_threshold) | (ids > 0))
        return Tracked(prediction[keep], ids[keep])


def can_track(prediction: Any) -> bool:
    """Whether a result has boxes to track."""
    return hasattr(as_boxes(prediction), "xyxy")


def score(prediction: Any) -> NDArray[np.float32]:
    """Scores (N,) of a result with boxes."""
    return np.asarray(as_boxes(prediction).score, np.float32)


def corners(prediction: Any) -> NDArray[np.float32]:
    """Axis-aligned boxes (N, 4) x1, y1, x2, y2 in source-image pixels."""
    return np.asarray(as_boxes(prediction).xyxy, np.float32)


def as_boxes(prediction: Any) -> Any:
    """A result's boxes as Detections: `boxes` of masks and poses, bounding boxes of rotated ones. A
    result without boxes is returned unchanged.
    """
    if hasattr(prediction, "upright"):
        return prediction.upright()
    inner = getattr(prediction, "boxes", None)
    return inner if hasattr(inner, "xyxy") else prediction
