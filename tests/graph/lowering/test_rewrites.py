"""Rewritten operators answer in ONNX Runtime what the originals do."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
from drawn_operators import DRAWN
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import helper
from tiny_operators import REWRITTEN, behind_conv, one, recurrent, stored, weights
from tiny_operators import model as tiny_model

from rkzoo.graph.lowering.checks import stops
from rkzoo.graph.lowering.rewrites import rule
from rkzoo.graph.lowering.rewrites.rewriting import rewrite
from rkzoo.graph.lowering.rewrites.rule import Rewrite, Writer, each
from rkzoo.graph.lowering.rewrites.table import REWRITES
from rkzoo.graph.onnx.view import prepared
from upstream_networks import network

GONE = ("Mish", "Softsign", "Selu", "Celu", "Gelu", "Resize", "GroupNormalization")


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
    kinds = {node.op_type for node in model.graph.node}
    assert not kinds & set(GONE) or name == "Resize in space"  # two of four dimensions
    for ours, theirs in zip(answers(model), expected, strict=True):
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=2e-5)
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
    assert name.partition(" of ")[0] in [applied.name for applied in rewritten.applied]
    assert not rewritten.left_out
    onnx.checker.check_model(rewritten.model, full_check=True)
    for ours, theirs in zip(answers(rewritten.model), answers(model), strict=True):
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


# ---- proofs and bounds --------------------------------------------------------------


def _wrong(node: onnx.NodeProto, new: Writer) -> bool:
    new.add("Mul", node.input[0], new.constant(1.001), to=node.output[0])
    return True


def _refused(node: onnx.NodeProto, new: Writer) -> bool:
    new.add("NoSuchOperator", node.input[0], to=node.output[0])
    return True


def test_a_rewrite_that_differs_is_left_out_and_said() -> None:
    model = one("Mish", 18)
    model.graph.node.append(helper.make_node("Relu", ["y"], ["z"]))
    model.graph.output[0].name = "z"
    wrong = Rewrite("wrong", ("Relu",), "a product", "it is a test", each(["Relu"], _wrong))
    rewritten = rewrite(model, rows=[*REWRITES, wrong])
    assert [applied.operator for applied in rewritten.applied] == ["Mish"]
    assert [node.op_type for node in rewritten.model.graph.node][-1] == "Relu"
    (said,) = rewritten.left_out
    assert "wrong of Relu was left out" in said
    for ours, theirs in zip(answers(rewritten.model), answers(model), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_where_nothing_can_be_proved_nothing_is_rewritten() -> None:
    model = one("Relu")
    refused = Rewrite("refused", ("Relu",), "another", "it is a test", each(["Relu"], _refused))
    rewritten = rewrite(model, rows=[refused])
    assert rewritten.model is model
    assert not rewritten.applied
    assert "could not be proved" in rewritten.left_out[0]


def test_a_difference_is_not_hidden_by_what_comes_later() -> None:
    """A comparison of the outputs alone would see zeros on both sides."""
    model = one("Relu")
    model.graph.node.append(helper.make_node("Mul", ["y", "none"], ["z"]))
    model.graph.initializer.append(stored("none", [0.0], np.float32))
    model.graph.output[0].name = "z"
    wrong = Rewrite("wrong", ("Relu",), "a product", "it is a test", each(["Relu"], _wrong))
    assert not rewrite(model, rows=[wrong]).applied


def test_a_row_for_some_chips_is_used_where_it_helps_them_all() -> None:
    model = behind_conv(
        [helper.make_node("ReduceMax", ["c", "a"], ["y"])], ["y"], [stored("a", [1])]
    )
    assert rewrite(model, ["rk3588"]).applied
    assert rewrite(model, ["rk3588", "rk3568"]).applied
    assert not rewrite(model, ["rk3576"]).applied
    assert not rewrite(model, ["rk3588", "rk3576"]).applied


def test_a_graph_of_matrices_that_nobody_means_does_not_fill_the_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each resize would be two matrices of 200 x 200, in bytes 320,000."""
    monkeypatch.setattr(rule, "_MOST_ADDED", 1 << 20)
    nodes, before = [], "x"
    for index in range(40):
        nodes.append(
            helper.make_node(
                "Resize", [before, "", "", f"n{index % 2}"], [f"y{index}"],
                mode="linear", coordinate_transformation_mode="align_corners",
            )
        )  # fmt: skip
        before = f"y{index}"
    sizes = [stored("n0", [1, 1, 199, 199]), stored("n1", [1, 1, 200, 200])]
    model = tiny_model(nodes, {"x": (1, 1, 200, 200)}, [before], sizes)
    grown = rewrite(model, proved=False).model.ByteSize()
    assert 1 << 20 < grown < 3 << 19


def test_the_structure_of_rt_detr_keeps_on_the_npu_what_can_be() -> None:
    """Its other half, GridSample by places that are computed, has no better form."""
    view = prepared(network("rtdetr-r18"), {})
    rewritten = rewrite(view.model, ["rk3588"], proved=False)
    counts = Counter[str]()
    for applied in rewritten.applied:
        counts[applied.name] += applied.count
    assert counts["extreme"] == 1
    assert counts["gather-rows"] == 2
    assert counts["fewer-dimensions"] == 18
    kinds = {node.op_type for node in rewritten.model.graph.node}
    assert not kinds & {"ReduceMax", "GatherElements"}


def test_a_dense_layer_over_a_large_map_or_of_one_cell_stays() -> None:
    for size in (1, 12):  # of the pooled map, one cell or 12x16
        kernel = {"kernel_shape": [12, 16]} if size == 1 else {"kernel_shape": [1, 1]}
        nodes = [
            helper.make_node("MaxPool", ["c"], ["p"], **kernel),
            helper.make_node("Flatten", ["p"], ["f"]),
            helper.make_node("Gemm", ["f", "m"], ["y"]),
        ]
        model = behind_conv(nodes, ["y"], [weights("m", 8 if size == 1 else 8 * 12 * 16, 3)])
        assert rewrite(model).model is model


def test_places_beyond_a_tensor_are_no_traceback() -> None:
    node = helper.make_node("ScatterND", ["c", "p", "u"], ["y"])
    model = behind_conv(
        [node], ["y"], [stored("p", [[99]]), stored("u", np.zeros((1, 8, 12, 16)), np.float32)]
    )
    assert not rewrite(model, proved=False).applied


def test_a_node_without_what_it_needs_is_left_alone() -> None:
    model = behind_conv([helper.make_node("SpaceToDepth", ["c"], ["y"])], ["y"], [])
    assert not rewrite(model, proved=False).applied


def test_a_long_lstm_with_peepholes_is_refused_by_name() -> None:
    """Written out it would be thousands of operators."""
    kept = [weights("W", 1, 16, 3), weights("R", 1, 16, 4), weights("P", 1, 12)]
    node = helper.make_node("LSTM", ["x", "W", "R", "", "", "", "", "P"], ["y"], "l", hidden_size=4)
    long = tiny_model([node], {"x": (65, 1, 3)}, ["y"], kept)
    # Its bias of zeros is added, no more.
    assert [stop.operator for stop in stops(rewrite(long).model)] == ["LSTM"]
    short = tiny_model([node], {"x": (64, 1, 3)}, ["y"], kept)
    assert stops(rewrite(short).model) == ()
