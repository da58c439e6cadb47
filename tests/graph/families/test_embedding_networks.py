"""Embedding networks of other projects by their structure: DINOv2, SigLIP, MobileCLIP, OSNet."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper

from rkzoo.contract.vector import VectorHead
from rkzoo.errors import RkzooError
from rkzoo.graph.families.registry import recognise
from rkzoo.graph.lowering.legalize import legalized
from rkzoo.graph.lowering.rewrites.rewriting import rewrite
from rkzoo.graph.lowering.verify_embedding import verify_embedding
from rkzoo.graph.onnx.view import attributes, run
from rkzoo.progress import SILENT
from rkzoo.workflow.compile.prepare import arranged
from upstream_networks import network

GREY = (127.5, 127.5, 127.5)
IMAGENET = (123.675, 116.28, 103.53)


@pytest.mark.parametrize(
    ("name", "family", "size", "mean", "fit"),
    [
        ("dinov2-small", "dinov2", 384, IMAGENET, "crop"),
        ("siglip-base-image", "siglip-image", 768, GREY, "stretch"),
        ("mobileclip-s0-image", "embedding", 512, IMAGENET, "stretch"),
        ("osnet-x0-25", "embedding", 512, IMAGENET, "stretch"),
    ],
)
def test_upstream_networks_are_recognised_and_cut_to_their_embedding(
    name: str, family: str, size: int, mean: tuple[float, ...], fit: str
) -> None:
    model = network(name)
    found = recognise(model)
    image = found.contract.input
    assert (found.family, found.contract.head) == (family, VectorHead(size=size))
    assert (image.mean, image.fit) == (mean, fit)
    ready = legalized(model, found.contract)
    (output,) = ready.graph.output
    assert [d.dim_value for d in output.type.tensor_type.shape.dim] == [1, size]
    if name not in ("dinov2-small", "siglip-base-image"):
        assert verify_embedding(model, ready, image) is None  # nothing was cut
        return
    # The whole graph as it came, in ONNX Runtime.
    x = {"pixel_values": np.random.default_rng(1).normal(size=(1, 3, 224, 224)).astype(np.float32)}
    whole = run(model, x)
    wanted = whole[0][:, 0] if name == "dinov2-small" else whole[1]
    np.testing.assert_allclose(run(ready, x)[0], wanted, atol=1e-4)


def tokens(extra: int, outputs: int = 1, name: str = "x", patch: int = 14) -> onnx.ModelProto:
    """A picture of 56x56 in patches that attend to each other, beside `extra` tokens of ones."""
    chance = np.random.default_rng(0)
    weight = onnx.numpy_helper.from_array(
        chance.normal(size=(64, 3, patch, patch)).astype(np.float32), "w"
    )
    ones = onnx.numpy_helper.from_array(np.ones((1, extra, 64), np.float32), "ones")
    count = (56 // patch) ** 2
    shape = onnx.numpy_helper.from_array(np.array([1, 64, count]), "shape")
    nodes = [
        helper.make_node("Conv", [name, "w"], ["cells"], strides=[patch, patch]),
        helper.make_node("Reshape", ["cells", "shape"], ["flat"]),
        helper.make_node("Transpose", ["flat"], ["rows"], perm=[0, 2, 1]),
        helper.make_node("Concat", ["ones", "rows"], ["all"], axis=1)
        if extra
        else helper.make_node("Relu", ["rows"], ["all"]),
        helper.make_node("Transpose", ["all"], ["turned"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["all", "turned"], ["alike"]),
        helper.make_node("Softmax", ["alike"], ["attention"], axis=-1),
        helper.make_node("MatMul", ["attention", "all"], ["o0"]),
        helper.make_node("Relu", ["o0"], ["o1"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tokens",
        [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 3, 56, 56])],
        [
            helper.make_tensor_value_info(f"o{i}", onnx.TensorProto.FLOAT, None)
            for i in range(outputs)
        ],
        [weight, shape, *([ones] if extra else [])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


@pytest.mark.parametrize("patch", [8, 14, 16, 28])
def test_large_patches_are_made_in_steps_of_at_most_7_pixels(patch: int) -> None:
    weight = np.random.default_rng(0).normal(size=(8, 3, patch, patch)).astype(np.float32)
    size = [1, 3, 2 * patch, 3 * patch]
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"], strides=[patch, patch])],
        "patches",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, size)],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    rewritten = rewrite(model)
    assert [applied.name for applied in rewritten.applied] == ["patches"]
    x = {"x": np.random.default_rng(1).normal(size=size).astype(np.float32)}
    np.testing.assert_allclose(run(rewritten.model, x)[0], run(model, x)[0], atol=1e-3)
    sides = [attributes(node)["strides"][0] for node in rewritten.model.graph.node]
    assert int(np.prod(sides)) == patch
    assert max(sides) <= 7


@pytest.mark.parametrize("extra", [0, 1, 5])
def test_without_a_class_token_the_mean_is_taken(extra: int) -> None:
    model = tokens(extra)
    found = recognise(model)
    assert found.contract.head == VectorHead(size=64)
    x = {"x": np.random.default_rng(1).normal(size=(1, 3, 56, 56)).astype(np.float32)}
    (whole,) = run(model, x)
    ready = legalized(model, found.contract)
    wanted = whole[:, 0] if extra else whole.mean(axis=1)
    np.testing.assert_allclose(run(ready, x)[0], wanted, rtol=1e-4, atol=1e-5)
    proof = arranged(lambda: verify_embedding(model, ready, found.contract.input), SILENT)
    assert proof is not None
    assert proof.words.startswith("numbers to ")


def test_another_row_than_the_class_token_is_no_proof() -> None:
    model = tokens(1)
    found = recognise(model)
    ready = legalized(model, found.contract)
    starts = next(t for t in ready.graph.initializer if t.name.endswith("/starts"))
    ends = next(t for t in ready.graph.initializer if t.name.endswith("/ends"))
    for tensor, value in ((starts, 1), (ends, 2)):
        tensor.CopyFrom(onnx.numpy_helper.from_array(np.array([value]), tensor.name))
    with pytest.raises(RkzooError, match="does not compute what the file computes"):
        arranged(lambda: verify_embedding(model, ready, found.contract.input), SILENT)


def test_which_of_two_outputs_of_tokens_is_meant_is_not_guessed() -> None:
    with pytest.raises(RkzooError):
        recognise(tokens(1, outputs=2))
