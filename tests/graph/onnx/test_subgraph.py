"""Parts of graphs: what lies between any two tensors, with fixed shapes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from rkzoo.contract.inputs import ArrayInput
from rkzoo.errors import RkzooError
from rkzoo.graph.onnx.subgraph import part
from rkzoo.graph.onnx.view import run


def graph() -> onnx.ModelProto:
    """words (1, n) -> rows of a table -> times two -> sum over words, by way of Shape."""
    table = np.arange(12, dtype=np.float16).reshape(6, 2)
    nodes = [
        helper.make_node("Gather", ["table", "words"], ["rows"]),
        helper.make_node("Shape", ["words"], ["shape"]),
        helper.make_node("Cast", ["shape"], ["length"], to=TensorProto.FLOAT16),
        helper.make_node("ReduceMax", ["length"], ["longest"], keepdims=0),
        helper.make_node("Mul", ["rows", "longest"], ["scaled"]),
        helper.make_node("ReduceSum", ["scaled", "axis"], ["sum"], keepdims=0),
        helper.make_node("Neg", ["rows"], ["other"]),
    ]
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("words", TensorProto.INT64, [1, "n"])],
        [
            helper.make_tensor_value_info("sum", TensorProto.FLOAT16, None),
            helper.make_tensor_value_info("other", TensorProto.FLOAT16, None),
        ],
        [numpy_helper.from_array(table, "table"), numpy_helper.from_array(np.array([1]), "axis")],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


WORDS = ArrayInput(name="words", shape=(1, 3), dtype="int64")
GIVEN = {"words": np.array([[1, 2, 5]])}


def test_the_whole_graph_with_its_shapes_fixed_says_the_same() -> None:
    made = part(graph(), [WORDS])
    assert [d.dim_value for d in made.graph.input[0].type.tensor_type.shape.dim] == [1, 3]
    assert "Shape" not in {node.op_type for node in made.graph.node}
    for one, other in zip(run(made, GIVEN), run(graph(), GIVEN), strict=True):
        np.testing.assert_array_equal(one, other.astype(np.float32))


def test_two_parts_in_a_row_are_the_whole() -> None:
    rows = ArrayInput(name="rows", shape=(1, 3, 2))
    first = part(graph(), [WORDS], ["rows"])
    (found,) = run(first, GIVEN)
    # The length of the words is not seen from the rows: that is an input of its own.
    with pytest.raises(RkzooError, match="needs the input words"):
        part(graph(), [rows], ["sum"])
    second = part(graph(), [rows, ArrayInput(name="longest", shape=())], ["sum"])
    (total,) = run(second, {"rows": found, "longest": np.array(3, np.float32)})
    np.testing.assert_array_equal(total, run(graph(), GIVEN)[0])
    assert "table" not in {tensor.name for tensor in second.graph.initializer}


@pytest.mark.parametrize(
    ("inputs", "outputs", "why"),
    [
        ([WORDS, ArrayInput(name="more", shape=(1,))], (), "does not use the input more"),
        ([WORDS], ("nothing",), "needs the input nothing"),
    ],
)
def test_what_does_not_fit_is_said(
    inputs: list[ArrayInput], outputs: tuple[str, ...], why: str
) -> None:
    with pytest.raises(RkzooError, match=why):
        part(graph(), inputs, outputs)
