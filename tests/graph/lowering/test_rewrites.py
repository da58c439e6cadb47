"""Rewritten operators answer in ONNX Runtime what the originals do."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from drawn_operators import DRAWN
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import helper
from tiny_operators import REWRITTEN, behind_conv, recurrent

from rkzoo.graph.lowering.rewrites.rewriting import rewrite

GONE = ("Mish", "Softsign", "Selu", "Celu", "Ceil", "Gelu", "Resize", "GroupNormalization")


def answers(model: onnx.ModelProto, seed: int = 1) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(model.SerializeToString())
    random = np.random.default_rng(seed)
    fed = {
        given.name: random.standard_normal(given.shape).astype(np.float32)
        for given in session.get_inputs()
    }
    return session.run(None, fed)


@pytest.mark.parametrize("name", REWRITTEN)
def test_a_rewritten_graph_answers_the_same(name: str) -> None:
    model = REWRITTEN[name]()
    expected = answers(model)
    before = model.SerializeToString()
    rewritten = rewrite(model)
    assert model.SerializeToString() == before
    assert rewritten.applied
    assert not rewritten.left_out
    model = rewritten.model
    onnx.checker.check_model(model)
    assert not {node.op_type for node in model.graph.node} & set(GONE)
    for one, other in zip(answers(model), expected, strict=True):
        assert one.shape == other.shape
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=2e-5)
    assert not rewrite(model).applied


def test_every_output_of_a_recurrent_layer_has_a_name_and_its_bias() -> None:
    model = recurrent("LSTM", ["Y_c"], bias=False)
    model = rewrite(model).model
    layer = model.graph.node[0]
    assert all(layer.output)
    (bias,) = [t for t in model.graph.initializer if t.name == layer.input[3]]
    assert tuple(bias.dims) == (1, 2 * 4 * 32)
    assert not np.any(onnx.numpy_helper.to_array(bias))


def test_what_the_toolkit_takes_stays_as_it_is() -> None:
    model = behind_conv(
        [helper.make_node("Relu", ["c"], ["y"]), helper.make_node("Abs", ["y"], ["z"])], ["y", "z"]
    )
    assert rewrite(model).model is model


@pytest.mark.parametrize("name", DRAWN)
@settings(
    max_examples=8,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
@given(data=st.data())
def test_drawn_operators_answer_the_same(name: str, data: st.DataObject) -> None:
    model = DRAWN[name](data.draw)
    rewritten = rewrite(model)
    assert name in [applied.name for applied in rewritten.applied]
    assert not rewritten.left_out
    onnx.checker.check_model(rewritten.model, full_check=True)
    for one, other in zip(answers(rewritten.model), answers(model), strict=True):
        assert one.shape == other.shape
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)
