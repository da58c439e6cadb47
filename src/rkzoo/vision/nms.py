"""Non-maximum suppression: exact, and the same as a greedy loop over the boxes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

Index = NDArray[np.intp]
Boxes = NDArray[np.float64]
Hulls = tuple[Boxes, Boxes, Boxes, Boxes]
Suppression = Literal["class", "all", "none"]
# Which of the pairs (better, worse), as positions, overlap too much.
Overlapping = Callable[[Index, Index], NDArray[np.bool_]]

# Below it OpenCV's own loop is quicker than the start of a dozen numpy calls.
_FEW = 250
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


def _few(boxes: Boxes, groups: NDArray[np.int32], iou: float) -> Index:
    # OpenCV keeps classes apart by moving them away along the diagonal, and trips over
    # negative coordinates: hence the corner at 0.
    boxes = boxes - boxes.min(axis=0).min()
    boxes[:, 2:] -= boxes[:, :2]
    ranks = np.arange(len(boxes), 0, -1)
    # Lists: OpenCV takes arrays apart more slowly.
    kept = cv2.dnn.NMSBoxesBatched(boxes.tolist(), ranks.tolist(), groups.tolist(), -np.inf, iou)
    return np.asarray(kept, np.intp).reshape(-1)


def _many(boxes: Boxes, groups: NDArray[np.int32], iou: float, limit: int) -> Index:
    x1, y1, x2, y2 = np.ascontiguousarray(boxes.T)
    area = (x2 - x1) * (y2 - y1)

    def overlapping(a: Index, b: Index) -> NDArray[np.bool_]:
        width = np.minimum(x2[a], x2[b]) - np.maximum(x1[a], x1[b])
        height = np.minimum(y2[a], y2[b]) - np.maximum(y1[a], y1[b])
        inter = width * height
        hit: NDArray[np.bool_] = inter > iou * (area[a] + area[b] - inter)
        return hit

    return greedy((x1, y1, x2, y2), groups, overlapping, limit)


def greedy(hulls: Hulls, groups: NDArray[np.int32], overlapping: Overlapping, limit: int) -> Index:
    """Positions of the kept ones among things sorted best first.

    `hulls` are left, top, right, bottom, (N,) each; only pairs of one group whose hulls meet
    are given to `overlapping`.
    """
    kept = np.empty(0, np.intp)
    count = len(groups)
    for start in range(0, count, _CHUNK):
        if len(kept) >= limit:
            break
        # Those kept so far have no better rival left, so they stay.
        mine = np.concatenate((kept, np.arange(start, min(start + _CHUNK, count))))
        left, top, right, bottom = (side[mine] for side in hulls)
        a, b = _meeting((left, top, right, bottom), groups[mine])
        hit = overlapping(mine[a], mine[b])
        kept = mine[_solved(len(mine), a[hit], b[hit])]
    return kept


def _meeting(hulls: Hulls, groups: NDArray[np.int32]) -> tuple[Index, Index]:
    """(better, worse): all pairs of one group whose hulls have some area in common."""
    left, top, right, bottom = hulls
    low = left.min()
    # Groups lie side by side on the axis, far enough apart.
    shift = groups * (right.max() - low + 1.0)
    begin, end = left - low + shift, right - low + shift
    order = np.argsort(begin)
    begin, top, bottom = begin[order], top[order], bottom[order]
    after = np.arange(1, len(order) + 1)
    counts = np.maximum(np.searchsorted(begin, end[order], "left") - after, 0)
    # Places 1, 2, 3, ... behind the first of each pair.
    second = np.arange(int(counts.sum()))
    second += np.repeat(after - (np.cumsum(counts) - counts), counts)
    # Most windows meet along one axis only; these go before anything else is looked up.
    meets = top[second] < np.repeat(bottom, counts)
    meets &= bottom[second] > np.repeat(top, counts)
    near = np.flatnonzero(meets)
    a, b = order[np.repeat(np.arange(len(order)), counts)[near]], order[second[near]]
    return np.minimum(a, b), np.maximum(a, b)


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
