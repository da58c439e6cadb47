"""Semantic segmentation: one score map per class, or one of an object, scaled to the image."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import onnx

from rkzoo.contract.inputs import ArrayInput, ImageInput
from rkzoo.contract.model import Contract
from rkzoo.contract.segmentation import SemanticHead
from rkzoo.graph.families.classifier import MEAN, STD
from rkzoo.graph.families.recognition import ImageSource, Recognition
from rkzoo.graph.onnx.subgraph import part
from rkzoo.graph.onnx.view import GraphView, attributes, prepared

_NONE = "it does not end in one map for each class, as large as the picture"
_MADE = "its maps are as many as the picture's channels, so they may be a picture that it makes"
# How many times coarser than the picture an encoder's features are: segmentations have one, and
# most networks that mend pictures have not.
_ENCODER = 16
_MAKERS = ("Conv", "ConvTranspose", "Add")
_PASSING = frozenset({"Cast", "Squeeze", "Identity", "Transpose", "Softmax", "LogSoftmax"})
_IMAGENET = "RGB, ImageNet's mean and std"
_HALF_PIXEL = ("half_pixel", "pytorch_half_pixel")


@dataclass(frozen=True)
class _End:
    """The maps that are read, their `shape` 1xCxhxw, and what follows them in the graph (only steps
    that the decoder repeats). `sigmoid`: each map has a probability of its own, which it holds or,
    where `logits`, is made of.
    """

    maps: str
    maker: onnx.NodeProto
    shape: tuple[int, ...]
    corners: bool
    resized: bool
    picked: bool
    softmax: bool
    sigmoid: bool
    logits: bool

    @property
    def head(self) -> SemanticHead:
        count = self.shape[1]
        several = count > 1 and self.sigmoid and not self.picked
        return SemanticHead(
            classes=max(count, 2),
            corners=self.corners,
            multi_label=several,
            logits=self.logits and (several or count == 1),
        )


def semantic(view: GraphView, picture: ImageSource) -> Recognition | str:
    """Recognize a semantic segmentation: a convolution's score maps, resized to the input,
    optionally with ArgMax.
    """
    outputs = view.model.graph.output
    if len(outputs) != 1:
        return ""
    end = _end(view, outputs[0].name)
    final = view.shape(outputs[0].name)
    if end is None or final is None or not _fills(final, picture.image.size, end):
        return _NONE
    if _is_picture(view, end):
        return _MADE
    head = end.head
    image = msgspec.structs.replace(picture.image, fit="stretch")
    assumed: tuple[str, ...] = ()
    if not picture.pixels_known:
        usual = "pixels of 0..1"
        if picture.channels == 3:
            image, usual = msgspec.structs.replace(image, mean=MEAN, std=STD), _IMAGENET
        assumed = (
            f"How it was trained is not in the file: {usual} are taken. Give others with --color, "
            "--mean and --std.",
        )
    labels = picture.labels if len(picture.labels) == head.classes else ()
    if head.classes != end.shape[1] and len(picture.labels) == 1:
        labels = ("background", *picture.labels)
    doubts = () if labels else _doubts(end)
    return Recognition(
        family="semantic",
        form="whole",
        contract=Contract(
            family="semantic",
            picture=image,
            head=head,
            labels=labels,
        ),
        head_tensors=(),
        evidence=(
            f"{_meaning(end)} of {end.shape[2]}x{end.shape[3]}; the steps after them "
            "(resizing, ArgMax) are done in postprocessing.",
            *assumed,
            *doubts,
        ),
        assumed=(*assumed, *doubts),
    )


def up_to_logits(model: onnx.ModelProto, image: ImageInput) -> onnx.ModelProto:
    """Cut a segmentation graph at its logits, with the image input fixed to 1xCxHxW.

    The output is smaller, and steps that the toolkit handles badly (ArgMax in int64) are gone. A
    sigmoid right after the last convolution stays. Returns the model unchanged where its end is
    another.
    """
    names = {tensor.name for tensor in model.graph.initializer}
    picture = next(info.name for info in model.graph.input if info.name not in names)
    shape = (1, image.channels, *image.size)
    view = prepared(model, {picture: shape})
    end = _end(view, model.graph.output[0].name)
    if end is None:
        return model
    return part(view.model, [ArrayInput(name=picture, shape=shape)], [end.maps])


def _end(view: GraphView, name: str) -> _End | None:
    """Walk back over resizing, ArgMax and transposes; None where another operator is in the way."""
    corners: set[bool] = set()
    resized = picked = softmax = late = False
    sigmoid = ""
    while (node := view.producers.get(name)) is not None:
        if node.op_type == "ArgMax" and not picked and not resized:
            picked = True
        elif node.op_type == "Resize" and _is_bilinear(node):
            before, after = view.shape(node.input[0]), view.shape(node.output[0])
            if before != after:
                mode = attributes(node).get("coordinate_transformation_mode", b"half_pixel")
                corners.add(mode == b"align_corners")
                resized, late = True, sigmoid != ""
        elif node.op_type == "Sigmoid" and not sigmoid and not resized:
            sigmoid = name
        elif node.op_type not in _PASSING:
            break
        softmax = softmax or "Softmax" in node.op_type
        name = node.input[0]
    if node is not None and node.op_type == "Sigmoid" and resized and not sigmoid:
        # What was scaled is already its probabilities.
        sigmoid, node = name, view.producers.get(node.input[0])
    maps = sigmoid if sigmoid and not late else name
    shape = view.shape(maps)
    if node is None or node.op_type not in _MAKERS or len(corners) > 1:
        return None
    if shape is None or len(shape) != 4 or shape[0] != 1 or not 1 <= shape[1] <= 256:
        return None
    if shape[1] == 1 and (picked or softmax):
        return None
    return _End(
        maps=maps,
        maker=node,
        shape=shape,
        corners=corners == {True},
        resized=resized,
        picked=picked,
        softmax=softmax,
        sigmoid=sigmoid != "",
        logits=maps != sigmoid,
    )


def makes_picture(view: GraphView) -> bool:
    """Whether nothing tells the one output from a picture that the network makes of its input."""
    end = _end(view, view.model.graph.output[0].name)
    return end is not None and _is_picture(view, end)


def _is_picture(view: GraphView, end: _End) -> bool:
    """Whether nothing tells the maps from a picture that the network makes of the one it sees, as
    denoisers and colourisers do."""
    source = view.inputs[0].name
    taken = view.shape(source)
    if taken is None or taken[1] != end.shape[1] or end.picked or end.softmax:
        return False
    if end.maker.op_type == "Add" and source in end.maker.input:
        return True
    maker = end.maker
    if maker.op_type == "Add":
        maker = next((n for i in maker.input if (n := view.producers.get(i))), maker)
    weight = view.shape(maker.input[1])
    if maker.op_type == "Conv" and weight is not None and weight[2:] == (1, 1):
        return False
    return not (end.resized or _has_encoder(view, taken))


def _has_encoder(view: GraphView, picture: tuple[int, ...]) -> bool:
    """Whether features of a much coarser grid than the picture's are inside."""
    grids = [shape[2:] for shape in map(view.shape, view.producers) if shape and len(shape) == 4]
    return any(
        all(1 < cells <= side / _ENCODER for cells, side in zip(grid, picture[2:], strict=True))
        for grid in grids
    )


