"""Letterboxing: fitting an image into the model's input, and mapping boxes back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from rkzoo.contract.inputs import ImageInput

Image = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Letterbox:
    """Geometry of one fitted image, in integers; from preprocess to postprocess.

    Attributes:
        source: Image (height, width).
        size: Model input (height, width).
        scaled: Image (height, width) after scaling.
        left: x of the scaled image in the input; negative where only its center is shown.
        top: y likewise.
    """

    source: tuple[int, int]
    size: tuple[int, int]
    scaled: tuple[int, int]
    left: int
    top: int

    @property
    def scale(self) -> tuple[float, float]:
        """Source pixels per model pixel, (x, y), from the integers."""
        return self.source[1] / self.scaled[1], self.source[0] / self.scaled[0]

    def to_source(self, points: NDArray[Any]) -> NDArray[np.float32]:
        """Map model coordinates (..., 2k) in x,y order to source pixels, without clipping."""
        sx, sy = self.scale
        k = points.shape[-1] // 2
        offset = np.array([self.left, self.top] * k, dtype=np.float32)
        factor = np.array([sx, sy] * k, dtype=np.float32)
        return np.asarray((points - offset) * factor, dtype=np.float32)

    def boxes_to_source(self, xyxy: NDArray[Any]) -> NDArray[np.float32]:
        """Map boxes (N, 4) x1,y1,x2,y2 to source pixels, clipped to the image."""
        boxes = self.to_source(xyxy)
        height, width = self.source
        np.clip(boxes[..., 0::2], 0, width, out=boxes[..., 0::2])
        np.clip(boxes[..., 1::2], 0, height, out=boxes[..., 1::2])
        return boxes


def plan(source: tuple[int, int], spec: ImageInput) -> Letterbox:
    """Compute where an image goes in the model input.

    Args:
        source: Image (height, width).
        spec: The input.
    """
    height, width = source
    size_h, size_w = spec.size
    if spec.fit == "stretch":
        return Letterbox(source, spec.size, spec.size, 0, 0)
    if spec.fit == "line":
        scaled_w = min(size_w, max(1, round(width * size_h / height)))
        return Letterbox(source, spec.size, (size_h, scaled_w), 0, 0)
    if spec.fit == "crop":
        short, least = spec.short or max(spec.size), min(height, width)
        whole = int if spec.smooth else round  # as the respective upstream rounds
        scaled = (
            max(size_h, whole(height * short / least)),
            max(size_w, whole(width * short / least)),
        )
        return Letterbox(
            source, spec.size, scaled, -((scaled[1] - size_w) // 2), -((scaled[0] - size_h) // 2)
        )
    ratio = min(size_h / height, size_w / width)
    scaled = (
        min(size_h, max(1, round(height * ratio))),
        min(size_w, max(1, round(width * ratio))),
    )
    if spec.place == "top-left":
        return Letterbox(source, spec.size, scaled, 0, 0)
    # The odd pixel goes to the right and bottom, as in the upstream projects.
    return Letterbox(
        source, spec.size, scaled, (size_w - scaled[1]) // 2, (size_h - scaled[0]) // 2
    )


def fit(image: Image, spec: ImageInput, canvas: Image | None = None) -> tuple[Image, Letterbox]:
    """Fit an image into the model's input.

    Args:
        image: BGR uint8 (H, W, 3), BGRA (H, W, 4), gray (H, W, 1), or NV12 (H * 3 / 2, W) in BT.601
            limited range.
        spec: The input.
        canvas: An array of the result's shape to reuse.

    Returns:
        uint8 (1, height, width, C) in the color order of `spec`, padded in every channel, and the
        geometry.
    """
    image = with_channels(image, spec.channels)
    box = plan((image.shape[0], image.shape[1]), spec)
    height, width = spec.size
    if canvas is None:
        canvas = np.empty((1, height, width, spec.channels), np.uint8)
    target = canvas[0]
    if spec.fit == "crop":
        _middle(image, box, target, spec.smooth)
        _ordered(target, spec)
        return canvas, box
    inside = border(target, box, spec.pad)
    if box.scaled == box.source:
        np.copyto(inside, image)
    elif spec.smooth:
        np.copyto(inside, _bicubic(image, box.scaled))
    elif spec.channels == 1:
        np.copyto(inside, _resized(image, box.scaled, _bilinear(box)))
    else:
        cv2.resize(image, (box.scaled[1], box.scaled[0]), dst=inside, interpolation=_bilinear(box))
    _ordered(inside, spec)
    return canvas, box


# From so many channels to so many; alpha is 255 where there was none.
_CONVERSIONS = {
    (1, 3): cv2.COLOR_GRAY2BGR,
    (1, 4): cv2.COLOR_GRAY2BGRA,
    (3, 1): cv2.COLOR_BGR2GRAY,
    (3, 4): cv2.COLOR_BGR2BGRA,
    (4, 1): cv2.COLOR_BGRA2GRAY,
    (4, 3): cv2.COLOR_BGRA2BGR,
}


def with_channels(image: Image, channels: int) -> Image:
    """Convert an image as `fit` takes it to 1, 3 (BGR) or 4 (BGRA) channels: (H, W, channels)."""
    if image.ndim == 2:
        image = np.asarray(cv2.cvtColor(image, cv2.COLOR_YUV2BGR_NV12), np.uint8)
    if image.shape[2] == channels:
        return image
    converted = cv2.cvtColor(image, _CONVERSIONS[image.shape[2], channels])
    return np.asarray(converted, np.uint8).reshape(*image.shape[:2], channels)


def _ordered(target: Image, spec: ImageInput) -> None:
    """Convert BGR(A) to RGB(A) in place, where the model wants that."""
    if spec.color == "RGB":
        cv2.cvtColor(target, cv2.COLOR_BGR2RGB, dst=target)
    elif spec.color == "RGBA":
        cv2.cvtColor(target, cv2.COLOR_BGRA2RGBA, dst=target)


def _resized(image: Image, size: tuple[int, int], way: int) -> Image:
    """The image scaled to (height, width), keeping the channel axis that OpenCV drops for one
    channel.
    """
    resized = cv2.resize(image, (size[1], size[0]), interpolation=way)
    return np.asarray(resized, np.uint8).reshape(*size, image.shape[2])


def _bicubic(image: Image, size: tuple[int, int]) -> Image:
    """The image scaled to (height, width) by Pillow's bicubic filter, which averages."""
    plane = image[..., 0] if image.shape[2] == 1 else image
    scaled = Pillow.fromarray(plane).resize((size[1], size[0]), Pillow.Resampling.BICUBIC)
    return np.asarray(scaled).reshape(*size, -1)


