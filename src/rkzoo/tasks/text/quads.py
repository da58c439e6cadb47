"""Quadrilateral text boxes: corner order, size, IoU, rectification."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Quads = NDArray[np.float32]
Image = NDArray[np.uint8]

# Ratio of height to width from which a line counts as vertical, as upstream.
TALL = 1.5


def corners(centre: NDArray[Any], size: NDArray[Any], degrees: NDArray[Any]) -> Quads:
    """Convert rotated rectangles to corners (N, 4, 2), clockwise on the screen from the top-left
    one.

    Args:
        centre: (N, 2) x, y.
        size: (N, 2) width, height.
        degrees: (N,) clockwise rotation.

    The top-left corner is the one with the smallest x + y.
    """
    angle = np.deg2rad(np.asarray(degrees, np.float64))
    axis = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    half = np.asarray(size, np.float64)[:, :, None] / 2
    u = axis * half[:, 0]
    v = np.stack([-axis[:, 1], axis[:, 0]], axis=-1) * half[:, 1]
    around = np.stack([-u - v, u - v, u + v, -u + v], axis=1)
    return from_top_left(around + np.asarray(centre, np.float64)[:, None])


def from_top_left(quads: NDArray[Any]) -> Quads:
    """Rotate the order of clockwise corners (N, 4, 2) so that the one with the smallest x + y is
    first."""
    first = quads.sum(axis=-1).argmin(axis=1)
    order = (first[:, None] + np.arange(4)) % 4
    return np.asarray(np.take_along_axis(quads, order[:, :, None], axis=1), np.float32)


def sides(quads: NDArray[Any]) -> NDArray[np.float32]:
    """Width and height (N, 2) in pixels, the longer one of each two opposite sides."""
    edges = np.linalg.norm(np.roll(quads, -1, axis=1) - quads, axis=-1)
    return np.asarray(np.maximum(edges[:, :2], edges[:, 2:]), np.float32)


def is_tall(quads: NDArray[Any]) -> NDArray[np.bool_]:
    """Which lines are vertical, bool (N,)."""
    size = sides(quads)
    return np.asarray(size[:, 1] >= TALL * size[:, 0], np.bool_)


def crop(image: Image, quad: NDArray[Any]) -> Image:
    """Crop and rectify one line (perspective warp, cubic).

    Args:
        image: BGR (H, W, 3).
        quad: (4, 2), clockwise from the top-left corner.

    Returns:
        BGR (h, w, 3); a vertical line is rotated by 90 degrees counterclockwise.
    """
    width, height = (max(1, round(float(side))) for side in sides(quad[None])[0])
    source = np.asarray(quad, np.float32)
    # Warp only the region around the quad, so that the cost does not depend on the image size.
    low = np.maximum(np.floor(source.min(axis=0)).astype(int) - 2, 0)
    high = np.ceil(source.max(axis=0)).astype(int) + 3
    part = image[low[1] : high[1], low[0] : high[0]]
    if part.size == 0:
        return np.zeros((height, width, 3), np.uint8)
    # OpenCV has pixel centres at integers, rkzoo at halves.
    target = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32) - 0.5
    matrix = cv2.getPerspectiveTransform(source - low.astype(np.float32) - 0.5, target)
    line = cv2.warpPerspective(
        part, matrix, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )
    if height >= TALL * width:
        line = cv2.rotate(line, cv2.ROTATE_90_COUNTERCLOCKWISE)
    return np.asarray(line, np.uint8)


def overlap(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.float32]:
    """IoU of convex quads: (N, 4, 2) and (M, 4, 2) to (N, M) float32."""
    overlap = np.zeros((len(a), len(b)), np.float32)
    if not overlap.size:
        return overlap
    a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
    a_low, a_high, b_low, b_high = a.min(1), a.max(1), b.min(1), b.max(1)
    touching = np.all((a_low[:, None] < b_high[None]) & (b_low[None] < a_high[:, None]), axis=-1)
    a_area, b_area = _areas(a), _areas(b)
    for i, j in np.argwhere(touching):
        shared, _ = cv2.intersectConvexConvex(a[i], b[j])
        # Edges that all but touch confuse it.
        shared = min(shared, a_area[i], b_area[j])
        joined = a_area[i] + b_area[j] - shared
        overlap[i, j] = shared / joined if joined > 0 else 0.0
    return overlap


def _areas(quads: NDArray[Any]) -> NDArray[np.float64]:
    x, y = quads[..., 0].astype(np.float64), quads[..., 1].astype(np.float64)
    cross = x * np.roll(y, -1, axis=1) - y * np.roll(x, -1, axis=1)
    return np.asarray(np.abs(cross.sum(axis=1)) / 2)
