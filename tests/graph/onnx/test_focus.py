"""The focus stem as one convolution: the same numbers, no slices."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from rkzoo.graph.families.registry import recognise
from rkzoo.graph.lowering.cut_head import cut_head
from rkzoo.graph.lowering.rewrites.rewriting import rewrite
from rkzoo.graph.lowering.rewrites.table import REWRITES
from rkzoo.graph.onnx.read import load
from rkzoo.graph.onnx.view import graph_view, run


def focus(kernel: int, order: list[tuple[int, int]], step: int = 2) -> onnx.ModelProto:
    """Slices at the given (row, column) offsets, concatenated and convolved."""
    random = np.random.default_rng(0)
    weight = random.normal(size=(5, 12, kernel, kernel)).astype(np.float32)
    constants = {"weight": weight, "bias": random.normal(size=5).astype(np.float32)}
    constants["end"] = np.array([2**31, 2**31], np.int64)
    constants["axes"], constants["step"] = np.array([2, 3]), np.array([step, step])
    nodes = []
    for index, offset in enumerate(order):
        constants[f"start{index}"] = np.array(offset)
        inputs = ["x", f"start{index}", "end", "axes", "step"]
        nodes.append(helper.make_node("Slice", inputs, [f"part{index}"]))
    nodes.append(helper.make_node("Concat", [f"part{i}" for i in range(4)], ["all"], axis=1))
    pads = [kernel // 2] * 4
    nodes.append(helper.make_node("Conv", ["all", "weight", "bias"], ["y"], pads=pads))
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 16, 24])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(v), n) for n, v in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 12)], ir_version=7)


@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize(
    "order", [[(0, 0), (1, 0), (0, 1), (1, 1)], [(1, 1), (0, 1), (0, 0), (1, 0)]]
)
def test_the_numbers_stay(kernel: int, order: list[tuple[int, int]]) -> None:
    model = focus(kernel, order)
    x = np.random.default_rng(1).normal(size=(1, 3, 16, 24)).astype(np.float32)
    (want,) = run(model, {"x": x})
    model = rewrite(model).model
    convolution = model.graph.node[-1]
    assert convolution.input[0] == "x"
    (got,) = run(model, {"x": x})
    np.testing.assert_allclose(got, want, atol=1e-4)


@pytest.mark.parametrize(
    "model", [focus(3, [(0, 0), (2, 0), (0, 1), (1, 1)]), focus(3, [(0, 0)] * 4, step=4)]
)
def test_other_slices_are_left_alone(model: onnx.ModelProto) -> None:
    (row,) = (row for row in REWRITES if row.name == "focus")
    try:
        graph_view(model)
    except Exception:
        return
    assert not rewrite(model, rows=[row]).applied


def test_the_real_yolox_has_no_slices_left(assets: Path) -> None:
    model = load(assets / "models/yolox_nano.onnx")
    done = rewrite(cut_head(model, recognise(model))).model
    assert "Slice" in {node.op_type for node in model.graph.node}
    assert "Slice" not in {node.op_type for node in done.graph.node}
