"""Rotated boxes: corners, exact IoU, NMS.

A box is cx, cy, w, h in pixels and the angle of its width side in radians, clockwise on the screen
(y points down).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rkzoo.vision.nms import Index, Suppression, greedy

F64 = NDArray[np.float64]

# Coinciding sides would count twice, or not at all: the first box is enlarged slightly.
_HAIR = 1 + 1e-9


def corners(boxes: NDArray[Any]) -> NDArray[np.float32]:
    """Corners (N, 4, 2) in x, y of boxes (N, 5): clockwise on the screen, from the one that is top
    left when the angle is 0.
    """
    return np.asarray(_corners(boxes.astype(np.float64)), np.float32)


def _corners(boxes: F64) -> F64:
    cos, sin = np.cos(boxes[:, 4]), np.sin(boxes[:, 4])
    half_w, half_h = boxes[:, 2] / 2, boxes[:, 3] / 2
    along = np.stack((cos * half_w, sin * half_w), axis=1)
    across = np.stack((-sin * half_h, cos * half_h), axis=1)
    centre = boxes[:, :2]
    return np.stack(
        (
            centre - along - across,
            centre + along - across,
            centre + along + across,
            centre - along + across,
        ),
        axis=1,
    )


def intersection(a: NDArray[Any], b: NDArray[Any]) -> F64:
    """Intersection areas of pairs of rotated boxes.

    By Green's theorem: the outline of the intersection consists of the sides of each box as far as
    they lie in the other. Exact to about 1e-9 of the area.

    Args:
        a: Boxes (P, 5).
        b: Boxes (P, 5).

    Returns:
        Areas (P,), float64.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    cos_b, sin_b = np.cos(b[:, 4]), np.sin(b[:, 4])
    # All in the frame of b, in which b is axis-aligned.
    away_x, away_y = a[:, 0] - b[:, 0], a[:, 1] - b[:, 1]
    centre_x = cos_b * away_x + sin_b * away_y
    centre_y = cos_b * away_y - sin_b * away_x
    turn = a[:, 4] - b[:, 4]
    cos, sin = np.cos(turn), np.sin(turn)
    half_a, half_b = a[:, 2:4] * (_HAIR / 2), b[:, 2:4] / 2

    # Corners of a in the frame of b, (4, P); each side runs from one to the next.
    ax, ay = _placed(half_a, cos, sin, centre_x, centre_y)
    start, stop, dx, dy = _inside(ax, ay, half_b)
    area = _swept(ax, ay, dx, dy, start, stop)

    # Corners of b in the frame of a, to clip its sides.
    back_x = -(cos * centre_x + sin * centre_y)
    back_y = -(cos * centre_y - sin * centre_x)
    bx, by = _placed(half_b, cos, -sin, back_x, back_y)
    start, stop, _, _ = _inside(bx, by, half_a)
    wide, high = half_b[:, 0], half_b[:, 1]
    # A side of b sweeps, seen from the center of b, half its share of the area of b.
    quarter = wide * high
    area += np.maximum(stop - start, 0).sum(axis=0) * quarter
    return np.asarray(np.maximum(area, 0), np.float64)


_SIGN_X = np.array([-1.0, 1.0, 1.0, -1.0])[:, None]
_SIGN_Y = np.array([-1.0, -1.0, 1.0, 1.0])[:, None]


def _placed(half: F64, cos: F64, sin: F64, x: F64, y: F64) -> tuple[F64, F64]:
    """x and y (4, P) of the corners."""
    along, across = _SIGN_X * half[:, 0], _SIGN_Y * half[:, 1]
    return x + along * cos - across * sin, y + along * sin + across * cos


def _inside(x: F64, y: F64, half: F64) -> tuple[F64, F64, F64, F64]:
    """Clip the sides of a polygon to the box |x|, |y| <= half: from `start` to `stop` in 0..1 (stop
    below start: outside); and the sides' vectors.
    """
    dx, dy = np.roll(x, -1, axis=0) - x, np.roll(y, -1, axis=0) - y
    start, stop = np.zeros_like(x), np.ones_like(x)
    with np.errstate(divide="ignore", invalid="ignore"):
        for place, step, reach in ((x, dx, half[:, 0]), (y, dy, half[:, 1])):
            # Parallel to the slab the quotients are infinite, with the right signs.
            lower, upper = (-reach - place) / step, (reach - place) / step
            np.fmax(start, np.fmin(lower, upper), out=start)
            np.fmin(stop, np.fmax(lower, upper), out=stop)
    return start, stop, dx, dy


def _swept(x: F64, y: F64, dx: F64, dy: F64, start: F64, stop: F64) -> F64:
    """Area (P,) between the origin and the clipped sides."""
    share = np.maximum(stop - start, 0)
    swept: F64 = (share * (x * dy - y * dx)).sum(axis=0) / 2
    return swept


def nms_rotated(
    boxes: NDArray[Any],
    score: NDArray[np.float32],
    class_id: NDArray[np.int32],
    iou: float,
    limit: int,
    suppression: Suppression = "class",
) -> Index:
    """Greedy NMS of rotated boxes (N, 5), by their exact IoU; arguments and result as in
    `rkzoo.vision.nms.nms`.
    """
    order = np.argsort(-score, kind="stable")
    if suppression == "none" or len(order) < 2:
        return order[:limit]
    ranked = boxes[order].astype(np.float64)
    groups = class_id[order] if suppression == "class" else np.zeros(len(order), np.int32)
    cos, sin = np.abs(np.cos(ranked[:, 4])), np.abs(np.sin(ranked[:, 4]))
    wide, high = ranked[:, 2] / 2, ranked[:, 3] / 2
    reach_x, reach_y = cos * wide + sin * high, sin * wide + cos * high
    area = 4 * wide * high
    left, right = ranked[:, 0] - reach_x, ranked[:, 0] + reach_x
    top, bottom = ranked[:, 1] - reach_y, ranked[:, 1] + reach_y

    def overlapping(a: Index, b: Index) -> NDArray[np.bool_]:
        # Axis-aligned bounding boxes and areas bound the IoU; few pairs need the exact one.
        width = np.minimum(right[a], right[b]) - np.maximum(left[a], left[b])
        height = np.minimum(bottom[a], bottom[b]) - np.maximum(top[a], top[b])
        area_a, area_b = area[a], area[b]
        most = np.minimum(width * height, np.minimum(area_a, area_b))
        close = np.flatnonzero(most > iou * (area_a + area_b - most))
        a, b = a[close], b[close]
        common = intersection(ranked[a], ranked[b])
        outcome = np.zeros(len(width), bool)
        outcome[close] = common > iou * (area[a] + area[b] - common)
        return outcome

    return order[greedy((left, top, right, bottom), groups, overlapping, limit)[:limit]]
