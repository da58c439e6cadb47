"""What undoes a sigmoid, as every DETR does with its references between two layers."""

from __future__ import annotations

from math import prod

import numpy as np
import onnx

from rkzoo.graph.lowering.rewrites.rule import Writer
from rkzoo.graph.onnx.view import run, submodel
from rkzoo.ort import CannotRun

_FARTHEST = 12  # nodes between the sigmoid and its inverse
_FEWEST = 8
_SLACK = 1e-3
_PLAIN = frozenset({"Log", "Div", "Sub", "Add", "Mul", "Clip", "Min", "Max", "Neg", "Identity"})


def log_odds(node: onnx.NodeProto, new: Writer) -> bool:
    """log(x / (1 - x)) of x = sigmoid(z), each held above a least number, is z within bounds.

    Asked of the nodes between, not read. The bounds lie where float16 has no numbers any more:
    1 / 1e-5 is infinite there."""
    between, sigmoid = _between(node, new)
    if sigmoid is None:
        return False
    shape = new.shape(sigmoid.output[0])
    if shape is None or prod(shape) < _FEWEST:
        return False
    x = np.linspace(0, 1, prod(shape), dtype=np.float32)
    fed = {sigmoid.output[0]: x.reshape(shape)}
    try:
        (answer,) = run(submodel(new.view, between, fed, node.output[:1]), fed)
    except CannotRun:
        return False
    if answer.shape != shape or not np.isfinite(answer).all():
        return False
    values = answer.ravel().astype(np.float64)
    least, most = values[0], values[-1]
    with np.errstate(divide="ignore"):
        odds = np.log(x.astype(np.float64)) - np.log1p(-x.astype(np.float64))
    if np.abs(values - np.clip(odds, least, most)).max() > _SLACK:
        return False
    z = sigmoid.input[0]
    new.add("Clip", z, new.constant(least), new.constant(most), to=node.output[0])
    return True


def _between(
    node: onnx.NodeProto, new: Writer
) -> tuple[list[onnx.NodeProto], onnx.NodeProto | None]:
    """The nodes from a sigmoid to a logarithm, and the sigmoid, where there is one alone."""
    view, inside, sigmoids = new.view, {node.output[0]}, {}
    todo = list(node.input)
    while todo:
        name = todo.pop()
        maker = view.producers.get(name)
        if not name or name in inside or view.is_constant(name):
            continue
        if maker is None or len(inside) > _FARTHEST:
            return [], None
        if maker.op_type == "Sigmoid":
            sigmoids[name] = maker
            continue
        if maker.op_type not in _PLAIN:
            return [], None
        inside.add(name)
        todo.extend(maker.input)
    if len(sigmoids) != 1:
        return [], None
    (sigmoid,) = sigmoids.values()
    inner = [one for one in view.model.graph.node if not inside.isdisjoint(one.output)]
    constants = {name for one in inner for name in one.input if view.is_constant(name)}
    stored = [
        one
        for one in view.model.graph.node
        if one.op_type == "Constant" and not constants.isdisjoint(one.output)
    ]
    return [*stored, *inner], sigmoid