def _meaning(end: _End) -> str:
    count = end.shape[1]
    if count == 1:
        return f"One map of an object, {'with' if end.sigmoid else 'without'} a sigmoid,"
    if end.head.multi_label:
        return f"Maps of {count} classes, each with a sigmoid of its own, so they may overlap,"
    return f"Maps of {count} classes"


def _doubts(end: _End) -> tuple[str, ...]:
    """What else maps without names could be, for the user to say."""
    count = end.shape[1]
    if count == 1:
        least = ".5" if end.sigmoid else "0"
        return (
            f"Its one map is taken for a mask: above {least} is the object. If it is depth, say so "
            "in a card with head: {kind: depth}.",
        )
    if count == 3 and not (end.picked or end.softmax):
        return ("Its 3 maps are taken for 3 classes, not for the colours of a picture.",)
    return ()


def _is_bilinear(node: onnx.NodeProto) -> bool:
    options = attributes(node)
    mode = options.get("coordinate_transformation_mode", b"half_pixel").decode()
    return options.get("mode", b"nearest") == b"linear" and mode in ("align_corners", *_HALF_PIXEL)


def _fills(final: tuple[int, ...], size: tuple[int, int], end: _End) -> bool:
    """Whether the output has one value, or one per class, for each pixel."""
    sides = [side for side in final if side != 1]
    if not end.picked and end.shape[1] > 1:
        sides = sides[1:] if sides[:1] == [end.shape[1]] else sides[:-1]
    return sides == [side for side in size if side != 1]
