"""YOLOv5, YOLOv7, YOLOX, YOLOv6 and PP-YOLOE: known, cut, proved, and what is planted found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto
from tiny_anchor_heads import V5, V7, Net, anchor_heads, anchor_masks, anchored, ppyoloe

from tiny_anchor_heads import yolov6, yolox  # isort: skip
from tiny_yolo import Builder, Spec, stock, vendor

from rkzoo.contract.detect import DetectHead
from rkzoo.contract.inputs import TensorSpec
from rkzoo.contract.model import Contract
from rkzoo.errors import RkzooError
from rkzoo.graph.families.anchors import YOLOV5_P6, check_anchors, with_anchors
from rkzoo.graph.families.head_postprocessing import head_postprocessing
from rkzoo.graph.families.recognition import HeadTensor, ImageSource
from rkzoo.graph.families.registry import RECOGNISERS, Recognition, recognise
from rkzoo.graph.lowering.cut_head import cut_head, keep_head
from rkzoo.graph.lowering.verify import MAX_BOX_PX, MAX_SCORE, EquivalenceReport, verify_equivalence
from rkzoo.graph.onnx.read import load
from rkzoo.graph.onnx.view import prepared, run
from rkzoo.tasks.detect.postprocess import DetectDecoder

P6 = Net(size=(128, 64), strides=(8, 16, 32, 64), anchors=YOLOV5_P6)
ONE_V7 = Net(classes=1, anchors=V7, spelling="v7")
STOCK: dict[str, tuple[Callable[[], onnx.ModelProto], str]] = {
    "v5": (partial(anchored, Net()), "yolov5"),
    "v5 and heads": (partial(anchored, Net(opset=12, inline=True), heads_too=True), "yolov5"),
    "v5 one class": (partial(anchored, Net(classes=1)), "yolov5"),
    "v5 product": (partial(anchored, Net(tail="product")), "yolov5"),
    "v5 one class product": (partial(anchored, Net(classes=1, tail="product")), "yolov5"),
    "v5 dropped": (partial(anchored, Net(tail="dropped")), "yolov5"),
    "v5 corners": (partial(anchored, Net(tail="corners")), "yolov5"),
    "v5 rows last": (partial(anchored, Net(tail="rows_last")), "yolov5"),
    "v5 seg": (partial(anchored, Net(masks=4)), "yolov5"),
    "v5 seg one class": (partial(anchored, Net(classes=1, masks=32), heads_too=True), "yolov5"),
    "v5 P6": (partial(anchored, P6), "yolov5"),
    "v5 two anchors": (
        partial(anchored, Net(strides=(16, 32), anchors=(V5[1][:2], V5[2][1:]), opset=17)),
        "yolov5",
    ),
    "v7": (partial(anchored, Net(anchors=V7, spelling="v7")), "yolov7"),
    "v7 one class": (partial(anchored, ONE_V7), "yolov7"),
    "v7 one class product": (
        partial(anchored, Net(classes=1, anchors=V7, tail="product")),
        "yolov7",
    ),
    "heads apart": (partial(anchor_heads, Net(), apart=True, sigmoid=False), "yolov5"),
    "heads apart, active": (partial(anchor_heads, Net(), apart=True, sigmoid=True), "yolov5"),
    "heads without sigmoid": (partial(anchor_heads, Net(), apart=False, sigmoid=False), "yolov5"),
    "yolox": (partial(yolox, Net()), "yolox"),
    "yolox one class": (partial(yolox, Net(classes=1)), "yolox"),
    "yolox four classes": (partial(yolox, Net(classes=4), "decoded"), "yolox"),
    "yolox decoded": (partial(yolox, Net(opset=12, inline=True), "decoded"), "yolox"),
    "v6 plain": (partial(yolov6, Net()), "yolov6"),
    "v6 dfl": (partial(yolov6, Net(bins=17, classes=4, opset=12)), "yolov6"),
    "v6 four levels": (partial(yolov6, Net(strides=(8, 16, 32, 64), size=(64, 128))), "yolov6"),
    "ppyoloe": (partial(ppyoloe, Net(bins=17)), "ppyoloe"),
    "ppyoloe as upstream": (
        partial(ppyoloe, Net(bins=17, coarsest_first=True)),
        "ppyoloe",
    ),
    "ppyoloe joined as upstream": (
        partial(ppyoloe, Net(bins=17, coarsest_first=True), "joined"),
        "ppyoloe",
    ),
    "ppyoloe plain": (partial(ppyoloe, Net(bins=17, classes=1), "plain"), "ppyoloe"),
    "ppyoloe joined": (partial(ppyoloe, Net(bins=8, opset=12), "joined"), "ppyoloe"),
}
VENDOR: dict[str, tuple[Callable[[], onnx.ModelProto], str]] = {
    "v5 vendor": (partial(anchor_heads, Net(), apart=False, sigmoid=True), "yolov5"),
    "v5 seg vendor": (anchor_masks, "yolov5"),
    "yolox vendor": (partial(yolox, Net(), "vendor"), "yolox"),
    "yolox vendor one class": (partial(yolox, Net(classes=1), "vendor"), "yolox"),
}


def head_of(contract: Contract | None) -> DetectHead:
    assert contract is not None
    assert isinstance(contract.head, DetectHead)
    return contract.head


def reader(contract: Contract, shapes: dict[str, Sequence[int]]) -> DetectDecoder:
    head = head_of(contract)
    specs = [
        TensorSpec(
            name=o.name,
            shape=tuple(shapes[o.name]),
            dtype="float32",
            layout="NCHW" if len(shapes[o.name]) == 4 else "plain",
        )
        for o in head.outputs
    ]
    return DetectDecoder(head, contract.input.size, specs)


def answer(model: onnx.ModelProto, size: tuple[int, int]) -> dict[str, np.ndarray]:
    fed = np.random.default_rng(1).uniform(0, 1, (1, 3, *size)).astype(np.float32)
    outputs = run(model, {model.graph.input[0].name: fed})
    return dict(zip([o.name for o in model.graph.output], outputs, strict=True))


def prove_it(model: onnx.ModelProto, found: Recognition) -> EquivalenceReport:
    size = found.contract.input.size
    small, full = cut_head(model, found), keep_head(model, found)
    onnx.checker.check_model(small, full_check=True)
    shapes = [{n: a.shape for n, a in answer(m, size).items()} for m in (small, full)]
    assert found.uncut is not None
    # Exactly what the contracts promise, and in that order: nothing more leaves the graph.
    assert list(shapes[0]) == [o.name for o in head_of(found.contract).outputs]
    assert list(shapes[1]) == [o.name for o in head_of(found.uncut).outputs]
    return verify_equivalence(
        model,
        small,
        found,
        reader(found.contract, shapes[0]).dense,
        reader(found.uncut, shapes[1]).dense,
    )


@pytest.mark.parametrize("name", STOCK)
def test_stock_heads_are_recognised_and_the_cut_is_proven(name: str) -> None:
    make, family = STOCK[name]
    model = make()
    before = model.SerializeToString()
    found = recognise(model)
    assert (found.family, found.form) == (family, "stock")
    assert found.contract.family == family
    proof = prove_it(model, found)
    assert proof.box_px <= MAX_BOX_PX
    assert proof.score <= MAX_SCORE
    assert proof.best_score > 0.05
    assert model.SerializeToString() == before


def claims(model: onnx.ModelProto) -> list[str]:
    shapes = {i.name: (1, 3, *size_of(i)) for i in model.graph.input if i.name == "images"}
    view = prepared(model, shapes)
    picture = ImageSource(image=recognise(model).contract.input)
    found = [recogniser(view, picture) for _, recogniser in RECOGNISERS]
    return [f.family for f in found if isinstance(f, Recognition)]


def size_of(info: onnx.ValueInfoProto) -> tuple[int, int]:
    dims = info.type.tensor_type.shape.dim
    return dims[2].dim_value, dims[3].dim_value


@pytest.mark.parametrize("model", [stock(), stock(Spec(classes=1)), vendor(), vendor(sums=False)])
def test_other_families_stay_what_they_were(model: onnx.ModelProto) -> None:
    assert len(claims(model)) == 1
    assert recognise(model).family not in {"yolov5", "yolov7", "yolox", "yolov6", "ppyoloe"}


# ---- what was read ------------------------------------------------------------------


@pytest.mark.parametrize("net", [Net(), Net(anchors=V7, spelling="v7"), P6, Net(tail="corners")])
def test_anchors_are_read_from_the_graph(net: Net) -> None:
    head = head_of(recognise(anchored(net)).contract)
    assert head.anchors == net.anchors
    assert (head.classes, head.strides, head.objectness) == (3, net.strides, "product")
    assert [o.name for o in head.outputs] == [f"anchors_{s}" for s in net.strides]


def test_anchors_that_were_learned_are_read() -> None:
    own = tuple(tuple((w * 1.37 + 0.123, h * 0.71 + 0.457) for w, h in level) for level in V5)
    head = head_of(recognise(anchored(Net(anchors=own))).contract)
    np.testing.assert_allclose(np.array(head.anchors), np.array(own), atol=1e-3)


def test_one_class_is_scored_as_upstream_trains_it() -> None:
    """YOLOv7 with one class does not train it; YOLOv5 does. Rockchip's C++ multiplies both."""
    seven = recognise(anchored(ONE_V7))
    assert head_of(seven.contract).objectness == "alone"
    assert any("not train" in sentence for sentence in seven.evidence)
    five = recognise(anchored(Net(classes=1)))
    assert head_of(five.contract).objectness == "product"
    assert any("YOLOv7-tiny" in sentence for sentence in five.evidence)
    # A graph that multiplies by itself is followed.
    make, _ = STOCK["v7 one class product"]
    assert head_of(recognise(make()).contract).objectness == "product"


