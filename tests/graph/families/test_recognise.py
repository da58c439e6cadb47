from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from tiny_yolo import Builder, Spec, branches, read_cut, read_whole, stock, vendor

from rkzoo.contract.detect import DetectHead
from rkzoo.errors import RkzooError
from rkzoo.graph.families.registry import Recognition, recognise
from rkzoo.graph.lowering.cut_head import cut_contract, cut_head
from rkzoo.graph.lowering.rewrites.rewriting import rewrite
from rkzoo.graph.lowering.verify import MAX_BOX_PX, MAX_SCORE, verify_equivalence
from rkzoo.graph.onnx.read import load
from rkzoo.graph.onnx.view import graph_view, prepared, run


def head_of(found: Recognition) -> DetectHead:
    assert isinstance(found.contract.head, DetectHead)
    return found.contract.head


def prove_it(model: onnx.ModelProto, found: Recognition):
    strides = head_of(found).strides
    assert found.uncut is not None
    assert isinstance(found.uncut.head, DetectHead)
    activated = found.uncut.head.activated
    return verify_equivalence(
        model,
        cut_head(model, found),
        found,
        lambda o: read_cut(o, strides),
        lambda o: read_whole(o, activated),
    )


SPECS = [
    Spec(),
    Spec(tail="separate", opset=12, inline=True),
    Spec(tail="weighted", opset=17),
    Spec(opset=19, inline=True, classes=11),
    Spec(classes=1),
    Spec(classes=1, tail="separate"),
    Spec(classes=64),
    Spec(bins=8, classes=5),
    Spec(bins=17, classes=68),
    Spec(strides=(4, 8, 16, 32)),
    Spec(strides=(8, 16, 32, 64), size=(128, 64)),
    Spec(strides=(16, 32)),
    Spec(strides=(8,), tail="separate"),
    Spec(size=(96, 64), tail="weighted"),
]


