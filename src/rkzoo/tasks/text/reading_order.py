"""Reading order of text lines on a page."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rkzoo.tasks.text.quads import is_tall, sides

# Two boxes are in one row when they share this much of the lower one's height.
SAME_ROW = 0.5
# A column of prose: minimum number of lines, aspect ratio of a line, share of the column's
# width that the median line fills, and share of its height that the lines fill. Anything else
# is a table, receipt or form, which is read row by row.
COLUMN_LINES = 4
COLUMN_ASPECT = 6.0
COLUMN_FILLED = 0.6
COLUMN_DENSITY = 0.35

Boxes = NDArray[np.float64]


def reading_order(quads: NDArray[Any], angles: NDArray[Any] | None = None) -> NDArray[np.intp]:
    """Sort text lines into reading order.

    Rows from top to bottom, each from left to right; columns of prose one after the other; a page
    that is skewed, sideways or upside down is read in its own directions. Independent of the input
    order.

    Args:
        quads: (N, 4, 2), clockwise from the top-left corner.
        angles: (N,) rotation of each line in degrees (0 or 180).

    Returns:
        Indices (N,).
    """
    quads = np.asarray(quads, np.float64)
    if not len(quads):
        return np.zeros(0, np.intp)
    turned = np.zeros(len(quads), int) if angles is None else np.asarray(angles)
    canonical = np.lexsort((turned, *quads.reshape(len(quads), 8).T))
    boxes = _upright(quads[canonical], turned[canonical])
    order = _block(boxes, np.arange(len(boxes)))
    return np.asarray(canonical[order], np.intp)


def _upright(quads: NDArray[np.float64], angles: NDArray[Any]) -> Boxes:
    """Boxes (N, 4) left, top, right, bottom along and across the page's reading direction.

    A skewed line gets its own thickness as height, not that of its bounding box, so that a slanted
    stamp does not span three rows.
    """
    along = _direction(quads, angles)
    across = np.array([-along[1], along[0]])
    x, y = quads @ along, quads @ across
    boxes = np.stack([x.min(1), y.min(1), x.max(1), y.max(1)], axis=1)
    depth = sides(quads).min(axis=1)
    flat = boxes[:, 2] - boxes[:, 0] > boxes[:, 3] - boxes[:, 1]
    middle = (boxes[:, 1] + boxes[:, 3]) / 2
    boxes[:, 1] = np.where(flat, middle - depth / 2, boxes[:, 1])
    boxes[:, 3] = np.where(flat, middle + depth / 2, boxes[:, 3])
    return boxes


def _direction(quads: NDArray[np.float64], angles: NDArray[Any]) -> NDArray[np.float64]:
    """Unit vector of the dominant text direction, weighted by line length."""
    tall = is_tall(quads)
    top = quads[:, 1] - quads[:, 0] + quads[:, 2] - quads[:, 3]
    left = quads[:, 3] - quads[:, 0] + quads[:, 2] - quads[:, 1]
    runs = np.where(tall[:, None], left, top)
    runs[angles == 180] *= -1
    level, down = runs[~tall], runs[tall]
    # Of upright, upside-down, horizontal and vertical lines the largest group decides; the
    # others must not tilt it.
    shares = [
        level[level[:, 0] > 0],
        level[level[:, 0] <= 0],
        down[down[:, 1] > 0],
        down[down[:, 1] <= 0],
    ]
    total = max((share.sum(axis=0) for share in shares), key=lambda v: float(v @ v))
    length = float(np.hypot(*total))
    return np.asarray(total / length) if length > 0 else np.array([1.0, 0.0])


def _block(boxes: Boxes, members: NDArray[Any]) -> list[int]:
    """Order of `members`: columns where there are any, else rows."""
    size = boxes[members, 2:] - boxes[members, :2]
    if np.sum(size[:, 0] >= COLUMN_ASPECT * size[:, 1]) < COLUMN_LINES:
        return _rows(boxes, members)
    bands = _bands(boxes, members)
    order: list[int] = []
    start = 0
    while start < len(bands):
        end, columns = _columns_from(boxes, bands, start)
        parts = columns or [bands[start]]
        for part in parts:
            order += _rows(boxes, part)
        start = end
    return order


def _columns_from(
    boxes: Boxes, bands: list[NDArray[Any]], start: int
) -> tuple[int, list[NDArray[Any]]]:
    """The largest number of bands from `start` that form columns of prose: the band after them, and
    the columns from left to right. Without columns: the next band, and an empty list.
    """
    best: tuple[int, list[NDArray[Any]]] = (start + 1, [])
    for end in range(start + 1, len(bands) + 1):
        inside = np.concatenate(bands[start:end])
        parts = _columns(boxes, inside)
        if len(parts) < 2:
            break  # no empty strip, and none with more boxes
        if all(_is_prose(boxes[part]) for part in parts):
            best = (end, parts)
    return best


def _bands(boxes: Boxes, members: NDArray[Any]) -> list[NDArray[Any]]:
    """Groups of boxes separated by empty horizontal strips, from the top."""
    order = members[np.argsort(boxes[members, 1], kind="stable")]
    bottom = np.maximum.accumulate(boxes[order, 3])
    cuts = np.flatnonzero(boxes[order[1:], 1] >= bottom[:-1]) + 1
    return np.split(order, cuts)


def _columns(boxes: Boxes, members: NDArray[Any]) -> list[NDArray[Any]]:
    """Groups of boxes separated by empty vertical strips, from the left."""
    order = members[np.argsort(boxes[members, 0], kind="stable")]
    right = np.maximum.accumulate(boxes[order, 2])
    cuts = np.flatnonzero(boxes[order[1:], 0] >= right[:-1]) + 1
    return np.split(order, cuts)


def _is_prose(boxes: Boxes) -> bool:
    if len(boxes) < COLUMN_LINES:
        return False
    left, top, right, bottom = boxes.T
    width, height = right - left, np.maximum(bottom - top, 1e-6)
    return (
        _middle(width / height) >= COLUMN_ASPECT
        and _middle(width) >= COLUMN_FILLED * float(right.max() - left.min())
        and float(height.sum()) >= COLUMN_DENSITY * float(bottom.max() - top.min())
    )


def _middle(values: NDArray[np.float64]) -> float:
    """Median (the upper one of two); for few values faster than numpy's."""
    return float(np.sort(values)[len(values) // 2])


def _rows(boxes: Boxes, members: NDArray[Any]) -> list[int]:
    """Members row by row, each from left to right."""
    order = members[np.argsort(boxes[members, 1] + boxes[members, 3], kind="stable")]
    beside, shared = _neighbours(boxes[order])
    rows: list[list[int]] = []
    for k in range(len(order)):
        near = [(_shared(row, beside[k], shared[k]), -i) for i, row in enumerate(rows)]
        share, index = max(near, default=(0.0, 0))
        if share >= SAME_ROW:
            rows[-index].append(k)
        else:
            rows.append([k])
    lines = [order[row] for row in rows]
    lines.sort(key=lambda row: float(np.mean(boxes[row, 1] + boxes[row, 3])))
    return [int(k) for row in lines for k in row[np.lexsort(boxes[row].T[::-1])]]


def _neighbours(boxes: Boxes) -> tuple[list[list[float]], list[list[float]]]:
    """Pairwise overlaps: horizontal, as a share of the narrower box (negative for a gap), and
    vertical, as a share of the lower one's height.
    """
    low = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    size = np.maximum(boxes[:, 2:] - boxes[:, :2], 1e-6)
    part = (high - low) / np.minimum(size[:, None], size[None])
    return part[..., 0].tolist(), part[..., 1].tolist()


def _shared(row: list[int], beside: list[float], shared: list[float]) -> float:
    """Vertical overlap of a box with its nearest in the row; 0 where it lies above or below one of
    the row's boxes.
    """
    nearest = max(row, key=beside.__getitem__)
    return 0.0 if beside[nearest] > 0.5 else shared[nearest]
