"""Maps of classes: drawn over their picture, written and read as label maps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from rkzoo.errors import RkzooError
from rkzoo.files import atomic_output, explained
from rkzoo.vision.palettes import palette

U8 = NDArray[np.uint8]
_OPACITY = 0.5


def overlay(
    image: U8, classes: U8, named: Sequence[tuple[int, str]], labels: tuple[str, ...] = ()
) -> U8:
    """A BGR picture (H, W, 3) with each pixel half in the colour of its class (H, W), and below
    it the classes `named` with their colours. Black, VOC's background, leaves the picture as it
    is. Only ASCII can be written; other signs become ?."""
    colors = palette(labels)[:, ::-1]
    laid = colors[classes]
    mixed = cv2.addWeighted(image, 1 - _OPACITY, laid, _OPACITY, 0)
    plain = ~laid.any(axis=2)
    mixed[plain] = image[plain]
    return np.vstack([mixed, _legend(image.shape[1], named, colors)])


def _legend(width: int, named: Sequence[tuple[int, str]], colors: U8) -> U8:
    """White rows with a patch of colour before each name."""
    line = max(16, min(40, width // 32))
    scale = line / 36
    pieces = [(color, name.encode("ascii", "replace").decode()) for color, name in named]
    places, x, row = [], 0, 0
    for _, name in pieces:
        (text, _), _ = cv2.getTextSize(name, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
        needed = line + text + line
        if x and x + needed > width:
            x, row = 0, row + 1
        places.append((x, row * line))
        x += needed
    canvas = np.full(((row + 1) * line if pieces else 0, width, 3), 255, np.uint8)
    for (number, name), (left, top) in zip(pieces, places, strict=True):
        pad = line // 6
        canvas[top + pad : top + line - pad, left + pad : left + line - pad] = colors[number]
        place = (left + line, top + line - line // 3)
        cv2.putText(canvas, name, place, cv2.FONT_HERSHEY_SIMPLEX, scale, (30, 30, 30), 1,
                    cv2.LINE_AA)  # fmt: skip
    return canvas


def write_map(path: Path, classes: U8, labels: tuple[str, ...] = ()) -> None:
    """A PNG whose numbers are the classes, with their colours as its palette. Raises
    RkzooError."""
    from PIL import Image

    picture = Image.fromarray(classes)
    picture.putpalette(palette(labels).tobytes())
    with atomic_output(path) as part, explained(f"{path} cannot be written."):
        picture.save(part, format="PNG")


def read_map(path: Path) -> U8:
    """(H, W) uint8 classes of a label map: grey, or with a palette whose numbers count. Raises
    RkzooError for other pictures."""
    from PIL import Image

    with explained(f"{path} cannot be read."):
        try:
            with Image.open(path) as picture:
                picture.load()
                mode, numbers = picture.mode, np.asarray(picture)
        except (ValueError, SyntaxError) as error:
            raise _no_map(path, str(error)) from error
    if mode not in ("L", "P") or numbers.ndim != 2:
        raise _no_map(path, f"It is a picture of the kind {mode}, not one number a pixel.")
    return numbers.astype(np.uint8)


def _no_map(path: Path, why: str) -> RkzooError:
    return RkzooError(
        f"{path} is no map of classes.",
        why,
        "Each pixel's value must be its class, as in VOC's SegmentationClass and Cityscapes' "
        "labelTrainIds.",
    )