@pytest.mark.parametrize("spec", SPECS, ids=repr)
def test_stock_heads_are_recognised_and_the_cut_is_proven(spec: Spec) -> None:
    model = stock(spec)
    before = model.SerializeToString()
    found = recognise(model)
    head = head_of(found)
    assert (found.family, found.form) == ("yolov8", "stock")
    assert (head.classes, head.reg_max) == (spec.classes, spec.bins)
    assert head.strides == spec.strides
    assert head.activated
    assert found.contract.input.size == spec.size
    assert found.contract.input.std == (255.0, 255.0, 255.0)
    assert [o.name for o in head.outputs] == [
        f"{role}_{stride}" for stride in spec.strides for role in ("box", "score")
    ]
    assert found.uncut is not None
    uncut = found.uncut.head
    assert isinstance(uncut, DetectHead)
    assert [(o.name, o.role) for o in uncut.outputs] == [(model.graph.output[0].name, "decoded")]
    proof = prove_it(model, found)
    assert proof.box_px < MAX_BOX_PX
    assert proof.score < MAX_SCORE
    assert proof.cells == sum(spec.size[0] * spec.size[1] // s**2 for s in spec.strides)
    assert proof.best_score > 0.5
    assert model.SerializeToString() == before


def test_the_cut_graph_is_small_static_and_valid() -> None:
    spec = Spec(dynamic=True, opset=17)
    model = stock(spec)
    found = recognise(model, (64, 96))
    small = cut_head(model, found)
    onnx.checker.check_model(small, full_check=True)
    shapes = {
        info.name: [d.dim_value for d in info.type.tensor_type.shape.dim]
        for info in (*small.graph.input, *small.graph.output)
    }
    assert shapes == {
        "images": [1, 3, 64, 96],
        "box_8": [1, 64, 8, 12],
        "score_8": [1, 3, 8, 12],
        "box_16": [1, 64, 4, 6],
        "score_16": [1, 3, 4, 6],
        "box_32": [1, 64, 2, 3],
        "score_32": [1, 3, 2, 3],
    }
    assert {node.op_type for node in small.graph.node} == {"Conv", "Relu", "Sigmoid"}
    used = {name for node in small.graph.node for name in node.input}
    assert {t.name for t in small.graph.initializer} <= used
    assert small.ir_version <= 10
    assert small.opset_import[0].version == 17
    outputs = run(small, {"images": np.random.default_rng(0).random((1, 3, 64, 96), np.float32)})
    assert all(o.dtype == np.float32 for o in outputs)
    assert 0 <= outputs[1].min() <= outputs[1].max() <= 1


def test_raw_scores_on_request() -> None:
    model = stock()
    found = recognise(model)
    raw, active = cut_head(model, found, scores="logits"), cut_head(model, found)
    head = cut_contract(found, scores="logits").head
    assert isinstance(head, DetectHead)
    assert not head.activated
    assert cut_contract(found) == found.contract
    fed = {"images": np.random.default_rng(1).random((1, 3, 64, 96), np.float32)}
    for index, (a, b) in enumerate(zip(run(raw, fed), run(active, fed), strict=True)):
        expected = 1 / (1 + np.exp(-a)) if index % 2 else a
        np.testing.assert_allclose(b, expected, atol=1e-6)


def test_bounded_scores_are_the_raw_ones_within_the_range_that_matters() -> None:
    model = vendor(Spec(strides=(8, 16, 32)))
    found = recognise(model)
    raw, bounded = (cut_head(model, found, scores=form) for form in ("logits", "bounded"))
    fed = {"images": 40 * np.random.default_rng(1).normal(size=(1, 3, 64, 96)).astype(np.float32)}
    pairs = list(zip(run(raw, fed), run(bounded, fed), strict=True))
    assert max(abs(a).max() for a, _ in pairs[1::2]) > 8
    for index, (a, b) in enumerate(pairs):
        np.testing.assert_array_equal(b, np.clip(a, -8, 8) if index % 2 else a)


def renamed(model: onnx.ModelProto, names: dict[str, str]) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for node in copy.graph.node:
        node.name = ""
        for side in (node.input, node.output):
            side[:] = [names.get(name, name) for name in side]
    graph = copy.graph
    for thing in (*graph.initializer, *graph.input, *graph.output):
        thing.name = names.get(thing.name, thing.name)
    return copy


def test_names_do_not_matter_even_when_they_lie() -> None:
    model = stock()
    found = recognise(model)
    boxes = [head_tensor.name for head_tensor in found.head_tensors if head_tensor.role == "box"]
    scores = [head_tensor.name for head_tensor in found.head_tensors if head_tensor.role == "score"]
    # Boxes are called scores and the other way round, in a wrong order.
    lies = dict(zip(boxes, ["score_32", "score_16", "score_8"], strict=True))
    lies |= dict(zip(scores, ["box_8", "logit_8", "box_32"], strict=True))
    lies |= {model.graph.node[0].output[0]: "box_16"}
    liar = renamed(model, lies)
    again = recognise(liar)
    assert again.contract == found.contract
    assert [head_tensor.role for head_tensor in again.head_tensors] == [
        head_tensor.role for head_tensor in found.head_tensors
    ]
    assert prove_it(liar, again).cells == 126


@pytest.mark.parametrize("size", [(64, 96), (96, 64), (128, 128)])
def test_a_free_size_comes_from_the_caller(size: tuple[int, int]) -> None:
    # The grid inside is a constant, so only its own size can be right.
    model = stock(Spec(dynamic=True, size=size))
    assert recognise(model, size).contract.input.size == size


def test_a_free_size_comes_from_the_file_or_is_asked_for() -> None:
    spec = Spec(dynamic=True)
    assert recognise(stock(spec, imgsz="[64, 96]")).contract.input.size == (64, 96)
    for noted in ("", "[64, 96, 3]", "[64, -1]", "__import__('os')", "64", "[1e9, 2]"):
        with pytest.raises(RkzooError) as caught:
            recognise(stock(replace(spec, size=(640, 640)), imgsz=noted))
        assert "--size" in caught.value.fix


def test_a_fixed_size_wins_and_says_so() -> None:
    found = recognise(stock(), (320, 320))
    assert found.contract.input.size == (64, 96)
    assert any("320x320 needs a new export" in sentence for sentence in found.evidence)


def test_labels_come_from_the_file() -> None:
    names = "{0: 'person', 1: \"it's\", 2: '猫'}"
    assert recognise(stock(names=names)).contract.labels == ("person", "it's", "猫")
    assert recognise(stock(names="['a', 'b', 'c']")).contract.labels == ("a", "b", "c")


@pytest.mark.parametrize(
    "names",
    ["{0: 'a'}", "{1: 'a', 2: 'b', 3: 'c'}", "", "print(1)", "[" * 90_000, "{0: 1, 1: 2, 2: 3}"],
)
def test_labels_that_do_not_fit_are_left_out(names: str) -> None:
    assert recognise(stock(names=names)).contract.labels == ()


def test_scores_without_a_sigmoid_are_noticed() -> None:
    model = stock(Spec(sigmoid=""))
    found = recognise(model)
    assert head_of(found).activated, "the cut adds the sigmoid"
    assert found.uncut is not None
    assert isinstance(found.uncut.head, DetectHead)
    assert not found.uncut.head.activated
    assert prove_it(model, found).score < MAX_SCORE


def test_pixels_divided_inside_the_graph_are_noticed() -> None:
    model = stock()
    first = model.graph.node[0]
    for kind, number in (("Div", 255.0), ("Mul", 1 / 255)):
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        copy.graph.initializer.append(numpy_helper.from_array(np.float32(number), "by"))
        copy.graph.node[0].input[0] = "scaled"
        copy.graph.node.insert(0, helper.make_node(kind, [first.input[0], "by"], ["scaled"]))
        found = recognise(copy)
        assert found.contract.input.std == (1.0, 1.0, 1.0)
        assert prove_it(copy, found).cells == 126


def test_half_precision_is_widened() -> None:
    model = stock()
    half = onnx.ModelProto()
    half.CopyFrom(model)
    for tensor in half.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            array = numpy_helper.to_array(tensor).astype(np.float16)
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    half.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT16
    # As converters do it: casts at both ends, appended out of order.
    half.graph.node[0].input[0] = "narrow"
    half.graph.node.append(helper.make_node("Cast", ["images"], ["narrow"], to=TensorProto.FLOAT16))
    found = recognise(half)
    assert any("float16" in sentence for sentence in found.evidence)
    small = cut_head(half, found)
    onnx.checker.check_model(small, full_check=True)
    assert TensorProto.FLOAT16 not in {t.data_type for t in small.graph.initializer}
    assert prove_it(half, found).box_px < MAX_BOX_PX


def test_sizes_that_follow_from_one_another_are_worked_out() -> None:
    """As chunk() exports where nothing simplifies the graph: YOLOv9c has eight in a row."""
    make, x, nodes = helper.make_node, "x", []
    for index in range(8):
        a, b, c, d = (f"{kind}{index}" for kind in "abcd")
        nodes += [
            make("Shape", [x], [a]),
            make("Gather", [a, "axis"], [b]),
            make("Div", [b, "two"], [c]),
            make("Slice", [x, "zero", c, "axis"], [d]),
        ]
        x = d
    ints = {"axis": [1], "two": [2], "zero": [0]}
    float32 = TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "chunks",
        [helper.make_tensor_value_info("x", float32, [1, 512, 4, 4])],
        [helper.make_tensor_value_info(x, float32, None)],
        [numpy_helper.from_array(np.array(v, np.int64), k) for k, v in ints.items()],
    )
    view = prepared(helper.make_model(graph), {"x": (1, 512, 4, 4)})
    assert view.shape(x) == (1, 2, 4, 4)


