"""COCO mean average precision (mAP), vectorized.

Numerically identical to pycocotools; the caller supplies the overlap (IoU of boxes, masks or
rotated boxes, or OKS of keypoints).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
Bools = NDArray[np.bool_]

IOUS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
# pycocotools' upper limit of the threshold.
_NEARLY_ONE = 1 - 1e-10
_EPSILON = float(np.spacing(1))

Overlap = Callable[[I64, I64], F64]
"""Overlaps (P,) of the detections with indices a (P,) and the objects with indices b (P,)."""


@dataclass(frozen=True)
class GroundTruths:
    """Ground-truth objects, one row each.

    `ignored` objects count neither as hit nor as miss; `crowd` objects are ignored too, and may
    match any number of detections. `area` is in square pixels.
    """

    picture: I64
    category: I64
    area: F64
    ignored: Bools
    crowd: Bools


@dataclass(frozen=True)
class Predictions:
    """Detections, one row each, in any order; `score` any finite."""

    picture: I64
    category: I64
    score: F64
    area: F64


@dataclass(frozen=True)
class MatchProtocol:
    """Evaluation parameters.

    Attributes:
        most: maximum detections per category and image, ascending; precision uses the last.
        areas: area ranges in square pixels; the first covers all.
    """

    most: tuple[int, ...]
    areas: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Curves:
    """Precision and recall; -1 where a category has no object in the area range.

    Attributes:
        precision: (T, R, K, A) at the thresholds IOUS and the recalls RECALLS, per category and
            area range.
        recall: (T, K, A, M) per maximum number of detections.
        resampled: `ap()` where image i counts counts[i] times, of many counts (R, images): (R,);
            NaN without any object.
    """

    precision: F64
    recall: F64
    resampled: Callable[[I64], F64] = field(compare=False, repr=False)

    def ap(self, area: int = 0, iou: float | None = None) -> float:
        """Average precision, mean over categories, at one IoU threshold or all; -1 for none."""
        return _mean(self.precision[_threshold(iou), :, :, area])

    def ar(self, area: int = 0, most: int = -1, iou: float | None = None) -> float:
        """Average recall, likewise; `most` indexes the protocol's detection limits."""
        return _mean(self.recall[_threshold(iou), :, area, most])


def _threshold(iou: float | None) -> slice:
    if iou is None:
        return slice(None)
    place = int(np.flatnonzero(np.isclose(iou, IOUS))[0])
    return slice(place, place + 1)


def _mean(values: F64) -> float:
    counted = values[values > -1]
    return float(counted.mean()) if counted.size else -1.0


def curves(
    marked: GroundTruths,
    answered: Predictions,
    overlap: Overlap,
    categories: int,
    protocol: MatchProtocol,
) -> Curves:
    """Compute precision and recall over all images."""
    order, rank = _ranked(answered, protocol.most[-1])
    picture, category = answered.picture[order], answered.category[order]
    ignored = np.stack([marked.ignored | _outside(marked.area, area) for area in protocol.areas])
    first, second = _pairs(marked, picture, category)
    shared = overlap(order[first], second)
    near = shared >= min(IOUS[0], _NEARLY_ONE)
    hits = _matched(
        first[near], second[near], shared[near], rank, ignored, marked.crowd, len(order)
    )

    objects = np.zeros((len(protocol.areas), categories), np.int64)
    for place, of_area in enumerate(ignored):
        objects[place] = np.bincount(marked.category[~of_area], minlength=categories)

    # For the precision curve: within a category by score, ties by image and rank.
    score = answered.score[order]
    by_score = np.lexsort((rank, picture, -score, category))
    outside = np.stack([_outside(answered.area[order], area) for area in protocol.areas])
    precision, recall = _curves(hits, by_score, category, rank, outside, objects, protocol)
    counted = ~ignored[0]
    kinds = [
        _kind(
            hits,
            by_score[(category[by_score] == kind) & ~outside[0][by_score]],
            picture,
            marked.picture[counted & (marked.category == kind)],
        )
        for kind in np.flatnonzero(objects[0])
    ]
    return Curves(precision, recall, partial(_resampled, kinds))


def _outside(area: F64, limits: tuple[float, float]) -> Bools:
    return np.asarray((area < limits[0]) | (area > limits[1]), np.bool_)


