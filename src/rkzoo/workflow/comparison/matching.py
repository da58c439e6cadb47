"""Item-by-item matching of two results for one image: kept, changed, lost, new."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rkzoo.accuracy.resampling import FEW, interval, of_sums
from rkzoo.tasks.classify.result import Classes
from rkzoo.tasks.detect.result import Detections
from rkzoo.tasks.face.result import Faces
from rkzoo.tasks.obb.result import OrientedBoxes
from rkzoo.tasks.pose.result import VISIBLE, Poses
from rkzoo.tasks.segment.result import Masks
from rkzoo.tasks.text.detect_text import TextBoxes
from rkzoo.tasks.text.quads import overlap as quad_overlap
from rkzoo.tasks.text.result import TextLines

F64 = NDArray[np.float64]

LEAST_IOU = 0.5
# A score change up to this is no loss, even across the threshold.
SMALL = 0.1
_HURT_SHARE, _HURT_CHANGE, _HURT_IOU = 0.9, 0.05, 0.85


@dataclass(frozen=True)
class MatchedPair:
    """One item in float (`before`) and on the other backend (`after`).

    Attributes:
        label: class name, or the text read by float.
        box: x1, y1, x2, y2 in source-image pixels, of float where it has the item.
        before, after: scores; None where not found, not even at half the threshold.
        iou: IoU of the boxes.
        mask_iou: IoU of the masks.
        points_px: mean distance of the keypoints visible in float, in source-image pixels.
        text: text read by the other backend.
    """

    label: str
    box: tuple[float, float, float, float]
    before: float | None
    after: float | None
    iou: float | None = None
    mask_iou: float | None = None
    points_px: float | None = None
    text: str | None = None

    @property
    def change(self) -> float | None:
        """Score change; None where there is only one score."""
        return None if self.before is None or self.after is None else self.after - self.before

    @property
    def small(self) -> bool:
        """Whether the score change is negligible."""
        return self.change is not None and abs(self.change) <= SMALL


@dataclass(frozen=True)
class Matches:
    """Items of one image: found by both, only by float, only by the other. The last two keep the
    other's score where it is just below the threshold.
    """

    found: tuple[MatchedPair, ...] = ()
    lost: tuple[MatchedPair, ...] = ()
    new: tuple[MatchedPair, ...] = ()

    @property
    def things(self) -> int:
        """Number of items."""
        return len(self.found) + len(self.lost) + len(self.new)

    @property
    def serious(self) -> tuple[MatchedPair, ...]:
        """Lost or new items, without those that only cross the threshold by a small score
        change.
        """
        return tuple(pair for pair in (*self.lost, *self.new) if not pair.small)


@dataclass(frozen=True)
class Agreement:
    """All images of one backend. `share` of items that both find, small score changes included;
    means are over items found by both, None where there are none. `share_interval`: ends of the
    share's 95 % interval, by a bootstrap over the pictures; None with fewer than FEW of them,
    where it says little, or without items.
    """

    things: int
    found: int
    lost: int
    new: int
    share: float
    iou: float | None
    change: float | None
    largest_change: float | None
    mask_iou: float | None = None
    points_px: float | None = None
    same_text: int | None = None
    pictures: int = 0
    share_interval: tuple[float, float] | None = None


def summed(matches: Sequence[Matches]) -> Agreement:
    """Aggregate the matches of all images."""
    pairs = [pair for match in matches for pair in match.found]
    things = sum(match.things for match in matches)
    serious = sum(len(match.serious) for match in matches)
    changes = [abs(pair.change) for pair in pairs if pair.change is not None]
    texts = [pair for pair in pairs if pair.text is not None]
    return Agreement(
        things=things,
        found=len(pairs),
        lost=sum(len(match.lost) for match in matches),
        new=sum(len(match.new) for match in matches),
        share=1 - serious / things if things else 1.0,
        iou=_mean([pair.iou for pair in pairs]),
        change=_mean(changes),
        largest_change=max(changes, default=None),
        mask_iou=_mean([pair.mask_iou for pair in pairs]),
        points_px=_mean([pair.points_px for pair in pairs]),
        same_text=sum(pair.text == pair.label for pair in texts) if texts else None,
        pictures=len(matches),
        share_interval=_share_interval(matches),
    )


def _share_interval(matches: Sequence[Matches]) -> tuple[float, float] | None:
    if len(matches) < FEW or not any(match.things for match in matches):
        return None
    rows = [(len(match.serious), match.things) for match in matches]
    return interval(of_sums(rows, lambda sums: 1 - sums[:, 0] / sums[:, 1]).values)


def disagrees(agreement: Agreement) -> bool:
    """Whether results differ significantly."""
    alike = None
    if agreement.same_text is not None and agreement.found:
        alike = agreement.same_text / agreement.found
    least = (
        (agreement.share, _HURT_SHARE),
        (alike, _HURT_SHARE),
        (agreement.iou, _HURT_IOU),
        (agreement.mask_iou, _HURT_IOU),
    )
    low = any(value is not None and value < limit for value, limit in least)
    return low or (agreement.change or 0) > _HURT_CHANGE


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def compared(a: Any, b: Any, threshold: float) -> Matches:
    """Match the float result `a` with `b`, both of one type and computed at `threshold` or lower.

    Items are matched one to one by descending IoU within their class, at least LEAST_IOU. Items
    below the threshold count only as partners of items above it.
    """
    predictions, other = _predictions_of(a), _predictions_of(b)
    pairs = matched(_overlaps(predictions, other), LEAST_IOU)
    matched_pairs: list[MatchedPair] = []
    lost: list[MatchedPair] = []
    new: list[MatchedPair] = []
    for i, j, iou in pairs:
        before, after = float(predictions.scores[i]), float(other.scores[j])
        pair = MatchedPair(
            predictions.labels[i],
            _box(predictions, i),
            before,
            after,
            iou,
            _mask_iou(a, i, b, j),
            _points(a, i, b, j),
            other.labels[j] if predictions.texts else None,
        )
        sure = before >= threshold, after >= threshold
        if all(sure):
            matched_pairs.append(pair)
        elif any(sure):
            (lost if sure[0] else new).append(pair)
    for i in _left(len(predictions.scores), [i for i, _, _ in pairs]):
        if predictions.scores[i] >= threshold:
            lost.append(
                MatchedPair(
                    predictions.labels[i], _box(predictions, i), float(predictions.scores[i]), None
                )
            )
    for j in _left(len(other.scores), [j for _, j, _ in pairs]):
        if other.scores[j] >= threshold:
            new.append(MatchedPair(other.labels[j], _box(other, j), None, float(other.scores[j])))
    return Matches(tuple(matched_pairs), tuple(lost), tuple(new))


def above(prediction: Any, threshold: float) -> Any:
    """Items of a result that reach the threshold."""
    scores = _predictions_of(prediction).scores
    return prediction[np.flatnonzero(scores >= np.float32(threshold))]


@dataclass(frozen=True)
class _Predictions:
    """Any result as corners (N, 4, 2), scores (N,), labels, and groups within which items may
    match."""

    quads: NDArray[Any]
    scores: NDArray[np.float32]
    labels: tuple[str, ...]
    groups: NDArray[Any]
    upright: bool = False
    texts: bool = False


def _predictions_of(prediction: Any) -> _Predictions:
    if isinstance(prediction, TextLines):
        none = np.zeros(len(prediction), np.int32)
        return _Predictions(prediction.quads, prediction.scores, prediction.texts, none, texts=True)
    if isinstance(prediction, TextBoxes):
        none = np.zeros(len(prediction), np.int32)
        return _Predictions(prediction.quads, prediction.scores, ("text",) * len(prediction), none)
    if isinstance(prediction, Classes):
        # The whole image is one item for each output, labelled with its best class.
        best = prediction.best()
        whole = np.tile(np.array([[[0, 0], [1, 0], [1, 1], [0, 1]]], np.float32), (len(best), 1, 1))
        names = tuple(best.label(c) for c in best.class_id.tolist())
        return _Predictions(whole, best.score, names, np.arange(len(best)), True, texts=True)
    boxes = prediction.boxes if isinstance(prediction, Masks | Poses | Faces) else prediction
    named: Detections = boxes.upright() if isinstance(boxes, OrientedBoxes) else boxes
    labels = tuple(named.label(int(c)) for c in named.class_id)
    if isinstance(boxes, OrientedBoxes):
        return _Predictions(boxes.quads(), boxes.score, labels, boxes.class_id)
    x1, y1, x2, y2 = boxes.xyxy.T
    quads = np.stack((x1, y1, x2, y1, x2, y2, x1, y2), axis=1).reshape(-1, 4, 2)
    return _Predictions(quads, boxes.score, labels, boxes.class_id, upright=True)


def _overlaps(a: _Predictions, b: _Predictions) -> F64:
    """IoU (N, M); 0 across classes."""
    shared = iou(_boxes(a), _boxes(b)) if a.upright else quad_overlap(a.quads, b.quads)
    return np.asarray(np.where(a.groups[:, None] == b.groups[None], shared, 0), np.float64)


def _boxes(things: _Predictions) -> F64:
    """Axis-aligned bounding boxes (N, 4)."""
    quads = things.quads.astype(np.float64)
    return np.concatenate((quads.min(axis=1), quads.max(axis=1)), axis=1)


def _box(things: _Predictions, index: int) -> tuple[float, float, float, float]:
    x1, y1 = things.quads[index].min(axis=0).tolist()
    x2, y2 = things.quads[index].max(axis=0).tolist()
    return x1, y1, x2, y2


def iou(a: F64, b: F64) -> F64:
    """IoU (N, M) of boxes (N, 4) and (M, 4) x1, y1, x2, y2; 0 for a box without area."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = np.maximum(high - low, 0).prod(axis=2)
    areas = [np.maximum(x[:, 2:] - x[:, :2], 0).prod(axis=1) for x in (a, b)]
    joined = areas[0][:, None] + areas[1][None] - shared
    return np.asarray(np.divide(shared, joined, out=np.zeros_like(shared), where=joined > 0))


