"""Legalization: rewrites of operators that RKNN-Toolkit2 does not accept, for a graph that keeps
its head.
"""

from __future__ import annotations

import onnx

from rkzoo.contract.classify import ClassifyHead
from rkzoo.contract.model import Contract
from rkzoo.contract.segmentation import SemanticHead
from rkzoo.contract.vector import VectorHead
from rkzoo.graph.families.semantic import up_to_logits
from rkzoo.graph.families.vector import up_to_embedding
from rkzoo.graph.onnx.opset import with_lower_opset
from rkzoo.graph.onnx.patches import patches_in_steps
from rkzoo.graph.onnx.rewrite import (
    depth_pool_to_plane,
    focus_to_convolution,
    picture_as_floats,
    scale_after_product,
    without_softmax,
)
from rkzoo.graph.onnx.view import MAX_IR, declared, prepared


def legalized(model: onnx.ModelProto, contract: Contract) -> onnx.ModelProto:
    """Rewrite a graph into a form that the toolkit can build.

    The image input is fixed to float32 1xCxHxW, float16 widened, shape arithmetic folded, and each
    operator that the toolkit rejects replaced by an equivalent. A final softmax of a classifier is
    removed where its contract promises logits, since INT8 keeps of it only what is above 1/256. A
    segmentation graph ends with its logits. `model` is not modified.

    Args:
        model: The model.
        contract: Its contract; the input and the head are used.

    Returns:
        The rewritten model.

    Raises:
        RkzooError: The opset is above 19 and cannot be lowered.
    """
    if contract.picture is not None:
        model = picture_as_floats(model, contract.picture.size)
    if isinstance(contract.head, SemanticHead) and not contract.head.picked:
        model = up_to_logits(model, contract.input)
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
    scale_after_product(view)
    focus_to_convolution(view)
    depth_pool_to_plane(view)
    patches_in_steps(view)
    if isinstance(contract.head, ClassifyHead) and not contract.head.activated:
        without_softmax(view)
    view.model.ir_version = min(view.model.ir_version, MAX_IR)
    return with_lower_opset(view.model)