@pytest.mark.parametrize("domain", ["", "TRT"])
def test_suppression_inside_the_graph_is_refused_in_one_sentence(domain: str) -> None:
    model = stock()
    kind = "EfficientNMS_TRT" if domain else "NonMaxSuppression"
    name = model.graph.output[0].name
    model.graph.node.append(helper.make_node(kind, [name, name], ["picked"], domain=domain))
    model.graph.output[0].name = "picked"
    with pytest.raises(RkzooError) as caught:
        recognise(model)
    assert "suppression" in caught.value.what
    assert kind in caught.value.why
    assert "without" in caught.value.fix


def test_a_bias_left_as_an_addition() -> None:
    b = Builder()
    spec = Spec(strides=(8,), classes=2)
    x = b.op("Relu", [b.conv("images", 3, 8, kernel=8, stride=8)])
    names = []
    for channels in (64, 2):
        weight = b.const(b.random.normal(0, 1, (channels, 8, 1, 1)))
        bias = b.const(b.random.normal(0, 1, (1, channels, 1, 1)))
        product = b.op("Conv", [x, weight], kernel_shape=[1, 1])
        names.append(b.op("Add", [bias, product]))
    names[1] = b.op("Sigmoid", [names[1]])
    model = b.model([("images", [1, 3, *spec.size])], [(n, TensorProto.FLOAT) for n in names])
    found = recognise(model)
    assert found.head_tensors[0].name == names[0]
    assert head_of(found).classes == 2


def test_a_newer_opset_is_lowered() -> None:
    model = stock(Spec(opset=20))
    small = rewrite(cut_head(model, recognise(model))).model
    assert small.opset_import[0].version == 19
    assert prove_it(model, recognise(model)).box_px < MAX_BOX_PX