def _ranked(answered: Predictions, most: int) -> tuple[I64, I64]:
    """The detections that count, by image and category, best first, and their rank."""
    order = np.lexsort((-answered.score, answered.category, answered.picture))
    picture, category = answered.picture[order], answered.category[order]
    new = np.ones(len(order), bool)
    new[1:] = (picture[1:] != picture[:-1]) | (category[1:] != category[:-1])
    starts = np.flatnonzero(new)
    rank = np.arange(len(order)) - np.repeat(starts, np.diff(starts, append=len(order)))
    kept = rank < most
    return order[kept].astype(np.int64), rank[kept].astype(np.int64)


def _pairs(marked: GroundTruths, picture: I64, category: I64) -> tuple[I64, I64]:
    """All pairs of a detection (its position) and an object (its index) of the same image and
    category, by detection, the objects in order.
    """
    # lexsort is stable, so objects of a group keep their order.
    sequence = np.lexsort((marked.category, marked.picture))
    width = int(max(category.max(initial=0), marked.category.max(initial=0))) + 1
    keys = marked.picture[sequence] * width + marked.category[sequence]
    expected = picture * width + category
    low, high = np.searchsorted(keys, expected), np.searchsorted(keys, expected, "right")
    count = high - low
    first = np.repeat(np.arange(len(picture)), count)
    within = np.arange(len(first)) - np.repeat(np.cumsum(count) - count, count)
    return first.astype(np.int64), sequence[np.repeat(low, count) + within].astype(np.int64)


@dataclass(frozen=True)
class _Hits:
    """Matches: `answer` (detection) and `ignored` (its object is ignored), for each of A areas and
    T thresholds.
    """

    answer: tuple[tuple[I64, ...], ...]
    ignored: tuple[tuple[Bools, ...], ...]


def _matched(
    first: I64, second: I64, shared: F64, rank: I64, ignored: Bools, crowd: Bools, answers: int
) -> _Hits:
    """Greedy matching: by rank, each detection takes the free object of the largest overlap,
    preferably one that is not ignored; ties go to the last.

    Detections of one rank belong to different images or categories, so they never compete for an
    object: all are matched at once, for all areas and thresholds.
    """
    areas, objects = ignored.shape
    taken = np.zeros((objects, areas, len(IOUS)), bool)
    target = np.full((answers, areas, len(IOUS)), -1, np.int32)
    least = np.minimum(IOUS, _NEARLY_ONE)
    of_rank = rank[first]
    rounds = np.argsort(of_rank, kind="stable")
    for some in np.split(rounds, np.flatnonzero(np.diff(of_rank[rounds])) + 1):
        if not len(some):
            break
        answer, thing, amount = first[some], second[some], shared[some]
        segment = np.flatnonzero(np.diff(answer, prepend=-1))
        sizes = np.diff(segment, append=len(answer))
        free = (amount[:, None] >= least)[:, None, :] & (
            ~taken[thing] | crowd[thing][:, None, None]
        )
        counts = ~ignored[:, thing].T[:, :, None]
        better = np.repeat(np.logical_or.reduceat(free & counts, segment), sizes, axis=0)
        free &= counts | ~better
        value = np.where(free, amount[:, None, None], -1.0)
        best = np.repeat(np.maximum.reduceat(value, segment), sizes, axis=0)
        place = np.where(free & (value == best), np.arange(len(some))[:, None, None], -1)
        chosen = np.maximum.reduceat(place, segment)
        row, area, level = np.nonzero(chosen >= 0)
        got = thing[chosen[row, area, level]]
        taken[got, area, level] = True
        target[answer[segment][row], area, level] = got
    return _hits(target, ignored)


def _hits(target: NDArray[np.int32], ignored: Bools) -> _Hits:
    answers, flags = [], []
    with_any = np.flatnonzero((target >= 0).any(axis=(1, 2)))
    for area, of_area in enumerate(ignored):
        columns = target[with_any, area]
        rows = [np.flatnonzero(column >= 0) for column in columns.T]
        answers.append(tuple(with_any[row] for row in rows))
        flags.append(
            tuple(of_area[column[row]] for column, row in zip(columns.T, rows, strict=True))
        )
    return _Hits(tuple(answers), tuple(flags))


