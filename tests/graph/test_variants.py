"""Variants of a network: what keeps the numbers keeps them, what does not is what it says."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from rkzoo.contract.inputs import ArrayInput
from rkzoo.errors import RkzooError
from rkzoo.graph.lowering.variants import (
    at_size,
    before_arithmetic,
    require_equal,
    with_relu,
    with_small_pools,
    without_concats,
)
from rkzoo.graph.onnx.view import run_whole

RANDOM = np.random.default_rng(3)
SIZE = 24
SHAPES = {"x": (1, 3, SIZE, SIZE)}


class Graph:
    """A convolution of a picture, whatever stands behind it, and another convolution."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.stored: list[onnx.TensorProto] = []

    def op(self, kind: str, *inputs: str, **given: object) -> str:
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], f"n{len(self.nodes)}", **given))
        return name

    def const(self, value: object, dtype: type = np.float32) -> str:
        name = f"w{len(self.stored)}"
        self.stored.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def conv(self, x: str, rows: int, columns: int) -> str:
        kernel = np.random.default_rng(rows).standard_normal((rows, columns, 3, 3)) * 0.3
        return self.op("Conv", x, self.const(kernel), pads=[1] * 4)

    def model(self, *outputs: str, size: int = SIZE) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes,
            "net",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 3, size, size))],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
            self.stored,
        )
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
        made.ir_version = 8
        return onnx.shape_inference.infer_shapes(made)


def network(middle: Callable[[Graph, str], str], size: int = SIZE) -> onnx.ModelProto:
    graph = Graph()
    inner = graph.conv(middle(graph, graph.conv("x", 8, 3)), 4, 8)
    return graph.model(inner, size=size)


def silu(g: Graph, x: str) -> str:
    return g.op("Mul", x, g.op("Sigmoid", x))


def gelu(g: Graph, x: str) -> str:
    bent = g.op("Erf", g.op("Div", x, g.const(2**0.5)))
    return g.op("Mul", g.op("Mul", x, g.op("Add", bent, g.const(1.0))), g.const(0.5))


def half_first(g: Graph, x: str) -> str:
    bent = g.op("Erf", g.op("Div", x, g.const(2**0.5)))
    return g.op("Mul", g.op("Mul", g.const(0.5), x), g.op("Add", bent, g.const(1.0)))


def gelu_of_tanh(g: Graph, x: str) -> str:
    cube = g.op("Mul", g.op("Pow", x, g.const(3.0)), g.const(0.044715))
    bent = g.op("Tanh", g.op("Mul", g.op("Add", x, cube), g.const((2 / np.pi) ** 0.5)))
    return g.op("Mul", g.op("Mul", x, g.const(0.5)), g.op("Add", bent, g.const(1.0)))


def mish(g: Graph, x: str) -> str:
    return g.op("Mul", x, g.op("Tanh", g.op("Softplus", x)))


def hard_swish(g: Graph, x: str) -> str:
    return g.op("HardSwish", x)


@pytest.mark.parametrize(
    ("middle", "kind"),
    [
        (silu, "SiLU"),
        (gelu, "GELU"),
        (half_first, "GELU"),
        (gelu_of_tanh, "GELU"),
        (mish, "Mish"),
        (hard_swish, "HardSwish"),
    ],
)
def test_an_activation_becomes_relu(middle: Callable[[Graph, str], str], kind: str) -> None:
    """Held to the same network built with ReLU, in ONNX Runtime."""
    changed, counts = with_relu(network(middle))
    assert counts == {kind: 1}
    assert [node.op_type for node in changed.graph.node] == ["Conv", "Relu", "Conv"]
    expected = network(lambda g, x: g.op("Relu", x))
    assert require_equal(_named(expected), _named(changed)) == 0


