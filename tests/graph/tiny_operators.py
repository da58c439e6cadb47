"""Graphs around one operator, with random weights: what the toolkit is known to fail on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT = TensorProto.FLOAT
Shape = Sequence[int]


def weights(name: str, *shape: int) -> onnx.TensorProto:
    drawn = np.random.default_rng(len(name) + sum(shape)).standard_normal(shape) * 0.3
    return numpy_helper.from_array(drawn.astype(np.float32), name)


def stored(name: str, values: Any, kind: type = np.int64) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(values, kind), name)


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: dict[str, Shape],
    outputs: Sequence[str],
    initializers: Sequence[onnx.TensorProto],
    opset: int = 18,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in inputs.items()],
        [onnx.ValueInfoProto(name=name) for name in outputs],
        initializers,
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    made.ir_version = 8
    made = onnx.shape_inference.infer_shapes(made)
    for info in made.graph.output:
        if not info.type.tensor_type.elem_type:  # GroupNormalization, which inference skips
            info.CopyFrom(helper.make_tensor_value_info(info.name, FLOAT, (1, 8, 12, 16)))
    return made


def behind_conv(
    nodes: Sequence[onnx.NodeProto],
    outputs: Sequence[str] = ("y",),
    initializers: Sequence[onnx.TensorProto] = (),
    opset: int = 18,
) -> onnx.ModelProto:
    """x 1x3x12x16 -> Conv -> c 1x8x12x16 -> nodes."""
    conv = helper.make_node("Conv", ["x", "w"], ["c"], kernel_shape=[3, 3], pads=[1] * 4)
    first = weights("w", 8, 3, 3, 3)
    return model([conv, *nodes], {"x": (1, 3, 12, 16)}, outputs, [first, *initializers], opset)


def one(operator: str, opset: int = 18, **given: Any) -> onnx.ModelProto:
    return behind_conv([helper.make_node(operator, ["c"], ["y"], **given)], opset=opset)


def recurrent(
    operator: str, read: Sequence[str], *, bias: bool = True, direction: str = "forward"
) -> onnx.ModelProto:
    """x 10x1x16 -> LSTM, GRU or RNN of 32, whose outputs `read` go on; others are left out."""
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[operator]
    both = 1 + (direction == "bidirectional")
    kept = [weights("W", both, gates * 32, 16), weights("R", both, gates * 32, 32)]
    inputs = ["x", "W", "R"]
    if bias:
        kept.append(weights("B", both, 2 * gates * 32))
        inputs.append("B")
    given = {"linear_before_reset": 1} if operator == "GRU" else {}
    names = [name if name in read else "" for name in ("Y", "Y_h", "Y_c")]
    while not names[-1]:
        names.pop()
    nodes = [
        helper.make_node(operator, inputs, names, hidden_size=32, direction=direction, **given),
        *(helper.make_node("Tanh", [name], [f"{name}_out"]) for name in read),
    ]
    return model(nodes, {"x": (10, 1, 16)}, [f"{name}_out" for name in read], kept)


def resized(*by: float, sizes: bool = False, **given: Any) -> onnx.ModelProto:
    inputs = ["c", "", "", "by"] if sizes else ["c", "", "by"]
    values = stored("by", by, np.int64 if sizes else np.float32)
    return behind_conv(
        [helper.make_node("Resize", inputs, ["y"], mode="cubic", **given)], initializers=[values]
    )


def group_norm() -> onnx.ModelProto:
    node = helper.make_node("GroupNormalization", ["c", "s", "b"], ["y"], num_groups=2)
    return behind_conv([node], initializers=[weights("s", 8), weights("b", 8)], opset=21)


def twins(view: str) -> onnx.ModelProto:
    """Two outputs of the same numbers."""
    again = [helper.make_node("Relu", ["c"], ["y"])]
    if view == "Reshape":
        again.append(helper.make_node("Reshape", ["y", "shape"], ["z"]))
        return behind_conv(again, ["y", "z"], [stored("shape", [1, 8, -1])])
    again += [helper.make_node("Identity", ["y"], ["i"]), helper.make_node(view, ["i"], ["z"])]
    return behind_conv(again, ["y", "z"])


def dense(*, turned: bool = True, bias: bool = True, flatten: str = "Flatten") -> onnx.ModelProto:
    """A Gemm over the flattened map 1x8x4x5, as ArcFace's networks end."""
    pool = helper.make_node("MaxPool", ["c"], ["p"], kernel_shape=[3, 3], strides=[3, 3])
    shape = {"Flatten": ([], {"axis": 1}), "Reshape": (["s"], {})}[flatten]
    flat = helper.make_node(flatten, ["p", *shape[0]], ["f"], **shape[1])
    gemm = helper.make_node("Gemm", ["f", "m", *["b"] * bias], ["y"], transB=int(turned))
    stored_ones = [weights("m", *((6, 160) if turned else (160, 6))), stored("s", [1, -1])]
    return behind_conv([pool, flat, gemm], ["y"], [*stored_ones, *[weights("b", 6)] * bias])


