"""Graphs of DETR's kind, with a few queries: the codings of boxes and the forms of exports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx
from onnx import TensorProto, helper
from tiny_whole import FLOAT, Net

QUERIES, WIDTH, SIDE = 12, 16, 32

FAMILIES = {"plain": "detr", "sigmoid": "rtdetr", "distance": "dfine", "exponent": "rfdetr"}
FORMS = ("two", "boxes first", "joined", "picked")


@dataclass(frozen=True)
class Detr:
    """`coding` of the boxes: `plain` as DETR, `sigmoid` as RT-DETR, `distance` as D-FINE,
    `exponent` as RF-DETR. `form`: two outputs, `joined` after a sigmoid as Ultralytics exports,
    or `picked` as the projects' own exporters do."""

    coding: Literal["plain", "sigmoid", "distance", "exponent"] = "sigmoid"
    form: Literal["two", "boxes first", "joined", "picked", "picked softmax"] = "two"
    columns: int = 5


def detr(spec: Detr = Detr()) -> onnx.ModelProto:
    """A convolution, a row of numbers for each query, and a head."""
    net = Net()
    features = net.conv("images", 3, WIDTH, strides=[8, 8])
    rows = net.op("Reshape", features, net.ints(1, WIDTH, -1))
    rows = net.op("Transpose", net.op("Tanh", rows), perm=[0, 2, 1])
    rows = net.op("Slice", rows, net.ints(0), net.ints(QUERIES), net.ints(1))
    rows = net.op("Relu", _linear(net, rows, WIDTH, WIDTH))
    logits = _linear(net, rows, WIDTH, spec.columns)
    boxes = _boxes(net, rows, spec.coding)
    if spec.form in ("two", "boxes first"):
        outputs = [logits, boxes] if spec.form == "two" else [boxes, logits]
    elif spec.form == "joined":
        outputs = [net.op("Concat", boxes, net.op("Sigmoid", logits), axis=2)]
    else:
        outputs = _picked(net, logits, boxes, softmax=spec.form == "picked softmax")
    model = net.model([1, 3, SIDE, SIDE], *outputs)
    if len(outputs) == 3:
        model.graph.output[0].type.tensor_type.elem_type = TensorProto.INT64
        sizes = helper.make_tensor_value_info("orig_target_sizes", TensorProto.INT64, [1, 2])
        model.graph.input.append(sizes)
    return model


def _linear(net: Net, rows: str, before: int, after: int) -> str:
    return net.op("Add", net.op("MatMul", rows, net.weight(before, after)), net.weight(after))


def _boxes(net: Net, rows: str, coding: str) -> str:
    numbers = _linear(net, rows, WIDTH, 4)
    if coding == "plain":
        return net.op("Sigmoid", numbers)
    first = net.op("Sigmoid", _linear(net, rows, WIDTH, 4))
    if coding == "sigmoid":
        one = net.weight(like=np.ones(1, np.float32))
        odds = net.op("Log", net.op("Div", first, net.op("Sub", one, first)))
        return net.op("Sigmoid", net.op("Add", numbers, odds))
    middle, size = _halves(net, first)
    low, high = _halves(net, numbers)
    if coding == "exponent":
        moved = net.op("Add", net.op("Mul", low, size), middle)
        return net.op("Concat", moved, net.op("Mul", net.op("Exp", high), size), axis=2)
    quarter = net.op("Mul", size, net.weight(like=np.full(1, 0.25, np.float32)))
    half = net.weight(like=np.full(1, 2.0, np.float32))
    top = net.op("Sub", middle, net.op("Mul", net.op("Add", low, half), quarter))
    end = net.op("Add", middle, net.op("Mul", net.op("Add", high, half), quarter))
    return net.op(
        "Concat",
        net.op("Div", net.op("Add", top, end), half),
        net.op("Sub", end, top),
        axis=2,
    )


def _halves(net: Net, rows: str) -> tuple[str, str]:
    axis = net.ints(2)
    return (
        net.op("Slice", rows, net.ints(0), net.ints(2), axis),
        net.op("Slice", rows, net.ints(2), net.ints(4), axis),
    )


def _picked(net: Net, logits: str, boxes: str, *, softmax: bool) -> list[str]:
    """labels, boxes in pixels of `orig_target_sizes`, scores: the postprocessor of RT-DETR's
    deploy form, with a sigmoid or without focal loss."""
    middle, size = _halves(net, boxes)
    half = net.op("Div", size, net.weight(like=np.full(1, 2.0, np.float32)))
    corners = net.op("Concat", net.op("Sub", middle, half), net.op("Add", middle, half), axis=2)
    sizes = net.op("Cast", "orig_target_sizes", to=FLOAT)
    sizes = net.op("Unsqueeze", net.op("Tile", sizes, net.ints(1, 2)), net.ints(1))
    corners = net.op("Mul", corners, sizes)
    if softmax:
        scores = net.op("Softmax", logits, axis=-1)
        scores = net.op("Slice", scores, net.ints(0), net.ints(-1), net.ints(2))
        label = net.op("ArgMax", scores, axis=-1, keepdims=0)
        return [label, corners, net.op("ReduceMax", scores, axes=[-1], keepdims=0)]
    flat = net.op("Reshape", net.op("Sigmoid", logits), net.ints(1, -1))
    best, index = net.name(), net.name()
    net.nodes.append(helper.make_node("TopK", [flat, net.ints(QUERIES)], [best, index]))
    columns = net.ints(int(_columns(net, logits)))
    query = net.op("Div", index, columns)
    label = net.op("Sub", index, net.op("Mul", query, columns))
    every = net.op("Tile", net.op("Unsqueeze", query, net.ints(2)), net.ints(1, 1, 4))
    return [label, net.op("GatherElements", corners, every, axis=1), best]


def _columns(net: Net, logits: str) -> int:
    bias = next(node.input[1] for node in net.nodes if node.output[0] == logits)
    return next(tensor.dims[0] for tensor in net.weights if tensor.name == bias)
