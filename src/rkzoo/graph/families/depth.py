"""Depth from one picture: one map behind the decoder of DPT and MiDaS, which no other task uses.

A map may be anything, so two things must hold: the map ends as depth does (not negative, or from 0
to so many metres), and it comes from the head of "Vision Transformers for Dense Prediction"
(https://arxiv.org/abs/2103.13413), which MiDaS and Depth Anything share: features of several grids
are added as they are scaled up, and after the last scaling 3x3 and 1x1 convolutions make the map.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec
import numpy as np
import onnx

from rkzoo.contract.depth import DepthHead
from rkzoo.contract.inputs import ImageInput
from rkzoo.contract.model import Contract
from rkzoo.errors import RkzooError
from rkzoo.graph.families.branches import is_close, sigmoid
from rkzoo.graph.families.classifier import MEAN, STD
from rkzoo.graph.families.head_postprocessing import HeadPostprocessing, head_postprocessing
from rkzoo.graph.families.recognition import ImageSource, Recognition
from rkzoo.graph.onnx.view import GraphView, attributes

_NONE = "it does not end in one map of the picture's size that is depth by its last step"
_DECODER = "its map does not come from the decoder of DPT, MiDaS or Depth Anything"
_HEAD = ("Conv", "Relu", "Conv", "Resize", "Conv")
_FEWEST_SCALINGS = 4
_PATCH = 14  # pixels to a patch of DINOv2, which Depth Anything is built on
_GREY = (127.5, 127.5, 127.5)
_LARGE = 60.0  # a sigmoid of it is 1 in float32


class _Published(NamedTuple):
    """How the networks of one kind are fed: https://github.com/DepthAnything/Depth-Anything-V2
    (depth_anything_v2/dpt.py), https://github.com/isl-org/MiDaS (midas/model_loader.py)."""

    family: str
    title: str
    mark: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


_DEPTH_ANYTHING = _Published(
    "depth-anything", "Depth Anything", "Its patches of 14 pixels tell", MEAN, STD
)
_DPT = _Published("dpt", "a DPT (MiDaS 3)", "The transformer before it tells", _GREY, _GREY)
_MIDAS = _Published("midas", "MiDaS 2.1", "Its encoder of convolutions alone tells", MEAN, STD)


def depth(view: GraphView, picture: ImageSource) -> Recognition | str:
    """Recognise depth estimation: one map 1x1xHxW or 1xHxW, relative or in metres."""
    outputs = view.model.graph.output
    if len(outputs) != 1:
        return ""
    end = head_postprocessing(view, [outputs[0].name])
    shape = view.shape(outputs[0].name)
    if isinstance(end, str) or shape is None or len(end.branches) != 1:
        return _NONE
    if [n for n in shape if n != 1] != [n for n in picture.image.size if n != 1]:
        return _NONE
    head = _head(end)
    if head is None:
        return _NONE
    if not _is_fused(view, end.branches[0].name):
        return _DECODER
    known = _published(view)
    image, assumed = _fed(picture, known)
    metres = "metres, as metric networks end" if head.metric else "relative, larger is nearer"
    meaning = (
        f"One map of {shape[-2]}x{shape[-1]} from the decoder of DPT, taken for depth: {metres}."
    )
    return Recognition(
        family=known.family,
        form="whole",
        contract=Contract(family=known.family, picture=image, head=head),
        head_tensors=(),
        evidence=(meaning, *assumed),
        assumed=(meaning, *assumed),
    )


def _head(end: HeadPostprocessing) -> DepthHead | None:
    """What the last step makes of numbers of our choice: max(x, 0) is inverse depth, k * sigmoid(x)
    metres up to k (one of 1 is a mask). None for another step."""
    (branch,) = end.branches
    if branch.shape[:2] != (1, 1):
        return None
    values = np.random.default_rng(0).normal(0, 2, branch.shape).astype(np.float32)
    values.flat[0] = _LARGE
    try:
        (answer,) = end({branch.name: values})
    except RkzooError:
        return None
    flat, asked = answer.reshape(-1), values.reshape(-1)
    if is_close(flat, np.maximum(asked, 0)):
        return DepthHead()
    if flat.size == asked.size and flat[0] > 1 and is_close(flat / flat[0], sigmoid(asked)):
        return DepthHead(inverse=False, metric=True)
    return None


def _is_fused(view: GraphView, name: str) -> bool:
    """Whether the map comes from DPT's decoder: the head's layers in their order, and before them
    several bilinear scalings whose answers are added."""
    node: onnx.NodeProto | None = view.producers.get(name)
    for kind in _HEAD:
        if node is None or node.op_type != kind:
            return False
        node = view.producers.get(node.input[0])
    scaled = [
        node.output[0]
        for node in view.model.graph.node
        if node.op_type == "Resize" and attributes(node).get("mode") == b"linear"
    ]
    readers = {reader.op_type for name in scaled for reader in view.consumers.get(name, ())}
    return len(scaled) >= _FEWEST_SCALINGS and "Concat" not in readers


def _published(view: GraphView) -> _Published:
    nodes = view.model.graph.node
    for node in nodes:
        if node.op_type == "Conv" and attributes(node).get("strides") == [_PATCH, _PATCH]:
            return _DEPTH_ANYTHING
    return _DPT if any(node.op_type == "Softmax" for node in nodes) else _MIDAS


def _fed(picture: ImageSource, known: _Published) -> tuple[ImageInput, tuple[str, ...]]:
    image = msgspec.structs.replace(picture.image, fit="stretch")
    if picture.pixels_known or picture.channels != len(known.mean):
        return image, ()
    mean, std = (",".join(f"{number:g}" for number in row) for row in (known.mean, known.std))
    return msgspec.structs.replace(image, mean=known.mean, std=known.std), (
        f"{known.mark} it as {known.title}, which is fed RGB pixels with mean {mean} and std "
        f"{std}: that is assumed, for the file does not say. Say otherwise with --color, --mean "
        "and --std.",
    )