def test_masks_leave_the_graph_unsquashed() -> None:
    model = anchored(Net(masks=4))
    found = recognise(model)
    head = head_of(found.contract)
    assert (head.classes, head.coefficients) == (3, 4)
    assert [o.role for o in head.outputs] == ["anchors", "coefficients"] * 3 + ["prototypes"]
    small = cut_head(model, found)
    outputs = answer(small, (64, 96))
    assert outputs["anchors_8"].shape == (1, 3 * 8, 8, 12)
    assert outputs["coefficients_8"].shape == (1, 3 * 4, 8, 12)
    assert outputs["anchors_8"].min() >= 0
    assert outputs["anchors_8"].max() <= 1
    assert outputs["coefficients_8"].min() < 0
    # The convolution that was taken apart is gone.
    convolutions = [n for n in small.graph.node if n.op_type == "Conv"]
    assert len(convolutions) == 3 + 2 * 3 + 1


def test_yolox_is_fed_as_it_was_trained() -> None:
    """BGR of 0..255 in the top left corner; Rockchip's example feeds RGB."""
    image = recognise(yolox()).contract.input
    assert (image.color, image.std, image.pad, image.place) == ("BGR", (1, 1, 1), 114, "top-left")
    head = head_of(recognise(yolox()).contract)
    assert (head.coding, head.objectness, head.suppression) == ("exponent", "product", "all")
    assert [o.role for o in head.outputs] == ["box", "objectness", "score"] * 3


