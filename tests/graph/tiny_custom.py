"""Graphs of operators that have no kernel on the NPU or in Rockchip's software."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SHAPE = (1, 3, 12, 12)
_C = 4  # channels in front of each operator

_MORE: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "LpPool": ((), {"kernel_shape": [2, 2], "strides": [2, 2]}),
    "ReduceL1": ((), {"axes": [1]}),
    "ReduceLogSum": ((), {"axes": [1]}),
    "ReduceProd": ((), {"axes": [1]}),
    "ReduceSumSquare": ((), {"axes": [1]}),
    "ScatterElements": (
        (np.int64([[[[1]], [[0]]]]), np.float32([[[[0.5]], [[0.25]]]])),
        {"axis": 1},
    ),
    "Shrink": ((), {"lambd": 0.4, "bias": 0.1}),
}
"""What an operator takes beside its input, and its attributes."""
_TRUTHS = ("Or", "Xor")


def without_kernel(*operators: str, opset: int = 17) -> onnx.ModelProto:
    """Each behind a convolution of its own with numbers from 0 to 1 (for Acosh from 1 to 2), and
    before a sum that gives it an output."""
    random = np.random.default_rng(0)
    nodes: list[onnx.NodeProto] = []
    weights = [numpy_helper.from_array(np.float32([1]), "one")]
    weights.append(numpy_helper.from_array(np.float32([0.5]), "half"))
    outputs = []

    def add(operator: str, inputs: list[str], made: str, **given: Any) -> str:
        nodes.append(helper.make_node(operator, inputs, [made], made, **given))
        return made

    for place, operator in enumerate(operators):
        name = f"{operator}{place}"
        kernel = random.normal(0, 0.5, (_C, SHAPE[1], 3, 3)).astype(np.float32)
        weights.append(numpy_helper.from_array(kernel, f"{name}_w"))
        c = add("Conv", ["x", f"{name}_w"], f"{name}_c", kernel_shape=[3, 3], pads=[1] * 4)
        c = add("Sigmoid", [c], f"{name}_s")
        if operator == "Acosh":
            c = add("Add", [c, "one"], f"{name}_a")
        constants, attributes = _MORE.get(operator, ((), {}))
        for index, value in enumerate(constants):
            weights.append(numpy_helper.from_array(value, f"{name}_k{index}"))
        inputs = [c, *(f"{name}_k{index}" for index in range(len(constants)))]
        if operator in _TRUTHS:
            more = add("Sigmoid", [c], f"{name}_t")
            inputs = [
                add("Greater", [c, "half"], f"{name}_g"),
                add("Less", [more, "half"], f"{name}_l"),
            ]
        y = add(operator, inputs, f"{name}_y", **attributes)
        if operator in (*_TRUTHS, "IsInf", "IsNaN"):
            y = add("Cast", [y], f"{name}_f", to=TensorProto.FLOAT)
        outputs.append(add("Add", [y, "one"], f"{name}_out"))
    graph = helper.make_graph(
        nodes,
        "without kernel",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, SHAPE)],
        [helper.make_empty_tensor_value_info(name) for name in outputs],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    model = onnx.shape_inference.infer_shapes(model)
    known = {i.name: i for i in model.graph.output if i.type.tensor_type.HasField("shape")}
    # Of an operator that is a function, inference does not know it.
    usual = (1, _C, *SHAPE[2:])
    found = [
        known.get(name) or helper.make_tensor_value_info(name, TensorProto.FLOAT, usual)
        for name in outputs
    ]
    del model.graph.output[:], model.graph.value_info[:]
    model.graph.output.extend(found)
    return model
