"""Legalization: rewrites of operators that RKNN-Toolkit2 does not accept, for a graph that keeps
its head.
"""

from __future__ import annotations

import onnx

from rkzoo.contract.classify import ClassifyHead
from rkzoo.contract.model import Contract
from rkzoo.contract.segmentation import SemanticHead
from rkzoo.graph.families.semantic import up_to_logits
from rkzoo.graph.onnx.opset import lowered
from rkzoo.graph.onnx.rewrite import (
    channels_first,
    depth_pool_to_plane,
    focus_to_convolution,
    scale_after_product,
    without_softmax,
)
from rkzoo.graph.onnx.view import MAX_IR, declared, prepared


def spelled(model: onnx.ModelProto, contract: Contract) -> onnx.ModelProto:
    """Rewrite a graph into a form that the toolkit can build.

    The image input is fixed to 1x3xHxW, float16 widened, shape arithmetic folded, and each operator
    that the toolkit rejects replaced by an equivalent. A final softmax of a classifier is removed
    where its contract promises logits, since INT8 keeps of it only what is above 1/256. A
    segmentation graph ends with its logits. `model` is not modified.

    Args:
        model: The model.
        contract: Its contract; the input size and the head are used.

    Returns:
        The rewritten model.

    Raises:
        RkzooError: The opset is above 19 and cannot be lowered.
    """
    model = channels_first(model)
    if isinstance(contract.head, SemanticHead) and not contract.head.picked:
        model = up_to_logits(model, contract.input.size)
    weights = {tensor.name for tensor in model.graph.initializer}
    names = [
        info.name
        for info in model.graph.input
        if info.name not in weights and len(declared(info) or ()) == 4
    ]
    seen = prepared(model, {names[0]: (1, 3, *contract.input.size)} if names else {})
    scale_after_product(seen)
    focus_to_convolution(seen)
    depth_pool_to_plane(seen)
    if isinstance(contract.head, ClassifyHead) and not contract.head.activated:
        without_softmax(seen)
    seen.model.ir_version = min(seen.model.ir_version, MAX_IR)
    return lowered(seen.model)
