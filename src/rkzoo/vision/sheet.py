"""Contact sheet: many images as one."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from rkzoo.contract.inputs import ImageInput
from rkzoo.vision.letterbox import fit

Image = NDArray[np.uint8]

_SIDE, _BAR, _GAP = 240, 26, 8  # pixels: side of an image, caption bar, gap
_INK, _PAPER = (40, 40, 40), 255


def contact_sheet(pictures: Sequence[Image], captions: Sequence[str], columns: int = 4) -> Image:
    """Arrange images in a grid, each above its caption.

    Args:
        pictures: BGR uint8 images of any size.
        captions: ASCII (other characters become ?); the start of a long one is left out.
        columns: Images per row.

    Returns:
        BGR uint8.
    """
    if not pictures:
        raise ValueError("a sheet needs a picture")
    columns = min(columns, len(pictures))
    rows = -(-len(pictures) // columns)
    tall, wide = _SIDE + _BAR + _GAP, _SIDE + _GAP
    canvas = np.full((rows * tall + _GAP, columns * wide + _GAP, 3), _PAPER, np.uint8)
    spec = ImageInput(size=(_SIDE, _SIDE), color="BGR", pad=_PAPER)
    for index, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        top = _GAP + index // columns * tall
        left = _GAP + index % columns * wide
        canvas[top : top + _SIDE, left : left + _SIDE] = fit(picture, spec)[0][0]
        place = (left + 2, top + _SIDE + 18)
        cv2.putText(canvas, _short(caption), place, cv2.FONT_HERSHEY_SIMPLEX, 0.45, _INK, 1,
                    cv2.LINE_AA)  # fmt: skip
    return canvas


def _short(caption: str) -> str:
    plain = "".join(c if c.isascii() and c.isprintable() else "?" for c in caption)
    score, _, name = plain.partition("  ")
    return f"{score}  {name if len(name) <= 22 else '..' + name[-20:]}"
