"""Synthetic document images, for calibration without a network or a data set.

Documents, bills, tables, signs and labels in English and Chinese, then degraded as if by a camera:
skewed, unevenly lit, blurred and noisy. Everything follows from the seed.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont

from rkzoo.errors import RkzooError

Image = NDArray[np.uint8]
Color = tuple[int, int, int]
Font = str | os.PathLike[str]
Random = np.random.Generator

_LETTERS = (
    "camera model board chip page line light street number open first water paper window river "
    "garden morning bridge station market north copper yellow seven table invoice total amount "
    "quality measure signal sensor memory release network input output weight layer kernel "
)
_WORDS = tuple(_LETTERS.split())
_HAN = (
    "天地人山水火木金土日月风云雨雪花草树石路桥门窗书笔纸字文图像数据模型芯片内存速度精度"
    "输入输出网络学习训练部署开发测试工程电脑相机城市公园车站市场学校医院银行商店餐厅酒店"
    "东西南北上下左右前后大小多少高低长短新旧早晚年月日时分秒元角斤克米升个件号楼层室区街"
)
_INKS: tuple[tuple[Color, Color], ...] = (  # ink and paper, BGR
    ((25, 25, 25), (245, 246, 248)),
    ((40, 40, 45), (215, 228, 235)),
    ((120, 60, 20), (250, 250, 250)),
    ((30, 30, 170), (240, 244, 246)),
    ((60, 130, 40), (252, 252, 252)),
    ((250, 250, 250), (120, 70, 20)),
    ((240, 240, 240), (40, 45, 50)),
    ((245, 250, 250), (50, 110, 40)),
    ((40, 220, 250), (130, 40, 20)),
    ((90, 95, 100), (200, 210, 215)),
)


@dataclass(frozen=True)
class Line:
    """One line of text.

    Attributes:
        text: The text.
        x: Left of its box in pixels, before rotation.
        y: Top of its box likewise.
        size: Em height in pixels.
        color: BGR.
        degrees: Clockwise rotation around its center.
        bold: Bold strokes.
        spacing: Extra pixels between letters.
    """

    text: str
    x: float
    y: float
    size: int
    color: Color = (30, 30, 30)
    degrees: float = 0.0
    bold: bool = False
    spacing: int = 0


def pages(count: int, seed: int, font: Font) -> list[Image]:
    """Generate images of text.

    Args:
        count: Number of images.
        seed: Seed; the same seed gives the same images.
        font: Path of a font file with Chinese and Latin letters.

    Returns:
        BGR uint8 images (H, W, 3) of 400 to 1300 pixels.

    Raises:
        RkzooError: The font cannot be read.
    """
    kinds: tuple[Callable[[Random, Font], Image], ...] = (
        _document,
        _sign,
        _table,
        _label,
        _bill,
    )
    return [
        kinds[index % len(kinds)](np.random.default_rng([seed, index]), font)
        for index in range(count)
    ]


def write_line(canvas: Image, line: Line, font: Font) -> None:
    """Draw one line of text into a BGR image, in place, clipped to it."""
    face = _face(os.fspath(font), line.size)
    stroke = max(1, line.size // 28) if line.bold else 0
    text = line.text
    width = face.getlength(text) + line.spacing * len(text) + 2 * stroke
    height = line.size * 1.3
    mask = Pillow.new("L", (max(1, int(width) + 2), int(height) + 2), 0)
    pen, base = ImageDraw.Draw(mask), int(line.size * 1.02)
    x = float(stroke)
    for part in text if line.spacing else [text]:
        pen.text((x, base), part, fill=255, font=face, anchor="ls", stroke_width=stroke)
        x += face.getlength(part) + line.spacing
    ink = np.asarray(mask)
    if line.degrees:
        ink, shift = _turned(ink, line.degrees)
    else:
        shift = np.zeros(2)
    _blend(canvas, ink, (round(line.x + shift[0]), round(line.y + shift[1])), line.color)


def line_width(text: str, size: int, font: Font) -> float:
    """Width of a text in pixels."""
    return float(_face(os.fspath(font), size).getlength(text))


def texture(rng: Random, height: int, width: int, color: Color, strength: float) -> Image:
    """An uneven surface around a BGR `color`: multi-scale noise, uint8 (H, W, 3)."""
    surface = np.zeros((height, width), np.float32)
    for cell in (200, 60, 18, 5, 2):
        grid = rng.normal(size=(height // cell + 2, width // cell + 2)).astype(np.float32)
        surface += cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)
    surface *= strength / 2.2
    return np.clip(surface[:, :, None] + np.array(color, np.float32), 0, 255).astype(np.uint8)


def photograph(
    page: Image,
    rng: Random,
    *,
    desk: Color = (70, 90, 110),
    margin: float = 0.05,
    tilt: float = 0.03,
    shade: float = 0.25,
    blur: float = 0.6,
    noise: float = 4.0,
) -> Image:
    """Render a page as photographed on a desk.

    Args:
        page: BGR uint8 (H, W, 3).
        rng: Random generator.
        desk: BGR color of the desk.
        margin: Visible desk, as a fraction of the size.
        tilt: Displacement of the corners, as a fraction of the size.
        shade: How much darker the darkest corner is, as a fraction.
        blur: Gaussian blur in pixels.
        noise: Noise in gray levels.

    Returns:
        BGR uint8 of the same size.
    """
    height, width = page.shape[:2]
    size = np.array([width, height], np.float32)
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32)
    inner = corners * (1 - 2 * margin) + margin
    strayed = inner + rng.uniform(-tilt, tilt, (4, 2)).astype(np.float32)
    matrix = cv2.getPerspectiveTransform(corners * size, strayed * size)
    seen = cv2.warpPerspective(page, matrix, (width, height), flags=cv2.INTER_CUBIC)
    cover = cv2.warpPerspective(
        np.full((height, width), 255, np.uint8), matrix, (width, height), flags=cv2.INTER_LINEAR
    )
    ground = texture(rng, height, width, desk, 16).astype(np.float32)
    # A soft shadow around the page.
    dark = cv2.GaussianBlur(cover, (0, 0), max(2.0, width / 90)).astype(np.float32) / 255
    ground *= 1 - 0.45 * dark[:, :, None]
    share = cover.astype(np.float32)[:, :, None] / 255
    picture = ground * (1 - share) + seen.astype(np.float32) * share

    direction = rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    slope = (x / width - 0.5) * np.cos(direction) + (y / height - 0.5) * np.sin(direction)
    picture *= (1 - shade * (slope + 0.5))[:, :, None].astype(np.float32)
    if blur > 0:
        picture = np.asarray(cv2.GaussianBlur(picture, (0, 0), blur), np.float32)
    picture += rng.normal(0, noise, picture.shape).astype(np.float32)
    return np.clip(picture, 0, 255).astype(np.uint8)


def phrase(rng: Random, letters: int) -> str:
    """Random words, Chinese or numbers of about so many letters."""
    kind = rng.integers(0, 5)
    if kind < 2:
        text = ""
        while len(text) < letters:
            text += ("" if not text else " ") + str(rng.choice(_WORDS))
        return text.capitalize() if rng.random() < 0.6 else text.upper()
    if kind < 4:
        return "".join(rng.choice(list(_HAN), max(2, letters // 2)))
    digits = "".join(rng.choice(list("0123456789"), max(3, letters // 2)))
    before, between = rng.choice(["No. ", "", "¥ ", "A-"]), rng.choice([".", "-", ":"])
    return f"{before}{digits[:-2]}{between}{digits[-2:]}"


def _document(rng: Random, font: Font) -> Image:
    height, width = _size(rng)
    ink, paper = _INKS[rng.integers(0, 5)]
    page = texture(rng, height, width, paper, 2)
    body = int(rng.integers(13, 30))
    y = float(rng.uniform(0.03, 0.08) * height)
    heading = int(body * rng.uniform(1.4, 2.6))
    write_line(page, Line(phrase(rng, 14), width * 0.07, y, heading, ink, bold=True), font)
    y += heading * 1.8
    while y < height - 2 * body:
        letters = int(width * rng.uniform(0.3, 0.85) / (body * 0.55))
        write_line(page, Line(phrase(rng, letters), width * 0.07, y, body, ink), font)
        y += body * rng.uniform(1.4, 2.4)
    return _scanned_or_photographed(page, rng)


def _bill(rng: Random, font: Font) -> Image:
    height, width = _size(rng, tall=True)
    page = texture(rng, height, width, (225, 232, 236), 4)
    size = int(np.clip(width / rng.uniform(16, 26), 14, 44))
    y = size * 1.5
    while y < height - 2 * size:
        scale = float(rng.choice([1.0, 1.0, 1.0, 1.5]))
        line = int(size * scale)
        write_line(page, Line(phrase(rng, 10), width * 0.08, y, line, (50, 45, 45)), font)
        amount = f"{rng.uniform(1, 900):.2f}"
        x = width * 0.93 - line_width(amount, line, font)
        write_line(page, Line(amount, x, y, line, (50, 45, 45)), font)
        y += line * rng.uniform(1.3, 2.0)
    return _scanned_or_photographed(page, rng)


def _table(rng: Random, font: Font) -> Image:
    height, width = _size(rng)
    page = texture(rng, height, width, (250, 250, 250), 1)
    rows, columns = int(rng.integers(8, 18)), int(rng.integers(3, 6))
    cell_h, cell_w = height / (rows + 1), width / (columns + 0.5)
    size = int(np.clip(cell_h * rng.uniform(0.4, 0.62), 11, 34))
    for row in range(rows):
        y = cell_h * (row + 0.5)
        if rng.random() < 0.7:
            cv2.line(page, (0, int(y)), (width, int(y)), (150, 150, 150), 1)
        for column in range(columns):
            x = cell_w * (column + 0.3)
            text = phrase(rng, max(4, int(cell_w / size * rng.uniform(0.5, 1.2))))
            while line_width(text, size, font) > cell_w * 0.88:
                text = text[:-1]
            write_line(page, Line(text, x, y + (cell_h - 1.3 * size) / 2, size), font)
    return _scanned_or_photographed(page, rng, plain=0.6)


def _sign(rng: Random, font: Font) -> Image:
    """Few large letters on boards and walls, some vertical, in front of clutter."""
    height, width = _size(rng)
    scene = _clutter(rng, height, width)
    for _ in range(int(rng.integers(2, 5))):
        ink, paper = _INKS[rng.integers(0, len(_INKS))]
        size = int(rng.uniform(0.035, 0.13) * height)
        text = phrase(rng, int(rng.integers(4, 12)))
        across = min(int(line_width(text, size, font)) + size, int(width * 0.9))
        lines = int(rng.integers(1, 3))
        down = int(size * 1.7 * lines) + size // 2
        x, y = rng.uniform(0, max(1, width - across)), rng.uniform(0, max(1, height - down))
        board = texture(rng, down, across, paper, 5)
        for row in range(lines):
            shown = text if row == 0 else phrase(rng, int(rng.integers(4, 10)))
            write_line(
                board,
                Line(
                    shown,
                    size / 2,
                    size * (0.4 + 1.6 * row),
                    size,
                    ink,
                    bold=bool(rng.random() < 0.5),
                ),
                font,
            )
        _paste(scene, board, x, y, rng.uniform(-12, 12))
    if rng.random() < 0.7:
        size = int(rng.uniform(0.03, 0.06) * height)
        x, y = rng.uniform(0.05, 0.9) * width, rng.uniform(0.05, 0.3) * height
        for i, letter in enumerate(rng.choice(list(_HAN), int(rng.integers(4, 9)))):
            write_line(scene, Line(str(letter), x, y + i * size * 1.2, size, (245, 245, 245)), font)
    return _exposed(scene, rng)


def _label(rng: Random, font: Font) -> Image:
    """Small lines of different sizes and colors, also skewed, upside down and sideways."""
    height, width = _size(rng)
    scene = _clutter(rng, height, width)
    ink, paper = _INKS[rng.integers(0, len(_INKS))]
    down, across = int(height * rng.uniform(0.6, 0.9)), int(width * rng.uniform(0.6, 0.9))
    board = texture(rng, down, across, paper, 3)
    y = down * 0.05
    while y < down * 0.9:
        size = int(np.clip(down * rng.uniform(0.022, 0.08), 12, 80))
        turn = float(rng.choice([0, 0, 0, 180, 2, -2]))
        gap = int(rng.choice([0, 0, 0, size // 3]))
        letters = int(across * rng.uniform(0.3, 0.8) / (0.6 * size + gap))
        line = Line(
            phrase(rng, max(3, letters)),
            across * rng.uniform(0.04, 0.15),
            y,
            size,
            ink,
            turn,
            spacing=gap,
        )
        write_line(board, line, font)
        y += size * rng.uniform(1.4, 2.2)
    _paste(scene, board, (width - across) / 2, (height - down) / 2, rng.uniform(-8, 8))
    return _exposed(scene, rng)


def _clutter(rng: Random, height: int, width: int) -> Image:
    """The surroundings of text in a photo: surfaces, edges, circles, rectangles."""
    base = tuple(int(v) for v in rng.integers(40, 220, 3))
    scene = texture(rng, height, width, (base[0], base[1], base[2]), float(rng.uniform(8, 45)))
    for _ in range(int(rng.integers(10, 60))):
        color = [int(v) for v in rng.integers(10, 245, 3)]
        x, y = int(rng.integers(0, width)), int(rng.integers(0, height))
        reach = int(rng.integers(4, max(5, width // 5)))
        thick = int(rng.choice([-1, 1, 2, 4]))
        match rng.integers(0, 3):
            case 0:
                cv2.circle(scene, (x, y), reach // 2, color, thick, cv2.LINE_AA)
            case 1:
                end = (x + reach, y + int(rng.integers(3, reach + 4)))
                cv2.rectangle(scene, (x, y), end, color, thick)
            case _:
                points = np.array([x, y]) + rng.integers(-reach, reach, (4, 2))
                cv2.polylines(
                    scene, [points.astype(np.int32)], False, color, abs(thick), cv2.LINE_AA
                )
    return scene


def _scanned_or_photographed(page: Image, rng: Random, plain: float = 0.3) -> Image:
    """A page: scanned (with probability `plain`) or photographed."""
    if rng.random() < plain:
        return page
    desk = tuple(int(v) for v in rng.integers(30, 190, 3))
    return photograph(
        page,
        rng,
        desk=(desk[0], desk[1], desk[2]),
        margin=float(rng.uniform(0, 0.12)),
        tilt=float(rng.uniform(0, 0.05)),
        shade=float(rng.uniform(0, 0.6)),
        blur=float(rng.uniform(0, 1.3)),
        noise=float(rng.uniform(1, 9)),
    )


def _exposed(scene: Image, rng: Random) -> Image:
    """Brightness, contrast, blur and noise of a photo."""
    picture = scene.astype(np.float32) * rng.uniform(0.45, 1.15) + rng.uniform(-10, 25)
    picture = np.asarray(cv2.GaussianBlur(picture, (0, 0), float(rng.uniform(0.3, 1.2))))
    picture += rng.normal(0, rng.uniform(1, 9), picture.shape)
    return np.asarray(np.clip(picture, 0, 255), np.uint8)


def _size(rng: Random, tall: bool = False) -> tuple[int, int]:
    long, short = int(rng.integers(600, 1300)), int(rng.integers(400, 900))
    long, short = max(long, short), min(long, short)
    return (long, short) if tall or rng.random() < 0.5 else (short, long)


def _paste(scene: Image, board: Image, x: float, y: float, degrees: float) -> None:
    """Paste `board` into `scene` with its top-left corner at x, y, rotated around its center."""
    height, width = board.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), -degrees, 1)
    matrix[:, 2] += np.array([x, y])
    size = (scene.shape[1], scene.shape[0])
    cover = cv2.warpAffine(np.full((height, width), 255, np.uint8), matrix, size)
    turned = cv2.warpAffine(board, matrix, size, flags=cv2.INTER_CUBIC)
    share = cover[:, :, None].astype(np.float32) / 255
    scene[:] = (scene * (1 - share) + turned * share).astype(np.uint8)


def _turned(
    ink: NDArray[np.uint8], degrees: float
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """The mask rotated clockwise around its center, and the new position of its corner."""
    height, width = ink.shape
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), -degrees, 1)
    corners = np.array([[0, 0, 1], [width, 0, 1], [0, height, 1], [width, height, 1]]) @ matrix.T
    low = np.floor(corners.min(axis=0))
    size = np.ceil(corners.max(axis=0) - low).astype(int)
    matrix[:, 2] -= low
    turned = cv2.warpAffine(ink, matrix, (int(size[0]), int(size[1])), flags=cv2.INTER_CUBIC)
    return np.asarray(turned, np.uint8), np.asarray(low, np.float64)


def _blend(canvas: Image, ink: NDArray[np.uint8], at: tuple[int, int], color: Color) -> None:
    left, top = max(0, at[0]), max(0, at[1])
    right = min(canvas.shape[1], at[0] + ink.shape[1])
    bottom = min(canvas.shape[0], at[1] + ink.shape[0])
    if right <= left or bottom <= top:
        return
    share = ink[top - at[1] : bottom - at[1], left - at[0] : right - at[0], None] / np.float32(255)
    window = canvas[top:bottom, left:right]
    window[:] = np.round(window * (1 - share) + np.array(color, np.float32) * share).astype(
        np.uint8
    )


@lru_cache(maxsize=128)
def _face(font: str, size: int) -> ImageFont.FreeTypeFont:
    try:
        return ImageFont.truetype(font, size)
    except OSError as error:
        raise RkzooError(
            f"The font {font} cannot be read.",
            f"{str(error).capitalize()}.",
            "Give the path of a .ttf, .otf or .ttc file.",
        ) from error
