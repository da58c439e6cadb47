"""Operators that no part of Rockchip's software computes, carried as custom operators.

The toolkit builds a model with them without an error; only its log says "No lowering found", and on
the board the library has no kernel. As a custom operator such a node is computed by ONNX Runtime:
in the simulator, and on a board whose library takes custom operators.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from rkzoo.contract.custom_operator import MARK, CustomOperator
from rkzoo.graph.onnx.view import MAX_IR, GraphView, graph_view

# Each was built alone in float16 for rk3588 with toolkit 2.5.0, whose log has "No lowering found"
# for it. Selu, Softsign and Trilu are rewritten where they can be; Celu always is; of Compress the
# shape is not known, and Bernoulli is drawn by chance.
UNLOWERED = frozenset((
    "Acos", "Acosh", "Asin", "Asinh", "Atanh", "Ceil", "Cosh", "Det",
    "GlobalLpPool", "IsInf", "IsNaN", "LpPool", "MeanVarianceNormalization", "Or", "ReduceL1",
    "ReduceLogSum", "ReduceProd", "ReduceSumSquare", "ScatterElements", "Selu", "Shrink",
    "Sign", "Sinh", "Softsign", "Tan", "Trilu", "Xor",
))  # fmt: skip
"""ONNX operators without a kernel, on the NPU or the processor."""

# What both the simulator and the library hand over as it is.
_TYPES = (TensorProto.FLOAT, TensorProto.BOOL, TensorProto.INT64)
_MOST_STORED = 1 << 20  # bytes of weights that one may bring along: they go into the sidecar


def with_custom_operators(
    model: onnx.ModelProto,
) -> tuple[onnx.ModelProto, tuple[CustomOperator, ...]]:
    """A model whose nodes without a kernel are custom operators.

    Nodes that differ in name and tensors alone have one type.

    Args:
        model: The model as it goes to the toolkit; it is left as it was.

    Returns:
        The model (the given one where nothing is done), and its custom operators.
    """
    if not any(_is_unlowered(node) for node in model.graph.node):
        return model, ()
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    view = graph_view(copy)
    known: dict[bytes, CustomOperator] = {}
    counts: Counter[str] = Counter()
    for node in copy.graph.node:
        alone = _alone(node, view) if _is_unlowered(node) else None
        if alone is None:
            continue
        fed, part = alone
        operator = node.op_type
        if part not in known:
            counts[operator] += 1
            number = counts[operator] if counts[operator] > 1 else ""
            known[part] = CustomOperator(
                type=f"{MARK}{operator}{number}", operator=operator, model=part
            )
        node.op_type = known[part].type
        del node.attribute[:], node.input[:]
        node.input.extend(fed)
    return (copy, tuple(known.values())) if known else (model, ())


def uncarried(model: onnx.ModelProto) -> tuple[onnx.NodeProto, ...]:
    """Nodes of a model that have no kernel and are no custom operators."""
    return tuple(node for node in model.graph.node if _is_unlowered(node))


def _is_unlowered(node: onnx.NodeProto) -> bool:
    return node.op_type in UNLOWERED and node.domain in ("", "ai.onnx")


def _alone(node: onnx.NodeProto, view: GraphView) -> tuple[list[str], bytes] | None:
    """What a node is fed with, and the model of it alone; None where it cannot be carried."""
    stored = {name: view.constant(name) for name in node.input if name}
    fed = [name for name in node.input if name and stored[name] is None]
    weights = [(name, value) for name, value in stored.items() if value is not None]
    types = {view.dtypes.get(name) for name in fed}
    # Of an operator that is a function inference does not know them.
    types |= {view.dtypes.get(name, TensorProto.FLOAT) for name in node.output}
    if not fed or not types <= {*_TYPES} or sum(v.nbytes for _, v in weights) > _MOST_STORED:
        return None
    names = {name: f"stored{place}" for place, (name, _) in enumerate(weights)}
    inputs: list[str] = []
    info: list[onnx.ValueInfoProto] = []
    for name in node.input:
        if name in fed:
            inputs.append(f"input{len(info)}")
            rank = view.shapes.get(name)
            sizes = [f"{inputs[-1]}_{axis}" for axis in range(len(rank))] if rank else []
            kind = view.dtypes[name]
            # Free sizes: a batch, or another size of picture, is the same operator.
            info.append(helper.make_tensor_value_info(inputs[-1], kind, sizes if rank else None))
        else:
            inputs.append(names.get(name, ""))
    outputs = [f"output{place}" for place in range(len(node.output))]
    copy = onnx.NodeProto.FromString(node.SerializeToString())
    copy.name = copy.doc_string = ""
    del copy.input[:], copy.output[:]
    copy.input.extend(inputs)
    copy.output.extend(outputs)
    graph = helper.make_graph(
        [copy],
        "alone",
        info,
        [onnx.ValueInfoProto(name=name) for name in outputs],
        [numpy_helper.from_array(np.asarray(value), names[name]) for name, value in weights],
    )
    made = onnx.ModelProto(ir_version=min(view.model.ir_version, MAX_IR), graph=graph)
    made.opset_import.extend(view.model.opset_import)
    return [name for name in node.input if name in fed], made.SerializeToString(deterministic=True)
