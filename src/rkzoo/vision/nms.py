"""Non-maximum suppression, exact: the same result as a greedy loop over the boxes."""

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
# Whether each pair (better, worse), given as positions, overlaps too much.
Overlapping = Callable[[Index, Index], NDArray[np.bool_]]

# Below this number OpenCV's loop is faster than the overhead of a dozen numpy calls.
_FEW = 250
# Boxes processed together, best first: duplicates are removed before they make pairs.
_CHUNK = 1300


def nms(
    xyxy: NDArray[np.float32],
    score: NDArray[np.float32],
    class_id: NDArray[np.int32],
    iou: float,
    limit: int,
    suppression: Suppression = "class",
) -> Index:
    """Greedy non-maximum suppression.

    Args:
        xyxy: Boxes (N, 4).
        score: (N,).
        class_id: (N,).
        iou: A box is removed when its IoU with a better kept box exceeds this.
        limit: Largest number of kept boxes.
        suppression: Compare boxes of one class (`class`), all boxes (`all`), or none (`none`).

    Returns:
        Indices of the kept boxes, best first; of equal scores the earlier box is the better one.
    """
    count = len(score)
    if suppression == "none" or count < 2:
        return np.argsort(-score, kind="stable")[:limit]
    groups = class_id if suppression == "class" else np.zeros(count, np.int32)
    if count <= _FEW:
        return _few(xyxy, score, groups, iou)[:limit]
    order = np.argsort(-score, kind="stable")
    boxes = xyxy.take(order, axis=0).astype(np.float64)
    return order[_many(boxes, groups.take(order), iou, limit)[:limit]]


def _few(
    xyxy: NDArray[np.float32], score: NDArray[np.float32], groups: NDArray[np.int32], iou: float
) -> Index:
    # OpenCV separates classes by shifting them along the diagonal, and fails on negative
    # coordinates: hence the corner at 0.
    boxes = np.subtract(xyxy, xyxy.min(), dtype=np.float64)
    boxes[:, 2:] -= boxes[:, :2]
    # Lists, because OpenCV converts arrays more slowly. Its sort is stable too.
    kept = cv2.dnn.NMSBoxesBatched(boxes.tolist(), score.tolist(), groups.tolist(), -np.inf, iou)
    return np.array(kept, np.intp)


def _many(boxes: Boxes, groups: NDArray[np.int32], iou: float, limit: int) -> Index:
    x1, y1, x2, y2 = np.ascontiguousarray(boxes.T)
    area = (x2 - x1) * (y2 - y1)

    def overlapping(a: Index, b: Index) -> NDArray[np.bool_]:
        width = np.minimum(x2.take(a), x2.take(b))
        width -= np.maximum(x1.take(a), x1.take(b))
        height = np.minimum(y2.take(a), y2.take(b))
        height -= np.maximum(y1.take(a), y1.take(b))
        inter = width * height
        hit: NDArray[np.bool_] = inter > iou * (area.take(a) + area.take(b) - inter)
        return hit

    # Two boxes whose IoU exceeds this share have at least this share of each one's width and height
    # in common. The slack is for rounding.
    share = max(iou - 1e-6, 0.0)
    return greedy((x1, y1, x2, y2), groups, overlapping, limit, share)


def greedy(
    hulls: Hulls,
    groups: NDArray[np.int32],
    overlapping: Overlapping,
    limit: int,
    share: float = 0.0,
) -> Index:
    """Greedy suppression of items sorted best first.

    Args:
        hulls: left, top, right, bottom of the items' bounding boxes, (N,) each.
        groups: (N,); only items of one group suppress each other.
        overlapping: Decides on pairs of positions (better, worse).
        limit: Stop after this many kept items; may return more.
        share: Pairs whose bounding boxes share less of each one's width and height are skipped.

    Returns:
        Positions of the kept items.
    """
    kept = np.empty(0, np.intp)
    count = len(groups)
    for start in range(0, count, _CHUNK):
        if len(kept) >= limit:
            break
        # Items kept so far have no better rival left, so they stay.
        mine = np.concatenate((kept, np.arange(start, min(start + _CHUNK, count))))
        near = hulls[0].take(mine), hulls[1].take(mine), hulls[2].take(mine), hulls[3].take(mine)
        a, b = _meeting(near, groups.take(mine), share)
        hit = overlapping(mine[a], mine[b])
        kept = mine[_solved(len(mine), a[hit], b[hit])]
    return kept


def _meeting(hulls: Hulls, groups: NDArray[np.int32], share: float) -> tuple[Index, Index]:
    """(better, worse): all pairs of one group whose bounding boxes overlap by that share."""
    left, top, right, bottom = hulls
    low = left.min()
    # Groups are placed side by side on the axis, far enough apart.
    begin = left - low
    begin += groups * (right.max() - low + 1.0)
    order = begin.argsort()
    begin, top, bottom = begin.take(order), top.take(order), bottom.take(order)
    margin = (bottom - top) * share
    reach = (right - left).take(order)
    reach *= 1 - share
    reach += begin
    after = np.arange(1, len(order) + 1)
    counts = begin.searchsorted(reach)
    counts -= after
    np.maximum(counts, 0, out=counts)
    # Positions 1, 2, 3, ... after the first of each pair.
    first = after.repeat(counts)
    second = np.arange(len(first))
    second += (after - counts.cumsum() + counts).repeat(counts)
    first -= 1
    # Most windows overlap along one axis only; these are dropped before anything else is looked up.
    meets = top.take(second) < (bottom - margin).take(first)
    meets &= bottom.take(second) > (top + margin).take(first)
    near = np.flatnonzero(meets)
    a, b = order.take(first.take(near)), order.take(second.take(near))
    return np.minimum(a, b), np.maximum(a, b)


def _solved(count: int, better: Index, worse: Index) -> Index:
    """The result of a greedy loop: items that no kept better one overlaps. Each round settles at
    least one more rank; in practice five rounds settle all.
    """
    keep = np.ones(count, bool)
    while True:
        settled = np.ones(count, bool)
        settled[worse[keep[better]]] = False
        if np.array_equal(settled, keep):
            return np.flatnonzero(keep)
        keep = settled