def matched(overlaps: F64, least: float) -> list[tuple[int, int, float]]:
    """Greedy one-to-one matching (row, column, overlap) of at least `least`, by descending
    overlap.
    """
    rows, columns = np.nonzero(overlaps >= max(least, 1e-9))
    order = np.argsort(-overlaps[rows, columns], kind="stable")
    used: tuple[set[int], set[int]] = set(), set()
    pairs = []
    for i, j in zip(rows[order].tolist(), columns[order].tolist(), strict=True):
        if i not in used[0] and j not in used[1]:
            used[0].add(i)
            used[1].add(j)
            pairs.append((i, j, float(overlaps[i, j])))
    return pairs


def _left(count: int, used: Sequence[int]) -> Iterator[int]:
    taken = set(used)
    return (index for index in range(count) if index not in taken)


def _mask_iou(a: Any, i: int, b: Any, j: int) -> float | None:
    if not isinstance(a, Masks):
        return None
    (ax, ay), (bx, by) = a.corners[i].tolist(), b.corners[j].tolist()
    crop_a, crop_b = a.crops[i], b.crops[j]
    left, top = max(ax, bx), max(ay, by)
    right = min(ax + crop_a.shape[1], bx + crop_b.shape[1])
    bottom = min(ay + crop_a.shape[0], by + crop_b.shape[0])
    shared = 0
    if right > left and bottom > top:
        first = crop_a[top - ay : bottom - ay, left - ax : right - ax]
        second = crop_b[top - by : bottom - by, left - bx : right - bx]
        shared = int(np.count_nonzero(first & second))
    joined = int(np.count_nonzero(crop_a)) + int(np.count_nonzero(crop_b)) - shared
    return shared / joined if joined else 1.0


def _points(a: Any, i: int, b: Any, j: int) -> float | None:
    if isinstance(a, Faces):
        return float(np.linalg.norm(a.points[i] - b.points[j], axis=1).mean())
    if not isinstance(a, Poses):
        return None
    seen = a.keypoints[i, :, 2] >= VISIBLE
    if not seen.any():
        return None
    away = a.keypoints[i, seen, :2] - b.keypoints[j, seen, :2]
    return float(np.linalg.norm(away, axis=1).mean())
