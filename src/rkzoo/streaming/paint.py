"""Drawing with OpenCV alone, for boards without supervision."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rkzoo.streaming.tracking import Tracked, as_boxes, can_track
from rkzoo.tasks.tensors.result import Tensors
from rkzoo.vision.draw import require_supervision

Image = NDArray[np.uint8]

# BGR, by class.
_COLOURS = (
    (242, 81, 163), (61, 215, 255), (138, 61, 255), (80, 200, 60), (255, 128, 40), (40, 110, 255),
    (200, 200, 40), (130, 60, 190), (90, 160, 240), (180, 220, 120),
)  # fmt: skip


def has_supervision() -> bool:
    """Whether supervision is available for full drawing. Importing it takes seconds, so it is
    checked before the first frame.
    """
    from rkzoo.errors import RkzooError

    try:
        require_supervision()
    except RkzooError:
        return False
    return True


def draw_boxes_only(prediction: Any, image: Image) -> Image:
    """Draw axis-aligned boxes, labels, scores and track ids on a copy of the BGR image; results
    without boxes are written as text lines in the top-left corner.
    """
    inner = prediction.prediction if isinstance(prediction, Tracked) else prediction
    if isinstance(inner, Tensors):
        return inner.draw(image.copy())
    if not can_track(inner):
        return _lines(prediction.lines(), image)
    boxes = as_boxes(inner)
    captions = boxes.captions()
    if isinstance(prediction, Tracked):
        captions = [
            f"#{number} {caption}" if number else caption
            for number, caption in zip(prediction.ids.tolist(), captions, strict=True)
        ]
    canvas: Image = image.copy()
    scale, weight = _sizes(image)
    for (x1, y1, x2, y2), number, caption in zip(
        boxes.xyxy.round().astype(int).tolist(), boxes.class_id.tolist(), captions, strict=True
    ):
        colour = _COLOURS[number % len(_COLOURS)]
        cv2.rectangle(canvas, (x1, y1), (x2, y2), colour, weight)
        (width, height), _ = cv2.getTextSize(caption, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
        # Above the box, or inside where there is no room.
        top = y1 - height - 6 if y1 > height + 6 else y1
        cv2.rectangle(canvas, (x1, top), (x1 + width + 4, top + height + 6), colour, cv2.FILLED)
        at = (x1 + 2, top + height + 2)
        cv2.putText(canvas, caption, at, cv2.FONT_HERSHEY_SIMPLEX, scale, (0, 0, 0), 1, cv2.LINE_AA)
    return canvas


def _lines(lines: Sequence[str], image: Image) -> Image:
    canvas: Image = image.copy()
    scale, weight = _sizes(image)
    for row, line in enumerate(lines[:20], 1):
        at = (6, round(32 * scale * row))
        for colour, thick in (((0, 0, 0), weight + 2), ((255, 255, 255), weight)):
            cv2.putText(
                canvas, line, at, cv2.FONT_HERSHEY_SIMPLEX, scale, colour, thick, cv2.LINE_AA
            )
    return canvas


def _sizes(image: Image) -> tuple[float, int]:
    """Text scale and line thickness for an image."""
    return max(0.4, image.shape[0] / 1200), max(1, round(image.shape[0] / 400))
