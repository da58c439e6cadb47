"""Cutting the decoding part off a recognized detection head.

The uncut tensor holds boxes of 0..640 and scores of 0..1 on one INT8 scale, which rounds the scores
away; each branch as an output of its own has its own scale.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Literal

import msgspec
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from rkzoo.contract.detect import DetectHead
from rkzoo.contract.model import BoxHead, Contract, Head
from rkzoo.errors import RkzooError
from rkzoo.graph.families.outputs import cut_outputs
from rkzoo.graph.families.recognition import HeadTensor, Recognition
from rkzoo.graph.onnx.fold_prompts import texts_to_convolution
from rkzoo.graph.onnx.rewrite import picture_as_floats
from rkzoo.graph.onnx.view import MAX_IR, GraphView, constant_value, is_scale, prepared

Scores = Literal["sigmoid", "logits", "bounded"]
"""How scores leave a cut graph: after the sigmoid, as logits, or as logits clipped to the relevant
range, so that very negative background logits take no part of the INT8 range.
"""
_BOUND = 8.0  # sigmoid(-8) = 0.0003, below every confidence threshold in use
_BOUNDED_AWAY = 2 / (1 + np.exp(_BOUND))


def bounded_away(head: Head) -> float:
    """The largest error that clipping causes in a score that is the product of two, or the square
    root of that."""
    rooted = isinstance(head, DetectHead) and head.objectness == "geometric"
    return float(_BOUNDED_AWAY**0.5 if rooted else _BOUNDED_AWAY)


def cut_head(
    model: onnx.ModelProto, recognition: Recognition, *, scores: Scores = "sigmoid"
) -> onnx.ModelProto:
    """Cut the graph at the branches of its head, as `cut_contract` describes the result.

    Outputs, float32, one a tap: box_8 1x4Mxhxw (raw), score_8 1xCxhxw (as `scores` says),
    box_16, score_16, ..., named by stride, finest level first. The
    input is fixed to float32 1xCxHxW, half precision widened, and everything that only the tail
    needed is gone. `model` is left as it was.
    """
    view = _prepared(model, recognition)
    head = _head(cut_contract(recognition, scores=scores))
    names = [output.name for output in head.outputs]
    requested = {name for n in names for name in (n, f"{n}_raw")}
    _give_way(view.model, requested)
    taps = [
        replace(head_tensor, name=f"{head_tensor.name}_inner")
        if head_tensor.name in requested
        else head_tensor
        for head_tensor in recognition.head_tensors
    ]
    graph = _kept(view, [head_tensor.name for head_tensor in taps])
    for name, head_tensor in zip(names, taps, strict=True):
        graph.node.extend(
            _exposed(graph, head_tensor, name, scores if head_tensor.sigmoid else "logits")
        )
        shape = (
            *head_tensor.shape[:1],
            len(head_tensor.channels) or head_tensor.shape[1],
            *head_tensor.shape[2:],
        )
        graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    _drop_unused(graph)
    result = onnx.ModelProto(
        ir_version=min(view.model.ir_version, MAX_IR), producer_name="rkzoo", graph=graph
    )
    result.opset_import.extend(view.model.opset_import)
    result.functions.extend(view.model.functions)
    result.metadata_props.extend(model.metadata_props)
    return result


def _exposed(
    graph: onnx.GraphProto, head_tensor: HeadTensor, name: str, form: Scores
) -> list[onnx.NodeProto]:
    """The nodes that compute output `name` from a tap."""
    source = name if form == "logits" else f"{name}_raw"
    last = _activation(graph, source, name, form)
    if head_tensor.channels:
        return [_part_of_convolution(graph, head_tensor, source), *last]
    if any(head_tensor.name in node.input for node in graph.node):
        # Other nodes still read the tensor by its old name.
        return [helper.make_node("Identity", [head_tensor.name], [source]), *last]
    for node in graph.node:
        for index, tensor in enumerate(node.output):
            if tensor == head_tensor.name:
                node.output[index] = source
    return last


def _activation(
    graph: onnx.GraphProto, source: str, name: str, form: Scores
) -> list[onnx.NodeProto]:
    if form == "logits":
        return []
    if form == "sigmoid":
        return [helper.make_node("Sigmoid", [source], [name])]
    ends = (f"{name}_least", f"{name}_most")
    for end, value in zip(ends, (-_BOUND, _BOUND), strict=True):
        graph.initializer.append(numpy_helper.from_array(np.array(value, np.float32), end))
    return [helper.make_node("Clip", [source, *ends], [name])]


def _part_of_convolution(
    graph: onnx.GraphProto, head_tensor: HeadTensor, name: str
) -> onnx.NodeProto:
    """A copy of the convolution that produces `tap`, with only the wanted output channels: a
    separate convolution costs the NPU nothing, slicing channels afterwards does.
    """
    (node,) = (n for n in graph.node if head_tensor.name in n.output)
    if node.op_type != "Conv":
        raise _inseparable(head_tensor.name, node.op_type)
    part = _copied(node, name)
    for index in range(1, len(part.input)):
        part.input[index] = _taken(
            graph, part.input[index], head_tensor.channels, f"{name}_weight{index}"
        )
    return part


def _copied(node: onnx.NodeProto, name: str) -> onnx.NodeProto:
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    copy.name, copy.output[0] = name, name
    return copy


def _taken(graph: onnx.GraphProto, weight: str, channels: tuple[int, ...], name: str) -> str:
    """What of a convolution's weights makes these channels, under `name`; the scales of quantised
    ones are one a channel, or one for all, which stays as it is."""
    stored = {tensor.name: tensor for tensor in graph.initializer}
    makers = {output: node for node in graph.node for output in node.output}
    maker = makers.get(weight)
    value = numpy_helper.to_array(stored[weight]) if weight in stored else None
    if maker is not None and maker.op_type == "Constant":
        value = constant_value(maker)
    if value is not None:
        if value.size == 1 and len(channels) > 1:
            return weight
        graph.initializer.append(numpy_helper.from_array(value[list(channels)], name))
        return name
    if maker is None or maker.op_type != "DequantizeLinear":
        raise _inseparable(weight, maker.op_type if maker else "nothing")
    scaled = _copied(maker, name)
    for index, source in enumerate(maker.input):
        scaled.input[index] = _taken(graph, source, channels, f"{name}_{index}")
    graph.node.insert(0, scaled)
    return name


def _inseparable(name: str, maker: str) -> RkzooError:
    return RkzooError(
        f"The end of the graph at {name} cannot be taken apart.",
        f"It is made by {maker} and not by a convolution.",
        "Convert it with --no-cut, and please report this model.",
        code=1,
    )


def _drop_unused(graph: onnx.GraphProto) -> None:
    """Remove convolutions that were split, once nothing reads them."""
    used = {name for node in graph.node for name in node.input}
    used |= {output.name for output in graph.output}
    for node in [node for node in graph.node if used.isdisjoint(node.output)]:
        graph.node.remove(node)
    left = {name for node in graph.node for name in node.input}
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in left]:
        graph.initializer.remove(tensor)


def keep_head(model: onnx.ModelProto, recognition: Recognition) -> onnx.ModelProto:
    """Prepare the graph for the toolkit with its head left on.

    The input is fixed and float16 widened, attention is rewritten as in `cut_head`;
    outputs that the contract does not name are dropped (YOLOv5's raw heads beside the boxes).
    `model` is not modified.
    """
    view = _prepared(model, recognition)
    contract = recognition.uncut or recognition.contract
    named = {output.name: None for output in _head(contract).outputs}
    if any(output.name not in named for output in view.model.graph.output):
        declared_as = {output.name: output for output in view.model.graph.output}
        graph = _kept(view, named)
        graph.output.extend(declared_as[name] for name in named)
        view.model.graph.CopyFrom(graph)
    _picture_first(view.model, contract)
    view.model.ir_version = min(view.model.ir_version, MAX_IR)
    return view.model


def _picture_first(model: onnx.ModelProto, contract: Contract) -> None:
    """Sort the inputs into the contract's order, the image first."""
    order = {other.name: index for index, other in enumerate(contract.others, 1)}
    infos = sorted(model.graph.input, key=lambda info: order.get(info.name, 0))
    copies = [onnx.ValueInfoProto.FromString(info.SerializeToString()) for info in infos]
    del model.graph.input[:]
    model.graph.input.extend(copies)


def cut_contract(recognition: Recognition, *, scores: Scores = "sigmoid") -> Contract:
    """The contract of the graph that `cut_head` returns.

    For an upstream graph whose scores have their sigmoid it equals `recognition.contract`.

    Raises:
        RkzooError: The head is not a detection head.
    """
    head = _head(recognition.contract)
    if not isinstance(head, DetectHead):
        return recognition.contract
    outputs = cut_outputs(recognition.head_tensors, head.strides)
    head = msgspec.structs.replace(head, outputs=outputs, activated=scores == "sigmoid")
    return msgspec.structs.replace(recognition.contract, head=head)


def _head(contract: Contract) -> BoxHead:
    if not isinstance(contract.head, BoxHead):
        raise RkzooError("Only a detection head can be cut.", f"This is {contract.family}.", code=1)
    return contract.head


def static_input(model: onnx.ModelProto, recognition: Recognition) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the inputs for `prepared`, the image first."""
    others = {other.name: other.shape for other in recognition.contract.others}
    known = {tensor.name for tensor in model.graph.initializer} | set(others)
    fed = [info for info in model.graph.input if info.name not in known]
    names = [info.name for info in fed if not is_scale(info)]
    height, width = recognition.contract.input.size
    channels = recognition.contract.input.channels
    return {names[0]: (1, channels, height, width), **others}


def _prepared(model: onnx.ModelProto, recognition: Recognition) -> GraphView:
    model = picture_as_floats(model, recognition.contract.input.size)
    return texts_to_convolution(prepared(model, static_input(model, recognition)))


def _give_way(model: onnx.ModelProto, requested: set[str]) -> None:
    """Rename tensors inside the graph whose names the cut outputs need."""
    graph = model.graph
    for node in graph.node:
        for side in (node.input, node.output):
            for index, name in enumerate(side):
                if name in requested:
                    side[index] = f"{name}_inner"
    for tensor in (*graph.initializer, *graph.input):
        if tensor.name in requested:
            tensor.name = f"{tensor.name}_inner"


def _kept(view: GraphView, outputs: Iterable[str]) -> onnx.GraphProto:
    """The part of the graph that `outputs` depend on, without any outputs yet."""
    source = view.model.graph
    needed = set(outputs)
    nodes = []
    for node in reversed(source.node):
        if not needed.isdisjoint(node.output):
            nodes.append(node)
            needed.update(node.input)
    graph = onnx.GraphProto(name="cut")
    graph.node.extend(reversed(nodes))
    graph.input.extend(info for info in source.input if info.name in needed)
    graph.initializer.extend(tensor for tensor in source.initializer if tensor.name in needed)
    return graph
