"""Multi-object tracking with ByteTrack, in numpy.

Written from the paper (Zhang et al., ByteTrack: Multi-Object Tracking by Associating Every
Detection Box, 2022). Each track has a constant-velocity Kalman filter of centre, width and height.
High-score boxes are matched first, then low-score boxes to the remaining tracks, so that a partly
occluded object keeps its id.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rkzoo.streaming.appearance import (
    AppearanceOptions,
    Describe,
    averaged,
    disputed,
    fused,
    second_best,
    within_reach,
)
from rkzoo.tasks.collection import Collection, Rows

Floats = NDArray[np.float64]
Looks = dict[int, Floats]  # embeddings (D,) by the index of their box

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


_MOST_LOST = 256  # tracks that are kept for their looks alone


class Tracker:
    """ByteTrack tracker, with appearance as in BoT-SORT where a frame gives it. Construct once per
    stream, call once per frame, in order."""

    def __init__(
        self,
        options: TrackOptions | None = None,
        appearance: AppearanceOptions | None = None,
    ) -> None:
        self.options = options or TrackOptions()
        self.appearance = appearance or AppearanceOptions()
        self._next = 1
        self._first = True
        self._id = np.empty(0, np.int64)  # 0 while unconfirmed
        self._mean = np.empty((0, 4, 2))  # (tracks, cx cy w h, value and speed)
        self._spread = np.empty((0, 4, 2, 2))
        self._unseen = np.empty(0, np.int64)
        self._looks = np.empty((0, 0))  # (tracks, D), of length 1; 0 where not looked at yet
        self._looked = np.empty(0, np.int64)  # frames since then

    def __call__(
        self,
        xyxy: NDArray[Any],
        score: NDArray[Any],
        describe: Describe | None = None,
        visible: NDArray[np.bool_] | None = None,
    ) -> NDArray[np.int64]:
        """Update with the boxes of a frame.

        Args:
            xyxy: (N, 4) x1, y1, x2, y2.
            score: (N,).
            describe: gives embeddings of boxes by their indices; asked once at the most, for
                those whose track is not plain. None: overlap alone decides.
            visible: (N,) boxes that `describe` knows; None for all.

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
        known = np.flatnonzero((self._id > 0) & (self._unseen <= self.options.track_buffer))
        new = np.flatnonzero(self._id == 0)
        seen: list[int] = []

        def associate(tracks: Any, chosen: Any, alike: Floats, least: float) -> tuple[Any, Any]:
            rows, columns = match(alike, least)
            for row, column in zip(rows, columns, strict=True):
                track, box = int(tracks[row]), int(chosen[column])
                self._see(track, boxes[box])
                seen.append(track)
                numbers[box] = self._id[track]
            return np.delete(tracks, rows), np.delete(chosen, columns)

        alike = self._iou(known, boxes[sure])
        looks: Looks = {}
        if describe is not None:
            looks = self._look(known, sure, alike, describe, visible)
            alike = fused(alike, self._distance(known, sure, looks), self.appearance)
        alone, sure = associate(known, sure, alike, self.options.match_iou)
        recent = alone[self._unseen[alone] <= 1]
        associate(recent, unsure, self._iou(recent, boxes[unsure]), self.options.low_match_iou)
        if looks:
            sure = self._find_again(sure, boxes, looks, seen, numbers)
        _, sure = associate(new, sure, self._iou(new, boxes[sure]), self.options.new_match_iou)
        if looks:
            self._learn(numbers, boxes, looks)
        self._forget(seen)
        for box in sure:
            numbers[box] = self._begin(boxes[box], first)
        return numbers

    def _look(
        self,
        known: NDArray[Any],
        sure: NDArray[Any],
        overlap: Floats,
        describe: Describe,
        visible: NDArray[np.bool_] | None,
    ) -> Looks:
        """Embeddings of those boxes whose track is not plain, or was not looked at for long."""
        lost = bool((self._unseen[self._id > 0] > 1).any())
        need = disputed(overlap, self.options.match_iou)
        need &= (overlap >= self.options.match_iou).any(axis=0) | lost
        old = self._looked[known] >= self.appearance.refresh
        need |= ((overlap >= self.options.match_iou) & old[:, None]).any(axis=0)
        if visible is not None:
            need &= visible[sure]
        wanted = sure[need]
        if not len(wanted):
            return {}
        rows = np.asarray(describe(wanted), np.float64)
        if self._looks.shape[1] != rows.shape[1]:
            self._looks = np.zeros((len(self._id), rows.shape[1]))
        return dict(zip(wanted.tolist(), rows, strict=True))

    def _distance(self, tracks: NDArray[Any], boxes: NDArray[Any], looks: Looks) -> Floats:
        """Cosine distance (tracks, boxes); NaN where one of both was not looked at."""
        distance = np.full((len(tracks), len(boxes)), np.nan)
        columns = [i for i, box in enumerate(boxes.tolist()) if box in looks]
        if columns and len(tracks):
            rows = np.stack([looks[int(boxes[i])] for i in columns])
            distance[:, columns] = 1 - self._looks[tracks] @ rows.T
            distance[~self._looks[tracks].any(axis=1)] = np.nan
        return distance

    def _find_again(
        self,
        sure: NDArray[Any],
        boxes: Floats,
        looks: Looks,
        seen: list[int],
        numbers: NDArray[np.int64],
    ) -> NDArray[Any]:
        """Give boxes without a track those of lost tracks that look alike; the boxes left over."""
        gone = self._unseen > 1
        gone[seen] = False
        lost = np.flatnonzero((self._id > 0) & gone)
        distance = self._distance(lost, sure, looks)
        centred = (
            np.stack([_centred(boxes[box]) for box in sure]) if len(sure) else np.empty((0, 4))
        )
        near = within_reach(self._mean[lost, :, 0], self._unseen[lost], centred, self.appearance)
        all_known = self._distance(np.flatnonzero(self._id > 0), sure, looks)
        plain = distance <= self.appearance.ratio * second_best(all_known)
        alike = np.where(near & plain & ~np.isnan(distance), 1 - distance, -1.0)
        rows, columns = match(alike, 1 - self.appearance.max_distance)
        for row, column in zip(rows, columns, strict=True):
            track, box = int(lost[row]), int(sure[column])
            # Where it is now says nothing of how it came there.
            self._mean[track], self._spread[track] = _begun(boxes[box])
            self._unseen[track] = 0
            seen.append(track)
            numbers[box] = self._id[track]
        return np.delete(sure, columns)

    def _learn(self, numbers: NDArray[np.int64], boxes: Floats, looks: Looks) -> None:
        """Keep the looks of boxes that have a track and are not covered by another."""
        chosen = np.fromiter(looks, np.intp, len(looks))
        covering = iou(boxes[chosen], boxes)
        covering[np.arange(len(chosen)), chosen] = 0
        for box, most in zip(chosen.tolist(), covering.max(axis=1, initial=0), strict=True):
            if not numbers[box]:
                continue
            track = int(np.flatnonzero(self._id == numbers[box])[0])
            if not self._looks[track].any():
                self._looks[track] = looks[box]
            elif most <= self.appearance.covered:
                self._looks[track] = averaged(
                    self._looks[track], looks[box], self.appearance.momentum
                )
            self._looked[track] = 0

    def _predict(self) -> None:
        """Kalman prediction of all tracks."""
        height = np.maximum(self._mean[:, 3, 0], 1.0)
        self._mean[:, :, 0] += self._mean[:, :, 1]
        move = np.array([[1.0, 1.0], [0.0, 1.0]])
        self._spread = move @ self._spread @ move.T
        self._spread[:, :, 0, 0] += ((_JUMP * height) ** 2)[:, None]
        self._spread[:, :, 1, 1] += ((_PUSH * height) ** 2)[:, None]
        self._unseen += 1
        self._looked += 1

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
        mean, spread = _begun(box)
        self._id = np.append(self._id, number)
        self._unseen = np.append(self._unseen, 0)
        self._mean = np.concatenate((self._mean, mean[None]))
        self._spread = np.concatenate((self._spread, spread[None]))
        self._looks = np.concatenate((self._looks, np.zeros((1, self._looks.shape[1]))))
        self._looked = np.append(self._looked, self.appearance.refresh)
        return number

    def _forget(self, seen: list[int]) -> None:
        """Drop tracks unseen for too long, and unconfirmed ones that were not seen again."""
        looked = self._looks.any(axis=1) if self._looks.shape[1] else np.zeros(len(self._id), bool)
        patience = np.where(looked, max(self.appearance.buffer, self.options.track_buffer),
                            self.options.track_buffer)  # fmt: skip
        keep = (self._unseen <= patience) & ((self._id > 0) | (self._unseen == 0))
        beyond = np.flatnonzero(keep & (self._unseen > self.options.track_buffer))
        if len(beyond) > _MOST_LOST:
            longest = np.argsort(-self._unseen[beyond], kind="stable")
            keep[beyond[longest[: len(beyond) - _MOST_LOST]]] = False
        self._id, self._unseen = self._id[keep], self._unseen[keep]
        self._mean, self._spread = self._mean[keep], self._spread[keep]
        self._looks, self._looked = self._looks[keep], self._looked[keep]

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


