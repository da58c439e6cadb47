"""Non-maximum suppression: exact, and the same as a greedy loop over the boxes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

Index = NDArray[np.intp]
Suppression = Literal["class", "all", "none"]
# Which of the pairs (better, worse), as positions, overlap too much.
Overlapping = Callable[[Index, Index], NDArray[np.bool_]]

# Below it OpenCV's own loop is quicker than the start of a dozen numpy calls.
_FEW = 160
# So many boxes are looked at together, best first: duplicates die before they make pairs.
_CHUNK = 700


def nms(
    xyxy: NDArray[np.float32],
    score: NDArray[np.float32],
    class_id: NDArray[np.int32],
    iou: float,
    limit: int,
    suppression: Suppression = "class",
) -> Index:
    """Greedy suppression: indices of the kept boxes, best first, at most `limit`.

    `xyxy` (N, 4), `score` (N,), `class_id` (N,). A box goes when its intersection over
    union with a better kept box exceeds `iou`: of its class (`class`), of any (`all`), or
    never (`none`). Of equal scores the earlier box is the better one.
    """
    order = np.argsort(-score, kind="stable")
    if suppression == "none" or len(order) < 2:
        return order[:limit]
    boxes = xyxy[order].astype(np.float64)
    groups = class_id[order] if suppression == "class" else np.zeros(len(order), np.int32)
    kept = _few(boxes, groups, iou) if len(order) <= _FEW else _many(boxes, groups, iou, limit)
    return order[kept[:limit]]


def _few(boxes: NDArray[np.float64], groups: NDArray[np.int32], iou: float) -> Index:
    # OpenCV keeps classes apart by moving them away along the diagonal, and trips over
    # negative coordinates: hence the corner at 0.
    boxes = boxes - boxes.min(axis=0).min()
    boxes[:, 2:] -= boxes[:, :2]
    ranks = np.arange(len(boxes), 0, -1)
    # Lists: OpenCV takes arrays apart more slowly.
    kept = cv2.dnn.NMSBoxesBatched(boxes.tolist(), ranks.tolist(), groups.tolist(), -np.inf, iou)
    return np.asarray(kept, np.intp).reshape(-1)


def _many(boxes: NDArray[np.float64], groups: NDArray[np.int32], iou: float, limit: int) -> Index:
    x1, y1, x2, y2 = np.ascontiguousarray(boxes.T)
    area = (x2 - x1) * (y2 - y1)

    def overlapping(a: Index, b: Index) -> NDArray[np.bool_]:
        width = np.minimum(x2[a], x2[b])
        width -= np.maximum(x1[a], x1[b])
        height = np.minimum(y2[a], y2[b])
        height -= np.maximum(y1[a], y1[b])
        near = np.flatnonzero(height > 0)
        inter = width[near] * height[near]
        a, b = a[near], b[near]
        found = np.zeros(len(height), bool)
        found[near] = inter > iou * (area[a] + area[b] - inter)
        return found

    return greedy(x1, x2, groups, overlapping, limit)


def greedy(
    left: NDArray[np.float64],
    right: NDArray[np.float64],
    groups: NDArray[np.int32],
    overlapping: Overlapping,
    limit: int,
) -> Index:
    """Positions of the kept ones among things sorted best first.

    `left` and `right` (N,) are the extent of each along one axis; only pairs of one group
    whose extents meet are given to `overlapping`.
    """
    kept = np.empty(0, np.intp)
    for start in range(0, len(left), _CHUNK):
        if len(kept) >= limit:
            break
        # Those kept so far have no better rival left, so they stay.
        mine = np.concatenate((kept, np.arange(start, min(start + _CHUNK, len(left)))))
        a, b = _meeting(left[mine], right[mine], groups[mine])
        hit = overlapping(mine[a], mine[b])
        kept = mine[_solved(len(mine), a[hit], b[hit])]
    return kept


def _meeting(
    left: NDArray[np.float64], right: NDArray[np.float64], groups: NDArray[np.int32]
) -> tuple[Index, Index]:
    """(better, worse): all pairs of one group whose extents overlap."""
    low = left.min()
    # Groups lie side by side on the axis, far enough apart.
    shift = groups * (right.max() - low + 1.0)
    begin, end = left - low + shift, right - low + shift
    order = np.argsort(begin)
    begin = begin[order]
    after = np.arange(1, len(order) + 1)
    counts = np.maximum(np.searchsorted(begin, end[order], "left") - after, 0)
    total = int(counts.sum())
    first = np.repeat(order, counts)
    # 1, 2, 3, ... places behind the first of each pair.
    places = np.arange(total) + np.repeat(after - (np.cumsum(counts) - counts), counts)
    second = order[places]
    return np.minimum(first, second), np.maximum(first, second)


def _solved(count: int, better: Index, worse: Index) -> Index:
    """What a greedy loop keeps: what no kept better one overlaps. Round after round at least
    one more rank is settled, and in practice five rounds settle all."""
    keep = np.ones(count, bool)
    while True:
        settled = np.ones(count, bool)
        settled[worse[keep[better]]] = False
        if np.array_equal(settled, keep):
            return np.flatnonzero(keep)
        keep = settled
