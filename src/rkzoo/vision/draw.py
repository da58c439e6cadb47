"""Drawing of boxes, masks and keypoints with OpenCV, on PCs and boards alike.

Every function takes BGR pictures uint8 (H, W, 3), returns a copy, and takes a BGR color for each
item.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rkzoo.vision.limbs import LIMBS
from rkzoo.vision.palettes import Color, readable_on

Image = NDArray[np.uint8]
_Rect = tuple[int, int, int, int]

_FONT = cv2.FONT_HERSHEY_SIMPLEX
# Of a mask over the picture.
_OPACITY = 0.5
# Space around the text of a label, pixels.
_PAD = 3
# OpenCV's coordinates are 32 bits; nothing far outside of a picture needs to be exact.
_FAR = 1 << 20


def boxes(
    image: Image, xyxy: NDArray[Any], captions: Sequence[str], colors: Sequence[Color]
) -> Image:
    """Draw boxes (N, 4) x1, y1, x2, y2 in pixels, each with a caption."""
    corners = np.asarray(xyxy, np.float64).reshape(-1, 4)[:, [0, 1, 2, 1, 2, 3, 0, 3]]
    return rotated_boxes(image, corners.reshape(-1, 4, 2), captions, colors)


def rotated_boxes(
    image: Image, quads: NDArray[Any], captions: Sequence[str], colors: Sequence[Color]
) -> Image:
    """Draw boxes by their corners (N, 4, 2) in pixels, each with a caption."""
    canvas = _copy(image)
    corners = _pixels(quads).reshape(-1, 4, 2)
    for quad, color in zip(corners, colors, strict=True):
        cv2.polylines(canvas, [quad], True, color, _thickness(image))
    taken: list[_Rect] = []
    for quad, caption, color in zip(corners, captions, colors, strict=True):
        taken.append(_label(canvas, quad, caption, color, taken))
    return canvas


def masks(
    image: Image,
    corners: NDArray[np.int32],
    crops: Sequence[NDArray[np.uint8]],
    colors: Sequence[Color],
) -> Image:
    """Lay masks over the picture, large ones first.

    Each is drawn on its own part of the image, so no (n, H, W) array is allocated.

    Args:
        image: BGR uint8 (H, W, 3).
        corners: x, y of each crop in image pixels, (N, 2).
        crops: N masks, uint8 0 or 1.
        colors: N colors.

    Returns:
        A copy of the image.
    """
    canvas = _copy(image)
    for index in sorted(range(len(crops)), key=lambda i: -crops[i].size):
        crop, (x, y) = crops[index], corners[index]
        part = canvas[y : y + crop.shape[0], x : x + crop.shape[1]]
        inside = crop.astype(bool)
        part[inside] = np.rint(
            part[inside] * (1 - _OPACITY) + np.array(colors[index]) * _OPACITY
        ).astype(np.uint8)
    return canvas


def skeletons(
    image: Image,
    xy: NDArray[np.float32],
    visible: NDArray[np.bool_],
    colors: Sequence[Color],
) -> Image:
    """Draw keypoints, and the limbs of the sets of key points that LIMBS knows by K.

    Args:
        image: BGR uint8 (H, W, 3).
        xy: Keypoints in pixels, (N, K, 2).
        visible: Which of them to draw, (N, K).
        colors: N colors.

    Returns:
        A copy of the image.
    """
    canvas = _copy(image)
    thickness = _thickness(image)
    limbs = LIMBS.get(xy.shape[1], ())
    for points, seen, color in zip(_pixels(xy), visible, colors, strict=True):
        for a, b in limbs:
            if seen[a] and seen[b]:
                cv2.line(canvas, points[a], points[b], color, thickness, cv2.LINE_AA)
        for point in points[seen]:
            # A white rim tells a point from the limbs and from what lies behind.
            cv2.circle(canvas, point, thickness + 2, (255, 255, 255), cv2.FILLED, cv2.LINE_AA)
            cv2.circle(canvas, point, thickness + 1, color, cv2.FILLED, cv2.LINE_AA)
    return canvas


def _copy(image: Image) -> Image:
    return np.array(image, np.uint8, order="C", copy=True)


def _pixels(xy: NDArray[Any]) -> NDArray[np.int32]:
    near = np.clip(np.rint(np.nan_to_num(xy)), -_FAR, _FAR)
    return np.asarray(near, np.int32)


def _thickness(image: Image) -> int:
    height, width = image.shape[:2]
    return max(2, round(min(int(height), int(width)) / 400))


def _label(
    canvas: Image, quad: NDArray[np.int32], text: str, color: Color, taken: Sequence[_Rect]
) -> _Rect:
    """Draw a caption at a box where it covers no other one, and return where it is."""
    scale = max(0.4, min(canvas.shape[:2]) / 1200)
    weight = max(1, round(1.5 * scale))
    (wide, high), below = cv2.getTextSize(text, _FONT, scale, weight)
    width, height = wide + 2 * _PAD, high + below + 2 * _PAD
    place = _free_place(canvas, quad, width, height, taken)
    x, y, _, _ = place
    cv2.rectangle(canvas, (x, y), (x + width - 1, y + height - 1), color, cv2.FILLED)
    at = (x + _PAD, y + _PAD + high)
    cv2.putText(canvas, text, at, _FONT, scale, readable_on(color), weight, cv2.LINE_AA)
    return place


def _free_place(
    canvas: Image, quad: NDArray[np.int32], width: int, height: int, taken: Sequence[_Rect]
) -> _Rect:
    """Above the box, below it or inside: the first place in the picture that is free."""
    (left, top), (right, bottom) = quad.min(axis=0).tolist(), quad.max(axis=0).tolist()
    tall, wide = canvas.shape[:2]
    last = right - width + 1
    wanted = [
        (x, y) for y in (top - height, top, bottom + 1, bottom - height + 1) for x in (left, last)
    ]
    inside = [
        _placed(x, y, width, height, wide, tall) for x, y in wanted if 0 <= y <= tall - height
    ]
    free = (place for place in inside if not any(_overlap(place, other) for other in taken))
    return next(free, inside[0] if inside else _placed(left, top, width, height, wide, tall))


def _placed(x: int, y: int, width: int, height: int, wide: int, tall: int) -> _Rect:
    """Moved into the picture; where it is too large, its beginning is shown."""
    return max(0, min(x, wide - width)), max(0, min(y, tall - height)), width, height


def _overlap(a: _Rect, b: _Rect) -> bool:
    return a[0] < b[0] + b[2] and b[0] < a[0] + a[2] and a[1] < b[1] + b[3] and b[1] < a[1] + a[3]


def side_by_side(pictures: Sequence[Image], captions: Sequence[str]) -> Image:
    """BGR images of one height side by side, each below its caption (ASCII)."""
    columns = []
    for picture, caption in zip(pictures, captions, strict=True):
        scale = picture.shape[1] / 900
        bar = np.full((round(48 * scale), picture.shape[1], 3), 255, np.uint8)
        place = (round(14 * scale), round(33 * scale))
        weight = max(1, round(2 * scale))
        cv2.putText(bar, caption, place, _FONT, scale, (40, 40, 40), weight)
        columns.append(np.vstack([bar, picture]))
    gap = np.full((columns[0].shape[0], 8, 3), 255, np.uint8)
    return np.hstack([part for column in columns for part in (gap, column)][1:])