def test_ppyoloe_takes_stretched_pictures() -> None:
    found = recognise(ppyoloe())
    assert found.contract.input.fit == "stretch"
    assert [i.name for i in cut_head(ppyoloe(), found).graph.input] == ["images"]
    assert [i.name for i in keep_head(ppyoloe(), found).graph.input] == ["images"]


# ---- Rockchip's forms ---------------------------------------------------------------


@pytest.mark.parametrize("name", VENDOR)
def test_vendor_forms_are_read_as_they_are(name: str) -> None:
    make, family = VENDOR[name]
    model = make()
    found = recognise(model)
    assert found.family == family
    assert found.form == ("vendor-7" if "seg" in name else "vendor-3")
    assert found.uncut is None
    head = head_of(found.contract)
    assert [o.name for o in head.outputs] == [o.name for o in model.graph.output]
    outputs = answer(model, (64, 96))
    boxes, scores, extras = reader(found.contract, {n: a.shape for n, a in outputs.items()}).dense(
        list(outputs.values())
    )
    cells = 8 * 12 + 4 * 6 + 2 * 3
    assert len(boxes) == cells * (1 if family == "yolox" else 3)
    assert scores.shape[1] == head.classes
    assert extras.shape[1] == head.coefficients
    assert scores.min() >= 0
    assert scores.max() <= 1


