"""Networks whose weights are drawn: the structure is theirs, and each seed gives the same."""

from __future__ import annotations

import lzma

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from rkzoo.errors import RkzooError
from rkzoo.graph.onnx.random_weights import with_random_weights, without_weights


def model() -> onnx.ModelProto:
    random = np.random.default_rng(3)
    large = numpy_helper.from_array(random.normal(2, 0.5, (64, 64)).astype(np.float32), "large")
    small = numpy_helper.from_array(np.arange(4, dtype=np.float32), "small")
    whole = numpy_helper.from_array(np.arange(5000), "whole")
    value = numpy_helper.from_array(random.normal(-1, 2, 2000).astype(np.float16), "inside")
    graph = helper.make_graph(
        [helper.make_node("Constant", [], ["inside"], value=value)],
        "g",
        [],
        [helper.make_tensor_value_info("inside", TensorProto.FLOAT16, [2000])],
        [large, small, whole],
    )
    return helper.make_model(graph)


def test_only_large_float_tensors_are_drawn_with_their_mean_and_deviation() -> None:
    original = model()
    before = original.SerializeToString()
    content = without_weights(original)
    assert original.SerializeToString() == before
    assert len(content) < len(before) / 4
    drawn = with_random_weights(content)
    onnx.checker.check_model(drawn)
    found = {tensor.name: numpy_helper.to_array(tensor) for tensor in drawn.graph.initializer}
    assert found["small"].tolist() == [0, 1, 2, 3]
    assert found["whole"].tolist() == list(range(5000))
    assert found["large"].mean() == pytest.approx(2, abs=0.05)
    assert found["large"].std() == pytest.approx(0.5, rel=0.05)
    (constant,) = (node.attribute[0].t for node in drawn.graph.node)
    inside = numpy_helper.to_array(constant)
    assert inside.dtype == np.float16
    assert inside.astype(np.float32).std() == pytest.approx(2, rel=0.1)


def test_a_seed_is_a_network() -> None:
    content = without_weights(model())
    once, again, other = (with_random_weights(content, seed) for seed in (1, 1, 2))
    assert once == again
    assert once != other


@pytest.mark.parametrize("content", [b"", b"no xz", lzma.compress(b"\xff\xff")])
def test_what_is_no_structure_is_refused(content: bytes) -> None:
    with pytest.raises(RkzooError, match="not the structure"):
        with_random_weights(content)