def _begun(box: Floats) -> tuple[Floats, Floats]:
    """Mean (4, 2) and spread (4, 2, 2) of a track that begins with a box."""
    height = max(float(box[3] - box[1]), 1.0)
    spread = np.zeros((4, 2, 2))
    spread[:, 0, 0] = (2 * _JUMP * height) ** 2
    spread[:, 1, 1] = (10 * _PUSH * height) ** 2
    return np.stack((_centred(box), np.zeros(4)), axis=1), spread


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


Embed = Callable[[NDArray[np.uint8], NDArray[np.float32]], Floats]
"""A BGR image (H, W, 3) and boxes (K, 4) in it to embeddings (K, D) of length 1."""


class TrackedStream:
    """Adds track ids to the results of one stream, for any task with boxes."""

    def __init__(
        self,
        options: TrackOptions | None = None,
        embed: Embed | None = None,
        names: Container[str] | None = None,
        appearance: AppearanceOptions | None = None,
    ) -> None:
        """`embed` says what boxes look like, those of the classes `names`; None for all."""
        self._tracker = Tracker(options, appearance)
        self._embed, self._names = embed, names

    def __call__(self, prediction: Any, image: NDArray[np.uint8] | None = None) -> Tracked:
        """Update with a result, and the BGR image (H, W, 3) that it is of. Low-score boxes without
        a track are dropped."""
        scores, boxes = score(prediction), corners(prediction)
        describe: Describe | None = None
        visible: NDArray[np.bool_] | None = None
        if self._embed is not None and image is not None:
            embed, seen = self._embed, image
            describe = lambda rows: embed(seen, boxes[rows])  # noqa: E731
            if self._names is not None:
                named = as_boxes(prediction).names
                visible = np.array([name in self._names for name in named], bool)
        ids = self._tracker(boxes, scores, describe, visible)
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
