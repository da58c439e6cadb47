"""YOLOv8 to YOLO26 for every task: recognised by structure, cut, and proved with the decoder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import tiny_yolo
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_heads import HEADS, VENDOR, Head, build, vendor
from tiny_yolo import Spec

from rkzoo.contract.detect import DetectHead
from rkzoo.contract.inputs import TensorSpec
from rkzoo.errors import RkzooError
from rkzoo.graph.families.recognition import ImageSource
from rkzoo.graph.families.registry import RECOGNISERS, Recognition, recognise
from rkzoo.graph.lowering.cut_head import cut_head
from rkzoo.graph.lowering.rewrites.rewriting import rewrite
from rkzoo.graph.lowering.verify import (
    MAX_BOX_PX,
    MAX_EXTRA,
    MAX_SCORE,
    EquivalenceReport,
    verify_equivalence,
)
from rkzoo.graph.onnx.read import load
from rkzoo.graph.onnx.view import prepared, run
from rkzoo.tasks.detect.postprocess import DetectDecoder


def head_of(found: Recognition) -> DetectHead:
    assert isinstance(found.contract.head, DetectHead)
    return found.contract.head


def reader(head: DetectHead, size: tuple[int, int]):
    """The decoder, made anew for the arrays of each call."""

    def read(outputs):
        specs = [
            TensorSpec(
                name=o.name,
                shape=a.shape,
                dtype="float32",
                layout="NCHW" if a.ndim == 4 and o.role != "points" else "plain",
            )
            for o, a in zip(head.outputs, outputs, strict=True)
        ]
        return DetectDecoder(head, size, specs).dense(outputs)

    return read


def proof_of(model: onnx.ModelProto, found: Recognition) -> EquivalenceReport:
    size = found.contract.input.size
    assert found.uncut is not None
    assert isinstance(found.uncut.head, DetectHead)
    return verify_equivalence(
        model,
        cut_head(model, found),
        found,
        reader(head_of(found), size),
        reader(found.uncut.head, size),
    )


def check(head: Head, found: Recognition) -> None:
    got, spec = head_of(found), head.spec
    assert found.family == head.family
    assert (got.classes, got.reg_max, got.strides) == (spec.classes, spec.bins, spec.strides)
    assert got.coding == ("distance" if spec.bins == 1 else "dfl")
    assert got.coefficients == (head.masks if head.task == "seg" else 0)
    assert got.keypoints == (head.points if head.task == "pose" else 0)
    assert got.rotated == (head.task == "obb")
    assert got.suppression == ("none" if head.best else "class")
    if head.task == "pose":
        assert got.keypoint_values == head.values
        assert got.centred_keypoints == head.modern
    assert got.plain_angle == (head.task == "obb" and head.modern)


@pytest.mark.parametrize("head", HEADS, ids=repr)
def test_stock_heads_are_recognised_and_the_cut_is_proven(head: Head) -> None:
    model = build(head)
    found = recognise(model)
    assert found.form == "stock"
    check(head, found)
    third = {"": [], "seg": ["coefficients"], "pose": ["keypoints"], "obb": ["angle"]}[head.task]
    expected = [
        f"{role}_{stride}" for stride in head.spec.strides for role in ["box", "score", *third]
    ]
    assert [o.name for o in head_of(found).outputs] == expected + ["prototypes"] * (
        head.task == "seg"
    )
    proof = proof_of(model, found)
    assert proof.box_px <= MAX_BOX_PX
    assert proof.score <= MAX_SCORE
    assert proof.extra <= MAX_EXTRA
    assert proof.cells == (min(head.best, head.cells) or head.cells)
    assert proof.best_score > 0.5


@settings(max_examples=15, deadline=None)
@given(
    task=st.sampled_from(["", "seg", "pose", "obb"]),
    classes=st.integers(1, 400),
    bins=st.integers(1, 32),
    strides=st.sampled_from([(8,), (16, 32), (8, 16, 32), (4, 8, 16, 32)]),
    size=st.sampled_from([(64, 96), (96, 32), (32, 160)]),
    best=st.sampled_from([0, 5, 300]),
    modern=st.booleans(),
    values=st.sampled_from([2, 3]),
)
def test_any_shape_of_head(task, classes, bins, strides, size, best, modern, values) -> None:
    spec = Spec(classes=classes, bins=bins, strides=strides, size=size, opset=17)
    head = Head(spec, task, best, modern, points=3, values=values)
    model = build(head)
    found = recognise(model)
    check(head, found)
    assert proof_of(model, found).box_px <= MAX_BOX_PX


def test_corners_are_told_from_centre_and_size() -> None:
    model = tiny_yolo.stock(Spec(corners=True))
    found = recognise(model)
    assert found.uncut is not None
    assert isinstance(found.uncut.head, DetectHead)
    assert found.uncut.head.decoded is not None
    assert found.uncut.head.decoded.corners
    assert proof_of(model, found).box_px <= MAX_BOX_PX


@pytest.mark.parametrize("task", ["seg", "pose", "obb"])
def test_scores_without_a_sigmoid_are_noticed(task: str) -> None:
    model = build(Head(Spec(opset=17, sigmoid=""), task))
    found = recognise(model)
    assert head_of(found).activated, "the cut adds the sigmoid"
    assert found.uncut is not None
    assert isinstance(found.uncut.head, DetectHead)
    assert not found.uncut.head.activated
    assert proof_of(model, found).score <= MAX_SCORE


def test_results_that_are_not_numbers_are_refused() -> None:
    model = build(Head(Spec(opset=17), best=20))
    last = model.graph.node[-1]
    b = tiny_yolo.Builder(seed=9, count=5000)
    rows = b.op("Mul", [last.output[0], b.const(np.nan)])
    model.graph.node.extend(b.nodes)
    model.graph.initializer.extend(b.weights)
    model.graph.output[0].name = rows
    with pytest.raises(RkzooError) as caught:
        recognise(model)
    assert "selects its results" in caught.value.why or "do not come from" in caught.value.why


def test_spoiled_prototypes_are_not_proven() -> None:
    model = build(Head(Spec(opset=17), "seg", masks=8))
    found = recognise(model)
    assert found.uncut is not None
    assert isinstance(found.uncut.head, DetectHead)
    size = found.contract.input.size
    spoiled = cut_head(model, found)
    node = next(n for n in spoiled.graph.node if "prototypes" in n.output)
    node.output[0] = "sound"
    offset = onnx.numpy_helper.from_array(np.float32([2e-3]), "offset")
    spoiled.graph.initializer.append(offset)
    spoiled.graph.node.append(onnx.helper.make_node("Add", ["sound", "offset"], ["prototypes"]))
    with pytest.raises(RkzooError) as caught:
        verify_equivalence(
            model, spoiled, found, reader(head_of(found), size), reader(found.uncut.head, size)
        )
    assert "masks" in caught.value.why


def test_what_is_picked_inside_needs_no_suppression_and_says_so() -> None:
    found = recognise(build(Head(Spec(opset=17), best=20)))
    assert any("20 best of" in sentence for sentence in found.evidence)
    assert found.uncut is not None
    assert isinstance(found.uncut.head, DetectHead)
    assert found.uncut.head.suppression == "none"


def test_cutting_leaves_no_operator_that_the_npu_has_not() -> None:
    for head in HEADS[::4]:
        model = build(head)
        kinds = {
            node.op_type for node in rewrite(cut_head(model, recognise(model))).model.graph.node
        }
        assert kinds <= {"Conv", "Relu", "Sigmoid", "Mul", "Constant"}


# ---- Rockchip's form ----------------------------------------------------------------


@pytest.mark.parametrize("sums", [True, False])
@pytest.mark.parametrize("head", VENDOR, ids=repr)
def test_vendor_heads_mean_what_the_stock_export_means(head: Head, sums: bool) -> None:
    model = vendor(head, sums)
    found = recognise(model)
    assert found.form == "vendor"
    assert found.uncut is None
    check(head, found)
    got = head_of(found)
    roles = [output.role for output in got.outputs]
    levels = len(head.spec.strides)
    if head.task == "seg":
        each = ["box", "score", "score_sum", "coefficients"]
        if not sums:
            each.remove("score_sum")
        assert sorted(roles) == sorted(each * levels + ["prototypes"])
        assert got.activated
    else:
        assert roles == ["fused"] * levels + ["points" if head.task == "pose" else "angles"]
        assert not got.activated
    # The same weights, exported in two ways, are the same boxes, scores and extras.
    fed = {"images": np.random.default_rng(3).random((1, 3, *head.spec.size), np.float32)}
    stock = build(head)
    known = recognise(stock)
    expected = reader(head_of(known), head.spec.size)(run(cut_head(stock, known), fed))
    order = [info.name for info in model.graph.output]
    answers = run(prepared(model, {}).model, fed)
    outputs = [answers[order.index(output.name)] for output in got.outputs]
    for a, b in zip(reader(got, head.spec.size)(outputs), expected, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-3, rtol=0)


@settings(max_examples=10, deadline=None)
@given(order=st.permutations(range(13)))
def test_the_order_of_the_vendor_outputs_does_not_matter(order: list[int]) -> None:
    model = vendor(Head(Spec(opset=17), "seg"))
    plain = head_of(recognise(model))
    outputs = list(model.graph.output)
    del model.graph.output[:]
    model.graph.output.extend(outputs[index] for index in order)
    assert head_of(recognise(model)).outputs == plain.outputs


# ---- what it is not -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "word"),
    [
        (Head(Spec(opset=17), "pose", spoil="points"), "in the values after them"),
        (Head(Spec(opset=17), "obb", spoil="angle"), "in the values after them"),
        (Head(Spec(opset=17), best=20, spoil="class"), "top-k selection"),
        (Head(Spec(bins=1, opset=17), "pose", 20, spoil="points"), "top-k selection"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_heads_that_compute_something_else_are_refused(head: Head, word: str) -> None:
    with pytest.raises(RkzooError) as caught:
        recognise(build(head))
    assert word in caught.value.why


def test_prototypes_that_no_box_needs_are_refused() -> None:
    model = build(Head(Spec(opset=17), "seg", masks=16))
    b = tiny_yolo.Builder(seed=9, count=5000)
    other = b.conv("images", 3, 8, kernel=4, stride=4)
    model.graph.node.extend(b.nodes)
    model.graph.initializer.extend(b.weights)
    model.graph.output[1].name = other
    with pytest.raises(RkzooError) as caught:
        recognise(model)
    assert "neither masks" in caught.value.why


# ---- every recogniser against real networks (test_every_recogniser has the rest) ------


def claims(model: onnx.ModelProto, size: tuple[int, int] | None = None) -> list[str]:
    """Everyone who takes the graph for its own."""
    shape = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    height, width = size or tuple(shape[2:])
    view = prepared(model, {model.graph.input[0].name: (1, 3, height, width)})
    image = recognise(tiny_yolo.stock()).contract.input
    picture = ImageSource(type(image)(size=(height, width)))
    return [title for title, known in RECOGNISERS if isinstance(known(view, picture), Recognition)]


@pytest.mark.parametrize(
    "name",
    ["yolov8n-seg", "yolov8n-pose", "mobilenetv2", "retinaface_mobile0.25_320", "lprnet"],
)
def test_real_models_are_claimed_once(assets: Path, name: str) -> None:
    model = load(assets / "models" / f"{name}.onnx")
    others = {"mobilenetv2": "classifier", "retinaface_mobile0.25_320": "retinaface"}
    assert recognise(model).family == others.get(name, name.replace("8n", "8"))
    assert len(claims(model)) == 1
