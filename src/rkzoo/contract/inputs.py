"""Inputs of models and tensors of sessions."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from rkzoo.contract.schema_base import Length, Size, Strict


class TensorSpec(Strict, frozen=True):
    """An input or output of a session.

    Attributes:
        name: Name of the tensor.
        shape: Its shape, -1 for a dynamic dimension.
        dtype: numpy name of its type.
        layout: Its layout.
        scale: Quantization scale of an integer tensor: value = (q - zero_point) * scale.
        zero_point: Its zero point.
        channels: Channels of an NC1HWC2 tensor without the padding of its blocks; 0 where unknown.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    layout: Literal["NCHW", "NHWC", "NC1HWC2", "plain"] = "plain"
    scale: float | None = None
    zero_point: int = 0
    channels: int = 0


Color = Literal["RGB", "BGR", "GRAY", "RGBA", "BGRA"]
"""Channel order of an image. GRAY is OpenCV's conversion (ITU-R BT.601); A is alpha, 255 where an
image has none."""
CHANNELS: dict[Color, int] = {"RGB": 3, "BGR": 3, "GRAY": 1, "RGBA": 4, "BGRA": 4}


class ImageInput(Strict, frozen=True):
    """Preprocessing of an image input.

    Attributes:
        size: (height, width) in pixels.
        color: Channel order.
        mean: In units of 0..255, one per channel in the order `color`: x = (pixel - mean) / std.
            Applied inside the .rknn or the ONNX session, never by preprocessing.
        std: See `mean`.
        fit: `letterbox` keeps the aspect ratio and pads; `stretch` does not keep it; `line` scales
            to the height, keeps the aspect ratio and pads on the right; `crop` scales the short
            side to `short` pixels and crops the center, as classifiers are evaluated.
        short: Short side in pixels for `crop`.
        pad: Padding value.
        place: Position of a letterboxed image.
        smooth: For `crop`, use Pillow's bicubic filter, as upstream does.
    """

    size: tuple[Size, Size]
    color: Color = "RGB"
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (255.0, 255.0, 255.0)
    fit: Literal["letterbox", "stretch", "line", "crop"] = "letterbox"
    short: Size | None = None
    pad: Annotated[int, msgspec.Meta(ge=0, le=255)] = 114
    place: Literal["center", "top-left"] = "center"
    smooth: bool = False

    @property
    def channels(self) -> int:
        """Number of channels of `color`: 1, 3 or 4."""
        return CHANNELS[self.color]

    def __post_init__(self) -> None:
        for word, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != self.channels:
                raise ValueError(
                    f"{word} has {len(values)} numbers, and a {self.color} picture takes "
                    f"{self.channels}"
                )
        if 0.0 in self.std:
            raise ValueError("std must not contain 0")
        if self.short is not None and self.fit != "crop":
            raise ValueError("short goes with fit: crop only")
        if self.smooth and self.fit != "crop":
            raise ValueError("smooth goes with fit: crop only")
        if self.short is not None and self.short < max(self.size):
            raise ValueError("short must not be less than the size")


class ArrayInput(Strict, frozen=True):
    """An input that is not an image, fed as it is; the graph is fixed to its shape.

    `image`: the preprocessing by which an image becomes such an array, (N, C, height, width).
    `texts`: (1, slots, width), one text embedding of length 1 per class; unused slots repeat one of
    the others.
    """

    name: str
    shape: tuple[Length, ...]
    role: Literal["texts", "plain"] = "plain"
    dtype: Literal["float32", "int64", "int32"] = "float32"
    image: ImageInput | None = None
