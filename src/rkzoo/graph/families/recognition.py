"""Result types of the head recognizers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import onnx

from rkzoo.contract.inputs import ArrayInput, ImageInput
from rkzoo.contract.model import Contract, Head
from rkzoo.errors import RkzooError
from rkzoo.graph.onnx.view import GraphView

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
    """No recognizer knows the head of a graph; its outputs can still be used as plain tensors."""


@dataclass(frozen=True)
class HeadTensor:
    """A tensor inside the graph that a cut exposes, straight from the last convolution of its
    branch (`prototypes`: as the graph returns them).

    Attributes:
        name: Name of the tensor.
        role: Its meaning.
        level: Its level, counted from the finest.
        shape: Its shape, NCHW.
        sigmoid: Whether the cut adds a sigmoid.
        channels: Only these channels, in this order, where one convolution computes several things;
            empty for all.
    """

    name: str
    role: Role
    level: int
    shape: tuple[int, ...]
    sigmoid: bool = False
    channels: tuple[int, ...] = ()


@dataclass(frozen=True)
class SecondPart:
    """What stands behind the part of a graph that the NPU runs, as a graph of its own.

    Attributes:
        model: The graph.
        contract: Its inputs and outputs.
        head: How both play together.
        roles: What the first and this one are called in the pipeline.
        cpu: Why it stays on the processor.
    """

    model: onnx.ModelProto
    contract: Contract
    head: Head
    roles: tuple[str, str]
    cpu: str


@dataclass(frozen=True)
class SplitPart:
    """One of the graphs that a network is split into: the role it plays, and its inputs."""

    role: str
    model: onnx.ModelProto
    inputs: tuple[ArrayInput, ...]


@dataclass(frozen=True)
class Recognition:
    """A graph whose head is known.

    Attributes:
        family: Family of the head, with a suffix for the task ("-seg", "-pose", "-obb"); "yolov8"
            covers YOLO11 too, whose head is the same.
        form: How the head was exported. `stock` is the upstream export (one tensor that holds
            everything); Rockchip's are `vendor-6` (box and score per level), `vendor-9` (plus their
            clipped sum), `vendor-3` (one tensor per level), `vendor-7` (plus mask coefficients and
            prototypes), and `vendor` (masks, keypoints or angles, anchor-free), named alike for
            other numbers of levels than three. `whole` is no YOLO head: nothing is cut.
        contract: The graph's outputs after the cut (stock) or as they are (vendor).
        taps: What the cut exposes, by level, the finest first.
        evidence: What was detected, one sentence each.
        uncut: The contract of the uncut stock graph.
        anchors_known: False where a head needs anchors that its graph does not hold; defaults are
            assumed.
        coarsest_first: The uncut tensors list the coarsest level first (PP-YOLOE).
        assumed: Facts of the training that the graph does not hold, one sentence each, for the user
            to confirm.
        seen: Preprocessing inside the graph, one sentence each.
        difference: Where the graph was arranged anew: runs it beside the one in the file, and
            returns the largest difference of their scores, in 0..1.
        second: What stands behind this part of the file's graph.
        parts: The graphs that it is split into, where it cannot be one for an NPU; `contract` says
            how they work together.
    """

    family: str
    form: Form
    contract: Contract
    head_tensors: tuple[HeadTensor, ...]
    evidence: tuple[str, ...]
    uncut: Contract | None = None
    anchors_known: bool = True
    coarsest_first: bool = False
    assumed: tuple[str, ...] = ()
    seen: tuple[str, ...] = ()
    difference: Callable[[], float] | None = None
    second: SecondPart | None = None
    parts: tuple[SplitPart, ...] = ()


@dataclass(frozen=True)
class ImageSource:
    """What a recognizer is given beside the graph.

    A recognizer sets in `image` how the networks of its family are fed, with three channels; the
    registry derives from it how this graph is fed.

    Attributes:
        image: Preprocessing of the image input.
        labels: Class names in the file.
        others: The other inputs.
        pixels_known: The graph shows the pixel range it takes, so mean and std need not be assumed.
        channels: Channels of the graph's image input: 1, 3 or 4.
    """

    image: ImageInput
    labels: tuple[str, ...] = ()
    others: tuple[ArrayInput, ...] = ()
    pixels_known: bool = False
    channels: int = 3


# A recognizer returns what it found, or the reason why the graph is of another kind: the end of a
# sentence that begins with "because" (empty where already the number of outputs differs).
Recogniser = Callable[[GraphView, ImageSource], Recognition | str]
