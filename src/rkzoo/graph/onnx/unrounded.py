"""A quantised graph without its rounding: what it computes, to an arithmetic that can be compared.

QuantizeLinear and DequantizeLinear in a head hide its formula behind steps of their scales, and
turn constants such as the bins 0, 1, 2, ... of a distribution into 0, .94, 2.01, ...
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import helper, numpy_helper

from rkzoo.graph.onnx.view import Array, constant_value

_SMALL = 100_000
# Grids, strides and bins are whole or half numbers: (step, first).
_ROUND = ((1.0, 0.0), (1.0, 0.5), (0.5, 0.0))
# Half a step, and what a zero point that was rounded itself does at the ends of the range.
_HALF = 0.51
# How far from a code a float may be that stands for one.
_LATTICE = 1e-3


def unrounded(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph, float where QuantizeLinear stood, and with constants that were rounded to
    a scale as they were where they are whole or half numbers. `model` itself where it is not
    quantised; else it is left as it was."""
    from_tflite = model.producer_name == "tf2onnx"
    if not is_rounded(model) and not from_tflite:
        return model
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    if from_tflite:
        _restore(graph)
    values = {tensor.name: tensor for tensor in graph.initializer}
    constants = {
        node.output[0]: constant_value(node) for node in graph.node if node.op_type == "Constant"
    }
    known = {name: value for name, value in constants.items() if value is not None}
    known |= {n: numpy_helper.to_array(t) for n, t in values.items() if _count(t) <= _SMALL}
    before = {n.output[0]: n.input[0] for n in graph.node if n.op_type == "QuantizeLinear"}
    instead: dict[str, str] = {}
    for node in graph.node:
        if node.op_type != "DequantizeLinear":
            continue
        if node.input[0] in before:
            instead[node.output[0]] = before[node.input[0]]
            continue
        value = _dequantised(node, known)
        if value is not None:
            graph.initializer.append(numpy_helper.from_array(value, f"{node.output[0]}_float"))
            instead[node.output[0]] = f"{node.output[0]}_float"
    _replace(graph, before | instead)
    return copy


def is_rounded(model: onnx.ModelProto) -> bool:
    """Whether anything is rounded in the graph, weights among it."""
    kinds = {node.op_type for node in model.graph.node}
    return not kinds.isdisjoint(("QuantizeLinear", "DequantizeLinear"))


def _count(tensor: onnx.TensorProto) -> int:
    return int(np.prod(tensor.dims, dtype=np.int64))


def _dequantised(node: onnx.NodeProto, known: Mapping[str, Array]) -> Array | None:
    """The float value of a constant with one scale; None for weights with one a channel."""
    inputs = [known.get(name) for name in node.input]
    stored, scale = inputs[0], inputs[1]
    if stored is None or scale is None or scale.size != 1:
        return None
    zero = 0 if len(inputs) < 3 or inputs[2] is None else int(inputs[2].ravel()[0])
    step = float(scale.ravel()[0])
    return _before_rounding((stored.astype(np.float64) - zero) * step, step).astype(np.float32)


def _before_rounding(value: Array, step: float) -> Array:
    """Whole or half numbers, where all can have been rounded from them to this step; a number by
    itself has a scale of its own, which holds it exactly."""
    if value.size > 1:
        for spacing, first in _ROUND:
            nearest = np.round((value - first) / spacing) * spacing + first
            if step < spacing and np.abs(nearest - value).max() <= step * _HALF:
                return np.asarray(nearest)
    return value


def _restore(graph: onnx.GraphProto) -> None:
    """Constants of a quantised TFLite file, which came as floats and without their scales."""
    for tensor in graph.initializer:
        if tensor.data_type != onnx.TensorProto.FLOAT or not 1 < _count(tensor) <= _SMALL:
            continue
        value = numpy_helper.to_array(tensor).astype(np.float64)
        for step in (np.abs(value).max() / 127, np.ptp(np.append(value, 0)) / 255):
            codes = value / (step or 1)
            if np.abs(codes - np.round(codes)).max() < _LATTICE:
                restored = _before_rounding(value, step).astype(np.float32)
                tensor.CopyFrom(numpy_helper.from_array(restored, tensor.name))
                break


def _replace(graph: onnx.GraphProto, instead: Mapping[str, str]) -> None:
    """Lets what reads a key read its value, and drops what made the keys. Outputs keep their
    names, and are floats."""

    def final(name: str) -> str:
        while name in instead:
            name = instead[name]
        return name

    kept = [
        onnx.NodeProto.FromString(node.SerializeToString())
        for node in graph.node
        if node.output[0] not in instead
    ]
    for node in kept:
        node.input[:] = [final(name) for name in node.input]
    for output in graph.output:
        if output.name in instead:
            kept.append(helper.make_node("Identity", [final(output.name)], [output.name]))
            output.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    del graph.node[:], graph.value_info[:]
    graph.node.extend(kept)
