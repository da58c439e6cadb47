"""Drawing of recognized text, in any script that the given font has."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont

from rkzoo.errors import RkzooError
from rkzoo.vision.palettes import Color

Image = NDArray[np.uint8]
Font = str | os.PathLike[str] | None

# Longest side of a drawn image in pixels: letters of a smaller one would be unreadable, and a
# larger one is needlessly big.
LEAST_SIDE, MOST_SIDE = 640, 1600
FILL = 0.82
_MEASURE = 64
NO_FONT = "No font was given: characters other than ASCII are shown as ?"

# From low to high confidence, BGR; all are readable on white.
_UNSURE, _HALF, _SURE = (40, 40, 215), (0, 85, 180), (60, 130, 20)


def confidence_color(score: float) -> Color:
    """BGR color of a score: red below 0.7, from there orange to green."""
    low, high, share = (
        (_UNSURE, _HALF, score / 0.7) if score < 0.7 else (_HALF, _SURE, (score - 0.7) / 0.25)
    )
    share = min(max(share, 0.0), 1.0)
    blue, green, red = (round(a + (b - a) * share) for a, b in zip(low, high, strict=True))
    return blue, green, red


def side_by_side(
    image: Image,
    quads: NDArray[Any],
    texts: Sequence[str],
    scores: Sequence[float] | NDArray[Any],
    font: Font = None,
) -> Image:
    """The image with text quads, and beside it the texts on white at the same places.

    Args:
        image: BGR uint8 (H, W, 3).
        quads: (N, 4, 2) in image pixels, clockwise from the top-left corner.
        texts: One per quad.
        scores: In 0..1; they choose the colors.
        font: Path of a font file; without one only ASCII can be drawn, which a footer says.

    Returns:
        BGR, twice as wide as the image, scaled where that is very small or very large.

    Raises:
        RkzooError: The font cannot be read.
    """
    scale = _scale(image)
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    resized = image.copy() if scale == 1 else cv2.resize(image, size, interpolation=way)
    left = np.asarray(resized, np.uint8)
    scaled = np.asarray(quads, np.float64).reshape(-1, 4, 2) * scale
    colors = [confidence_color(float(score)) for score in scores]
    outline(left, scaled, colors)
    right = panel((size[1], size[0]), scaled, texts, colors, font)
    return np.hstack([left, right])


def listed(
    image: Image, texts: Sequence[str], scores: Sequence[float] | NDArray[Any], font: Font = None
) -> Image:
    """The image with lines of text in its corner, on white.

    Args:
        image: BGR uint8 (H, W, 3).
        texts: The lines.
        scores: In 0..1; they choose the colors.
        font: Path of a font file; without one only ASCII can be drawn.

    Returns:
        BGR, scaled where the image is very small or very large.
    """
    scale = _scale(image)
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    canvas = np.array(
        image if scale == 1 else cv2.resize(image, size, interpolation=way), np.uint8, copy=True
    )
    height, width = canvas.shape[:2]
    file = os.fspath(font) if font else None
    line = max(14, min(height // 16, width // 24))
    top = edge = max(2, line // 4)
    for text, score in zip(texts, scores, strict=True):
        shown = text if file else _ascii(text)
        if top + line > height or not shown.strip():
            break
        tile = _tile(shown, width - 2 * edge, line / FILL, confidence_color(float(score)), file)
        part = canvas[top : top + tile.shape[0], edge : edge + tile.shape[1]]
        part[:] = tile[: part.shape[0], : part.shape[1]]
        top += tile.shape[0]
    return canvas


def outline(image: Image, quads: NDArray[Any], colors: Sequence[Color]) -> None:
    """Draw quads (N, 4, 2) into a BGR image, with a white rim for dark backgrounds."""
    thick = max(1, round(max(image.shape[:2]) / 700))
    for quad, color in zip(quads, colors, strict=True):
        points = [np.round(quad * 8).astype(np.int32)]
        for ink, width in (((255, 255, 255), thick + 2), (color, thick)):
            cv2.polylines(image, points, True, ink, width, cv2.LINE_AA, shift=3)


def panel(
    shape: tuple[int, int],
    quads: NDArray[Any],
    texts: Sequence[str],
    colors: Sequence[Color],
    font: Font = None,
) -> Image:
    """A white BGR image of `shape` (height, width) with each text in its quad."""
    height, width = shape
    file = os.fspath(font) if font else None
    canvas = np.full((height, width, 3), 255, np.uint8)
    outline(canvas, quads, [_pale(color) for color in colors])
    for quad, text, color in zip(np.asarray(quads, np.float64), texts, colors, strict=True):
        shown = text if file else _ascii(text)
        if shown.strip():
            _put(canvas, quad, shown, color, file)
    if file is None and any(not text.isascii() for text in texts):
        foot = max(10, min(18, width // 40))
        top, end = height - foot - 6, width - 4
        corners = [[4, top], [end, top], [end, top + foot], [4, top + foot]]
        _put(canvas, np.array(corners, np.float64), NO_FONT, (90, 90, 90), None)
    return canvas


def _put(
    canvas: Image, quad: NDArray[np.float64], text: str, color: Color, font: str | None
) -> None:
    """Draw one text into its quad: as large as fits, along its longer direction."""
    along, across = quad[1] - quad[0], quad[3] - quad[0]
    corner = quad[0]
    length, depth = float(np.hypot(*along)), float(np.hypot(*across))
    if depth >= 1.5 * length:
        # The line runs downwards; the tops of its letters point right.
        corner, along, across = quad[1], across, -along
        length, depth = depth, length
    if min(length, depth) < 1:
        return
    tile = _tile(text, length, depth, color, font)
    tile_h, tile_w = tile.shape[:2]
    u, v = along / max(length, 1e-6), across / max(depth, 1e-6)
    if abs(u[1]) * length < 0.25 * depth and u[0] > 0:
        # Almost level: no resampling, so that letters stay sharp.
        u, v, corner = (
            np.array([1.0, 0.0]),
            np.array([0.0, 1.0]),
            np.round(_level_corner(quad, depth)),
        )
    start = corner + v * max(0.0, (depth - tile_h) / 2)
    matrix = np.array([[u[0], v[0], start[0]], [u[1], v[1], start[1]]])
    ends = np.array([[0, 0, 1], [tile_w, 0, 1], [0, tile_h, 1], [tile_w, tile_h, 1]]) @ matrix.T
    low = np.maximum(np.floor(ends.min(axis=0)).astype(int), 0)
    high = np.minimum(np.ceil(ends.max(axis=0)).astype(int) + 1, canvas.shape[1::-1])
    if np.any(high <= low):
        return
    matrix[:, 2] -= low
    window = canvas[low[1] : high[1], low[0] : high[0]]
    drawn = cv2.warpAffine(
        tile,
        matrix,
        (window.shape[1], window.shape[0]),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=(255, 255, 255),
    )
    # The darker of the two, so that neighbors do not erase each other.
    np.minimum(window, drawn, out=window)


def _level_corner(quad: NDArray[np.float64], depth: float) -> NDArray[np.float64]:
    centre = quad.mean(axis=0)
    return np.array([quad[:, 0].min(), centre[1] - depth / 2])


def _tile(text: str, length: float, depth: float, color: Color, font: str | None) -> Image:
    """`text` on white, as large as fits into length x depth: BGR, cropped to the text."""
    box = _font(font, _MEASURE).getbbox(text)
    wide = max(1.0, box[2] - box[0]) / _MEASURE
    # The em size: Latin and Chinese lines of the same quad get letters of the same size.
    size = max(6, int(min(depth * FILL, length / wide)))
    face = _font(font, size)
    left, _, right, _ = face.getbbox(text)
    ascent, descent = _metrics(font, size)
    tile = Pillow.new("RGB", (max(1, int(right - left) + 1), ascent + descent), "white")
    red_first = (color[2], color[1], color[0])
    ImageDraw.Draw(tile).text((-left, ascent), text, fill=red_first, font=face, anchor="ls")
    return np.ascontiguousarray(np.asarray(tile)[:, :, ::-1])


def _metrics(font: str | None, size: int) -> tuple[int, int]:
    """Ascent and descent in pixels, for Latin and Chinese."""
    box = _font(font, size).getbbox("国gÅ|" if font else "g|", anchor="ls")
    return max(1, int(np.ceil(-box[1]))), max(1, int(np.ceil(box[3])))


@lru_cache(maxsize=256)
def _font(font: str | None, size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    if font is None:
        return ImageFont.load_default(size)
    try:
        return ImageFont.truetype(font, size)
    except OSError as error:
        raise RkzooError(
            f"The font {Path(font)} cannot be read.",
            f"{str(error).capitalize()}.",
            "Give the path of a .ttf, .otf or .ttc file.",
        ) from error


def _ascii(text: str) -> str:
    return "".join(c if c.isascii() and c.isprintable() else "?" for c in text)


def _pale(color: Color) -> Color:
    blue, green, red = (round(255 - (255 - c) * 0.35) for c in color)
    return blue, green, red


def _scale(image: Image) -> float:
    longest = int(max(image.shape[:2]))
    return LEAST_SIDE / longest if longest < LEAST_SIDE else min(1.0, MOST_SIDE / longest)
