"""A person cut out of a picture, in the proportions of a network's input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class PersonCrop:
    """Where the input of a network lies in a picture.

    Attributes:
        center: x, y in source pixels.
        extent: width and height in source pixels.
        size: (height, width) of the input.
        corners: the outermost pixels of the input lie on the edges of the extent (UDP); else each
            covers its share.
    """

    center: tuple[float, float]
    extent: tuple[float, float]
    size: tuple[int, int]
    corners: bool = False

    @classmethod
    def of(
        cls,
        box: NDArray[Any],
        size: tuple[int, int],
        padding: float,
        corners: bool = False,
    ) -> PersonCrop:
        """The crop around a box x1, y1, x2, y2, its sides times `padding`, the shorter one made
        longer until the proportions are those of the input."""
        left, top, right, bottom = (float(side) for side in box)
        # A detector's box may have been clipped to nothing at the edge of the picture.
        width, height = (right - left or 1) * padding, (bottom - top or 1) * padding
        aspect = size[1] / size[0]
        extent = (max(width, height * aspect), max(height, width / aspect))
        return cls(((left + right) / 2, (top + bottom) / 2), extent, size, corners)

    def matrix(self) -> NDArray[np.float64]:
        """Source pixels to pixels of the input, 2x3."""
        height, width = self.size
        less = 1 if self.corners else 0
        scale = ((width - less) / self.extent[0], (height - less) / self.extent[1])
        shift = [
            0.5 * extent * factor - center * factor
            for center, extent, factor in zip(self.center, self.extent, scale, strict=True)
        ]
        return np.array([[scale[0], 0, shift[0]], [0, scale[1], shift[1]]])

    def cut(self, image: NDArray[np.uint8], canvas: NDArray[np.uint8]) -> None:
        """Writes the crop of a BGR picture (H, W, 3) into (height, width, 3); black beside it."""
        height, width = self.size
        cv2.warpAffine(image, self.matrix(), (width, height), dst=canvas, flags=cv2.INTER_LINEAR)

    def to_source(self, points: NDArray[Any]) -> NDArray[np.float32]:
        """x, y in 0..width and 0..height of the input (..., 2) to source pixels."""
        sides = np.array(self.size[::-1], np.float64)
        corner = np.array(self.center) - np.array(self.extent) / 2
        return np.asarray(points / sides * np.array(self.extent) + corner, np.float32)
