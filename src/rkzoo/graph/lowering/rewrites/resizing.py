"""Resizes that the toolkit does not survive."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from rkzoo.graph.lowering.rewrites.rule import Writer
from rkzoo.graph.onnx.view import MAX_IR, Array, attributes, run


def cubic(node: onnx.NodeProto, new: Writer) -> bool:
    """A bicubic resize is linear in the rows and in the columns of a plane: two products with the
    matrices that ONNX Runtime makes of it. The toolkit ends in a SIGSEGV on the operator."""
    inputs = attributes(node)
    if inputs.get("mode") != b"cubic" or "axes" in inputs:
        return False
    shape = new.shape(node.input[0])
    given = [(name, new.value(name)) for name in node.input[2:]]
    by, expected = next(
        ((name, value) for name, value in given if value is not None and value.size), ("", None)
    )
    if shape is None or len(shape) != 4 or expected is None:
        return False
    by_size = len(node.input) > 3 and by == node.input[3]
    if any(expected[:2] != (shape[:2] if by_size else (1, 1))):
        return False
    rows, columns = (
        _resized(new, node, expected[axis], shape[axis], vertical=axis == 2, by_size=by_size)
        for axis in (2, 3)
    )
    wide = new.add("MatMul", node.input[0], new.constant(columns))
    new.add("MatMul", new.constant(rows), wide, to=node.output[0])
    return True


def _resized(
    new: Writer,
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
    model = helper.make_model(graph, opset_imports=new.view.model.opset_import)
    model.ir_version = MAX_IR
    (matrix,) = run(model, {"x": plane})
    return np.asarray(matrix[0, 0])
