"""Networks that make a picture of a picture: super-resolution, denoising and the like."""

from __future__ import annotations

import msgspec
import numpy as np

from rkzoo.contract.model import Contract
from rkzoo.contract.restore import RestoreHead
from rkzoo.graph.families.recognition import ImageSource, Recognition
from rkzoo.graph.families.semantic import makes_picture
from rkzoo.graph.onnx.view import GraphView, attributes

_NONE = "it does not end in a picture of its input's channels, as large or several times larger"
_ENDS = frozenset({"Clip", "Identity", "Cast"})
_SCALES = range(1, 9)
_WHOLE = {"InstanceNormalization", "GlobalAveragePool", "GlobalMaxPool"}


def restore(view: GraphView, picture: ImageSource) -> Recognition | str:
    """Recognise super-resolution (1xCxhxw to 1xCxshxsw, s from 2) and restoration (s of 1, where
    the graph tells the picture from maps of classes)."""
    outputs = view.model.graph.output
    if len(outputs) != 1 or picture.channels not in (1, 3):
        return ""
    name = outputs[0].name
    shape = view.shape(name)
    if shape is None or len(shape) != 4 or shape[:2] != (1, picture.channels):
        return _NONE
    height, width = picture.image.size
    scale = shape[2] // height
    if scale not in _SCALES or shape[2:] != (scale * height, scale * width):
        return _NONE
    # Nothing but a picture ends there, and such a network is fed the same numbers.
    in_bytes = _limits(view, name) == (0, 255)
    if scale == 1 and not (in_bytes or _changes_input(view, name) or makes_picture(view)):
        return _NONE
    head = RestoreHead(scale=scale, std=1.0) if in_bytes else RestoreHead(scale=scale)
    std = 1.0 if in_bytes and not picture.pixels_known else 255.0
    image = msgspec.structs.replace(
        picture.image,
        fit="stretch",
        mean=(0.0,) * picture.channels,
        std=(std,) * picture.channels,
        **({"color": "GRAY"} if picture.channels == 1 else {}),
    )
    what = "It gives a picture of the size of its input" if scale == 1 else (
        f"It gives a picture {scale} times as large as its input"
    )  # fmt: skip
    channels = "RGB" if picture.channels == 3 else "the luma of a picture"
    why = "for what comes out is kept in it" if in_bytes else "for the file does not say"
    assumed = (
        f"{what}; {channels} with pixels of 0..{255 if in_bytes else 1} is assumed on both sides, "
        f"{why}. Say otherwise with --color, --mean and --std, and with a card's head: {{kind: "
        f"restore, scale: {scale}, mean: ..., std: ...}} for what comes out."
    )
    if whole := sorted({n.op_type for n in view.model.graph.node} & _WHOLE):
        assumed += (
            f" Its {' and '.join(whole)} look at the whole picture, so the tiles of a large one "
            "may differ in tone; export it for the size of your pictures."
        )
    return Recognition(
        family="restore",
        form="whole",
        contract=Contract(family="restore", picture=image, head=head),
        head_tensors=(),
        evidence=(assumed,),
        assumed=(assumed,),
    )


def _limits(view: GraphView, name: str) -> tuple[float, ...]:
    """The least and the largest number that the graph lets out, where its end bounds them."""
    node = view.producers.get(name)
    while node is not None and node.op_type in ("Identity", "Cast"):
        node = view.producers.get(node.input[0])
    if node is None or node.op_type != "Clip":
        return ()
    if len(node.input) == 1:  # before opset 11
        ends = [attributes(node).get(key) for key in ("min", "max")]
    else:
        ends = [view.constant(end) for end in node.input[1:]]
    return tuple(float(end) for end in ends if end is not None and np.size(end) == 1)


def _changes_input(view: GraphView, name: str) -> bool:
    """Whether the output is the input with something added or taken off."""
    source = view.inputs[0].name
    node = view.producers.get(name)
    while node is not None and node.op_type in _ENDS:
        node = view.producers.get(node.input[0])
    return node is not None and node.op_type in ("Add", "Sub") and source in node.input
