"""Networks that find the key points of one person: SimCC (RTMPose) and heat maps."""

from __future__ import annotations

import msgspec

from rkzoo.contract.model import Contract
from rkzoo.contract.pose import TopDownPoseHead
from rkzoo.graph.families.classifier import MEAN, STD
from rkzoo.graph.families.recognition import ImageSource, Recognition
from rkzoo.graph.onnx.view import GraphView

_BINS = "it has no two rows of bins for each key point, one along x and one along y"
_MAPS = "it does not end in heat maps of a known number of key points, a quarter of a portrait"
# Points of COCO, MPII, Halpe, COCO-WholeBody and its form with a neck and hips: maps of other
# numbers, or of a picture of other proportions, may be anything.
_KNOWN = (16, 17, 26, 133, 136)
_STRIDE = 4
_PORTRAIT = (4, 3)  # height to width
_CLASSES = (
    "Its maps are taken for those of key points. If they are classes of pixels, say so in a card "
    "with head: {kind: semantic, classes: N}."
)
_FED = (
    "How it was trained is not in the file: RGB, ImageNet's mean and std, and a person cut out "
    "with a quarter around it are taken. Give others with --color, --mean and --std."
)


def top_down_pose(view: GraphView, picture: ImageSource) -> Recognition | str:
    """Recognises SimCC by two outputs with the same number of bins a pixel, and heat maps by their
    number, size and the proportions of the picture."""
    shapes = [view.shape(output.name) or () for output in view.model.graph.output]
    height, width = picture.image.size
    if len(shapes) == 2:
        dense = all(_is_dense(view, output.name) for output in view.model.graph.output)
        return (_bins(shapes, picture) if dense else None) or _BINS
    if len(shapes) != 1:
        return ""
    (maps,) = shapes
    sides = (height * _PORTRAIT[1], width * _PORTRAIT[0])
    quarter = (height // _STRIDE, width // _STRIDE)
    if len(maps) != 4 or maps[1] not in _KNOWN or maps[2:] != quarter or sides[0] != sides[1]:
        return _MAPS
    if picture.labels or view.producers[view.model.graph.output[0].name].op_type != "Conv":
        return _MAPS  # named classes, or probabilities
    transformer = any(node.op_type == "Softmax" for node in view.model.graph.node)
    head = TopDownPoseHead(points=maps[1], coding="heatmap-udp" if transformer else "heatmap")
    form = (
        "The attention inside tells a ViTPose, whose cells lie from edge to edge (UDP)."
        if transformer
        else "Each cell is taken to cover its share of the picture, as HRNet's."
    )
    return _recognised(
        head, picture, f"{maps[1]} heat maps of {maps[2]}x{maps[3]}", (form, _CLASSES)
    )


def _is_dense(view: GraphView, name: str) -> bool:
    """Whether a tensor is a product with weights of its own, and nothing more."""
    node = view.producers.get(name)
    while node is not None and node.op_type in ("Add", "Reshape", "Identity"):
        node = next((view.producers[i] for i in node.input if i in view.producers), None)
    return (
        node is not None and node.op_type in ("MatMul", "Gemm") and view.is_constant(node.input[1])
    )


def _bins(shapes: list[tuple[int, ...]], picture: ImageSource) -> Recognition | None:
    height, width = picture.image.size
    first, second = shapes
    if len(first) != 3 or len(second) != 3 or first[:2] != second[:2] or first[0] != 1:
        return None
    a, b = first[2], second[2]
    straight, turned = a * height == b * width, a * width == b * height
    ratio = max(a, b) / max(height, width)
    if not (straight or turned) or ratio < 1 or ratio % 0.5:
        return None
    said = f"{first[1]} key points, each by {a} and {b} bins, {ratio:g} a pixel (SimCC)"
    order = (
        ("The picture is square, so the first output is taken for x.",) if height == width else ()
    )
    return _recognised(TopDownPoseHead(points=first[1], coding="simcc"), picture, said, order)


def _recognised(
    head: TopDownPoseHead, picture: ImageSource, said: str, doubts: tuple[str, ...]
) -> Recognition:
    image = msgspec.structs.replace(picture.image, fit="letterbox", pad=0)
    assumed = doubts
    if not picture.pixels_known and picture.channels == 3:
        image = msgspec.structs.replace(image, mean=MEAN, std=STD)
        assumed = (_FED, *doubts)
    family = "simcc-pose" if head.coding == "simcc" else "heatmap-pose"
    return Recognition(
        family=family,
        form="whole",
        contract=Contract(family=family, picture=image, head=head),
        head_tensors=(),
        evidence=(f"{said}.", *assumed),
        assumed=assumed,
    )
