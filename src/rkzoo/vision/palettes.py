"""Class color palettes of well-known data sets."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

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