def test_the_vendor_form_decodes_as_the_stock_form() -> None:
    """The same weights (the same seed) in both forms."""
    for whole_model, parts in (
        (anchored(), anchor_heads(apart=False, sigmoid=True)),
        (yolox(form="decoded"), yolox(form="vendor")),
    ):
        answers = []
        for model in (whole_model, parts):
            found = recognise(model)
            contract = found.uncut or found.contract
            outputs = answer(model, (64, 96))
            shapes = {n: a.shape for n, a in outputs.items()}
            answers.append(reader(contract, shapes).dense(list(outputs.values())))
        np.testing.assert_allclose(answers[0][0], answers[1][0], rtol=1e-5, atol=1e-3)
        np.testing.assert_allclose(answers[0][1], answers[1][1], atol=1e-5)


def test_assumed_anchors_are_said_aloud_and_can_be_given() -> None:
    model = anchor_heads(Net(classes=1), apart=False, sigmoid=True)
    found = recognise(model)
    assert not found.anchors_known
    assert head_of(found.contract).anchors == V5
    assert any("--anchors" in sentence and "NOT" in sentence for sentence in found.evidence)
    flat = [pair for level in V7 for pair in level]
    given = with_anchors(found, flat)
    head = head_of(given.contract)
    assert (head.anchors, head.objectness, given.family) == (V7, "alone", "yolov7")
    assert not any("NOT" in sentence for sentence in given.evidence)
    # 18 channels: two anchors a level leave nine numbers each, five none that fit.
    two = head_of(with_anchors(found, flat[:6]).contract)
    assert (len(two.anchors[0]), two.classes) == (2, 4)
    for wrong in (flat[:5], flat[:8], flat + flat):
        with pytest.raises(RkzooError, match="18 channels"):
            with_anchors(found, wrong)


def test_heads_that_hold_their_anchors_count_refuse_another() -> None:
    found = recognise(anchor_heads(apart=True, sigmoid=False))
    flat = [pair for level in V7 for pair in level]
    changed = with_anchors(found, flat)
    assert head_of(changed.contract).anchors == head_of(changed.uncut).anchors == V7
    assert prove_it(anchor_heads(apart=True, sigmoid=False), changed).box_px <= MAX_BOX_PX
    with pytest.raises(RkzooError, match="do not fit"):
        with_anchors(found, flat[:6])


def test_a_mismatch_shows_both_lists() -> None:
    found = recognise(anchored())
    assert found.anchors_known
    flat = [pair for level in V5 for pair in level]
    assert with_anchors(found, flat) is found
    check_anchors(V5, flat)
    with pytest.raises(RkzooError) as caught:
        with_anchors(found, [*flat[:-1], (372.0, 326.0)])
    assert "373,326" in caught.value.why
    assert "372,326" in caught.value.why
    with pytest.raises(RkzooError, match="no anchors"):
        with_anchors(recognise(yolox()), flat)