def _curves(
    hits: _Hits,
    by_score: NDArray[Any],
    category: I64,
    rank: I64,
    outside: Bools,
    objects: I64,
    protocol: MatchProtocol,
) -> tuple[F64, F64]:
    areas, categories = objects.shape
    precision = np.full((len(IOUS), len(RECALLS), categories, areas), -1.0)
    recall = np.full((len(IOUS), categories, areas, len(protocol.most)), -1.0)
    starts = np.searchsorted(category[by_score], np.arange(categories))
    for area in range(areas):
        present = objects[area] > 0
        for level in range(len(IOUS)):
            answer, is_ignored = hits.answer[area][level], hits.ignored[area][level]
            counted = ~outside[area]
            counted[answer] = ~is_ignored
            true = np.zeros(len(category), bool)
            true[answer[~is_ignored]] = True
            for place, most in enumerate(protocol.most):
                true_positives = np.bincount(category[true & (rank < most)], minlength=categories)
                recall[level, present, area, place] = (
                    true_positives[present] / objects[area, present]
                )
            # Cumulative count of detections over all categories; the count before the category is
            # subtracted below.
            so_far = np.concatenate(([0], np.cumsum(counted[by_score])))
            at = np.flatnonzero(true[by_score])
            edges = np.searchsorted(at, [*starts.tolist(), len(category)]).tolist()
            for kind in np.flatnonzero(present).tolist():
                hit = at[edges[kind] : edges[kind + 1]]
                precision[level, :, kind, area] = _at_recalls(
                    so_far[hit + 1] - so_far[starts[kind]], int(objects[area, kind])
                )
    return precision, recall


def _at_recalls(answers: NDArray[Any], objects: int) -> F64:
    """Precision at the RECALLS, (R,). `answers` (H,): number of detections up to and including each
    hit."""
    precisions = np.zeros(len(RECALLS))
    if len(answers):
        hits = np.arange(1, len(answers) + 1, dtype=np.float64)
        best = np.maximum.accumulate((hits / (answers + _EPSILON))[::-1])[::-1]
        place = np.searchsorted(hits / objects, RECALLS)
        reached = place < len(answers)
        precisions[reached] = best[place[reached]]
    return precisions


@dataclass(frozen=True)
class _Kind:
    """What one category's average precision depends on, in the first area range.

    Attributes:
        objects: image of each object that counts.
        answers: image of each detection up to the last hit, best first.
        marks: at each threshold, the places in `answers` of hits, and of those whose object is
            ignored.
    """

    objects: I64
    answers: I64
    marks: tuple[tuple[I64, I64], ...]


def _kind(hits: _Hits, rows: NDArray[Any], picture: I64, objects: I64) -> _Kind:
    """`rows` are the category's detections, best first."""
    place = np.full(len(picture), -1, np.int64)
    place[rows] = np.arange(len(rows))
    marks = []
    for answer, is_ignored in zip(hits.answer[0], hits.ignored[0], strict=True):
        at = place[answer]
        marks.append((np.sort(at[~is_ignored & (at >= 0)]), np.sort(at[is_ignored & (at >= 0)])))
    end = 1 + max(int(hit.max(initial=-1)) for hit, _ in marks)
    used = tuple((hit, ignored[ignored < end]) for hit, ignored in marks)
    return _Kind(objects, picture[rows[:end]], used)


def _resampled(kinds: list[_Kind], counts: I64) -> F64:
    """Mean over the categories that a resample has. A copy of an image adds its objects and its
    detections once more, side by side with their like in the order of scores."""
    total, present = np.zeros(len(counts)), np.zeros(len(counts))
    for kind in kinds:
        objects = counts[:, kind.objects].sum(axis=1)
        present += objects > 0
        total += np.where(objects > 0, _kind_ap(kind, counts, objects), 0.0)
    mean = np.divide(total, present, out=np.full(len(counts), np.nan), where=present > 0)
    return np.asarray(mean, np.float64)


def _kind_ap(kind: _Kind, counts: I64, objects: I64) -> F64:
    """Average precision (R,) of a category with `objects` (R,)."""
    weight = counts[:, kind.answers]
    so_far = np.cumsum(weight, axis=1)
    total = np.zeros(len(counts))
    for hit, ignored in kind.marks:
        if not len(hit):
            continue
        true = np.cumsum(weight[:, hit], axis=1)
        answers = so_far[:, hit]
        if len(ignored):
            beside = np.cumsum(weight[:, ignored], axis=1)
            before = np.searchsorted(ignored, hit)
            answers = answers - np.insert(beside, 0, 0, axis=1)[:, before]
        precision = true / (answers + _EPSILON)
        best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        reached = np.searchsorted(RECALLS, true / np.maximum(objects, 1)[:, None], "right")
        total += (best * np.diff(reached, axis=1, prepend=0)).sum(axis=1)
    return np.asarray(total / (len(IOUS) * len(RECALLS)))
