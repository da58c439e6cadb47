"""Graphs with MobileSAM's interface whose answer is known: discs around the first point.

Mask m is radius_m^2 - distance^2 in cells of 112x112, so that its edge is a circle; how good it
is thought to be is the share of its number, and the embedding's mean is added, so that a picture
that is not encoded is seen.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

RADII = (3.0, 5.0, 20.0, 9.0)
BEST = 2
_SIDE, _CELLS = 448, 112


def encoder() -> bytes:
    """1x3x448x448 to 1x256x28x28: the mean of each 16x16 pixels in every channel."""
    weight = np.full((256, 3, 16, 16), 1 / 768, np.float32)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["picture", "w"], ["embedding"], strides=[16, 16])],
        "encoder",
        [helper.make_tensor_value_info("picture", TensorProto.FLOAT, [1, 3, _SIDE, _SIDE])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, [1, 256, 28, 28])],
        [numpy_helper.from_array(weight, "w")],
    )
    return _bytes(graph)


def decoder(points: int = 2) -> bytes:
    """The five inputs to `iou_predictions` 1x4 and `low_res_masks` 1x4x112x112."""
    middle = np.arange(_CELLS, dtype=np.float32) + 0.5
    constants = {
        "xs": middle.reshape(1, 1, 1, -1),
        "ys": middle.reshape(1, 1, -1, 1),
        "cell": np.float32(_CELLS / _SIDE).reshape(1),
        "r2": np.square(np.array(RADII, np.float32)).reshape(1, 4, 1, 1),
        "scores": np.array([[0.2, 0.4, 0.9, 0.6]], np.float32),
        "four": np.array([1, 1, 1, 1], np.int64),
        "first": np.array([0], np.int64),
        "second": np.array([1], np.int64),
        "little": np.float32(1e-6).reshape(1),
    }
    node = helper.make_node
    nodes = [
        node("Gather", ["point_coords", "first"], ["p"], axis=1),
        node("Gather", ["p", "first"], ["px"], axis=2),
        node("Gather", ["p", "second"], ["py"], axis=2),
        node("Mul", ["px", "cell"], ["cx"]),
        node("Mul", ["py", "cell"], ["cy"]),
        node("Reshape", ["cx", "four"], ["x"]),
        node("Reshape", ["cy", "four"], ["y"]),
        node("Sub", ["xs", "x"], ["dx"]),
        node("Sub", ["ys", "y"], ["dy"]),
        node("Mul", ["dx", "dx"], ["dx2"]),
        node("Mul", ["dy", "dy"], ["dy2"]),
        node("Add", ["dx2", "dy2"], ["d2"]),
        node("Sub", ["r2", "d2"], ["disc"]),
        # What was segmented before is added where it counts.
        node("Mul", ["mask_input", "has_mask_input"], ["before"]),
        node("Add", ["disc", "before"], ["low_res_masks"]),
        node("ReduceMean", ["image_embeddings"], ["seen"], axes=[1, 2, 3], keepdims=0),
        node("ReduceSum", ["point_labels"], ["labels"], keepdims=1),
        node("Mul", ["labels", "little"], ["nothing"]),
        node("Add", ["scores", "seen"], ["looked"]),
        node("Add", ["looked", "nothing"], ["iou_predictions"]),
    ]
    shapes = {
        "image_embeddings": [1, 256, 28, 28],
        "point_coords": [1, points, 2],
        "point_labels": [1, points],
        "mask_input": [1, 1, _CELLS, _CELLS],
        "has_mask_input": [1],
    }
    graph = helper.make_graph(
        nodes,
        "decoder",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in shapes.items()],
        [
            helper.make_tensor_value_info("iou_predictions", TensorProto.FLOAT, [1, 4]),
            helper.make_tensor_value_info(
                "low_res_masks", TensorProto.FLOAT, [1, 4, _CELLS, _CELLS]
            ),
        ],
        [numpy_helper.from_array(np.asarray(v), n) for n, v in constants.items()],
    )
    return _bytes(graph)


def _bytes(graph: onnx.GraphProto) -> bytes:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    return model.SerializeToString()
