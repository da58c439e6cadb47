"""Semantic segmentation: one score map per class, scaled to the image."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import onnx

from rkzoo.contract.inputs import ArrayInput, ImageInput
from rkzoo.contract.model import Contract
from rkzoo.contract.segmentation import SemanticHead
from rkzoo.graph.families.classifier import MEAN, STD
from rkzoo.graph.families.recognition import Picture, Recognition
from rkzoo.graph.onnx.subgraph import part
from rkzoo.graph.onnx.view import View, attributes, prepared

_NONE = "it does not end in one map for each class, as large as the picture"
_PASSING = frozenset({"Cast", "Squeeze", "Identity", "Transpose", "Softmax", "LogSoftmax"})
_IMAGENET = "RGB, ImageNet's mean and std"
_HALF_PIXEL = ("half_pixel", "pytorch_half_pixel")


@dataclass(frozen=True)
class _End:
    """The logits tensor, its `shape` 1xCxhxw, and what follows it in the graph (only steps that the
    decoder repeats).
    """

    logits: str
    shape: tuple[int, ...]
    corners: bool
    resized: bool
    picked: bool


def semantic(seen: View, picture: Picture) -> Recognition | str:
    """Recognize a semantic segmentation: a convolution's score maps, resized to the input,
    optionally with ArgMax.
    """
    outputs = seen.model.graph.output
    if len(outputs) != 1:
        return ""
    end = _end(seen, outputs[0].name)
    final = seen.shape(outputs[0].name)
    if end is None or final is None or not _fills(final, picture.image.size, end):
        return _NONE
    classes = end.shape[1]
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
    labels = picture.labels if len(picture.labels) == classes else ()
    return Recognition(
        family="semantic",
        form="whole",
        contract=Contract(
            family="semantic",
            picture=image,
            head=SemanticHead(classes=classes, corners=end.corners),
            labels=labels,
        ),
        taps=(),
        evidence=(
            f"Maps of {classes} classes of {end.shape[2]}x{end.shape[3]}; the steps after them "
            "(resizing, ArgMax) are done in postprocessing.",
            *assumed,
        ),
        assumed=assumed,
    )


def up_to_logits(model: onnx.ModelProto, image: ImageInput) -> onnx.ModelProto:
    """Cut a segmentation graph at its logits, with the image input fixed to 1xCxHxW.

    The output is smaller, and steps that the toolkit handles badly (ArgMax in int64) are gone.
    Returns the model unchanged where its end is another.
    """
    names = {tensor.name for tensor in model.graph.initializer}
    picture = next(info.name for info in model.graph.input if info.name not in names)
    shape = (1, image.channels, *image.size)
    seen = prepared(model, {picture: shape})
    end = _end(seen, model.graph.output[0].name)
    if end is None:
        return model
    return part(seen.model, [ArrayInput(name=picture, shape=shape)], [end.logits])


def _end(seen: View, name: str) -> _End | None:
    """Walk back over resizing, ArgMax and transposes; None where another operator is in the way."""
    corners, resized, picked, shared = set(), False, False, False
    while (node := seen.producers.get(name)) is not None:
        if node.op_type == "ArgMax" and not picked and not resized:
            picked = True
        elif node.op_type == "Resize" and _is_bilinear(node):
            before, after = seen.shape(node.input[0]), seen.shape(node.output[0])
            if before != after:
                mode = attributes(node).get("coordinate_transformation_mode", b"half_pixel")
                corners.add(mode == b"align_corners")
                resized = True
        elif node.op_type not in _PASSING:
            break
        shared = shared or "Softmax" in node.op_type
        name = node.input[0]
    shape = seen.shape(name)
    if node is None or node.op_type not in ("Conv", "ConvTranspose", "Add") or len(corners) > 1:
        return None
    if shape is None or len(shape) != 4 or shape[0] != 1 or not 2 <= shape[1] <= 256:
        return None
    if shape[1] == 3 and not (picked or resized or shared):
        return None  # three channels alone are an image: a denoiser, a colorizer
    return _End(name, shape, corners == {True}, resized, picked)


def _is_bilinear(node: onnx.NodeProto) -> bool:
    found = attributes(node)
    mode = found.get("coordinate_transformation_mode", b"half_pixel").decode()
    return found.get("mode", b"nearest") == b"linear" and mode in ("align_corners", *_HALF_PIXEL)


def _fills(final: tuple[int, ...], size: tuple[int, int], end: _End) -> bool:
    """Whether the output has one value, or one per class, for each pixel."""
    sides = [side for side in final if side != 1]
    if not end.picked:
        sides = sides[1:] if sides[:1] == [end.shape[1]] else sides[:-1]
    return sides == [side for side in size if side != 1]
