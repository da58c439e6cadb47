"""Spells a graph the way the toolkit can build it. Nothing here changes a result."""

from __future__ import annotations

import onnx
from onnx import helper

from rkzoo.graph.view import View


def scale_after_product(seen: View) -> None:
    """(q * s)^T k becomes (q^T k) * s, in place, in front of a softmax.

    Ultralytics 8.4 exports the attention of YOLO11 and YOLO12 in the first spelling, and
    RKNN-Toolkit2 2.5.0 ends with an IndexError in its attention fusion; 2.3.2 takes both.
    """
    graph = seen.model.graph
    for index, node in reversed(list(enumerate(graph.node))):
        if node.op_type != "MatMul" or not _feeds_softmax(seen, node):
            continue
        scaled = _scaled_factor(seen, node)
        if scaled is None:
            continue
        holder, position, factor, scale = scaled
        holder.input[position] = factor
        product, raw = node.output[0], f"{node.output[0]}_unscaled"
        node.output[0] = raw
        graph.node.insert(index + 1, helper.make_node("Mul", [raw, scale], [product]))


def _feeds_softmax(seen: View, node: onnx.NodeProto) -> bool:
    after = seen.consumers.get(node.output[0], [])
    return len(after) == 1 and after[0].op_type == "Softmax"


def _scaled_factor(
    seen: View, product: onnx.NodeProto
) -> tuple[onnx.NodeProto, int, str, str] | None:
    """The node and input where a scaled factor enters, the factor without its scale, and
    the scale; None when no factor of the product is scaled by a single number."""
    for start in (0, 1):
        holder, position = product, start
        maker = seen.producers.get(holder.input[position])
        if maker is not None and maker.op_type == "Transpose" and _once(seen, maker):
            holder, position = maker, 0
            maker = seen.producers.get(holder.input[0])
        if maker is None or maker.op_type != "Mul" or not _once(seen, maker):
            continue
        for factor, scale in (tuple(maker.input), tuple(maker.input)[::-1]):
            number = seen.constant(scale)
            if number is not None and number.size == 1:
                return holder, position, factor, scale
    return None


def _once(seen: View, node: onnx.NodeProto) -> bool:
    return len(seen.consumers.get(node.output[0], [])) == 1
