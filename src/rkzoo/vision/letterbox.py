"""Fitting a picture into the model's input, and boxes back into the picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rkzoo.contract import ImageInput

Image = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Letterbox:
    """Integer bookkeeping of one fit: made by preprocess, used by decode.

    The picture of `source` (height, width) was scaled to `scaled` (height, width) and
    placed at `left`, `top` in a canvas of `size` (height, width).
    """

    source: tuple[int, int]
    size: tuple[int, int]
    scaled: tuple[int, int]
    left: int
    top: int

    @property
    def scale(self) -> tuple[float, float]:
        """Source pixels a model pixel, (x, y): from the integers, so it is exact."""
        return self.source[1] / self.scaled[1], self.source[0] / self.scaled[0]

    def to_source(self, points: NDArray[Any]) -> NDArray[np.float32]:
        """Model coordinates (..., 2k) in x,y order to source pixels, not clipped."""
        sx, sy = self.scale
        k = points.shape[-1] // 2
        offset = np.array([self.left, self.top] * k, dtype=np.float32)
        factor = np.array([sx, sy] * k, dtype=np.float32)
        return np.asarray((points - offset) * factor, dtype=np.float32)

    def boxes_to_source(self, xyxy: NDArray[Any]) -> NDArray[np.float32]:
        """Boxes (N, 4) x1,y1,x2,y2 to source pixels, clipped to the picture."""
        boxes = self.to_source(xyxy)
        height, width = self.source
        np.clip(boxes[..., 0::2], 0, width, out=boxes[..., 0::2])
        np.clip(boxes[..., 1::2], 0, height, out=boxes[..., 1::2])
        return boxes


def plan(source: tuple[int, int], spec: ImageInput) -> Letterbox:
    """Where a picture of `source` (height, width) goes in the input `spec` describes."""
    height, width = source
    size_h, size_w = spec.size
    if spec.fit == "stretch":
        return Letterbox(source, spec.size, spec.size, 0, 0)
    if spec.fit == "line":
        scaled_w = min(size_w, max(1, round(width * size_h / height)))
        return Letterbox(source, spec.size, (size_h, scaled_w), 0, 0)
    ratio = min(size_h / height, size_w / width)
    scaled = (
        min(size_h, max(1, round(height * ratio))),
        min(size_w, max(1, round(width * ratio))),
    )
    if spec.place == "top-left":
        return Letterbox(source, spec.size, scaled, 0, 0)
    # The odd pixel goes to the right and the bottom, as in the upstream projects.
    return Letterbox(
        source, spec.size, scaled, (size_w - scaled[1]) // 2, (size_h - scaled[0]) // 2
    )


def fit(image: Image, spec: ImageInput, canvas: Image | None = None) -> tuple[Image, Letterbox]:
    """Fits a BGR picture (H, W, 3) into the model's input.

    Returns uint8 (1, height, width, 3) in the colour order of `spec`, and the
    bookkeeping. `canvas` of the same shape is reused when given.
    """
    box = plan((image.shape[0], image.shape[1]), spec)
    height, width = spec.size
    if canvas is None:
        canvas = np.empty((1, height, width, 3), np.uint8)
    target = canvas[0]
    bottom, right = box.top + box.scaled[0], box.left + box.scaled[1]
    target[: box.top] = spec.pad
    target[bottom:] = spec.pad
    target[box.top : bottom, : box.left] = spec.pad
    target[box.top : bottom, right:] = spec.pad
    inside = target[box.top : bottom, box.left : right]
    if box.scaled == box.source:
        np.copyto(inside, image)
    else:
        cv2.resize(image, (box.scaled[1], box.scaled[0]), dst=inside)
    if spec.color == "RGB":
        cv2.cvtColor(inside, cv2.COLOR_BGR2RGB, dst=inside)
    return canvas, box
