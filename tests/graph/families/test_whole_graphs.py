"""Classifiers, LPRNet and RetinaFace: recognised by structure, spelled for the toolkit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import tiny_whole
from onnx import helper, numpy_helper
from tiny_whole import Net, features

from rkzoo.contract.classify import ClassifyHead
from rkzoo.contract.faces import FaceHead
from rkzoo.contract.text import PlateHead
from rkzoo.contract.vector import VectorHead
from rkzoo.errors import RkzooError
from rkzoo.graph.families.anchors import with_anchors
from rkzoo.graph.families.registry import recognise
from rkzoo.graph.lowering.legalize import legalized
from rkzoo.graph.lowering.rewrites.rewriting import rewrite
from rkzoo.graph.onnx.read import load
from rkzoo.graph.onnx.rewrite import picture_as_floats
from rkzoo.graph.onnx.view import attributes, run

ENDS = ("gemm", "softmax", "matmul", "conv", "squeezenet")


def picture(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def softmax(x: np.ndarray) -> np.ndarray:
    power = np.exp(x - x.max())
    return np.asarray(power / power.sum())


# ---- classifiers --------------------------------------------------------------------


@pytest.mark.parametrize("end", ENDS)
def test_classifiers_of_all_exporters(end: str) -> None:
    found = recognise(tiny_whole.classifier(end))
    head, image = found.contract.head, found.contract.input
    assert (found.family, found.form) == ("classifier", "whole")
    assert isinstance(head, ClassifyHead)
    assert (head.classes, head.activated) == (12, False)
    assert (image.color, image.fit, image.size, image.short) == ("RGB", "crop", (32, 32), 37)
    assert image.mean == (123.675, 116.28, 103.53)
    assert any("ImageNet" in sentence for sentence in found.assumed)


@pytest.mark.parametrize("end", ENDS)
def test_the_spelled_graph_gives_logits_of_the_same_probabilities(end: str) -> None:
    model = tiny_whole.classifier(end)
    before = model.SerializeToString()
    ready = legalized(model, recognise(model).contract)
    x = {"images": picture(1, 3, 32, 32)}
    (raw,), (logits,) = run(model, x), run(ready, x)
    assert "Softmax" not in operators(ready)
    expected = raw.ravel() if end in ("softmax", "squeezenet") else softmax(raw.ravel())
    assert softmax(logits.ravel()) == pytest.approx(expected, abs=1e-6)
    assert model.SerializeToString() == before


@pytest.mark.parametrize(
    ("end", "count", "doubtful"),
    [("bare", 64, True), ("unit", 12, False), ("norm", 12, False), ("gemm", 512, True)],
)
def test_embeddings_are_no_classifiers(end: str, count: int, doubtful: bool) -> None:
    found = recognise(tiny_whole.classifier(end, count))
    assert found.contract.head == VectorHead(size=count)
    assert any("--labels FILE" in said for said in found.assumed) is doubtful


def test_labels_decide_for_a_classifier() -> None:
    model = tiny_whole.classifier("bare", 64)
    found = recognise(model, labels=[f"thing {i}" for i in range(64)])
    assert found.contract.head == ClassifyHead(classes=64)
    assert found.contract.labels[63] == "thing 63"
    assert recognise(model, labels=("a", "b")).contract.head == VectorHead(size=64)


def test_a_map_of_scores_is_no_classifier() -> None:
    net = Net()
    with pytest.raises(RkzooError):
        recognise(net.model([1, 3, 32, 32], net.conv(features(net), 8, 12, 1)))


def test_one_number_is_measured_unless_it_has_a_name() -> None:
    model = tiny_whole.classifier(classes=1)
    assert recognise(model).contract.head == VectorHead(size=1, embedding=False)
    for names in (("ripe",), ("raw", "ripe")):
        contract = recognise(model, labels=names).contract
        assert contract.head == ClassifyHead(classes=1, multi_label=True)
        assert contract.labels == names


def flat(net: Net, classes: int, x: str) -> str:
    pooled = net.op("ReduceMean", x, axes=[2, 3], keepdims=0)
    return net.op("Gemm", pooled, net.weight(8, classes), net.weight(classes))


@pytest.mark.parametrize("classes", [1, 2, 6, 64, 512])
def test_a_sigmoid_gives_each_label_a_score_of_its_own(classes: int) -> None:
    net = Net()
    model = net.model([1, 3, 32, 32], net.op("Sigmoid", flat(net, classes, features(net))))
    found = recognise(model)
    wanted = ClassifyHead(classes=classes, activated=True, multi_label=True)
    assert found.contract.head == wanted
    x = {"images": picture(1, 3, 32, 32)}
    np.testing.assert_allclose(run(legalized(model, found.contract), x)[0], run(model, x)[0])


def test_two_questions_have_an_output_each() -> None:
    net = Net()
    x = features(net)
    model = net.model(
        [1, 3, 32, 32],
        flat(net, 4, x),
        net.op("Softmax", flat(net, 3, x), axis=1),
        net.op("Sigmoid", flat(net, 1, x)),
    )
    head = recognise(model).contract.head
    assert isinstance(head, ClassifyHead)
    assert [(o.classes, o.multi_label, o.activated) for o in head.outputs] == [
        (4, False, False),
        (3, False, False),
        (1, True, True),
    ]
    ready = legalized(model, recognise(model).contract)
    assert operators(ready).count("Softmax") == 0
    x0 = {"images": picture(1, 3, 32, 32)}
    before, after = run(model, x0), run(ready, x0)
    np.testing.assert_allclose(after[0], before[0], atol=1e-6)
    np.testing.assert_allclose(softmax(after[1]), before[1], atol=1e-6)
    np.testing.assert_allclose(after[2], before[2], atol=1e-6)


def test_an_output_that_feeds_another_is_no_question() -> None:
    net = Net()
    hidden = flat(net, 8, features(net))
    last = net.op("Gemm", hidden, net.weight(8, 3), net.weight(3))
    with pytest.raises(RkzooError) as caught:
        recognise(net.model([1, 3, 32, 32], hidden, last))
    assert "made of another" in caught.value.why


@pytest.mark.parametrize("spelling", ["Div", "LpNormalization", "Sqrt", "Reciprocal", "clipped"])
def test_a_length_of_one_is_seen_however_it_is_spelled(spelling: str) -> None:
    net = Net()
    x = flat(net, 10, features(net))
    squares = net.op("Mul", x, x)
    total = net.op("ReduceSum", squares, net.ints(1), keepdims=1)
    if spelling == "LpNormalization":
        end = net.op("LpNormalization", x, axis=1)
    elif spelling == "Reciprocal":
        end = net.op("Mul", x, net.op("Reciprocal", net.op("Sqrt", total)))
    elif spelling == "Sqrt":
        end = net.op("Div", x, net.op("Sqrt", total))
    else:
        length = net.op("ReduceL2", x, axes=[1], keepdims=1)
        if spelling == "clipped":
            length = net.op("Clip", length, net.weight(like=np.float32(1e-12)))
            length = net.op("Expand", length, net.ints(1, 10))
        end = net.op("Div", x, length)
    found = recognise(net.model([1, 3, 32, 32], end))
    assert found.contract.head == VectorHead(size=10)
    assert any("length 1" in said for said in found.evidence)


@pytest.mark.parametrize("kind", ["Tanh", "Relu"])
def test_bounded_numbers_are_measured(kind: str) -> None:
    net = Net()
    model = net.model([1, 3, 32, 32], net.op(kind, flat(net, 10, features(net))))
    assert recognise(model).contract.head == VectorHead(size=10, embedding=False)


def test_a_size_left_free_must_be_given() -> None:
    model = tiny_whole.classifier(size="side")
    with pytest.raises(RkzooError, match="size of the model's input is open"):
        recognise(model)
    found = recognise(model, (64, 96))
    assert found.contract.input.size == (64, 96)
    ready = legalized(model, found.contract)
    assert run(ready, {"images": picture(1, 3, 64, 96)})[0].shape == (1, 12)


def test_ultralytics_classifiers_say_so_themselves() -> None:
    model = tiny_whole.classifier("softmax")
    names = str({i: f"thing {i}" for i in range(12)})
    helper.set_model_props(model, {"task": "classify", "names": names})
    found = recognise(model)
    image = found.contract.input
    assert (image.mean, image.std, image.short) == ((0, 0, 0), (255, 255, 255), 32)
    assert found.contract.labels[3] == "thing 3"
    assert found.assumed == ()


def test_pixels_that_the_graph_divides_itself_are_left_alone() -> None:
    net = Net()
    scaled = net.op("Div", "images", net.weight(like=np.array(255, np.float32)))
    pooled = net.op("ReduceMean", features(net, scaled), axes=[2, 3], keepdims=0)
    end = net.op("Gemm", pooled, net.weight(8, 12), net.weight(12))
    image = recognise(net.model([1, 3, 32, 32], end)).contract.input
    assert (image.mean, image.std) == ((0, 0, 0), (1, 1, 1))


def test_a_picture_with_channels_last_is_turned_in_the_graph() -> None:
    model = tiny_whole.channels_last()
    before = model.SerializeToString()
    found = recognise(model)
    assert found.contract.input.size == (32, 32)
    ready = legalized(model, found.contract)
    assert "Transpose" not in operators(ready)
    x = picture(1, 3, 32, 32)
    (logits,) = run(ready, {"images": x})
    (expected,) = run(model, {"images": np.ascontiguousarray(x.transpose(0, 2, 3, 1))})
    assert softmax(logits.ravel()) == pytest.approx(expected.ravel(), abs=1e-6)
    assert model.SerializeToString() == before


def test_only_a_turned_picture_is_turned() -> None:
    model = tiny_whole.classifier()
    assert picture_as_floats(model) is model


# ---- plates -------------------------------------------------------------------------


@pytest.mark.parametrize("deep", [True, False])
def test_lprnet_by_its_end(deep: bool) -> None:
    found = recognise(tiny_whole.lprnet(deep=deep))
    head, image = found.contract.head, found.contract.input
    assert found.family == "lprnet"
    assert isinstance(head, PlateHead)
    assert (head.blank, len(head.layouts)) == (67, 3)
    assert (image.color, image.fit, image.size) == ("BGR", "stretch", (24, 94))


def test_plates_of_other_countries_have_no_layouts() -> None:
    head = recognise(tiny_whole.lprnet(37)).contract.head
    assert isinstance(head, PlateHead)
    assert (head.blank, head.layouts) == (36, ())


def test_pooling_over_planes_becomes_plain_pooling() -> None:
    model = tiny_whole.lprnet()
    ready = rewrite(legalized(model, recognise(model).contract)).model
    pools = [node for node in ready.graph.node if node.op_type == "MaxPool"]
    assert [attributes(pool)["kernel_shape"] for pool in pools] == [[3, 3], [3, 3]]
    assert "Unsqueeze" not in operators(ready)
    assert operators(ready).count("Gather") == 1  # the first takes every plane
    for seed in range(3):
        x = np.random.default_rng(seed).normal(size=(1, 3, 24, 94)).astype(np.float32)
        (before,), (after,) = run(model, {"images": x}), run(ready, {"images": x})
        np.testing.assert_array_equal(before, after)


def test_planes_that_meet_are_pooled_behind_the_others() -> None:
    """A kernel of two planes is a pooling of its own."""
    net = Net()
    x = net.op("Unsqueeze", features(net), net.ints(0))
    x = net.op("MaxPool", x, kernel_shape=[2, 3, 3], strides=[2, 1, 2])
    x = net.conv(net.op("Squeeze", x, net.ints(0)), 4, 20, 1)
    model = net.model([1, 3, 24, 94], net.op("ReduceMean", x, axes=[2], keepdims=0))
    ready = rewrite(legalized(model, recognise(model).contract)).model
    pools = [node for node in ready.graph.node if node.op_type == "MaxPool"]
    assert [attributes(pool)["kernel_shape"] for pool in pools] == [[3, 3], [2, 1]]
    x0 = {"images": picture(1, 3, 24, 94)}
    np.testing.assert_array_equal(run(model, x0)[0], run(ready, x0)[0])


def with_deep_pools(model: onnx.ModelProto) -> onnx.ModelProto:
    """The public LPRNet as PyTorch exports it, from a file in which slices stand for the
    steps over the channels."""
    deep = onnx.ModelProto()
    deep.CopyFrom(model)
    graph = deep.graph
    values = {n.output[0]: numpy_helper.to_array(n.attribute[0].t)
              for n in graph.node if n.op_type == "Constant"}  # fmt: skip
    graph.initializer.append(numpy_helper.from_array(np.array([0], np.int64), "front"))
    nodes, sliced = [], {}
    for node in graph.node:
        if node.op_type == "Slice":
            sliced[node.output[0]] = (node.input[0], int(values[node.input[4]][0]))
            continue
        if node.op_type != "MaxPool":
            nodes.append(node)
            continue
        source, step = sliced.get(node.input[0], (node.input[0], 1))
        rows, columns = attributes(node)["strides"]
        name = node.output[0]
        nodes += [
            helper.make_node("Unsqueeze", [source], [f"{name}_5"], axes=[0]),
            helper.make_node(
                "MaxPool", [f"{name}_5"], [f"{name}_p"], kernel_shape=[1, 3, 3],
                strides=[step, rows, columns],
            ),
            helper.make_node("Squeeze", [f"{name}_p"], [name], axes=[0]),
        ]  # fmt: skip
    del graph.node[:]
    graph.node.extend(nodes)
    return deep


def test_the_real_lprnet_with_its_deep_pools(assets: Path) -> None:
    model = load(assets / "models/lprnet.onnx")
    deep = with_deep_pools(model)
    assert operators(deep).count("Unsqueeze") == 3
    ready = rewrite(legalized(deep, recognise(deep).contract)).model
    pools = [node for node in ready.graph.node if node.op_type == "MaxPool"]
    assert [len(attributes(node)["kernel_shape"]) for node in pools] == [2, 2, 2]
    x = {"input": picture(1, 3, 24, 94)}
    (wanted,) = run(model, x)
    np.testing.assert_array_equal(run(deep, x)[0], wanted)
    np.testing.assert_array_equal(run(ready, x)[0], wanted)


# ---- faces --------------------------------------------------------------------------


@pytest.mark.parametrize("softmax", [True, False])
def test_retinaface_by_its_shapes(softmax: bool) -> None:
    found = recognise(tiny_whole.retinaface(softmax=softmax))
    head, image = found.contract.head, found.contract.input
    assert isinstance(head, FaceHead)
    assert head.activated is softmax
    assert (image.color, image.mean, image.std) == ("BGR", (104, 117, 123), (1, 1, 1))
    assert not found.anchors_known
    assert any("ANCHORS ARE NOT" in sentence for sentence in found.evidence)


def test_the_users_anchors_take_the_place_of_the_usual_ones() -> None:
    found = with_anchors(recognise(tiny_whole.retinaface()), [(10, 20), (32, 64), (128, 256)])
    head = found.contract.head
    assert isinstance(head, FaceHead)
    assert head.anchors == ((10, 20), (32, 64), (128, 256))
    assert found.anchors_known
    assert not any("ANCHORS ARE NOT" in sentence for sentence in found.evidence)
    with pytest.raises(RkzooError, match="4 sides of anchors"):
        with_anchors(found, [(10, 20), (32, 64)])


def test_three_anchors_a_cell_are_another_network() -> None:
    with pytest.raises(RkzooError) as caught:
        recognise(tiny_whole.retinaface(each=3))
    assert "two in each cell" in caught.value.why


@pytest.mark.parametrize("make", [tiny_whole.classifier, tiny_whole.lprnet, tiny_whole.retinaface])
def test_spelling_changes_no_number(make: object) -> None:
    model = make()  # type: ignore[operator]
    contract = recognise(model).contract
    x = {"images": picture(1, 3, *contract.input.size)}
    for before, after in zip(run(model, x), run(legalized(model, contract), x), strict=True):
        np.testing.assert_allclose(before, after, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("mobilenetv2", "classifier"),
        ("lprnet", "lprnet"),
        ("retinaface_mobile0.25_320", "retinaface"),
    ],
)
def test_real_weights(assets: Path, name: str, family: str) -> None:
    model = load(assets / "models" / f"{name}.onnx")
    found = recognise(model)
    assert found.family == family
    ready = legalized(model, found.contract)
    x = {ready.graph.input[0].name: picture(1, 3, *found.contract.input.size)}
    for before, after in zip(run(model, x), run(ready, x), strict=True):
        np.testing.assert_allclose(before, after, atol=1e-4)