def border(target: Image, box: Letterbox, pad: int) -> Image:
    """Fill the padding of a canvas (H, W, C) with `pad`; returns the view of the image's area."""
    bottom, right = box.top + box.scaled[0], box.left + box.scaled[1]
    target[: box.top] = pad
    target[bottom:] = pad
    target[box.top : bottom, : box.left] = pad
    target[box.top : bottom, right:] = pad
    return target[box.top : bottom, box.left : right]


def _bilinear(box: Letterbox) -> int:
    """At an odd integer ratio (1080p to 640 wide is 3) every bilinear sample falls on the center of
    a pixel: nearest gives the same values in two thirds of the time.
    """
    pairs = zip(box.source, box.scaled, strict=True)
    odd = all(length % scaled == 0 and length // scaled % 2 for length, scaled in pairs)
    return cv2.INTER_NEAREST_EXACT if odd else cv2.INTER_LINEAR


def _middle(image: Image, box: Letterbox, target: Image, smooth: bool = False) -> None:
    """Center crop of the scaled image into `target`. Downscaling averages (INTER_AREA), as Pillow
    does upstream: plain bilinear would skip pixels. `smooth`: Pillow's own bicubic filter,
    bit-exact.
    """
    size_h, size_w = box.size
    top, left = -box.top, -box.left
    scaled_h, scaled_w = box.scaled
    if max(box.scaled) > _LONGEST * max(box.size):
        # A very elongated image: its ends would only cost memory.
        image, (scaled_h, scaled_w) = _shortened(image, box)
        top, left = (scaled_h - size_h) // 2, (scaled_w - size_w) // 2
    if (scaled_h, scaled_w) == image.shape[:2]:
        pass
    elif smooth:
        image = _bicubic(image, (scaled_h, scaled_w))
    else:
        way = cv2.INTER_AREA if scaled_h < image.shape[0] else cv2.INTER_LINEAR
        image = _resized(image, (scaled_h, scaled_w), way)
    np.copyto(target, image[top : top + size_h, left : left + size_w])


_LONGEST = 8  # times the input's side


def _shortened(image: Image, box: Letterbox) -> tuple[Image, tuple[int, int]]:
    """The center of an elongated image, and the (height, width) to scale it to."""
    sides = []
    for length, scaled, size in zip(box.source, box.scaled, box.size, strict=True):
        kept = min(length, max(1, round(length * _LONGEST * size / scaled)))
        kept += (length - kept) % 2  # the same at both ends
        sides.append((kept, max(size, round(scaled * kept / length))))
    (height, to_h), (width, to_w) = sides
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return image[top : top + height, left : left + width], (to_h, to_w)