def test_a_graph_of_unusual_strides_does_not_guess() -> None:
    with pytest.raises(RkzooError) as caught:
        recognise(anchor_heads(Net(strides=(16, 32)), apart=False, sigmoid=True))
    assert "anchors are not in the graph" in caught.value.why


# ---- planted objects ----------------------------------------------------------------


def logit(p: np.ndarray) -> np.ndarray:
    p = np.clip(p, 1e-6, 1 - 1e-6)
    return np.log(p / (1 - p))


def spread(side: float, bins: int) -> np.ndarray:
    """Logits of a distribution over `bins` whose expectation is `side`."""
    low = min(int(side), bins - 2)
    weight = np.full(bins, 1e-12)
    weight[low], weight[low + 1] = low + 1 - side, side - low
    return np.log(np.maximum(weight, 1e-12))


def codes(head: DetectHead, box: np.ndarray, level: int, cell: tuple[int, int]) -> np.ndarray:
    """The box branch's numbers for `box` (x1, y1, x2, y2): the inverse of the decoding."""
    stride, (row, column) = head.strides[level], cell
    centre, size = (box[:2] + box[2:]) / 2, box[2:] - box[:2]
    corner = np.array([column, row])
    if head.coding == "anchor":
        s = np.concatenate(
            (
                (centre / stride - corner + 0.5) / 2,
                np.sqrt(size / np.array(head.anchors[level][0])) / 2,
            )
        )
        return logit(s)
    if head.coding == "exponent":
        return np.concatenate((centre / stride - corner, np.log(size / stride)))
    middle = corner + 0.5
    sides = np.concatenate((middle - box[:2] / stride, box[2:] / stride - middle))
    if head.coding == "dfl":
        return np.concatenate([spread(side, head.reg_max) for side in sides])
    return sides


def plant(
    taps: Sequence[HeadTensor],
    head: DetectHead,
    box: np.ndarray,
    level: int,
    cell: tuple[int, int],
    class_id: int,
    score: float,
) -> dict[str, np.ndarray]:
    """Numbers for the branches: nothing anywhere, and one object in this cell."""
    values = {t.name: np.full(t.shape, -12.0, np.float32) for t in taps if t.role != "prototypes"}
    row, column = cell
    part = np.sqrt(score) if head.objectness != "none" else score
    for head_tensor in taps:
        if head_tensor.level != level or head_tensor.role in ("prototypes", "coefficients"):
            continue
        at = values[head_tensor.name][0, :, row, column]
        if head_tensor.role in ("box", "anchors"):
            coded = codes(head, box, level, cell)
            at[: len(coded)] = coded
        if head_tensor.role == "anchors":
            at[4], at[5 + class_id] = logit(np.array([part, part]))
        elif head_tensor.role == "objectness":
            at[0] = logit(np.array(part))
        elif head_tensor.role == "score":
            at[class_id] = logit(np.array(part))
    return values


MAKERS: dict[str, Callable[[Net], onnx.ModelProto]] = {
    "anchor": anchored,
    "exponent": partial(yolox, form="decoded"),
    "exponent raw": yolox,
    "distance": yolov6,
    "dfl": yolov6,
    "corners": ppyoloe,
}


