"""Image classifier: one output 1xC from a last layer that sees the whole image."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import numpy as np
import onnx

from rkzoo.contract.classify import ClassifyHead
from rkzoo.contract.inputs import ImageInput
from rkzoo.contract.model import Contract
from rkzoo.graph.families.recognition import Picture, Recognition
from rkzoo.graph.onnx.read import metadata
from rkzoo.graph.onnx.view import View, attributes

# ImageNet mean and std, as torchvision and timm train with, in units of 0..255.
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
_CROP = 0.875  # center crop, as a fraction of the short side: the usual value
_SHAPING = frozenset({"Flatten", "Reshape", "Squeeze", "Identity", "Dropout"})
_POOLING = frozenset({"GlobalAveragePool", "ReduceMean", "AveragePool"})
_SOFTMAX = frozenset({"Softmax", "LogSoftmax"})
_IMAGENET = (1000, 1001)

_NONE = "it does not end in scores of one number a class, 1xC"


@dataclass(frozen=True)
class _End:
    """What follows the last weights (softmax, pooling), and whether there is a bias."""

    softmax: bool
    pooled: bool
    biased: bool


def classifier(seen: View, picture: Picture) -> Recognition | str:
    """Recognize classifiers of torchvision, timm, Ultralytics and similar exports."""
    outputs = seen.model.graph.output
    if len(outputs) != 1:
        return ""
    shape = seen.shape(outputs[0].name)
    if shape is None or len(shape) < 2 or np.prod(shape) != shape[1] or shape[1] < 2:
        return _NONE
    classes = shape[1]
    end = _end(seen, outputs[0].name, classes)
    if end is None:
        return _NONE
    if not end.softmax and classes not in _IMAGENET and (end.pooled or not end.biased):
        return (
            f"its {classes} values may be scores or an embedding: there is neither a softmax nor "
            "a bias at the end"
        )
    image, assumed = _fed(seen, picture)
    labels = picture.labels if len(picture.labels) == classes else ()
    return Recognition(
        family="classifier",
        form="whole",
        contract=Contract(
            family="classifier", picture=image, head=ClassifyHead(classes=classes), labels=labels
        ),
        taps=(),
        evidence=(
            f"One output of {classes} numbers, made by a layer that sees the whole picture"
            f"{', and a softmax behind it' if end.softmax else ''}.",
            *assumed,
        ),
        assumed=assumed,
    )


def _end(seen: View, name: str, classes: int) -> _End | None:
    """Walk back to the last weights; None where another operator is in the way."""
    softmax = pooled = biased = False
    while True:
        node = seen.producers.get(name)
        if node is None:
            return None
        if node.op_type in _SOFTMAX and not softmax and not pooled and not biased:
            softmax = True
        elif node.op_type in _POOLING and not pooled and not biased and _over_all(seen, node):
            pooled = True
        elif node.op_type == "Add" and not biased and _has_constant(seen, node):
            biased = True
        # SqueezeNet applies ReLU to the score maps before it pools them.
        elif not (node.op_type in _SHAPING or (node.op_type == "Relu" and pooled)):
            return _weights(seen, node, classes, softmax, pooled, biased)
        name = next((n for n in node.input if seen.constant(n) is None), "")


def _weights(
    seen: View, node: onnx.NodeProto, classes: int, softmax: bool, pooled: bool, biased: bool
) -> _End | None:
    if node.op_type not in ("Gemm", "MatMul", "Conv"):
        return None
    weight = seen.shape(node.input[1]) if seen.constant(node.input[1]) is not None else None
    if weight is None:
        return None
    across = (
        weight[0] if node.op_type == "Conv" or attributes(node).get("transB", 0) else weight[-1]
    )
    made = seen.shape(node.output[0])
    if across != classes or made is None:
        return None
    # A score map without pooling is a segmentation.
    if node.op_type == "Conv" and not pooled and np.prod(made[2:]) != 1:
        return None
    own = node.op_type in ("Gemm", "Conv") and len(node.input) > 2 and bool(node.input[2])
    return _End(softmax, pooled, biased or own)


def _over_all(seen: View, node: onnx.NodeProto) -> bool:
    before, after = seen.shape(node.input[0]), seen.shape(node.output[0])
    return (
        before is not None
        and after is not None
        and len(before) == 4
        and np.prod(after) == before[0] * before[1]
    )


def _has_constant(seen: View, node: onnx.NodeProto) -> bool:
    return any(seen.constant(name) is not None for name in node.input)


def _fed(seen: View, picture: Picture) -> tuple[ImageInput, tuple[str, ...]]:
    """Preprocessing of the image, and sentences on what of it is assumed."""
    image = picture.image
    longest = max(image.size)
    if metadata(seen.model).get("task") == "classify":
        # Ultralytics: 0..1, the short side scaled to the input size.
        return msgspec.structs.replace(image, fit="crop", short=longest), ()
    short = round(longest / _CROP)
    fitted = msgspec.structs.replace(image, fit="crop", short=short)
    crop = (
        f"the short side of the image scaled to {short} pixels and the center cropped, as is usual"
    )
    if picture.pixels_known:
        return fitted, (f"How pictures are cut is not in the file: {crop}.",)
    if picture.channels != 3:
        return fitted, (
            f"How it was trained is not in the file: pixels of 0..1, {crop}. Give others with "
            "--mean and --std.",
        )
    said = (
        f"The file does not hold the preprocessing; assumed are RGB, ImageNet's mean and std, "
        f"{crop}. Give others with --color, --mean and --std."
    )
    return msgspec.structs.replace(fitted, mean=MEAN, std=STD), (said,)
