"""Detection heads: boxes, with masks, keypoints or angles."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from rkzoo.contract.schema_base import Size, Strict


class HeadOutput(Strict, frozen=True):
    """The meaning of one output tensor. `level` counts the pyramid levels from the finest.

    Roles of one level, channels x cells:
    - `box`: encoded as `DetectHead.coding` says, 4 * reg_max channels in the order l,t,r,b with the
      bins innermost, or 4.
    - `score`: one channel per class. `score_sum`: their clipped sum, a fast filter. `objectness`:
      one channel.
    - `anchors`: all values of an anchor-based head in one tensor, per anchor x,y,w,h, objectness,
      classes (and mask coefficients).
    - `coefficients`: of the instance masks. `keypoints`: per point x,y (and visibility), raw.
      `angle`: one channel, raw.
    - `fused`: box and score of a level in one tensor, in this order (Rockchip's pose and OBB).

    Roles of all levels together: `prototypes` 1xMxhxw of the masks; `points` 1xKxVxN, keypoints in
    input pixels; `angles` 1x1xN, after the sigmoid; `decoded`, the uncut tensor (two uncut tensors,
    boxes 1xNx4 and scores, are `box` and `score` of a head with `decoded`).
    """

    name: str
    role: Literal[
        "box",
        "score",
        "score_sum",
        "objectness",
        "anchors",
        "coefficients",
        "keypoints",
        "angle",
        "prototypes",
        "points",
        "angles",
        "decoded",
        "fused",
    ]
    level: Annotated[int, msgspec.Meta(ge=0)] = 0


Count = Annotated[int, msgspec.Meta(ge=0)]


class Decoded(Strict, frozen=True):
    """Layout of an uncut tensor: box, objectness where the head has one, classes, extras (mask
    coefficients, keypoints, angle).

    Attributes:
        rows_last: 1xRxN as Ultralytics exports, otherwise 1xNxR.
        corners: Boxes as x1,y1,x2,y2 instead of cx,cy,w,h; both in input pixels.
        picked: One score and one class id instead of the classes, after a top-k in the graph.
        raw: Boxes are not decoded, the levels are only concatenated (YOLOX).
        multiplied: The classes are multiplied by the objectness already, which still precedes them.
    """

    rows_last: bool = True
    corners: bool = False
    picked: bool = False
    raw: bool = False
    multiplied: bool = False


class DetectHead(Strict, frozen=True, tag="detect", tag_field="kind"):
    """A detection head: any YOLO form, with its extras.

    Attributes:
        outputs: The output tensors.
        classes: Number of classes.
        reg_max: DFL bins per side.
        strides: Stride of each level in input pixels.
        activated: Scores and objectness leave the graph after the sigmoid; for `anchor`, all
            channels but the extras do.
        coding: Box encoding. `dfl`: a distribution over reg_max bins for each distance l,t,r,b in
            cells (YOLOv8, 9, 10, 11, 12, PP-YOLOE, YOLOv6 m/l); `distance`: the distances
            themselves (YOLOv6 n/s, YOLO26, YOLO-World); `anchor`: sigmoids relative to `anchors`
            (YOLOv5, YOLOv7); `exponent`: offset and log size in cells (YOLOX).
        anchors: (w, h) in input pixels for each level.
        objectness: The score is objectness times class (`product`), or objectness alone (`alone`:
            YOLOv7 with one class, whose class channel is not trained).
        suppression: NMS within each class, across all classes, or none where the network itself
            gives one box per object (YOLOv10, YOLO26).
        coefficients: Mask coefficients per box.
        keypoints: Number of keypoints.
        keypoint_values: Values per keypoint, 2 without visibility.
        centred_keypoints: Raw keypoints are (p + cell center) * stride (YOLO26), not (2 p + cell
            corner) * stride.
        rotated: Boxes have an angle; a raw one is (sigmoid(a) - 1/4) * pi.
        plain_angle: The raw angle is in radians already (YOLO26).
        decoded: Layout of an uncut tensor; None for a cut head.
    """

    outputs: tuple[HeadOutput, ...]
    classes: Annotated[int, msgspec.Meta(ge=1)]
    reg_max: Annotated[int, msgspec.Meta(ge=1)] = 16
    strides: tuple[Size, ...] = (8, 16, 32)
    activated: bool = True
    coding: Literal["dfl", "distance", "anchor", "exponent"] = "dfl"
    anchors: tuple[tuple[tuple[float, float], ...], ...] = ()
    objectness: Literal["none", "product", "alone"] = "none"
    suppression: Literal["class", "all", "none"] = "class"
    coefficients: Count = 0
    keypoints: Count = 0
    keypoint_values: Literal[2, 3] = 3
    centred_keypoints: bool = False
    rotated: bool = False
    plain_angle: bool = False
    decoded: Decoded | None = None

    def __post_init__(self) -> None:
        if self.coding == "anchor" and self.decoded is None and not self.anchors:
            raise ValueError("an anchor head needs its anchors")
        if self.anchors and len(self.anchors) != len(self.strides):
            raise ValueError("anchors must be given for each level")
