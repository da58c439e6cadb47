"""Dense maps (values or class ids): resizing to the image, overlay, reading and writing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rkzoo.errors import RkzooError
from rkzoo.files import atomic_output, open_file, os_errors_explained
from rkzoo.vision.letterbox import Letterbox
from rkzoo.vision.palettes import palette

U8 = NDArray[np.uint8]
F32 = NDArray[np.float32]
_OPACITY = 0.5


def to_source(values: F32, letterbox: Letterbox, *, corners: bool = False) -> F32:
    """Resize a map over the model's input to the source image.

    Bilinear to the input size, crop of the image's area, bilinear to the image size.

    Args:
        values: float32 (h, w).
        letterbox: Geometry of the image in the input.
        corners: align_corners: the outermost values lie on the outermost pixels of the input;
            otherwise each covers its share of it.

    Returns:
        float32 (H, W).
    """
    if corners:
        whole = _aligned(values, letterbox.size)
    else:
        whole = np.asarray(_resized(values, letterbox.size, cv2.INTER_LINEAR), np.float32)
    part = _resized(_part(whole, letterbox), letterbox.source, cv2.INTER_LINEAR)
    return np.asarray(part, np.float32)


def nearest_to_source(classes: U8, letterbox: Letterbox) -> U8:
    """As `to_source` with nearest-neighbor interpolation, for class ids."""
    whole = _resized(classes, letterbox.size, cv2.INTER_NEAREST_EXACT)
    part = _resized(_part(whole, letterbox), letterbox.source, cv2.INTER_NEAREST_EXACT)
    return np.asarray(part, np.uint8)


def _aligned(values: F32, size: tuple[int, int]) -> F32:
    rows, columns = (_weights(n, m) for n, m in zip(values.shape, size, strict=True))
    return np.asarray(rows @ values @ columns.T, np.float32)


def _weights(count: int, requested: int) -> F32:
    """Interpolation weights (wanted, count) with aligned corners."""
    place = np.linspace(0, count - 1, requested)
    weights = np.maximum(0, 1 - np.abs(place[:, None] - np.arange(count)))
    return np.asarray(weights, np.float32)


def _resized(values: NDArray[Any], size: tuple[int, int], way: int) -> NDArray[Any]:
    if values.shape == size:
        return values
    return np.asarray(cv2.resize(np.ascontiguousarray(values), size[::-1], interpolation=way))


def _part(values: NDArray[Any], box: Letterbox) -> NDArray[Any]:
    """The image's area in the input."""
    height, width = box.scaled
    return values[box.top : box.top + height, box.left : box.left + width]


def overlay(
    image: U8, classes: U8, named: Sequence[tuple[int, str]], labels: tuple[str, ...] = ()
) -> U8:
    """Blend class colors over an image, with a legend below.

    Args:
        image: BGR uint8 (H, W, 3).
        classes: Class ids (H, W). Black classes, as VOC's background, leave the image unchanged.
        named: (class id, name) for the legend, ASCII; other characters become ?.
        labels: Class names, which choose the palette.

    Returns:
        BGR uint8, the legend's rows added.
    """
    colors = palette(labels)[:, ::-1]
    laid = colors[classes]
    mixed = cv2.addWeighted(image, 1 - _OPACITY, laid, _OPACITY, 0)
    plain = ~laid.any(axis=2)
    mixed[plain] = image[plain]
    return np.vstack([mixed, _legend(image.shape[1], named, colors)])


def _legend(width: int, named: Sequence[tuple[int, str]], colors: U8) -> U8:
    """White rows with a patch of color before each name."""
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
    """Write class ids (H, W) as a palette PNG in the classes' colors.

    Raises:
        RkzooError: The file cannot be written.
    """
    from PIL import Image

    picture = Image.fromarray(classes)
    picture.putpalette(palette(labels).tobytes())
    with atomic_output(path) as part, os_errors_explained(f"{path} cannot be written."):
        picture.save(part, format="PNG")


def read_map(path: Path) -> U8:
    """Read a label map.

    Args:
        path: A gray image, or a palette image, whose indices count.

    Returns:
        Class ids, uint8 (H, W).

    Raises:
        RkzooError: It is another kind of image, or unreadable.
    """
    from PIL import Image

    with os_errors_explained(f"{path} cannot be read."):
        try:
            with open_file(path) as file, Image.open(file) as picture:
                picture.load()
                mode, numbers = picture.mode, np.asarray(picture)
        except (ValueError, SyntaxError) as error:
            raise _no_map(path, str(error)) from error
    if mode not in ("L", "P") or numbers.ndim != 2:
        raise _no_map(path, f"It is an image of mode {mode}, not one value per pixel.")
    return numbers.astype(np.uint8)


def _no_map(path: Path, why: str) -> RkzooError:
    return RkzooError(
        f"{path} is not a map of classes.",
        why,
        "Each pixel's value must be its class, as in VOC's SegmentationClass and Cityscapes' "
        "labelTrainIds.",
    )


def save_map(path: Path, values: F32) -> None:
    """Write a map (H, W) as .npy. Raises RkzooError where the file cannot be written."""
    with (
        atomic_output(path) as part,
        os_errors_explained(f"{path} cannot be written."),
        part.open("wb") as file,
    ):
        np.save(file, values)
