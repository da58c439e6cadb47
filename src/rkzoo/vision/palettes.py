"""Colors: of classes and instances, of well-known data sets, and of text on them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

Color = tuple[int, int, int]
"""Blue, green, red in 0..255."""

# BGR: neighbors differ clearly, and all stand out from photographs.
THINGS: tuple[Color, ...] = (
    (242, 81, 163), (61, 215, 255), (80, 175, 30), (40, 90, 255), (255, 128, 40), (230, 230, 50),
    (130, 60, 190), (50, 160, 250), (180, 220, 120), (200, 40, 70), (180, 105, 255), (0, 125, 130),
    (60, 20, 200), (170, 140, 0), (200, 190, 240), (30, 70, 120),
)  # fmt: skip
_BLACK, _WHITE = (0, 0, 0), (255, 255, 255)


def things(numbers: Iterable[int]) -> list[Color]:
    """A color for each number: of a class, an instance or a track."""
    return [THINGS[number % len(THINGS)] for number in numbers]


def contrast(a: Color, b: Color) -> float:
    """Contrast of two BGR colors as WCAG 2 defines it: 1 (equal) to 21; 4.5 is readable."""
    high, low = sorted((_luminance(a), _luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def readable_on(color: Color) -> Color:
    """Black or white, whichever is read better on a BGR color: its contrast is 4.58 at least."""
    return max(_BLACK, _WHITE, key=lambda ink: contrast(ink, color))


def _luminance(color: Color) -> float:
    blue, green, red = (
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
        for c in (v / 255 for v in color)
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


# https://www.cityscapes-dataset.com, the 19 training classes, RGB.
_CITYSCAPES = (
    (128, 64, 128), (244, 35, 232), (70, 70, 70), (102, 102, 156), (190, 153, 153),
    (153, 153, 153), (250, 170, 30), (220, 220, 0), (107, 142, 35), (152, 251, 152),
    (70, 130, 180), (220, 20, 60), (255, 0, 0), (0, 0, 142), (0, 0, 70), (0, 60, 100),
    (0, 80, 100), (0, 0, 230), (119, 11, 32),
)  # fmt: skip


def voc(count: int = 256) -> NDArray[np.uint8]:
    """PASCAL VOC's palette, RGB uint8 (count, 3): the bits of a class id, three at a time, become
    bits of red, green and blue, the highest first.
    """
    numbers = np.arange(count)
    colors = np.zeros((count, 3), np.uint8)
    for step in range(8):
        for channel in range(3):
            bit = (numbers >> (3 * step + channel)) & 1
            colors[:, channel] |= (bit << (7 - step)).astype(np.uint8)
    return colors


def palette(labels: tuple[str, ...]) -> NDArray[np.uint8]:
    """RGB uint8 (256, 3): Cityscapes' colors for its classes, VOC's for all others."""
    colors = voc()
    if labels[:1] == ("road",) and len(labels) == len(_CITYSCAPES):
        colors[: len(_CITYSCAPES)] = _CITYSCAPES
    return colors
