"""INT8 ranges with the least squared error. The rounding of 256 steps is computed here anew, by
ONNX Runtime's QuantizeLinear."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from rkzoo.graph.lowering.ranges import least_error, least_error_ranges


def rounded(values: np.ndarray, ends: tuple[float, float]) -> np.ndarray:
    """`values` through 256 steps between the ends, by ONNX Runtime."""
    scale = np.float32((ends[1] - ends[0]) / 255)
    zero = np.uint8(np.clip(np.rint(-ends[0] / scale), 0, 255))
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "steps",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None])],
        [
            numpy_helper.from_array(np.array(scale), "scale"),
            numpy_helper.from_array(np.array(zero), "zero"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (answer,) = session.run(None, {"x": values.astype(np.float32)})
    return answer


def error(values: np.ndarray, ends: tuple[float, float]) -> float:
    return float(np.square(rounded(values, ends) - values).mean())


def silu(values: np.ndarray) -> np.ndarray:
    return values / (1 + np.exp(-np.maximum(values, -80)))


def test_evenly_spread_numbers_keep_their_range() -> None:
    values = np.random.default_rng(0).uniform(-3, 5, 20_000)
    low, high = least_error(values, (-3.0, 5.0))
    assert low == pytest.approx(-3, rel=0.05)
    assert high == pytest.approx(5, rel=0.05)


def test_what_an_activation_reads_is_judged_by_what_comes_out() -> None:
    values = np.random.default_rng(0).uniform(-100, 10, 50_000)
    after = silu(values)
    found = least_error(values, (-100.0, 10.0), after)
    assert found[0] > -50
    lost = np.square(silu(rounded(values, found)) - after).mean()
    assert lost < 0.5 * np.square(silu(rounded(values, (-100.0, 10.0))) - after).mean()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from(["normal", "laplace", "exponential"]))
def test_it_is_never_worse_than_the_whole_range(seed: int, kind: str) -> None:
    random = np.random.default_rng(seed)
    values = getattr(random, kind)(size=8_000) * random.uniform(0.01, 100)
    ends = (min(0.0, float(values.min())), max(0.0, float(values.max())))
    low, high = least_error(values, ends)
    assert ends[0] <= low <= 0 <= high <= ends[1]
    assert error(values, (low, high)) <= 1.02 * error(values, ends)


def network() -> onnx.ModelProto:
    """Conv, SiLU, a pooling, and a convolution that is the output."""
    random = np.random.default_rng(3)
    shapes = ((8, 3, 3, 3), (4, 8, 1, 1))
    weights = [random.normal(size=shape).astype(np.float32) for shape in shapes]
    weights[0] = abs(weights[0])
    nodes = [
        helper.make_node("Conv", ["x", "w0"], ["before"], pads=[1] * 4),
        helper.make_node("Sigmoid", ["before"], ["gate"]),
        helper.make_node("Mul", ["before", "gate"], ["silu"]),
        helper.make_node("MaxPool", ["silu"], ["pooled"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["pooled", "w1"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 16, 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4, 8, 8])],
        [numpy_helper.from_array(array, f"w{number}") for number, array in enumerate(weights)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def test_a_graph_without_inner_tensors_gets_none() -> None:
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    assert least_error_ranges(model, [{"x": np.ones((1, 4), np.float32)}]) == ()


@pytest.mark.parametrize("place", [0, 1])
def test_a_tensor_that_overflows_in_one_picture_gets_none(place: int) -> None:
    random = np.random.default_rng(0)
    samples = [{"x": random.normal(size=(1, 3, 16, 16)).astype(np.float32)} for _ in range(3)]
    samples[place]["x"][:] = -3e38  # the convolution is -inf, and its SiLU no number
    assert least_error_ranges(network(), samples) == ()


def test_of_a_network_the_inner_tensors_get_one() -> None:
    random = np.random.default_rng(0)
    samples = [{"x": random.normal(size=(1, 3, 16, 16)).astype(np.float32)} for _ in range(4)]
    found = {name: (low, high) for name, low, high in least_error_ranges(network(), samples)}
    # Neither the gate, which never leaves its unit, nor the output, whose meaning is not known.
    assert set(found) == {"before", "silu", "pooled"}
    assert found["pooled"] == found["silu"]  # the same numbers
    assert found["silu"][0] < 0 < found["silu"][1]
    assert found["before"][0] < found["silu"][0]
    assert found == {
        name: (low, high) for name, low, high in least_error_ranges(network(), samples)
    }
