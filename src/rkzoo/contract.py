"""What a model promises: the types that graph, zoo, tasks, runtime and toolkit share.

They are schema-checked (an unknown key is an error) because they come from yaml cards,
from sidecar files and from the custom string inside a .rknn.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec


class Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of every checked record: immutable, and an unknown key is an error."""


class TensorSpec(Strict, frozen=True):
    """One input or output of a session.

    `shape` uses -1 for a dimension that is free. `scale` and `zero_point` are set for
    integer tensors: value = (q - zero_point) * scale.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    layout: Literal["NCHW", "NHWC", "NC1HWC2", "plain"] = "plain"
    scale: float | None = None
    zero_point: int = 0


Size = Annotated[int, msgspec.Meta(ge=1, le=16384)]


class ImageInput(Strict, frozen=True):
    """How a picture becomes the model's input.

    `size` is (height, width) in pixels. `mean` and `std` are in units of 0..255 and in
    the channel order `color`: x = (pixel - mean) / std. They are applied inside the
    .rknn or inside the ONNX session, never by preprocessing. `fit`: `letterbox` keeps
    the aspect ratio and pads to the size; `stretch` does not keep it; `line` scales to
    the height, keeps the aspect ratio and pads on the right. `place` says where a
    letterboxed picture sits.
    """

    size: tuple[Size, Size]
    color: Literal["RGB", "BGR"] = "RGB"
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (255.0, 255.0, 255.0)
    fit: Literal["letterbox", "stretch", "line"] = "letterbox"
    pad: Annotated[int, msgspec.Meta(ge=0, le=255)] = 114
    place: Literal["center", "top-left"] = "center"

    def __post_init__(self) -> None:
        if 0.0 in self.std:
            raise ValueError("std must not contain 0")


class HeadOutput(Strict, frozen=True):
    """What one output tensor means. `level` counts the pyramid levels from the finest.

    Roles: `box` (DFL logits, 4*reg_max channels in the order l,t,r,b, bins innermost),
    `score` (one channel a class), `score_sum` (clipped sum of the scores, a fast
    filter), `decoded` (the uncut 1x(4+C)xN tensor: cx,cy,w,h in input pixels, scores).
    """

    name: str
    role: Literal["box", "score", "score_sum", "decoded"]
    level: Annotated[int, msgspec.Meta(ge=0)] = 0


class DetectHead(Strict, frozen=True, tag="detect", tag_field="kind"):
    """Anchor-free detection head with distribution-coded distances (YOLOv8, YOLO11).

    `activated` tells whether the scores leave the graph after their sigmoid.
    """

    outputs: tuple[HeadOutput, ...]
    classes: Annotated[int, msgspec.Meta(ge=1)]
    reg_max: Annotated[int, msgspec.Meta(ge=1)] = 16
    strides: tuple[Size, ...] = (8, 16, 32)
    activated: bool = True


class TextDetHead(Strict, frozen=True, tag="text-det", tag_field="kind"):
    """Differentiable binarisation (DB) probability map, 1x1xHxW, already in 0..1.

    https://arxiv.org/abs/1911.08947; the defaults are PaddleOCR's.
    """

    threshold: float = 0.3
    box_threshold: float = 0.6
    unclip_ratio: float = 1.5
    max_boxes: int = 1000


class TextClsHead(Strict, frozen=True, tag="text-cls", tag_field="kind"):
    """Angle of a text line: 1xN softmax scores for `angles` (degrees)."""

    angles: tuple[int, ...] = (0, 180)
    threshold: float = 0.9


class TextRecHead(Strict, frozen=True, tag="text-rec", tag_field="kind"):
    """CTC recognition: 1xTxC softmax scores; class `blank` is the CTC blank.

    The characters are the contract's labels: label i is class i, the blank included.
    """

    blank: int = 0


Head = DetectHead | TextDetHead | TextClsHead | TextRecHead


class Contract(Strict, frozen=True):
    """Everything needed to feed a model and to read its answer."""

    family: str
    input: ImageInput
    head: Head
    labels: tuple[str, ...] = ()