# ---- the vendor's form --------------------------------------------------------------


@pytest.mark.parametrize("sums", [False, True])
@pytest.mark.parametrize(
    "spec",
    [
        Spec(),
        Spec(classes=1),
        Spec(classes=64),
        Spec(classes=68, bins=17),
        Spec(strides=(16, 32)),
        Spec(strides=(4, 8, 16, 32)),
    ],
    ids=repr,
)
def test_vendor_heads_are_recognised(spec: Spec, sums: bool) -> None:
    model = vendor(spec, sums)
    found = recognise(model)
    head = head_of(found)
    assert found.form == ("vendor-9" if sums else "vendor-6")
    assert (head.classes, head.reg_max, head.strides) == (spec.classes, spec.bins, spec.strides)
    assert head.activated
    assert found.uncut is None
    per_level = ("box", "score", "score_sum") if sums else ("box", "score")
    expected = [
        (output.name, role, level)
        for output, (level, role) in zip(
            model.graph.output,
            itertools.product(range(len(spec.strides)), per_level),
            strict=True,
        )
    ]
    found_roles = [(o.name, o.role, o.level) for o in head.outputs]
    if spec.classes == 1 and sums:  # score and sum are the same numbers
        assert {(r, n) for _, r, n in found_roles} == {(r, n) for _, r, n in expected}
    else:
        assert found_roles == expected


@settings(max_examples=12, deadline=None)
@given(order=st.permutations(range(9)))
def test_the_order_of_the_vendor_outputs_does_not_matter(order: list[int]) -> None:
    plain = head_of(recognise(vendor()))
    shuffled = head_of(recognise(vendor(order=order)))
    assert shuffled.outputs == plain.outputs


def test_vendor_heads_without_a_sigmoid() -> None:
    head = head_of(recognise(vendor(Spec(sigmoid="", classes=80), sums=False)))
    assert not head.activated
    assert (head.classes, head.reg_max) == (80, 16)


def test_vendor_heads_can_be_cut_to_raw_scores() -> None:
    model = vendor()
    found = recognise(model)
    names = [o.name for o in cut_head(model, found, scores="logits").graph.output]
    assert names == ["box_8", "score_8", "box_16", "score_16", "box_32", "score_32"]


# ---- what it is not -----------------------------------------------------------------


def refused(model: onnx.ModelProto, size: tuple[int, int] | None = None) -> RkzooError:
    with pytest.raises(RkzooError) as caught:
        recognise(model, size)
    error = caught.value
    assert error.code == 2
    assert "rkzoo" in error.what
    for info in model.graph.output:
        assert info.name in error.why
    return error


def yolov5_like() -> onnx.ModelProto:
    b = Builder()
    flat = []
    x, channels, stride = "images", 3, 1
    for wanted in (8, 16, 32):
        step = wanted // stride
        x = b.op("Relu", [b.conv(x, channels, 8, kernel=step, stride=step)])
        channels, stride = 8, wanted
        flat.append(b.op("Reshape", [b.op("Sigmoid", [b.conv(x, 8, 24)]), b.ints(1, 8, -1)]))
    out = b.op("Concat", flat, axis=2)
    return b.model([("images", [1, 3, 64, 96])], [(out, TensorProto.FLOAT)])


def with_topk() -> onnx.ModelProto:
    model = stock()
    whole = model.graph.output[0].name
    model.graph.initializer.append(numpy_helper.from_array(np.array([10]), "ten"))
    model.graph.node.append(helper.make_node("TopK", [whole, "ten"], ["best", "where"], axis=2))
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("best", TensorProto.FLOAT, None))
    return model


