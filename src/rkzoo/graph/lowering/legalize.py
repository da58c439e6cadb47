"""Legalization: rewrites of operators that RKNN-Toolkit2 does not accept, for a graph that keeps
its head.
"""

from __future__ import annotations

import onnx

from rkzoo.contract.anomaly import AnomalyHead
from rkzoo.contract.classify import ClassifyHead
from rkzoo.contract.model import Contract
from rkzoo.contract.segmentation import SemanticHead
from rkzoo.contract.vector import VectorHead
from rkzoo.graph.families.anomaly import without_marks
from rkzoo.graph.families.semantic import up_to_logits
from rkzoo.graph.families.vector import up_to_embedding
from rkzoo.graph.onnx.rewrite import (
    picture_as_floats,
    without_softmax,
)
from rkzoo.graph.onnx.view import MAX_IR, declared, prepared


def legalized(model: onnx.ModelProto, contract: Contract) -> onnx.ModelProto:
    """Rewrite a graph into a form that the toolkit can build.

    The image input is fixed to float32 1xCxHxW, float16 widened, shape arithmetic folded, and each
    operator that the toolkit rejects replaced by an equivalent. A final softmax of a classifier is
    removed where its contract promises logits, since INT8 keeps of it only what is above 1/256. A
    segmentation graph ends with its logits, an anomaly detector with what is read of it. `model` is
    not modified.

    Args:
        model: The model.
        contract: Its contract; the input and the head are used.

    Returns:
        The rewritten model.
    """
    if contract.picture is not None:
        model = picture_as_floats(model, contract.picture.size)
    if isinstance(contract.head, SemanticHead) and not contract.head.picked:
        model = up_to_logits(model, contract.input)
    if isinstance(contract.head, AnomalyHead):
        model = without_marks(model, contract.head, contract.input)
    if isinstance(contract.head, VectorHead) and contract.picture is not None:
        model = up_to_embedding(model, contract.input)
    weights = {tensor.name for tensor in model.graph.initializer}
    names = [
        info.name
        for info in model.graph.input
        if info.name not in weights and len(declared(info) or ()) == 4
    ]
    image = contract.picture
    sizes = {names[0]: (1, image.channels, *image.size)} if names and image is not None else {}
    view = prepared(model, sizes)
    if isinstance(contract.head, ClassifyHead) and not contract.head.activated:
        without_softmax(view)
    view.model.ir_version = min(view.model.ir_version, MAX_IR)
    return view.model