@pytest.mark.parametrize("coding", MAKERS)
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_planted_objects_come_back(coding: str, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 3))
    bins = data.draw(st.integers(8, 32)) if coding in ("dfl", "corners") else 1
    classes = data.draw(st.integers(1, 400))
    if 4 * bins == classes or classes == 4 * max(bins, 1):
        classes += 1
    net = Net(
        classes=classes,
        size=(32 * data.draw(st.integers(2, 5)), 32 * data.draw(st.integers(2, 5))),
        strides=(8, 16, 32)[:count],
        anchors=V5[:count],
        bins=bins,
    )
    model = MAKERS[coding](net)
    found = recognise(model)
    head = head_of(found.contract)
    level = data.draw(st.integers(0, count - 1))
    stride = net.strides[level]
    row = data.draw(st.integers(0, net.size[0] // stride - 1))
    column = data.draw(st.integers(0, net.size[1] // stride - 1))
    share = st.floats(0.2, 0.8)
    centre = stride * np.array([column + data.draw(share), row + data.draw(share)])
    base = np.array(V5[level][0]) if coding == "anchor" else np.array([4.0, 4.0]) * stride
    size = base * np.array([data.draw(st.floats(0.4, 2.5)) for _ in range(2)])
    box = np.concatenate((centre - size / 2, centre + size / 2))
    class_id = data.draw(st.integers(0, classes - 1))
    score = data.draw(st.floats(0.3, 0.95))
    values = plant(found.head_tensors, head, box, level, (row, column), class_id, score)
    squashed = {
        o.name: 1 / (1 + np.exp(-values[t.name])) if t.sigmoid else values[t.name]
        for t, o in zip(found.head_tensors, head.outputs, strict=True)
    }
    view = prepared(model, {"images": (1, 3, *net.size)})
    assert found.uncut is not None
    names = [o.name for o in head_of(found.uncut).outputs]
    end = head_postprocessing(view, names)
    assert not isinstance(end, str)
    uncut = dict(zip(names, end(values), strict=True))
    for contract, outputs in ((found.contract, squashed), (found.uncut, uncut)):
        decoder = reader(contract, {n: a.shape for n, a in outputs.items()})
        arrays = [outputs[o.name].astype(np.float32) for o in head_of(contract).outputs]
        got = decoder.candidates(arrays, 0.1)
        assert len(got) == 1
        np.testing.assert_allclose(got.boxes[0], box, atol=0.5)
        assert abs(got.score[0] - score) < 0.01
        assert got.class_id[0] == class_id


# ---- near misses --------------------------------------------------------------------


def test_a_wrong_formula_is_no_yolov5() -> None:
    """The size as a plain product, as in older networks: neither claimed nor guessed."""
    b = Builder()
    x = b.op("Relu", [b.conv("images", 3, 8, kernel=8, stride=8)])
    shaped = b.op("Reshape", [b.conv(x, 8, 24), b.ints(1, 3, 8, 8, 8)])
    head = b.op("Sigmoid", [b.op("Transpose", [shaped], perm=[0, 1, 3, 4, 2])])
    xy, wh, rest = (b.slice(head, i, j, 4) for i, j in ((0, 2), (2, 4), (4, 8)))
    wh = b.op("Mul", [wh, b.const(20.0)])
    flat = b.op("Reshape", [b.op("Concat", [xy, wh, rest], axis=4), b.ints(1, -1, 8)])
    model = b.model([("images", [1, 3, 64, 64])], [(flat, TensorProto.FLOAT)])
    with pytest.raises(RkzooError) as caught:
        recognise(model)
    assert "px from what YOLOv5" in caught.value.why


@pytest.mark.parametrize("name", ["mobilenetv2", "retinaface_mobile0.25_320", "lprnet"])
def test_networks_without_anchor_heads_are_claimed_by_none_of_these(
    assets: Path, name: str
) -> None:
    assert recognise(load(assets / "models" / f"{name}.onnx")).form == "whole"


# ---- real weights -------------------------------------------------------------------


def test_the_real_yolox(assets: Path) -> None:
    model = load(assets / "models/yolox_nano.onnx")
    found = recognise(model)
    head = head_of(found.contract)
    assert (found.family, found.form) == ("yolox", "stock")
    assert (head.classes, head.strides) == (80, (8, 16, 32))
    assert found.contract.input.size == (416, 416)
    assert not any("divides" in sentence for sentence in found.evidence)
    proof = prove_it(model, found)
    assert proof.cells == 3549
    assert proof.best_score > 0.01