@pytest.mark.parametrize(
    ("model", "word"),
    [
        # A third branch whose numbers leave raw: neither key points nor an angle.
        (stock(Spec(classes=1), extra=51), "in the values after them"),
        (stock(extra=32), "in the values after them"),
        (yolov5_like(), "px from what YOLOv5"),
        (stock(Spec(sigmoid="Softmax")), "class scores"),
        (vendor(Spec(classes=32, bins=8, sigmoid=""), sums=False), "leave open"),
        (vendor(Spec(sigmoid="Softmax"), sums=False), "sigmoid"),
        (with_topk(), "NMS"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_other_heads_are_refused_with_the_reason(model: onnx.ModelProto, word: str) -> None:
    assert word in refused(model).why


def test_other_inputs_are_refused() -> None:
    model = stock()
    dims = model.graph.input[0].type.tensor_type.shape.dim
    dims[0].dim_value = 4
    assert "batch of 1" in refused(model).why
    dims[0].dim_value, dims[1].dim_value = 1, 1
    assert "1x3xHxW" in refused(model).why
    model.graph.input.append(helper.make_tensor_value_info("texts", TensorProto.FLOAT, [1, 80]))
    assert "2 inputs" in refused(model).why


def test_a_size_that_the_levels_do_not_divide() -> None:
    with pytest.raises(RkzooError):
        recognise(stock(Spec(dynamic=True)), (65, 97))


def test_an_output_that_is_the_input() -> None:
    model = helper.make_model(
        helper.make_graph(
            [helper.make_node("Identity", ["x"], ["y"])],
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 64, 64])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        )
    )
    assert "does not end in" in refused(model).why


# ---- the proof catches what is wrong ------------------------------------------------


def test_a_spoiled_cut_is_not_proven() -> None:
    model = stock()
    found = recognise(model)
    spoiled = cut_head(model, found)
    for tensor in spoiled.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.shape == (3,):
            tensor.CopyFrom(numpy_helper.from_array(array + np.float32(1e-3), tensor.name))
    with pytest.raises(RkzooError) as caught:
        verify_equivalence(model, spoiled, found, lambda o: read_cut(o, (8, 16, 32)), read_whole)
    assert caught.value.code == 1
    assert "score" in caught.value.why


@pytest.mark.parametrize("fault", ["shift", "nan", "shape"])
def test_a_wrong_decoder_is_not_proven(fault: str) -> None:
    model = stock()
    found = recognise(model)

    def wrong(outputs):
        boxes, scores, extras = read_cut(outputs, (8, 16, 32))
        if fault == "shift":
            boxes[5, 0] += 0.01
        elif fault == "nan":
            boxes[5, 0] = np.nan
        else:
            boxes, scores, extras = boxes[:-1], scores[:-1], extras[:-1]
        return boxes, scores, extras

    with pytest.raises(RkzooError):
        verify_equivalence(model, cut_head(model, found), found, wrong, read_whole)


def test_nothing_to_prove_for_the_vendor_form() -> None:
    model = vendor()
    with pytest.raises(RkzooError, match="nothing to verify"):
        verify_equivalence(model, model, recognise(model), read_whole, read_whole)


# ---- rewriting ----------------------------------------------------------------------


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("side", [0, 1])
def test_a_scale_before_the_product_moves_behind_it(side: int, turned: bool) -> None:
    b = Builder()
    q = b.op("Mul", ["x", b.const(0.25)])
    q = b.op("Transpose", [q], perm=[0, 1, 3, 2]) if turned else q
    other = "x" if turned else b.op("Transpose", ["x"], perm=[0, 1, 3, 2])
    product = b.op("MatMul", [q, other] if side == 0 else [other, q])
    out = b.op("Softmax", [product], axis=-1)
    model = b.model([("x", [1, 2, 4, 4])], [(out, TensorProto.FLOAT)])
    fed = {"x": np.random.default_rng(0).normal(size=(1, 2, 4, 4)).astype(np.float32)}
    view = graph_view(rewrite(model).model)
    kinds = [node.op_type for node in graph_view(view.model).producers.values()]
    assert graph_view(view.model).producers[view.model.graph.node[-1].input[0]].op_type == "Mul"
    assert kinds.count("MatMul") == 1
    np.testing.assert_allclose(run(view.model, fed)[0], run(model, fed)[0], atol=1e-6)


def test_a_product_without_a_scale_stays() -> None:
    b = Builder()
    out = b.op("Softmax", [b.op("MatMul", ["x", "x"])], axis=-1)
    model = b.model([("x", [4, 4])], [(out, TensorProto.FLOAT)])
    assert [node.op_type for node in rewrite(model).model.graph.node] == ["MatMul", "Softmax"]


# ---- real weights -------------------------------------------------------------------


@pytest.mark.parametrize("name", ["yolov8n", "yolo11n"])
def test_real_detectors(assets: Path, name: str) -> None:
    model = load(assets / "models" / f"{name}.onnx")
    found = recognise(model)
    head = head_of(found)
    assert found.form == "stock"
    assert (head.classes, head.reg_max, head.strides) == (80, 16, (8, 16, 32))
    proof = prove_it(model, found)
    assert proof.cells == 8400
    assert proof.best_score > 0.05


def test_branches_helper_builds_what_it_says() -> None:
    b = Builder()
    levels, others = branches(b, Spec(), extra=2)
    assert len(levels) == len(others) == 3
