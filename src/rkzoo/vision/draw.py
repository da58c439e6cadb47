"""Drawing of boxes, masks and keypoints, with supervision."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from rkzoo.errors import RkzooError

if TYPE_CHECKING:
    import supervision


def require_supervision() -> ModuleType:
    """Import supervision. Raises RkzooError where it is not installed (boards)."""
    try:
        import supervision
    except ImportError as error:
        raise RkzooError(
            "Pictures cannot be drawn here.",
            f"The package supervision is not installed ({error}).",
            'Install it with: pip install "rkzoo[pc]"',
        ) from error
    return supervision


def boxes(
    image: NDArray[np.uint8], detections: supervision.Detections, captions: list[str]
) -> NDArray[np.uint8]:
    """Draw boxes with captions, colored by class, on a copy of a BGR image uint8 (H, W, 3)."""
    sv = require_supervision()
    canvas = np.ascontiguousarray(image).copy()
    canvas = sv.BoxAnnotator(thickness=_thickness(image)).annotate(canvas, detections)
    return _captioned(canvas, detections, captions)


def rotated_boxes(
    image: NDArray[np.uint8], detections: supervision.Detections, captions: list[str]
) -> NDArray[np.uint8]:
    """As `boxes`, for detections with the corners of rotated boxes in their data."""
    sv = require_supervision()
    canvas = np.ascontiguousarray(image).copy()
    canvas = sv.OrientedBoxAnnotator(thickness=_thickness(image)).annotate(canvas, detections)
    return _captioned(canvas, detections, captions)


def masks(
    image: NDArray[np.uint8],
    class_id: NDArray[np.int32],
    corners: NDArray[np.int32],
    crops: Sequence[NDArray[np.uint8]],
) -> NDArray[np.uint8]:
    """Draw instance masks, large ones first.

    Each is drawn on its own part of the image, so no (n, H, W) array is allocated.

    Args:
        image: BGR uint8 (H, W, 3).
        class_id: (N,).
        corners: x, y of each crop in image pixels, (N, 2).
        crops: N masks, uint8 0 or 1.

    Returns:
        A copy of the image.
    """
    sv = require_supervision()
    canvas: NDArray[np.uint8] = np.ascontiguousarray(image).copy()
    annotator = sv.MaskAnnotator(opacity=0.5)
    for index in sorted(range(len(crops)), key=lambda i: -crops[i].size):
        crop, (x, y) = crops[index], corners[index]
        if not crop.any():
            continue
        height, width = crop.shape
        detections = sv.Detections(
            xyxy=np.array([[0, 0, width, height]], np.float32),
            mask=crop[None].astype(bool),
            class_id=class_id[index : index + 1],
        )
        part = canvas[y : y + height, x : x + width]
        part[:] = annotator.annotate(part.copy(), detections)
    return canvas


# Of the 17 COCO keypoints: nose, eyes, ears, shoulders, elbows, wrists, hips, knees, ankles, the
# left one first.
COCO_LIMBS = (
    (0, 1), (0, 2), (1, 2), (1, 3), (2, 4), (3, 5), (4, 6), (5, 6), (5, 7), (7, 9), (6, 8),
    (8, 10), (5, 11), (6, 12), (11, 12), (11, 13), (13, 15), (12, 14), (14, 16),
)  # fmt: skip


def skeletons(
    image: NDArray[np.uint8], xy: NDArray[np.float32], visible: NDArray[np.bool_]
) -> NDArray[np.uint8]:
    """Draw keypoints, and limbs where K is COCO's 17. Each skeleton has its own color.

    Args:
        image: BGR uint8 (H, W, 3).
        xy: Keypoints in pixels, (N, K, 2).
        visible: Which of them to draw, (N, K).

    Returns:
        A copy of the image.
    """
    sv = require_supervision()
    canvas = np.ascontiguousarray(image).copy()
    thickness = _thickness(image)
    # supervision counts keypoints from 1.
    edges = [(a + 1, b + 1) for a, b in COCO_LIMBS] if xy.shape[1] == 17 else []
    for number in range(len(xy)):
        color = sv.ColorPalette.DEFAULT.by_idx(number)
        # A keypoint at 0, 0 counts as missing in every version of supervision.
        place = np.where(visible[number, :, None], xy[number], 0).astype(np.float32)
        key_points = sv.KeyPoints(xy=place[None])
        if edges:
            canvas = sv.EdgeAnnotator(color, thickness, edges).annotate(canvas, key_points)
        canvas = sv.VertexAnnotator(sv.Color.WHITE, thickness + 1).annotate(canvas, key_points)
        canvas = sv.VertexAnnotator(color, thickness).annotate(canvas, key_points)
    drawn: NDArray[np.uint8] = canvas
    return drawn


def _thickness(image: NDArray[np.uint8]) -> int:
    return int(require_supervision().calculate_optimal_line_thickness(image.shape[1::-1]))


def _captioned(
    canvas: NDArray[np.uint8], detections: supervision.Detections, captions: list[str]
) -> NDArray[np.uint8]:
    sv = require_supervision()
    scale = sv.calculate_optimal_text_scale(canvas.shape[1::-1])
    drawn: NDArray[np.uint8] = sv.LabelAnnotator(
        text_scale=scale, text_padding=3, smart_position=True
    ).annotate(canvas, detections, captions)
    return drawn


def side_by_side(
    pictures: Sequence[NDArray[np.uint8]], captions: Sequence[str]
) -> NDArray[np.uint8]:
    """BGR images of one height side by side, each below its caption (ASCII)."""
    columns = []
    for picture, caption in zip(pictures, captions, strict=True):
        scale = picture.shape[1] / 900
        bar = np.full((round(48 * scale), picture.shape[1], 3), 255, np.uint8)
        place = (round(14 * scale), round(33 * scale))
        weight = max(1, round(2 * scale))
        cv2.putText(bar, caption, place, cv2.FONT_HERSHEY_SIMPLEX, scale, (40, 40, 40), weight)
        columns.append(np.vstack([bar, picture]))
    gap = np.full((columns[0].shape[0], 8, 3), 255, np.uint8)
    return np.hstack([part for column in columns for part in (gap, column)][1:])
