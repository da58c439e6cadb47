"""Heads of networks that make a picture of a picture."""

from __future__ import annotations

from typing import Annotated

import msgspec

from rkzoo.contract.schema_base import StrictStruct


class RestoreHead(StrictStruct, frozen=True, tag="restore", tag_field="kind"):
    """Super-resolution and restoration (denoising, deblurring and the like), the first output of
    the graph: 1xCx(scale*h)x(scale*w) of an input 1xCxhxw, in its colour order. With one channel it
    is the luma Y of the picture (ITU-R BT.601, full range), and its colours are scaled up bicubic.

    Attributes:
        scale: How many times larger the picture gets.
        mean: What a value is in units of 0..255: pixel = value * std + mean, for every channel.
        std: See `mean`.
        margin: Pixels at the inner sides of a tile that are computed and not used: a picture larger
            than the input is made tile by tile, and near its sides a tile lacks what lies beyond.
    """

    scale: Annotated[int, msgspec.Meta(ge=1, le=16)]
    mean: float = 0.0
    std: Annotated[float, msgspec.Meta(gt=0)] = 255.0
    margin: Annotated[int, msgspec.Meta(ge=0, le=256)] = 10
