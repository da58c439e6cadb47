"""Constant folding of YOLO-World's text embeddings into 1x1 convolutions.

A YOLO-World exported with fixed prompts takes the dot product of every feature map cell with the
prompts' embeddings, then scales and shifts it. All of that is one 1x1 convolution, which runs on
the NPU; the head behind it is then like any other.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper

from rkzoo.graph.onnx.view import Array, GraphView, graph_view, run, submodel
from rkzoo.ort import CannotRun

_PRODUCTS = frozenset({"MatMul", "Einsum"})
_ARRANGING = frozenset({"Reshape", "Transpose", "Identity", "Squeeze", "Unsqueeze"})
_AFFINE = frozenset({"Mul", "Add", "Sub", "Div"})
# Div and LpNormalization: each cell's features brought to length 1, where no batch norm is.
_FEATURES = frozenset({"Conv", "BatchNormalization", "Add", "Div", "LpNormalization"})
# A power of two, so that a weight is recovered exactly, and large, so that no bias hides it.
_LOUD = 4096.0
_SLACK = 1e-4


@dataclass(frozen=True)
class _Comparison:
    """A comparison with text embeddings, from the feature map `source` (1, C, h, w) to `result` (1,
    K, h, w).
    """

    source: str
    result: str
    nodes: tuple[onnx.NodeProto, ...]


def texts_to_convolution(view: GraphView) -> GraphView:
    """Replace every comparison with constant text embeddings by a 1x1 convolution.

    Args:
        view: The graph; its model is modified in place.

    Returns:
        A new view of the model; `seen` itself where nothing was replaced.
    """
    graph = view.model.graph
    changed = False
    for node in [node for node in graph.node if node.op_type in _PRODUCTS]:
        comparison = _comparison(view, node)
        weights = _probe_weights(view, comparison) if comparison else None
        if comparison is None or weights is None:
            continue
        changed = True
        _replace(graph, comparison, *weights)
    if not changed:
        return view
    _drop_unused(graph)
    return graph_view(view.model)


def _comparison(view: GraphView, product: onnx.NodeProto) -> _Comparison | None:
    moving = [name for name in product.input if not _fixed(view, name)]
    if len(moving) != 1:
        return None
    source = moving[0]
    while (maker := view.producers.get(source)) is not None and maker.op_type in _ARRANGING:
        source = maker.input[0]
    size = view.shape(source)
    if maker is None or maker.op_type not in _FEATURES or size is None or len(size) != 4:
        return None
    result, name = "", product.output[0]
    while True:
        shape = view.shape(name)
        if shape is not None and len(shape) == 4 and (shape[0], *shape[2:]) == (1, *size[2:]):
            result = name
        after = view.consumers.get(name, [])
        if len(after) != 1 or not _goes_on(view, after[0], name):
            break
        name = after[0].output[0]
    if not result or size[0] != 1:
        return None
    return _Comparison(source, result, _between(view, source, result))


def _goes_on(view: GraphView, node: onnx.NodeProto, name: str) -> bool:
    if node.op_type in _ARRANGING:
        return bool(node.input[0] == name)
    others = [other for other in node.input if other != name]
    return node.op_type in _AFFINE and len(others) == 1 and _fixed(view, others[0])


def _fixed(view: GraphView, name: str) -> bool:
    """Whether a tensor depends on no input of the graph."""
    fed = {info.name for info in view.inputs}
    todo, known = [name], {name}
    while todo:
        current = todo.pop()
        if current in fed:
            return False
        node = view.producers.get(current)
        fresh = [n for n in node.input if n and n not in known] if node is not None else []
        known.update(fresh)
        todo.extend(fresh)
    return True


def _between(view: GraphView, source: str, result: str) -> tuple[onnx.NodeProto, ...]:
    inside: set[str] = set()
    todo = [result]
    while todo:
        name = todo.pop()
        node = view.producers.get(name)
        if name == source or name in inside or node is None:
            continue
        inside.update(node.output)
        todo.extend(node.input)
    return tuple(n for n in view.model.graph.node if not inside.isdisjoint(n.output))


def _probe_weights(view: GraphView, comparison: _Comparison) -> tuple[Array, Array] | None:
    """Weights (K, C, 1, 1) and bias (K,) of the convolution, measured by running the nodes; None
    where they do not compute a 1x1 convolution.
    """
    shape = view.shape(comparison.source)
    if shape is None:
        return None
    _, channels, height, width = shape
    cells = height * width
    try:
        part = submodel(
            view,
            comparison.nodes,
            {comparison.source: np.zeros(shape, np.float32)},
            [comparison.result],
        )

        def ask(values: Array) -> Array:
            (answer,) = run(part, {comparison.source: values.reshape(shape).astype(np.float32)})
            return np.asarray(answer, np.float64).reshape(answer.shape[1], cells)

        bias = ask(np.zeros(shape, np.float32))[:, 0]
        weight = np.zeros((len(bias), channels))
        for first in range(0, channels, cells):
            # Each cell is one-hot in a channel of its own, so one run measures as many channels.
            count = min(cells, channels - first)
            loud = np.zeros((channels, cells), np.float32)
            loud[first + np.arange(count), np.arange(count)] = _LOUD
            weight[:, first : first + count] = (ask(loud)[:, :count] - bias[:, None]) / _LOUD
        trial = np.random.default_rng(0).normal(0, 1, (channels, cells)).astype(np.float32)
        answer = ask(trial)
    except CannotRun:
        return None
    expected = weight @ trial.astype(np.float64) + bias[:, None]
    if np.abs(answer - expected).max() > _SLACK * max(1.0, float(np.abs(expected).max())):
        return None
    return weight.astype(np.float32)[..., None, None], bias.astype(np.float32)


def _replace(graph: onnx.GraphProto, comparison: _Comparison, weight: Array, bias: Array) -> None:
    names = [f"{comparison.result}_texts", f"{comparison.result}_shift"]
    for name, values in zip(names, (weight, bias), strict=True):
        graph.initializer.append(numpy_helper.from_array(values, name))
    for index, node in enumerate(graph.node):
        if comparison.result in node.output:
            node.output[list(node.output).index(comparison.result)] = (
                f"{comparison.result}_compared"
            )
            convolution = helper.make_node(
                "Conv", [comparison.source, *names], [comparison.result], kernel_shape=[1, 1]
            )
            graph.node.insert(index, convolution)
            return


def _drop_unused(graph: onnx.GraphProto) -> None:
    needed = {output.name for output in graph.output}
    for node in reversed(list(graph.node)):
        if needed.isdisjoint(node.output):
            graph.node.remove(node)
        else:
            needed.update(node.input)
            for attribute in node.attribute:
                for body in [attribute.g] if attribute.HasField("g") else attribute.graphs:
                    needed.update(name for inner in body.node for name in inner.input)
