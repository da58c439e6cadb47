"""LPRNet: license plate text, CTC over the columns of the last feature map."""

from __future__ import annotations

import msgspec

from rkzoo.contract.model import Contract
from rkzoo.contract.text import CHINESE_PLATES, PlateHead
from rkzoo.graph.families.recognition import ImageSource, Recognition
from rkzoo.graph.onnx.view import GraphView, attributes

_NONE = "it does not end in the mean over the rows of a last convolution, 1xCxT"
# GB 36 and GA 36-2018: an ordinary plate, and the small and large ones of electric cars.
LAYOUTS = ("PLAAAAA", "PLEADDDD", "PLDDDDDE")
_GREY = (127.5, 127.5, 127.5)


def lprnet(view: GraphView, picture: ImageSource) -> Recognition | str:
    """Recognize LPRNet by its end: a convolution's class scores, averaged over the rows."""
    outputs = view.model.graph.output
    if len(outputs) != 1:
        return ""
    shape = view.shape(outputs[0].name)
    node = view.producers.get(outputs[0].name)
    if shape is None or len(shape) != 3 or node is None or node.op_type != "ReduceMean":
        return _NONE
    axes = attributes(node).get("axes")
    constant = view.constant(node.input[1]) if len(node.input) > 1 else None
    if constant is not None:
        axes = constant.ravel().tolist()
    before = view.producers.get(node.input[0])
    if axes not in ([2], [-2]) or before is None or before.op_type != "Conv":
        return _NONE
    classes = shape[1]
    head = PlateHead(blank=classes - 1, layouts=LAYOUTS if classes == CHINESE_PLATES else ())
    image = msgspec.structs.replace(
        picture.image, color="BGR", mean=_GREY, std=_GREY, fit="stretch"
    )
    range_of_it = "" if picture.pixels_known else ", from -1 to 1"
    labels = picture.labels if len(picture.labels) == classes else ()
    return Recognition(
        family="lprnet",
        form="whole",
        contract=Contract(family="lprnet", picture=image, head=head, labels=labels),
        head_tensors=(),
        evidence=(
            f"CTC scores of {classes} characters in {shape[2]} steps, the mean over the rows of a "
            "convolution; the last character is the blank.",
        ),
        assumed=(f"As LPRNet is trained, the picture is taken as BGR{range_of_it}.",),
    )
