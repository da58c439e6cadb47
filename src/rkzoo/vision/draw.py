"""Drawing results, through supervision."""

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


def need_supervision() -> ModuleType:
    """The supervision package. Raises RkzooError where it is not installed (boards)."""
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
    """A copy of a BGR picture (H, W, 3) with boxes and captions, coloured by class."""
    sv = need_supervision()
    canvas = np.ascontiguousarray(image).copy()
    thickness = sv.calculate_optimal_line_thickness((image.shape[1], image.shape[0]))
    scale = sv.calculate_optimal_text_scale((image.shape[1], image.shape[0]))
    canvas = sv.BoxAnnotator(thickness=thickness).annotate(canvas, detections)
    drawn: NDArray[np.uint8] = sv.LabelAnnotator(
        text_scale=scale, text_padding=3, smart_position=True
    ).annotate(canvas, detections, captions)
    return drawn


def beside(pictures: Sequence[NDArray[np.uint8]], captions: Sequence[str]) -> NDArray[np.uint8]:
    """BGR pictures of one height side by side, each under its caption (ASCII)."""
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
