"""Subgraph extraction, with inputs of fixed shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx
from onnx import helper

from rkzoo.contract.inputs import ArrayInput
from rkzoo.errors import RkzooError
from rkzoo.graph.onnx.opset import with_lower_opset
from rkzoo.graph.onnx.patches import patches_in_steps
from rkzoo.graph.onnx.respell import respell
from rkzoo.graph.onnx.view import MAX_IR, GraphView, captured_by, graph_view, prepared

_KINDS = {
    "float32": onnx.TensorProto.FLOAT,
    "int64": onnx.TensorProto.INT64,
    "int32": onnx.TensorProto.INT32,
}


def part(
    model: onnx.ModelProto, inputs: Sequence[ArrayInput], outputs: Sequence[str] = ()
) -> onnx.ModelProto:
    """Extract the subgraph between `inputs` and `outputs`.

    Shapes are fixed, float16 is widened, and shape arithmetic is folded. `model` is not modified.

    Args:
        model: The model.
        inputs: Inputs of the subgraph: any tensors of the graph, with shapes and dtypes.
        outputs: Names of its outputs: any tensors of the graph; empty for the graph's own.

    Returns:
        The subgraph as a model of its own.

    Raises:
        RkzooError: A tensor is missing, or the subgraph needs an input that is not in `inputs`.
    """
    cut = onnx.ModelProto(ir_version=model.ir_version)
    cut.opset_import.extend(model.opset_import)
    cut.functions.extend(model.functions)
    cut.graph.CopyFrom(_between(model.graph, inputs, outputs))
    view = prepared(
        cut, {array_input.name: array_input.shape for array_input in inputs}, scale_of_one=False
    )
    in_steps = patches_in_steps(view)
    if respell(view.model) or in_steps:
        view = graph_view(view.model)
    _describe_outputs(view, {info.name: info for info in model.graph.output})
    view.model.ir_version = min(view.model.ir_version, MAX_IR)
    return with_lower_opset(view.model)


def ending_at(model: onnx.ModelProto, outputs: Sequence[str]) -> onnx.ModelProto:
    """The part of a graph that makes the tensors `outputs`, with the inputs that it needs; `model`
    is left as it was. Raises RkzooError where there is no such tensor."""
    source = model.graph
    stored = {tensor.name for tensor in source.initializer}
    inputs = [info for info in source.input if info.name not in stored]
    produced = {name for node in source.node for name in node.output}
    lost = sorted(set(outputs) - produced)
    if lost:
        raise _refused(f"It has no tensor {lost[0]}.")
    needed = set(outputs)
    nodes = []
    for node in reversed(source.node):
        if needed & set(node.output):
            nodes.append(node)
            needed |= set(node.input) | captured_by(node)
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    for field in (graph.node, graph.input, graph.output, graph.initializer):
        del field[:]
    graph.node.extend(reversed(nodes))
    graph.input.extend(info for info in inputs if info.name in needed)
    graph.initializer.extend(tensor for tensor in source.initializer if tensor.name in needed)
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
    return copy


def _between(
    source: onnx.GraphProto, inputs: Sequence[ArrayInput], outputs: Sequence[str]
) -> onnx.GraphProto:
    input_names = {array_input.name for array_input in inputs}
    requested = list(outputs) or [info.name for info in source.output]
    needed = set(requested)
    nodes = []
    for node in reversed(source.node):
        if (needed - input_names) & set(node.output):
            nodes.append(node)
            needed.update(node.input)
            needed |= captured_by(node)
    known = {name for node in nodes for name in node.output} | input_names | {""}
    known |= {tensor.name for tensor in source.initializer}
    lost = sorted({name for node in nodes for name in node.input}.union(requested) - known)
    unused = sorted(input_names - needed)
    if lost:
        raise _refused(f"It needs the input {lost[0]}, which is not given.")
    if unused:
        raise _refused(f"It does not use the input {unused[0]}.")
    graph = onnx.GraphProto(name=source.name or "part")
    graph.node.extend(reversed(nodes))
    graph.initializer.extend(t for t in source.initializer if t.name in needed - input_names)
    for array_input in inputs:
        graph.input.append(
            helper.make_tensor_value_info(
                array_input.name, _KINDS[array_input.dtype], array_input.shape
            )
        )
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in requested)
    return graph


def _describe_outputs(view: GraphView, declared: Mapping[str, onnx.ValueInfoProto]) -> None:
    """Set types and shapes of the outputs from shape inference, or as the graph declares them
    where control flow hides them from it."""
    for info in view.model.graph.output:
        kind = view.dtypes.get(info.name)
        if kind is None and info.name in declared:
            info.CopyFrom(declared[info.name])
            continue
        if kind is None:
            raise _refused(f"Nothing is known of its output {info.name}.")
        described = helper.make_tensor_value_info(info.name, kind, view.shape(info.name))
        info.CopyFrom(described)


def _refused(why: str) -> RkzooError:
    return RkzooError(
        "This part cannot be taken out of the graph.",
        why,
        "See its inputs and outputs with rkzoo inspect, and correct the card.",
    )


def all_outputs(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of the model that returns every tensor in it, after its own outputs."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    there = {output.name for output in copy.graph.output}
    inner = [
        name
        for node in copy.graph.node
        if node.op_type != "Constant"
        for name in node.output
        if name and name not in there
    ]
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in inner)
    return copy
