"""Paraformer by its structure: FunASR's own export, with random weights."""

from __future__ import annotations

import onnx
import pytest

from rkzoo.contract.audio import ParaformerHead
from rkzoo.graph.families.plain import with_shapes
from rkzoo.graph.families.recognition import Recognition, UnknownHead
from rkzoo.graph.families.registry import recognise_arranged
from rkzoo.graph.lowering.checks import stops
from upstream_networks import network

ROWS = 48


@pytest.fixture(scope="module")
def original() -> onnx.ModelProto:
    return network("paraformer")


@pytest.fixture(scope="module")
def recognition(original: onnx.ModelProto) -> Recognition:
    return recognise_arranged(with_shapes(original, {"speech": (1, ROWS, 560)}))[1]


def test_its_graph_becomes_two_that_the_toolkit_takes(recognition: Recognition) -> None:
    shapes = {part.role: [array.shape for array in part.inputs] for part in recognition.parts}
    assert shapes == {
        "encoder": [(1, 48, 560), (1, 48)],
        "decoder": [(1, 24, 512), (1, 24), (1, 48, 512), (1, 48)],
    }
    head = recognition.contract.head
    assert isinstance(head, ParaformerHead)
    assert head.tail == pytest.approx(0.45)  # as its makers' config has it
    for part in recognition.parts:
        kinds = {node.op_type for node in part.model.graph.node}
        assert kinds.isdisjoint({"Less", "Range", "Shape", "CumSum", "Where", "ScatterND"})
        assert stops(part.model) == ()


@pytest.mark.parametrize("kind", ["Less", "Sigmoid", "CumSum"])
def test_another_network_with_such_inputs_is_left_alone(
    original: onnx.ModelProto, kind: str
) -> None:
    other = onnx.ModelProto()
    other.CopyFrom(original)
    instead = {"Less": "LessOrEqual", "Sigmoid": "Tanh", "CumSum": "Identity"}[kind]
    for node in other.graph.node:
        if node.op_type == kind:
            node.op_type = instead
            del node.input[1 if kind == "CumSum" else len(node.input) :]
    with pytest.raises(UnknownHead):
        recognise_arranged(with_shapes(other, {"speech": (1, ROWS, 560)}))
