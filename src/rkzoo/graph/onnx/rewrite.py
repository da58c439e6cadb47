"""How a graph begins and ends: pictures as the NPU takes them, scores as INT8 holds them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from rkzoo.graph.onnx.input_preprocessing import (
    TOOK_BYTES,
    InputPreprocessing,
    input_preprocessing,
)
from rkzoo.graph.onnx.view import Array, GraphView, attributes, captured_by, is_half

# ---- the picture --------------------------------------------------------------------

_TO_FIRST, _TO_LAST = [0, 3, 1, 2], [0, 2, 3, 1]


def picture_as_floats(
    model: onnx.ModelProto, size: tuple[int, int] | None = None
) -> onnx.ModelProto:
    """Convert an image input to float32 NCHW, where it is 1xHxWxC, of integers, or has its channels
    swapped inside.

    A factor and an offset replace the graph's first operators, a 1x1 convolution reorders the
    channels, and transposes are removed.

    Args:
        model: The model; not modified.
        size: (height, width) in pixels, for a dynamic input size.

    Returns:
        A copy that takes float32 1xCxHxW; `model` itself for any other graph.
    """
    preprocessing = input_preprocessing(model, size)
    if preprocessing is None or not (preprocessing.moves or _is_unusual(model, preprocessing)):
        return model
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    kept = _without_front(graph, preprocessing.body)
    first, front = _scaled(graph, preprocessing)
    input_name = f"{preprocessing.name}_as_given"
    if any(preprocessing.name in node.input for node in kept):
        # Shape reads it, or the network begins with what is no preprocessing.
        _read_instead(kept, preprocessing.name, input_name)
        rank = len(preprocessing.shape)
        front += _as(
            preprocessing.name, preprocessing.layout, preprocessing.dtype, rank, input_name
        )
    if preprocessing.body_layout == "NHWC" and preprocessing.body_dtype == TensorProto.FLOAT:
        kept = _without_turning(
            kept,
            input_name if preprocessing.body == preprocessing.name else preprocessing.body,
            first,
        )
    if preprocessing.body != preprocessing.name:
        front += _as(
            first, preprocessing.body_layout, preprocessing.body_dtype, 4, preprocessing.body
        )
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in (*front, *kept)]
    del graph.node[:], graph.value_info[:]
    graph.node.extend(copies)
    _retyped(graph, preprocessing)
    return copy


def _is_unusual(model: onnx.ModelProto, input_preprocessing: InputPreprocessing) -> bool:
    """Whether the input is no float32 1xCxHxW. Half precision is widened with the whole graph."""
    widened = input_preprocessing.dtype == TensorProto.FLOAT16 and is_half(model)
    floats = input_preprocessing.dtype == TensorProto.FLOAT or widened
    return not floats or input_preprocessing.layout == "NHWC" or len(input_preprocessing.shape) != 4


def _without_front(graph: onnx.GraphProto, body: str) -> list[onnx.NodeProto]:
    """The nodes without those that lead to the tensor `body` alone."""
    requested = {output.name for output in graph.output}
    kept = []
    for node in reversed(graph.node):
        if body not in node.output and not requested.isdisjoint(node.output):
            kept.append(node)
            requested |= set(node.input) | captured_by(node)
    return kept[::-1]


def _scaled(
    graph: onnx.GraphProto, input_preprocessing: InputPreprocessing
) -> tuple[str, list[onnx.NodeProto]]:
    """What the network begins with as float32 1xCxHxW, and the nodes that make it."""
    order = np.zeros(
        (len(input_preprocessing.source), input_preprocessing.channels, 1, 1), np.float32
    )
    order[range(len(input_preprocessing.source)), input_preprocessing.source] = 1
    steps = [
        (
            "Mul",
            _column(input_preprocessing.gain),
            any(gain != 1 for gain in input_preprocessing.gain),
        ),
        ("Add", _column(input_preprocessing.shift), any(input_preprocessing.shift)),
        ("Conv", order, input_preprocessing.moves),
    ]
    if sorted(input_preprocessing.source) == list(range(input_preprocessing.channels)):
        # In the input's own order, where whoever reads the graph looks for it.
        back = np.argsort(input_preprocessing.source)
        steps[:2] = [(kind, value[:, back], needed) for kind, value, needed in steps[:2]]
    else:
        steps = [steps[2], *steps[:2]]
    at, nodes = input_preprocessing.name, []
    for operator, value, needed in steps:
        if needed:
            text = f"{input_preprocessing.name}_{operator.lower()}"
            graph.initializer.append(numpy_helper.from_array(value, f"{text}_by"))
            nodes.append(helper.make_node(operator, [at, f"{text}_by"], [text]))
            at = text
    return at, nodes


def _column(values: Sequence[float]) -> Array:
    return np.array(values, np.float32).reshape(1, -1, 1, 1)


def _as(source: str, layout: str, dtype: int, rank: int, target: str) -> list[onnx.NodeProto]:
    """Nodes from float32 1xCxHxW to another layout, type and number of dimensions."""
    steps: list[tuple[str, dict[str, Any]]] = []
    if layout == "NHWC":
        steps.append(("Transpose", {"perm": _TO_LAST}))
    if rank == 3:
        steps.append(("Squeeze", {}))
    if dtype != TensorProto.FLOAT or not steps:
        steps.append(("Cast", {"to": dtype}))
    names = [source, *(f"{target}_{number}" for number in range(len(steps) - 1)), target]
    return [
        helper.make_node(operator, [names[i]], [names[i + 1]], **options)
        for i, (operator, options) in enumerate(steps)
    ]


def _without_turning(
    nodes: Sequence[onnx.NodeProto], last: str, first: str
) -> list[onnx.NodeProto]:
    """`nodes` without those that put the channels of the tensor `last` first: who reads these
    reads `first`."""
    kept = list(nodes)
    for node in nodes:
        turns = node.op_type == "Transpose" and attributes(node).get("perm") == _TO_FIRST
        if turns and node.input[0] == last:
            kept.remove(node)
            _read_instead(kept, node.output[0], first)
    return kept


def _read_instead(nodes: Iterable[onnx.NodeProto], old: str, new: str) -> None:
    for node in nodes:
        for index, name in enumerate(node.input):
            if name == old:
                node.input[index] = new


def _retyped(graph: onnx.GraphProto, input_preprocessing: InputPreprocessing) -> None:
    """Declares the picture as float32 1xCxHxW; a batch or a side that was free stays so."""
    info = next(info for info in graph.input if info.name == input_preprocessing.name)
    kind = info.type.tensor_type
    kind.elem_type = TensorProto.FLOAT
    dims = [d.SerializeToString() for d in kind.shape.dim]
    batch = onnx.TensorShapeProto.Dimension(dim_value=1).SerializeToString()
    dims = dims if len(dims) == 4 else [batch, *dims]
    order = _TO_FIRST if input_preprocessing.layout == "NHWC" else range(4)
    del kind.shape.dim[:]
    kind.shape.dim.extend(onnx.TensorShapeProto.Dimension.FromString(dims[i]) for i in order)


# ---- the end of a classifier --------------------------------------------------------

_SHAPING = ("Identity", "Reshape", "Flatten", "Squeeze")


def without_softmax(view: GraphView) -> None:
    """Remove the softmax at each output of a graph, in place, where there is one."""
    for output in view.model.graph.output:
        node = view.producers.get(output.name)
        while node is not None and node.op_type in _SHAPING:
            node = view.producers.get(node.input[0])
        if node is not None and node.op_type in ("Softmax", "LogSoftmax"):
            del node.attribute[:]
            node.op_type = "Identity"


_BYTES = {onnx.TensorProto.UINT8: 0.0, onnx.TensorProto.INT8: 128.0}


def bytes_as_floats(model: onnx.ModelProto) -> None:
    """Convert uint8 and int8 inputs to float32 inputs of 0..255, in place.

    The casts of a quantized model are removed; for an int8 input the offset of 128 is subtracted in
    the graph.
    """
    graph = model.graph
    for info in graph.input:
        offset = _BYTES.get(info.type.tensor_type.elem_type)
        if offset is None:
            continue
        readers = [node for node in graph.node if info.name in node.input]
        if any(node.op_type != "Cast" for node in readers):
            continue
        info.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
        model.metadata_props.add(key=TOOK_BYTES, value=info.name)
        for cast in readers:
            if offset:
                name = f"{cast.output[0]}_offset"
                graph.initializer.append(numpy_helper.from_array(np.float32(offset), name))
                new = helper.make_node("Sub", [info.name, name], cast.output, cast.name)
            else:
                new = helper.make_node("Identity", [info.name], cast.output, cast.name)
            cast.CopyFrom(new)