def peephole(**given: Any) -> onnx.ModelProto:
    """x 4x2x8 -> LSTM of 8 with peepholes."""
    kept = [weights("W", 1, 32, 8), weights("R", 1, 32, 8), weights("P", 1, 24)]
    names = ["x", "W", "R", "", "", "", "", "P"]
    node = helper.make_node("LSTM", names, ["Y"], hidden_size=8, **given)
    return model([node], {"x": (4, 2, 8)}, ["Y"], kept)


def of_shape(shape: Shape, operator: str, *kept: onnx.TensorProto, **given: Any) -> onnx.ModelProto:
    """x of that shape -> an operator with stored inputs."""
    inputs = ["x", *([""] if operator == "Resize" else []), *(tensor.name for tensor in kept)]
    return model([helper.make_node(operator, inputs, ["y"], **given)], {"x": shape}, ["y"], kept)


def beside_transpose() -> onnx.ModelProto:
    """Relu of six dimensions and a transpose: the toolkit does not come to an end."""
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("Transpose", ["a"], ["b"], perm=[5, 3, 1, 0, 4, 2]),
        helper.make_node("Softmax", ["b"], ["y"], axis=2),
    ]
    return model(nodes, {"x": (4, 2, 2, 18, 2, 1)}, ["y"], [])


REWRITTEN: dict[str, Callable[[], onnx.ModelProto]] = {
    "LSTM without bias": lambda: recurrent("LSTM", ["Y"], bias=False),
    "GRU without bias": lambda: recurrent("GRU", ["Y", "Y_h"], bias=False),
    "LSTM's last state": lambda: recurrent("LSTM", ["Y_h"]),
    "LSTM's last state and cell": lambda: recurrent("LSTM", ["Y_h", "Y_c"], bias=False),
    "GRU's last state": lambda: recurrent("GRU", ["Y_h"]),
    "GRU's last state, reverse": lambda: recurrent("GRU", ["Y_h"], direction="reverse"),
    "GRU's last state, both ways": lambda: recurrent("GRU", ["Y_h"], direction="bidirectional"),
    "LSTM's last cell, both ways": lambda: recurrent("LSTM", ["Y_c"], direction="bidirectional"),
    "LSTM with peepholes": peephole,
    "LSTM of one gate for input and forgetting": lambda: peephole(input_forget=1),
    "AveragePool in space": lambda: of_shape(
        (1, 4, 6, 8, 8), "AveragePool", kernel_shape=[3, 3, 3], strides=[2, 2, 2], pads=[1] * 6
    ),
    "Resize in space": lambda: of_shape(
        (1, 4, 3, 5, 6), "Resize", stored("by", [1, 1, 2, 2, 2], np.float32), mode="linear"
    ),
    "LayerNormalization over a map": lambda: of_shape(
        (1, 16, 24, 24), "LayerNormalization", weights("s", 16, 24, 24), axis=1
    ),
    "sum of six dimensions": lambda: of_shape((2, 3, 2, 2, 6, 4), "ReduceSum", stored("a", [4])),
    "Relu beside a transpose": beside_transpose,
    "Mish": lambda: one("Mish"),
    "Softsign": lambda: one("Softsign"),
    "Selu": lambda: one("Selu"),
    "Selu of its own": lambda: one("Selu", alpha=1.2, gamma=0.9),
    "Celu": lambda: one("Celu", alpha=0.7),
    "Gelu": lambda: one("Gelu", 20),
    "Gelu by tanh": lambda: one("Gelu", 20, approximate="tanh"),
    "cubic, twice as large": lambda: resized(1, 1, 2, 2),
    "cubic, sizes": lambda: resized(
        1, 8, 30, 9, sizes=True, coordinate_transformation_mode="align_corners"
    ),
    "cubic, smaller": lambda: resized(1, 1, 0.5, 1.5, cubic_coeff_a=-0.5, antialias=1),
    "GroupNormalization": group_norm,
    "dense over a map": dense,
    "dense over a map, not turned": lambda: dense(turned=False, bias=False, flatten="Reshape"),
    "two outputs, one Identity": lambda: twins("Identity"),
    "two outputs, one Reshape": lambda: twins("Reshape"),
    "two outputs through Flatten": lambda: twins("Flatten"),
}
