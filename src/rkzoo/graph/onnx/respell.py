"""Operators that RKNN-Toolkit2 2.5.0 crashes on, or has no NPU form of, in others that it takes.

Nothing here changes a result. Each row was seen to fail and, respelled, to build and to answer in
the toolkit's simulator what ONNX Runtime answers (tests/workflow/compile/test_respelled_real.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import sqrt
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from rkzoo.graph.onnx.view import (
    MAX_IR,
    Array,
    attributes,
    captured_by,
    constant_value,
    graph_view,
    run,
)

_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


class _Writer:
    """Nodes and constants in place of one node, with names that nothing else has."""

    def __init__(self, model: onnx.ModelProto, node: onnx.NodeProto) -> None:
        self._model, self._stem = model, f"{node.output[0]}_respelled"
        self.nodes: list[onnx.NodeProto] = []
        self.opsets = model.opset_import
        self._count = 0

    def shape(self, name: str) -> tuple[int, ...] | None:
        return graph_view(self._model).shape(name)

    def constant(self, value: Array | float) -> str:
        return self._stored(np.asarray(value, np.float32))

    def whole(self, values: Sequence[int]) -> str:
        return self._stored(np.array(values, np.int64))

    def index(self, value: int) -> str:
        return self._stored(np.array(value, np.int64))

    def is_read(self, name: str) -> bool:
        graph = self._model.graph
        readers = (n for n in graph.node if name in n.input or name in captured_by(n))
        return any(info.name == name for info in graph.output) or next(readers, None) is not None

    def _stored(self, array: Array) -> str:
        name = self._name()
        self._model.graph.initializer.append(numpy_helper.from_array(array, name))
        return name

    def apply(self, operator: str, *inputs: str, to: str = "", **provided: Any) -> str:
        text = to or self._name()
        self.nodes.append(helper.make_node(operator, inputs, [text], **provided))
        return text

    def _name(self) -> str:
        self._count += 1
        return f"{self._stem}_{self._count}"


def respell(model: onnx.ModelProto) -> bool:
    """Spell operators that the toolkit fails on in others, in place.

    Args:
        model: A graph with fixed shapes, in float32.

    Returns:
        Whether there are other nodes than before.
    """
    graph = model.graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and (value := constant_value(node)) is not None:
            stored[node.output[0]] = numpy_helper.from_array(value)
    kept: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.op_type in _GATES:
            _complete(graph, node, stored)
        rule = _RULES.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        writer = _Writer(model, node)
        if rule is None or not rule(node, writer, stored):
            kept.append(node)
            continue
        kept.extend(writer.nodes)
    kept = _twins(graph, kept)
    changed = len(kept) != len(graph.node)  # every rule makes several nodes of one
    if changed:
        copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in kept]
        del graph.node[:]
        graph.node.extend(copies)
    return changed


Stored = dict[str, onnx.TensorProto]
Rule = Callable[[onnx.NodeProto, _Writer, Stored], bool]


def _complete(graph: onnx.GraphProto, node: onnx.NodeProto, stored: Stored) -> None:
    """A recurrent layer gets the bias of zeros that it leaves out (else INT8 ends in a SIGSEGV),
    and names for the outputs that are left out before others (else the toolkit loses these)."""
    weight = stored.get(node.input[1])
    if weight is not None and (len(node.input) < 4 or not node.input[3]):
        directions, rows = weight.dims[:2]
        name = f"{node.input[1]}_no_bias"
        if name not in stored:
            zeros = np.zeros((directions, 2 * rows), np.float32)
            tensor = numpy_helper.from_array(zeros, name)
            graph.initializer.append(tensor)
            stored[name] = tensor
        inputs = [*node.input, ""][: max(4, len(node.input))]
        inputs[3] = name
        del node.input[:]
        node.input.extend(inputs)
    stem = next(name for name in node.output if name)
    for place, name in enumerate(node.output):
        node.output[place] = name or f"{stem}_beside_{place}"


def _last_step(node: onnx.NodeProto, new: _Writer, stored: Stored) -> bool:
    """A GRU of which only the last state is read: that is taken from its steps, where the toolkit
    looks for it (else KeyError)."""
    if len(node.output) < 2 or new.is_read(node.output[0]) or (node.input[4:5] or [""])[0]:
        return False
    steps, state = node.output
    new.nodes.append(onnx.NodeProto.FromString(node.SerializeToString()))
    del new.nodes[-1].output[1:]
    direction = attributes(node).get("direction", b"forward").decode()
    if direction != "bidirectional":
        place = -1 if direction == "forward" else 0
        new.apply("Gather", steps, new.index(place), axis=0, to=state)
        return True
    ends = [
        new.apply("Gather", new.apply("Gather", steps, new.index(step), axis=0), each, axis=0)
        for step, each in ((-1, new.whole([0])), (0, new.whole([1])))
    ]
    new.apply("Concat", *ends, axis=0, to=state)
    return True


def _mish(node: onnx.NodeProto, new: _Writer, stored: Stored) -> bool:
    """x tanh(log(1 + e^x))"""
    (x,) = node.input
    new.apply("Mul", x, new.apply("Tanh", new.apply("Softplus", x)), to=node.output[0])
    return True


def _softsign(node: onnx.NodeProto, new: _Writer, stored: Stored) -> bool:
    """x / (1 + |x|)"""
    (x,) = node.input
    below = new.apply("Add", new.apply("Abs", x), new.constant(1.0))
    new.apply("Div", x, below, to=node.output[0])
    return True


def _selu(node: onnx.NodeProto, new: _Writer, stored: Stored) -> bool:
    """gamma elu(x, alpha)"""
    inputs = attributes(node)
    alpha, gamma = inputs.get("alpha", 1.67326319217681884765625), inputs.get("gamma", 1.0507010221)
    bent = new.apply("Elu", node.input[0], alpha=alpha)
    new.apply("Mul", bent, new.constant(gamma), to=node.output[0])
    return True


def _celu(node: onnx.NodeProto, new: _Writer, stored: Stored) -> bool:
    """alpha elu(x / alpha)"""
    alpha = new.constant(attributes(node).get("alpha", 1.0))
    bent = new.apply("Elu", new.apply("Div", node.input[0], alpha))
    new.apply("Mul", bent, alpha, to=node.output[0])
    return True


def _ceil(node: onnx.NodeProto, new: _Writer, stored: Stored) -> bool:
    """-floor(-x)"""
    lower = new.apply("Floor", new.apply("Neg", node.input[0]))
    new.apply("Neg", lower, to=node.output[0])
    return True


def _gelu(node: onnx.NodeProto, new: _Writer, stored: Stored) -> bool:
    """As opsets before 20 spell it, which is what the toolkit reads."""
    (x,) = node.input
    if attributes(node).get("approximate", b"none") == b"tanh":
        cube = new.apply("Mul", new.apply("Mul", x, x), x)
        inner = new.apply("Add", x, new.apply("Mul", cube, new.constant(0.044715)))
        bent = new.apply("Tanh", new.apply("Mul", inner, new.constant(sqrt(2 / np.pi))))
    else:
        bent = new.apply("Erf", new.apply("Div", x, new.constant(sqrt(2))))
    product = new.apply("Mul", x, new.apply("Add", bent, new.constant(1.0)))
    new.apply("Mul", product, new.constant(0.5), to=node.output[0])
    return True


def _cubic(node: onnx.NodeProto, new: _Writer, stored: Stored) -> bool:
    """A bicubic resize is linear in the rows and in the columns of a plane: two products with the
    matrices that ONNX Runtime makes of it. The toolkit ends in a SIGSEGV on the operator."""
    inputs = attributes(node)
    if inputs.get("mode") != b"cubic" or "axes" in inputs:
        return False
    shape = new.shape(node.input[0])
    by = next((name for name in node.input[2:] if name in stored and stored[name].dims[0]), "")
    if shape is None or len(shape) != 4 or not by:
        return False
    by_size = len(node.input) > 3 and by == node.input[3]
    expected = numpy_helper.to_array(stored[by])
    if any(expected[:2] != (shape[:2] if by_size else (1, 1))):
        return False
    rows, columns = (
        _resized(new, node, expected[axis], shape[axis], vertical=axis == 2, by_size=by_size)
        for axis in (2, 3)
    )
    wide = new.apply("MatMul", node.input[0], new.constant(columns))
    new.apply("MatMul", new.constant(rows), wide, to=node.output[0])
    return True


def _resized(
    new: _Writer,
    node: onnx.NodeProto,
    requested: float,
    side: int,
    *,
    vertical: bool,
    by_size: bool,
) -> Array:
    """What the resize of one axis makes of the unit vectors, (wanted, side) or transposed."""
    plane = np.eye(side, dtype=np.float32)[None, None]
    still = side if by_size else 1
    by = np.array(
        [1, 1, *((requested, still) if vertical else (still, requested))],
        np.int64 if by_size else np.float32,
    )
    inputs = ["x", "", "", "by"] if by_size else ["x", "", "by"]
    alone = helper.make_node("Resize", inputs, ["y"])
    alone.attribute.extend(node.attribute)
    graph = helper.make_graph(
        [alone],
        "resize",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, plane.shape)],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
        [numpy_helper.from_array(by, "by")],
    )
    model = helper.make_model(graph, opset_imports=new.opsets)
    model.ir_version = MAX_IR
    (matrix,) = run(model, {"x": plane})
    return np.asarray(matrix[0, 0])


def _group_norm(node: onnx.NodeProto, new: _Writer, stored: Stored) -> bool:
    """Groups of channels become the channels of an InstanceNormalization; from opset 21 on, where
    scale and bias are a number a channel."""
    x, scale, bias = node.input
    inputs, shape = attributes(node), new.shape(x)
    if shape is None or stored.get(scale) is None or stored.get(bias) is None:
        return False
    if stored[scale].dims[0] != shape[1]:
        return False
    groups, epsilon = inputs["num_groups"], inputs.get("epsilon", 1e-5)
    apart = new.apply("Reshape", x, new.whole([shape[0], groups, -1]))
    constant, zeros = new.constant(np.ones(groups)), new.constant(np.zeros(groups))
    level = new.apply("InstanceNormalization", apart, constant, zeros, epsilon=epsilon)
    column = (1, shape[1], *([1] * (len(shape) - 2)))
    level = new.apply("Reshape", level, new.whole(shape))
    for operator, value in (("Mul", scale), ("Add", bias)):
        number = new.constant(numpy_helper.to_array(stored[value]).reshape(column))
        to = node.output[0] if operator == "Add" else ""
        level = new.apply(operator, level, number, to=to)
    return True


# What only relabels its input.
_VIEWS = ("Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze")


def _twins(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """Where an output is another one, or a view of it, the toolkit fails (KeyError) or drops one
    without a word: the second begins with the larger of two equal numbers, which it keeps."""
    outputs = {info.name for info in graph.output}
    producers = {name: node for node in nodes for name in node.output}
    entries = []
    for node in nodes:
        first: onnx.NodeProto | None = node
        while first is not None and first.op_type in _VIEWS and first.input[0] not in outputs:
            first = producers.get(first.input[0])
        ends = bool(outputs & set(node.output)) and node.op_type in _VIEWS
        if ends and first is not None and first.op_type in _VIEWS and first.input[0] in producers:
            source = first.input[0]
            again = f"{source}_for_{first.output[0]}"
            if again not in producers:
                producers[again] = helper.make_node("Max", [source, source], [again])
                entries.append((first, producers[again]))
                first.input[0] = again
    before = {id(node): extra for node, extra in entries}
    return [entry for node in nodes for entry in (before.get(id(node)), node) if entry is not None]


_RULES: dict[str, Rule] = {
    "GRU": _last_step,
    "RNN": _last_step,
    "Mish": _mish,
    "Softsign": _softsign,
    "Selu": _selu,
    "Celu": _celu,
    "Ceil": _ceil,
    "Gelu": _gelu,
    "Resize": _cubic,
    "GroupNormalization": _group_norm,
}
