"""Drawing results, through supervision."""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING

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
