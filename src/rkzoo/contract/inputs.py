"""Inputs of models and tensors of sessions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, get_args

import msgspec

from rkzoo.contract.schema_base import Length, Size, StrictStruct
from rkzoo.errors import RkzooError


class TensorSpec(StrictStruct, frozen=True):
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


class ImageInput(StrictStruct, frozen=True):
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
        smooth: For `crop` and `stretch`, use Pillow's bicubic filter, as upstream does.
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
        return channels_of(self.color)

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
        if self.smooth and self.fit not in ("crop", "stretch"):
            raise ValueError("smooth goes with fit: crop or stretch only")
        if self.short is not None and self.short < max(self.size):
            raise ValueError("short must not be less than the size")


def fed_as(
    image: ImageInput,
    color: Color | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> ImageInput:
    """`image` with what a user said of it.

    Args:
        image: How the picture goes in so far; its number of channels stays.
        color: Another order of the same channels.
        mean: Taken from the pixels of 0..255; one number counts for every channel.
        std: What they are divided by then, likewise.

    Raises:
        RkzooError: The colour order or the numbers are of another number of channels, or a std
            is 0.
    """
    count = image.channels
    color = color or image.color
    if channels_of(color) != count:
        orders = " or ".join(
            requested for requested in get_args(Color) if channels_of(requested) == count
        )
        raise RkzooError(
            f"The model cannot take {color} pictures.",
            f"It takes {count} channel{'s' * (count > 1)}.",
            f"Give --color {orders}, or leave it out.",
        )
    statistics = {}
    for word, requested, usual in (("mean", mean, image.mean), ("std", std, image.std)):
        values = tuple(usual if requested is None else requested)
        values = values * count if len(values) == 1 else values
        if len(values) != count or (word == "std" and 0 in values):
            example = ",".join(["0" if word == "mean" else "255"] * count)
            raise RkzooError(
                f"The {word} {','.join(f'{value:g}' for value in values)} does not go with this "
                "model.",
                f"It takes {count} number{'s' * (count > 1)}, one for each channel of {color}"
                f"{', and none of them 0' if word == 'std' else ''}.",
                f"Give for example --{word} {example}.",
            )
        statistics[word] = values
    return msgspec.structs.replace(image, color=color, **statistics)


def channels_of(color: Color) -> int:
    """1, 3 or 4."""
    return 1 if color == "GRAY" else len(color)


class ArrayInput(StrictStruct, frozen=True):
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
