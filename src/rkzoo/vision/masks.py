"""Instance masks from prototypes and coefficients, computed only inside each box."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rkzoo.errors import RkzooError
from rkzoo.vision.letterbox import Letterbox

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]

# From the last pixel of an interpolation to the end of a slice with its right neighbor.
_PAST = np.array([0.0, 0.0, 2.0, 2.0])
_MIDDLE = np.array([0.5, 0.5, -0.5, -0.5])


def mask_crops(
    maps: NDArray[Any],
    coefficients: F32,
    xyxy: F32,
    letterbox: Letterbox,
    scale: float | None = None,
    zero_point: int = 0,
) -> tuple[NDArray[np.int32], tuple[U8, ...]]:
    """Compute instance masks in source image pixels.

    As full-size masks (sigmoid of the product, bilinear to the model's size, threshold 0.5), but
    only inside the boxes; for a scaled image, interpolated to its pixels before the threshold,
    which keeps edges smooth.

    Args:
        maps: Prototypes (blocks, h, w, channels per block), float, or integers with `scale` and
            `zero_point`.
        coefficients: (N, M).
        xyxy: Boxes (N, 4) in source pixels, inside the image.
        letterbox: Geometry of the image in the input.
        scale: Quantization scale of `maps`; None for float.
        zero_point: Its zero point.

    Returns:
        Corners x, y of the crops (N, 2), and the crops, uint8 0 or 1.

    Raises:
        RkzooError: The input size is no multiple of the prototypes'.
    """
    factor = _factor(maps, letterbox)
    # A pixel belongs to the box when its index lies in it, as upstream counts.
    outer = np.ceil(xyxy).astype(np.int32)
    sx, sy = letterbox.scale
    offset = np.array([letterbox.left, letterbox.top] * 2)
    gain = np.array([1 / sx, 1 / sy] * 2)
    # First and last pixel of the crop in model pixels, and those that the interpolation needs.
    inner = (outer + _MIDDLE) * gain + offset - 0.5
    sides = np.array([letterbox.size[1], letterbox.size[0]] * 2)
    pixels = np.clip(np.floor(inner) + _PAST, 0, sides).astype(np.int32)
    limit = np.array([maps.shape[2], maps.shape[1]] * 2)
    reach = (pixels + _MIDDLE) / factor - 0.5
    cells = np.clip(np.floor(reach) + _PAST, 0, limit).astype(np.int32)

    # Interpolated sigmoid(x) exceeds 0.5 where interpolated tanh(x / 2) exceeds 0.
    weights = coefficients * np.float32((1.0 if scale is None else scale) / 2)
    bias = -zero_point * weights.sum(axis=1)
    whole = _movable(maps)
    same = letterbox.scaled == letterbox.source
    rows = zip(outer.tolist(), pixels.tolist(), cells.tolist(), strict=True)
    crops = []
    for number, ((x1, y1, x2, y2), (left, top, right, bottom), (c1, r1, c2, r2)) in enumerate(rows):
        if x2 <= x1 or y2 <= y1:
            crops.append(np.zeros((max(y2 - y1, 0), max(x2 - x1, 0)), np.uint8))
            continue
        share = _product(weights[number], whole[:, r1:r2, c1:c2], maps.dtype)
        share += bias[number]
        np.tanh(share, out=share)
        fine = cv2.resize(share.reshape(r2 - r1, c2 - c1), None, fx=factor, fy=factor)
        fine = fine[
            top - r1 * factor : bottom - r1 * factor, left - c1 * factor : right - c1 * factor
        ]
        if not same:
            shift = inner[number, :2] - (left, top)
            move = np.array([[gain[0], 0, shift[0]], [0, gain[1], shift[1]]])
            fine = cv2.warpAffine(
                fine,
                move,
                (x2 - x1, y2 - y1),
                flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
                borderMode=cv2.BORDER_REPLICATE,
            )
        crops.append((fine[: y2 - y1, : x2 - x1] > 0).view(np.uint8))
    return outer[:, :2].copy(), tuple(crops)


def _movable(maps: NDArray[Any]) -> NDArray[Any]:
    """View as (blocks, h, w), all channels of a block as one element, which is copied at once."""
    size = maps.shape[3] * maps.itemsize
    return maps.view(np.complex128 if size == 16 else np.dtype((np.void, size)))[..., 0]


def _product(weights: F32, window: NDArray[Any], dtype: np.dtype[Any]) -> F32:
    """(M,) weights times (blocks, h, w) elements -> (h * w,); the last block may be padded."""
    count, blocks = len(weights), len(window)
    if window.itemsize == dtype.itemsize:
        planes = window.view(dtype).astype(np.float32).reshape(blocks, -1)
        return np.asarray(weights @ planes[:count], np.float32)
    cells = np.empty((*window.shape[1:], blocks), window.dtype)
    for number in range(blocks):  # `transpose` would loop over the blocks of each cell
        cells[..., number] = window[number]
    rows = cells.view(dtype).reshape(-1, blocks * (window.itemsize // dtype.itemsize))
    return np.asarray(rows.astype(np.float32)[:, :count] @ weights, np.float32)


def _factor(maps: NDArray[Any], letterbox: Letterbox) -> int:
    """Model pixels per prototype cell."""
    height, width = letterbox.size
    rows, columns = maps.shape[1:3]
    if rows and height % rows == 0 and width == columns * (height // rows):
        return int(height // rows)
    raise RkzooError(
        f"The mask prototypes are {rows}x{columns} where the input is {height}x{width}.",
        "The input must be a whole multiple of them.",
        "Look at the model with rkzoo inspect.",
    )


def dense(
    corners: NDArray[np.int32], crops: tuple[U8, ...], size: tuple[int, int]
) -> NDArray[np.bool_]:
    """Expand mask crops to bool (N, H, W) at image size (height, width). Uses much memory."""
    whole = np.zeros((len(crops), *size), bool)
    for plane, (x, y), crop in zip(whole, corners.tolist(), crops, strict=True):
        plane[y : y + crop.shape[0], x : x + crop.shape[1]] = crop
    return whole


def outlines(corner: NDArray[np.int32], crop: U8) -> list[list[int]]:
    """The outer contours of a mask as x1, y1, x2, y2, ... in image pixels."""
    if not crop.size:
        return []
    contours, _ = cv2.findContours(crop, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return [(contour[:, 0] + corner).ravel().tolist() for contour in contours]