def _named(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with its output called "out"."""
    model.graph.node[-1].output[0] = model.graph.output[0].name = "out"
    return model


def test_a_gate_is_no_activation() -> None:
    """Squeeze and excitation multiplies with a sigmoid of something else."""

    def gate(g: Graph, x: str) -> str:
        pooled = g.op("GlobalAveragePool", x)
        weight = g.const(RANDOM.standard_normal((8, 8, 1, 1)))
        return g.op("Mul", x, g.op("Sigmoid", g.op("Conv", pooled, weight)))

    model = network(gate)
    changed, counts = with_relu(model)
    assert counts == {}
    assert len(changed.graph.node) == len(model.graph.node)


@pytest.mark.parametrize("kernel", [7, 9, 13])
def test_large_pools_are_rows_of_small_ones(kernel: int) -> None:
    def pool(g: Graph, x: str) -> str:
        # Below zero too, where padding with zeros would show.
        low = g.op("Sub", x, g.const(5.0))
        return g.op("MaxPool", low, kernel_shape=[kernel] * 2, pads=[kernel // 2] * 4)

    model = network(pool)
    changed, count = with_small_pools(model)
    assert count == 1
    assert require_equal(model, changed) == 0
    sides = [
        tuple(a.ints) for n in changed.graph.node for a in n.attribute if a.name == "kernel_shape"
    ]
    assert max(map(max, sides)) <= 5


@pytest.mark.parametrize(
    "given", [{"strides": [2, 2]}, {"dilations": [2, 2]}, {"pads": [0] * 4}, {"pads": [6, 2, 6, 2]}]
)
def test_other_pools_stay(given: dict[str, list[int]]) -> None:
    def pool(g: Graph, x: str) -> str:
        return g.op("MaxPool", x, **({"kernel_shape": [9, 9], "pads": [4] * 4} | given))

    assert with_small_pools(network(pool))[1] == 0


@pytest.mark.parametrize(("parts", "count"), [((64, 32), 1), ((32, 64, 40), 1), ((64, 16), 0)])
def test_a_convolution_of_joined_channels_is_a_sum(parts: tuple[int, ...], count: int) -> None:
    """Held to the join in ONNX Runtime; parts of few channels stay joined."""
    graph = Graph()
    joined = graph.op("Concat", *(graph.conv("x", part, 3) for part in parts), axis=1)
    bias = graph.const(RANDOM.standard_normal(4))
    kernel = graph.const(RANDOM.standard_normal((4, sum(parts), 3, 3)))
    model = graph.model(graph.op("Conv", joined, kernel, bias, pads=[1] * 4, strides=[2, 2]))
    changed, found = without_concats(model)
    assert found == count
    assert ("Concat" in {node.op_type for node in changed.graph.node}) == (not count)
    assert require_equal(model, changed) < 1e-6


def test_two_convolutions_may_read_a_join() -> None:
    graph = Graph()
    joined = graph.op("Concat", graph.conv("x", 64, 3), graph.conv("x", 64, 3), axis=1)
    model = graph.model(graph.conv(joined, 16, 128), graph.conv(joined, 24, 128))
    changed, found = without_concats(model)
    assert found == 1
    assert "Concat" not in {node.op_type for node in changed.graph.node}
    assert require_equal(model, changed) < 1e-6


def test_sums_that_move_more_than_the_join_are_not_made() -> None:
    graph = Graph()
    joined = graph.op("Concat", graph.conv("x", 64, 3), graph.conv("x", 64, 3), axis=1)
    model = graph.model(graph.conv(joined, 160, 128))
    assert without_concats(model)[1] == 0


def test_a_join_that_others_read_stays() -> None:
    graph = Graph()
    joined = graph.op("Concat", graph.conv("x", 64, 3), graph.conv("x", 64, 3), axis=1)
    model = graph.model(graph.conv(joined, 4, 128), joined)
    assert without_concats(model)[1] == 0


def test_another_size_computes_what_the_network_made_for_it_does() -> None:
    """Also where a resize names the size that it makes."""

    def up(size: int) -> Callable[[Graph, str], str]:
        def middle(g: Graph, x: str) -> str:
            half = g.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
            sides = g.const([1, 8, size, size], np.int64)
            return g.op("Resize", half, "", "", sides, mode="nearest")

        return middle

    smaller = at_size(network(up(SIZE)), (16, 16))
    feed = {"x": RANDOM.random((1, 3, 16, 16), np.float32)}
    ours, theirs = run_whole(smaller, feed)[0], run_whole(network(up(16), 16), feed)[0]
    assert ours.shape == (1, 4, 16, 16)
    assert np.array_equal(ours, theirs)


def test_a_size_fixed_inside_is_refused() -> None:
    def flat(g: Graph, x: str) -> str:
        rows = g.op("Reshape", x, g.const([1, 8, SIZE * SIZE], np.int64))
        return g.op("Reshape", rows, g.const([1, 8, SIZE, SIZE], np.int64))

    with pytest.raises(RkzooError, match="size fixed inside"):
        at_size(network(flat), (16, 16))


def test_the_arithmetic_behind_the_last_weights_is_taken_off() -> None:
    graph = Graph()
    scores = graph.conv(graph.conv("x", 8, 3), 4, 8)
    best = graph.op("ReduceMax", graph.op("Softmax", scores, axis=1), axes=[1], keepdims=1)
    model = graph.model(best)
    first, rest = before_arithmetic(model, [ArrayInput(name="x", shape=SHAPES["x"])])
    assert [node.op_type for node in first.graph.node] == ["Conv", "Conv"]
    assert [node.op_type for node in rest.graph.node] == ["Softmax", "ReduceMax"]
    assert require_equal(model, first, rest) == 0


def test_nothing_behind_the_last_weights_is_said() -> None:
    model = network(silu)
    with pytest.raises(RkzooError, match="nothing to take off"):
        before_arithmetic(model, [ArrayInput(name="x", shape=SHAPES["x"])])


def test_other_numbers_are_refused() -> None:
    model = network(silu)
    other = onnx.ModelProto.FromString(model.SerializeToString())
    weights = numpy_helper.to_array(other.graph.initializer[1]) * 1.001
    other.graph.initializer[1].CopyFrom(numpy_helper.from_array(weights, "w1"))
    with pytest.raises(RkzooError, match="does not give the numbers of the original"):
        require_equal(model, other)
