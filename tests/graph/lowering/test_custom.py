"""Which nodes become custom operators, and what is carried of them."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from tiny_custom import without_kernel

from rkzoo.contract.custom_operator import CustomOperator
from rkzoo.graph.lowering.custom import uncarried, with_custom_operators


def computed(operator: CustomOperator, *arrays: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(operator.model)
    names = [one.name for one in session.get_inputs()]
    return session.run(None, dict(zip(names, arrays, strict=True)))


def test_a_determinant() -> None:
    model = without_kernel("Det")
    before = model.SerializeToString()
    carried, (operator,) = with_custom_operators(model)
    assert model.SerializeToString() == before
    (node,) = [node for node in carried.graph.node if node.op_type.startswith("cst")]
    assert (node.op_type, operator.type, operator.operator) == ("cstDet", "cstDet", "Det")
    assert not node.attribute
    # Of any size: the toolkit makes a batch of it.
    given = np.random.default_rng(0).normal(0, 1, (2, 5, 3, 3)).astype(np.float32)
    np.testing.assert_allclose(computed(operator, given)[0], np.linalg.det(given), rtol=1e-4)
    assert "Det is carried as the custom operator cstDet" in operator.sentence()


def test_stored_inputs_and_attributes_are_carried() -> None:
    carried, (operator,) = with_custom_operators(without_kernel("ScatterElements"))
    (node,) = [node for node in carried.graph.node if node.op_type == operator.type]
    assert len(node.input) == 1
    given = np.zeros((1, 4, 2, 2), np.float32)
    (answer,) = computed(operator, given)
    assert answer[0, :, 0, 0].tolist() == [0.25, 0.5, 0, 0]


def test_alike_ones_share_a_type_and_others_have_their_own() -> None:
    model = without_kernel("ReduceL1", "Sinh", "ReduceL1", "Sinh")
    model.graph.node[[n.op_type for n in model.graph.node].index("ReduceL1")].attribute[0].ints[
        0
    ] = 2
    carried, operators = with_custom_operators(model)
    assert [one.type for one in operators] == ["cstReduceL1", "cstSinh", "cstReduceL12"]
    types = [node.op_type for node in carried.graph.node if node.op_type.startswith("cst")]
    assert types == ["cstReduceL1", "cstSinh", "cstReduceL12", "cstSinh"]


def test_nothing_to_do() -> None:
    model = without_kernel("Relu")
    carried, operators = with_custom_operators(model)
    assert carried is model
    assert not operators
    assert not uncarried(model)


@pytest.mark.parametrize("why", ["type", "weights", "domain"])
def test_what_cannot_be_carried(why: str) -> None:
    kind = TensorProto.INT32 if why == "type" else TensorProto.FLOAT
    inputs = ["x", "i", "u"] if why == "weights" else ["x"]
    operator = "ScatterElements" if why == "weights" else "Sign"
    node = helper.make_node(operator, inputs, ["y"], domain="mine" if why == "domain" else "")
    large = np.zeros((1, 3, 400, 400))
    stored = [
        numpy_helper.from_array(large.astype(np.int64), "i"),
        numpy_helper.from_array(large.astype(np.float32), "u"),
    ]
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info("x", kind, [1, 3, 400, 400])],
        [helper.make_tensor_value_info("y", kind, [1, 3, 400, 400])],
        stored if why == "weights" else [],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("mine", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    carried, operators = with_custom_operators(model)
    assert carried is model
    assert not operators
    assert [one.op_type for one in uncarried(model)] == ([] if why == "domain" else [operator])


def test_an_operator_that_is_damaged_is_left_to_the_toolkit() -> None:
    model = without_kernel("Det")
    broken = next(node for node in model.graph.node if node.op_type == "Det")
    broken.input[0] = "nowhere"
    assert isinstance(model, onnx.ModelProto)
    carried, operators = with_custom_operators(model)
    assert carried is model
    assert not operators
