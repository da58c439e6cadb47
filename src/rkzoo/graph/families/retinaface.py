"""RetinaFace: boxes, scores and five landmarks per face, relative to anchors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import msgspec

from rkzoo.contract.faces import FaceHead
from rkzoo.contract.model import Contract
from rkzoo.errors import RkzooError
from rkzoo.graph.families.recognition import ImageSource, Recognition
from rkzoo.graph.onnx.view import GraphView

USUAL: tuple[tuple[float, ...], ...] = ((16, 32), (64, 128), (256, 512))
_STRIDES = (8, 16, 32)
_BOX, _SCORE, _POINTS = 4, 2, 10
# Caffe's mean, BGR.
_MEAN = (104.0, 117.0, 123.0)


def retinaface(view: GraphView, picture: ImageSource) -> Recognition | str:
    """Recognize RetinaFace by its outputs: 4, 2 and 10 values per anchor."""
    names = [output.name for output in view.model.graph.output]
    if len(names) != 3:
        return ""
    shapes = [view.shape(name) for name in names]
    known = {shape[2]: shape[1] for shape in shapes if shape is not None and len(shape) == 3}
    if set(known) != {_BOX, _SCORE, _POINTS} or len(set(known.values())) != 1:
        return "its outputs are not 4, 2 and 10 numbers of each anchor"
    count = known[_BOX]
    cells = _cells(picture.image.size)
    if count != 2 * sum(cells):
        return (
            f"it has {count} anchors, and {2 * sum(cells)} would be two in each cell of strides "
            "8, 16 and 32"
        )
    score = next(n for n, shape in zip(names, shapes, strict=True) if shape and shape[2] == _SCORE)
    maker = view.producers.get(score)
    activated = maker is not None and maker.op_type == "Softmax"
    image = msgspec.structs.replace(
        picture.image, color="BGR", mean=_MEAN, std=(1.0, 1.0, 1.0), fit="letterbox"
    )
    less = "" if picture.pixels_known else ", less its mean"
    return Recognition(
        family="retinaface",
        form="whole",
        contract=Contract(
            family="retinaface",
            picture=image,
            head=FaceHead(anchors=USUAL, strides=_STRIDES, activated=activated),
        ),
        head_tensors=(),
        evidence=(
            f"A box, a score and five landmarks for each of {count} anchors, two per cell at "
            "strides 8, 16 and 32.",
            f"Scores {'after' if activated else 'before'} their softmax.",
            ASSUMED,
        ),
        anchors_known=False,
        assumed=(f"As RetinaFace is trained, the picture is taken as BGR{less}.",),
    )


ASSUMED = (
    "THE ANCHORS ARE NOT IN THIS GRAPH: sides of 16, 32, 64, 128, 256 and 512 pixels are "
    "assumed, and with others every box has a wrong size. Give those of your training with "
    "--anchors, for example --anchors 10,20,32,64,128,256."
)


def _cells(size: tuple[int, int]) -> list[int]:
    height, width = size
    return [-(-height // stride) * -(-width // stride) for stride in _STRIDES]


def with_sides(recognition: Recognition, pairs: Sequence[tuple[float, float]]) -> Recognition:
    """Set user-given anchor sizes.

    Args:
        recognition: The recognized RetinaFace.
        pairs: Sides of square anchors in pixels, in pairs, the finest level first.

    Returns:
        The head with these anchors.

    Raises:
        RkzooError: They are not two per level.
    """
    sides = [float(side) for pair in pairs for side in pair]
    head = recognition.contract.head
    if not isinstance(head, FaceHead):
        raise RkzooError(f"{recognition.family} has no sides of anchors.", code=1)
    if len(sides) != 2 * len(head.strides):
        raise RkzooError(
            f"{len(sides)} sides of anchors do not fit this model.",
            f"It has two anchors in each cell of {len(head.strides)} levels.",
            "Give six numbers, for example --anchors 16,32,64,128,256,512.",
        )
    levels = tuple(zip(sides[::2], sides[1::2], strict=True))
    contract = msgspec.structs.replace(
        recognition.contract, head=msgspec.structs.replace(head, anchors=levels)
    )
    kept = tuple(sentence for sentence in recognition.evidence if sentence != ASSUMED)
    text = f"The anchors have the sides given: {', '.join(f'{side:g}' for side in sides)}."
    return replace(recognition, contract=contract, anchors_known=True, evidence=(*kept, text))
