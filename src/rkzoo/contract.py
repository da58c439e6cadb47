"""What a model promises: the types that graph, zoo, tasks, runtime and toolkit share.

They are schema-checked (an unknown key is an error) because they come from yaml cards,
from sidecar files and from the custom string inside a .rknn.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from rkzoo.errors import RkzooError
from rkzoo.heads import (
    ActivityHead,
    ClipHead,
    CtcSpeechHead,
    CutOutHead,
    MarianHead,
    SentenceHead,
    SoundHead,
    TensorsHead,
    TransducerHead,
    TranslateHead,
    VoiceHead,
    WhisperHead,
)
from rkzoo.strict import Length, Size, Strict


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


class ImageInput(Strict, frozen=True):
    """How a picture becomes the model's input.

    `size` is (height, width) in pixels. `mean` and `std` are in units of 0..255 and in
    the channel order `color`: x = (pixel - mean) / std. They are applied inside the
    .rknn or inside the ONNX session, never by preprocessing. `fit`: `letterbox` keeps
    the aspect ratio and pads to the size; `stretch` does not keep it; `line` scales to
    the height, keeps the aspect ratio and pads on the right; `crop` scales the short side to
    `short` pixels and takes the middle, as classifiers are tested, `smooth` by a bicubic filter
    as wide as upstream's. `place` says where a letterboxed picture sits.
    """

    size: tuple[Size, Size]
    color: Literal["RGB", "BGR"] = "RGB"
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (255.0, 255.0, 255.0)
    fit: Literal["letterbox", "stretch", "line", "crop"] = "letterbox"
    short: Size | None = None
    pad: Annotated[int, msgspec.Meta(ge=0, le=255)] = 114
    place: Literal["center", "top-left"] = "center"
    smooth: bool = False

    def __post_init__(self) -> None:
        if 0.0 in self.std:
            raise ValueError("std must not contain 0")
        if self.short is not None and self.fit != "crop":
            raise ValueError("short goes with fit: crop only")
        if self.smooth and self.fit != "crop":
            raise ValueError("smooth goes with fit: crop only")
        if self.short is not None and self.short < max(self.size):
            raise ValueError("short must not be less than the size")


class ArrayInput(Strict, frozen=True):
    """An input that is no picture, fed as it is; the graph is fixed to this shape.

    `texts`: (1, slots, width), a text's embedding of length 1 for each class; slots that no
    text is given for hold one of the others over again.
    """

    name: str
    shape: tuple[Length, ...]
    role: Literal["texts", "plain"] = "plain"
    dtype: Literal["float32", "int64", "int32"] = "float32"


class HeadOutput(Strict, frozen=True):
    """What one output tensor means. `level` counts the pyramid levels from the finest.

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
    `fused`: box and score of a level in one tensor, in this order (Rockchip's pose and OBB).
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
    """The order of numbers in an uncut tensor: a box, an objectness where the head has one,
    the classes, the extras (mask coefficients, key points, angle).

    `rows_last`: 1xRxN as Ultralytics exports, else 1xNxR. `corners`: x1,y1,x2,y2 instead of
    cx,cy,w,h, both in input pixels. `picked`: one score and one class number stand in place
    of the classes, as after a choice of the best inside the graph. `raw`: the boxes are not
    decoded, all levels are only put together (YOLOX). `multiplied`: the classes hold the
    objectness as a factor already, and its own number stands before them all the same.
    """

    rows_last: bool = True
    corners: bool = False
    picked: bool = False
    raw: bool = False
    multiplied: bool = False


class DetectHead(Strict, frozen=True, tag="detect", tag_field="kind"):
    """A detection head, YOLO in every spelling, with its extras.

    `coding` of a box: `dfl` a distribution over reg_max bins for each distance l,t,r,b in
    cells (YOLOv8, 9, 10, 11, 12, PP-YOLOE, YOLOv6 m/l); `distance` the distances themselves
    (YOLOv6 n/s, YOLO26, YOLO-World); `anchor` sigmoids relative to `anchors` (YOLOv5, YOLOv7);
    `exponent` offset and log size in cells (YOLOX). `anchors` are (w, h) in input pixels for
    each level. `objectness`: a score is the product of it and the class, or it alone (YOLOv7
    with one class, whose class channel is not trained). `activated`: scores and objectness
    leave the graph after their sigmoid; for `anchor` all channels but the extras do.
    `suppression`: within each class, across all classes, or none where the network itself
    gives one box an object (YOLOv10, YOLO26). `coefficients`: mask coefficients a box.
    `keypoints` and `keypoint_values` (2 without visibility); raw ones are (2 p + corner of the
    cell) * stride, or (p + centre of the cell) * stride where `centred_keypoints` (YOLO26).
    `rotated`: boxes have an angle; a raw one is (sigmoid(a) - 1/4) * pi, or a itself where
    `plain_angle` (YOLO26).
    `decoded` describes an uncut tensor.
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


class ClassifyHead(Strict, frozen=True, tag="classify", tag_field="kind"):
    """What a whole picture shows: 1xC (or 1xCx1x1), the first output of the graph.

    `activated`: probabilities, after a softmax inside the graph; else they are logits.
    """

    classes: Annotated[int, msgspec.Meta(ge=2)]
    activated: bool = False


class PlateHead(Strict, frozen=True, tag="plate", tag_field="kind"):
    """CTC recognition of a number plate (LPRNet): 1xCxT logits; class `blank` is the CTC blank.

    The characters are the contract's labels. `layouts` are the forms that a plate may have,
    for each character one of P a province (any sign that is not ASCII), L a letter, D a digit,
    A a letter or digit (neither I nor O, which plates avoid), E a letter of electric cars (A to
    K without I). Without layouts any text is read.
    """

    blank: Annotated[int, msgspec.Meta(ge=0)] = 67
    layouts: tuple[Annotated[str, msgspec.Meta(pattern=r"^[PLDAE]{1,32}$")], ...] = ()


class FaceHead(Strict, frozen=True, tag="face", tag_field="kind"):
    """RetinaFace: boxes 1xNx4, scores 1xNx2 (background, face) and five points 1xNx10, told
    apart by their widths, relative to N anchors: level by level, the finest first, row by row,
    and in a cell one for each of its sides. With four `points` it is number plates and their
    corners, clockwise.

    https://arxiv.org/abs/1905.00641. `anchors` are the sides of square anchors in input pixels
    for each level; `variances` scale what the network says of centres and of sizes;
    `activated`: the scores leave the graph after their softmax.
    """

    anchors: tuple[tuple[float, ...], ...] = ((16, 32), (64, 128), (256, 512))
    strides: tuple[Size, ...] = (8, 16, 32)
    variances: tuple[float, float] = (0.1, 0.2)
    activated: bool = True
    points: Literal[4, 5] = 5

    def __post_init__(self) -> None:
        if len(self.anchors) != len(self.strides) or not all(self.anchors):
            raise ValueError("anchors must be given for each level")
        if any(side <= 0 for level in self.anchors for side in level):
            raise ValueError("anchors must be positive")


class SemanticHead(Strict, frozen=True, tag="semantic", tag_field="kind"):
    """What each pixel shows, the first output of the graph: logits (or probabilities) 1xCxhxw of
    any size, or the numbers of the best classes, 1xhxw, where `picked`.

    `corners`: the outermost logits lie on the outermost pixels of the input, which TensorFlow
    calls align_corners; else each covers its share of the input. One map alone says how surely
    a pixel is of class 1: above `threshold`.
    """

    classes: Annotated[int, msgspec.Meta(ge=2, le=256)]
    picked: bool = False
    corners: bool = False
    threshold: float = 0.5


class CentreFaceHead(Strict, frozen=True, tag="face-centre", tag_field="kind"):
    """CenterFace: four maps of cells of `stride` input pixels, in this order: how surely the
    middle of a face lies in a cell (1xhxw, after its sigmoid), the logarithms of the face's
    height and width in cells, where in the cell its middle is (y, x), and of each of five points
    y and x in shares of the box, from its corner. https://arxiv.org/abs/1911.03599
    """

    stride: Size = 4


FACES = FaceHead | CentreFaceHead
PictureHead = (
    DetectHead
    | TextDetHead
    | TextClsHead
    | TextRecHead
    | ClassifyHead
    | PlateHead
    | FaceHead
    | CentreFaceHead
    | SemanticHead
)
Head = (
    PictureHead
    | TensorsHead
    | CutOutHead
    | WhisperHead
    | CtcSpeechHead
    | TransducerHead
    | VoiceHead
    | ActivityHead
    | SoundHead
    | ClipHead
    | SentenceHead
    | TranslateHead
    | MarianHead
)


class Contract(Strict, frozen=True):
    """Everything needed to feed a model and to read its answer. `others` are the inputs
    beside the picture, which always comes first where there is one."""

    family: str
    head: Head
    picture: ImageInput | None = msgspec.field(default=None, name="input")
    labels: tuple[str, ...] = ()
    others: tuple[ArrayInput, ...] = ()

    @property
    def input(self) -> ImageInput:
        """How a picture goes in. Raises RkzooError for a model that takes none."""
        if self.picture is None:
            raise RkzooError(
                f"{self.family} takes no pictures.",
                f"Its inputs are {', '.join(other.name for other in self.others)}.",
                "Run the pipeline that it is a part of: see rkzoo list.",
            )
        return self.picture

    @property
    def texts(self) -> ArrayInput | None:
        """The input that says in words what to look for, where there is one."""
        return next((other for other in self.others if other.role == "texts"), None)
