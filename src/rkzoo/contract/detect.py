"""Detection heads: boxes, with masks, keypoints or angles."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from rkzoo.contract.schema_base import Size, StrictStruct


class HeadOutput(StrictStruct, frozen=True):
    """The meaning of one output tensor. `level` counts the pyramid levels from the finest.

    A level, channels by cells:
    - `box`: coded as `DetectHead.coding` says, 4 * reg_max channels in the order l,t,r,b with
      the bins innermost, or 4.
    - `score`: one channel a class. `score_sum`: their clipped sum, a fast filter.
      `objectness`: one channel.
    - `anchors`: everything of an anchor head in one tensor, for each anchor x,y,w,h,
      objectness, classes (and mask coefficients).
    - `coefficients`: of the instance masks. `keypoints`: for each point x,y (and visibility),
      raw. `angle`: one channel, raw.
    Of all levels together: `prototypes` 1xMxhxw of the masks; `points` 1xKxVxN, key points in
    input pixels; `angles` 1x1xN, after their sigmoid; `decoded`, the uncut tensor (where it
    is two, boxes 1xNx4 and scores, they are `box` and `score` of a head with `decoded`).
    `fused`: box, score (and key points) of a level in one tensor, in `DecodedOutput.order`.
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


Part = Literal["box", "objectness", "score", "coefficients", "keypoints", "angle"]


class DecodedOutput(StrictStruct, frozen=True):
    """How an uncut head is laid out: one tensor with everything, or one or several a level.

    `order` of the numbers in a tensor: those of them that the head has. `rows_last`: 1xRxN as
    Ultralytics exports, else 1xNxR. `corners`: x1,y1,x2,y2 instead of cx,cy,w,h, both in input
    pixels, or where `relative` in shares of the input's width and height (TFLite and OpenVINO
    exports); `relative_points`: the key points too. `picked`: one score and one class number
    stand in place of the classes, as after a choice of the best inside the graph. `raw`: the
    boxes are not decoded, only put into rows (YOLOX, NanoDet, PicoDet); distances are in
    pixels then where `pixels` (RTMDet). `multiplied`: the classes hold the objectness as a
    factor already, and its own number stands before them all the same.
    """

    rows_last: bool = True
    corners: bool = False
    picked: bool = False
    raw: bool = False
    pixels: bool = False
    relative: bool = False
    relative_points: bool = False
    order: tuple[Part, ...] = (
        "box",
        "objectness",
        "score",
        "coefficients",
        "keypoints",
        "angle",
    )
    multiplied: bool = False


class DetectHead(StrictStruct, frozen=True, tag="detect", tag_field="kind"):
    """A detection head: any YOLO form, with its extras.

    `coding` of a box: `dfl` a distribution over reg_max bins for each distance l,t,r,b in
    cells (YOLOv8, 9, 10, 11, 12, PP-YOLOE, YOLOv6 m/l, NanoDet, PicoDet); `distance` the
    distances themselves (YOLOv6 n/s, YOLO26, YOLO-World, RTMDet), `log_distance` their
    logarithms (large RTMDet), all measured from `cell_offset` of a cell: its centre .5, or its
    corner 0 (NanoDet-Plus, RTMDet); `anchor` sigmoids relative to `anchors` (YOLOv5, YOLOv7);
    `exponent` offset and log size in cells (YOLOX, YuNet); `middle_exponent` the same, offset from
    the middle pixel of the cell (RTMO). `anchors` are (w, h) in input pixels
    for each level. `objectness`: a score is the product of it and the class, the square root of
    that (`geometric`, YuNet), or it alone (YOLOv7 with one class, whose class channel is not
    trained). `activated`: scores and objectness
    leave the graph after their sigmoid; for `anchor` all channels but the extras do.
    `suppression`: within each class, across all classes, or none where the network itself
    gives one box an object (YOLOv10, YOLO26). `coefficients`: mask coefficients a box.
    `keypoints` and `keypoint_values` (2 without visibility; 1 for visibility alone, where the
    `coefficients` are a vector of which another network makes the points); raw ones are
    (2 p + corner of the cell) * stride, or (p + centre of the cell) * stride where
    `centred_keypoints` (YOLO26), or p * anchor + corner of the cell * stride in a head with
    anchors (YOLOv5-face), or (p + corner of the cell) * stride in one of `exponent` (YuNet).
    `faces`: the
    one class is a face and its five points are eyes, nose and the corners of the mouth.
    `rotated`: boxes have an angle; a raw one is (sigmoid(a) - 1/4) * pi, or a itself where
    `plain_angle` (YOLO26).
    `decoded` describes an uncut tensor.
    """

    outputs: tuple[HeadOutput, ...]
    classes: Annotated[int, msgspec.Meta(ge=1)]
    reg_max: Annotated[int, msgspec.Meta(ge=1)] = 16
    strides: tuple[Size, ...] = (8, 16, 32)
    activated: bool = True
    coding: Literal["dfl", "distance", "log_distance", "anchor", "exponent", "middle_exponent"] = (
        "dfl"
    )
    cell_offset: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.5
    anchors: tuple[tuple[tuple[float, float], ...], ...] = ()
    objectness: Literal["none", "product", "geometric", "alone"] = "none"
    suppression: Literal["class", "all", "none"] = "class"
    coefficients: Count = 0
    keypoints: Count = 0
    keypoint_values: Literal[1, 2, 3] = 3
    centred_keypoints: bool = False
    faces: bool = False
    rotated: bool = False
    plain_angle: bool = False
    decoded: DecodedOutput | None = None

    def __post_init__(self) -> None:
        if self.coding == "anchor" and self.decoded is None and not self.anchors:
            raise ValueError("an anchor head needs its anchors")
        if self.anchors and len(self.anchors) != len(self.strides):
            raise ValueError("anchors must be given for each level")
        if self.faces and (self.classes, self.keypoints) != (1, 5):
            raise ValueError("faces are one class with five key points")
