"""What a recogniser finds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from rkzoo.contract.inputs import ArrayInput, ImageInput
from rkzoo.contract.model import Contract
from rkzoo.errors import RkzooError
from rkzoo.graph.onnx.view import View

Form = Literal["stock", "vendor", "vendor-3", "vendor-6", "vendor-7", "vendor-9", "whole"]


Role = Literal[
    "box",
    "score",
    "objectness",
    "anchors",
    "coefficients",
    "keypoints",
    "angle",
    "prototypes",
]


class UnknownHead(RkzooError):
    """No recogniser knows the head of a graph; its outputs can still be used as plain tensors."""


@dataclass(frozen=True)
class Tap:
    """A tensor inside the graph that a cut exposes: raw numbers, straight from the last
    convolution of its branch (`prototypes`: as the graph gives them). `shape` is NCHW;
    `level` counts from the finest. The cut puts a sigmoid behind it where `sigmoid` says so.
    `channels` takes only these, in this order, where one convolution makes several things.
    """

    name: str
    role: Role
    level: int
    shape: tuple[int, ...]
    sigmoid: bool = False
    channels: tuple[int, ...] = ()


@dataclass(frozen=True)
class Recognition:
    """A graph whose head is known.

    `family` is "yolov8" for YOLOv8 and YOLO11 alike, for their heads are the same, with a
    suffix for the task ("-seg", "-pose", "-obb"). `form` tells how the head was exported:
    `stock` (one tensor that holds everything), `vendor-6` (box and score a level), `vendor-9`
    (and their clipped sum), `vendor-3` (one tensor a level), `vendor-7` (and the masks'
    coefficients and prototypes), or `vendor` (masks, key points or angles without anchors);
    the vendor forms keep their name when there are more or fewer levels than three. `whole` is
    no detection head of YOLO's kind: nothing is cut.
    `contract` describes what leaves the graph after the cut (stock) or as it is (vendor),
    `uncut` the stock graph left whole.
    `taps` are ordered by level, the finest first, and say what the cut gives; `evidence`
    says what was seen, one sentence each. `anchors_known` is False where a head needs anchors
    that its graph does not hold, and the usual ones are assumed. `coarsest_first`: the uncut
    tensors list the cells so (PP-YOLOE), not the finest level first. `assumed`: what the graph
    does not hold and training alone knows, one sentence each, for the user to confirm. `seen`:
    what the graph itself does with the picture before the network begins, one sentence each.
    """

    family: str
    form: Form
    contract: Contract
    taps: tuple[Tap, ...]
    evidence: tuple[str, ...]
    uncut: Contract | None = None
    anchors_known: bool = True
    coarsest_first: bool = False
    assumed: tuple[str, ...] = ()
    seen: tuple[str, ...] = ()


@dataclass(frozen=True)
class Picture:
    """What a recogniser is told of the image input of a graph, and the class names that the file
    carries. `others` are the inputs beside it.

    A recogniser says in `image` how the networks of its family are fed, with three channels; the
    registry makes of it how this graph is fed. `pixels_known`: the graph tells what range it
    takes, so mean and std need not be assumed. `channels` of the graph's input: 1, 3 or 4."""

    image: ImageInput
    labels: tuple[str, ...] = ()
    others: tuple[ArrayInput, ...] = ()
    pixels_known: bool = False
    channels: int = 3


# A recogniser answers with what it found, or with the reason why the graph is not its kind:
# the end of a sentence that begins with "because" (empty where even the number of outputs
# is another's).
Recogniser = Callable[[View, Picture], Recognition | str]
