"""NanoDet, PicoDet, RTMDet, YOLO-face: known, cut, proved, and decoded as published.

What is expected comes from ONNX Runtime on the uncut graph and from loops in double precision.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from test_anchor_heads import answer, head_of, prove_it, reader
from tiny_anchor_heads import Net, anchored, ppyoloe
from tiny_heads import Head, build
from tiny_undecoded import Raw, decoded, read, undecoded, yolov5_face
from tiny_yolo import Spec, stock

from rkzoo.contract.inputs import ImageInput
from rkzoo.errors import RkzooError
from rkzoo.graph.families.branches import stride
from rkzoo.graph.families.head_postprocessing import Branch
from rkzoo.graph.families.recognition import ImageSource, Recognition
from rkzoo.graph.families.registry import recognise
from rkzoo.graph.lowering.cut_head import cut_head
from rkzoo.graph.lowering.verify import MAX_BOX_PX, MAX_EXTRA, MAX_SCORE
from rkzoo.graph.onnx.view import run

IMAGENET = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
BGR = ((103.53, 116.28, 123.675), (57.375, 57.12, 58.395))
THREE = (8, 16, 32)
# The graph, its family, and from where in a cell it measures.
HEADS: dict[str, tuple[Raw, str, float]] = {
    "picodet": (Raw(), "picodet", 0.5),
    "picodet, convolutions apart": (Raw(one=False), "picodet", 0.5),
    "picodet of 100x76": (Raw(size=(100, 76)), "picodet", 0.5),
    "nanodet-plus": (Raw(tensors="whole"), "nanodet-plus", 0.0),
    "nanodet-plus of 104x104": (Raw(tensors="whole", size=(104, 104)), "nanodet-plus", 0.0),
    "nanodet": (Raw(strides=THREE), "nanodet", 0.5),
    "rtmdet": (
        Raw(bins=1, strides=THREE, one=False, tensors="maps", box="pixels", sigmoid=False),
        "rtmdet",
        0.0,
    ),
    "rtmdet of 80 classes": (
        Raw(80, 1, strides=THREE, one=False, tensors="maps", sigmoid=False), "rtmdet", 0.0,
    ),
    "large rtmdet": (
        Raw(bins=1, strides=THREE, one=False, tensors="maps", box="exp pixels"), "rtmdet", 0.0,
    ),
    "yolov8 in rows": (Raw(bins=16, strides=THREE, order=("box", "score")), "yolov8", 0.5),
    "yolov8-face": (
        Raw(1, 16, 5, strides=THREE, one=False, tensors="fused", sigmoid=False,
            order=("box", "score", "points")),
        "yolov8-face",
        0.5,
    ),
    "yolov8-pose": (
        Raw(2, 16, 7, strides=THREE, one=False, tensors="whole",
            order=("box", "score", "points")),
        "yolov8-pose",
        0.5,
    ),
}  # fmt: skip


def decoded_by_us(model: onnx.ModelProto, found: Recognition) -> tuple[np.ndarray, ...]:
    small = cut_head(model, found)
    told = answer(small, found.contract.input.size)
    decoder = reader(found.contract, {name: array.shape for name, array in told.items()})
    return decoder.dense(list(told.values()))


@pytest.mark.parametrize("name", HEADS)
def test_what_is_not_decoded_is_cut_proved_and_read_as_published(name: str) -> None:
    net, family, offset = HEADS[name]
    model = undecoded(net)
    found = recognise(model)
    head = head_of(found.contract)
    assert (found.family, found.form, head.strides) == (family, "stock", net.strides)
    assert (head.classes, head.reg_max, head.cell_offset) == (net.classes, net.bins, offset)
    proof = prove_it(model, found)
    assert proof.box_px <= MAX_BOX_PX
    assert proof.score <= MAX_SCORE
    assert proof.extra <= MAX_EXTRA
    assert proof.cells == sum(int(np.prod(net.cells(step))) for step in net.strides)
    expected = read(net, list(answer(model, net.size).values()), offset)
    for mine, theirs in zip(decoded_by_us(model, found), expected, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "color", "pixels", "fit"),
    [
        ("picodet", "RGB", IMAGENET, "stretch"),
        ("nanodet-plus", "BGR", BGR, "stretch"),
        ("nanodet", "BGR", BGR, "stretch"),
        ("rtmdet", "BGR", BGR, "letterbox"),
    ],
)
def test_each_is_fed_as_published_and_the_assumption_is_said(
    name: str, color: str, pixels: tuple[tuple[float, ...], ...], fit: str
) -> None:
    found = recognise(undecoded(HEADS[name][0]))
    image = found.contract.input
    assert (image.color, (image.mean, image.std), image.fit) == (color, pixels, fit)
    (said,) = found.assumed
    assert "--color, --mean and --std" in said


@pytest.mark.parametrize("classes", [3, 1])
@pytest.mark.parametrize(("offset", "logarithms"), [(0.0, False), (0.0, True), (0.5, False)])
def test_decoded_plain_distances_tell_where_they_are_measured_from(
    classes: int, offset: float, logarithms: bool
) -> None:
    net = Raw(classes, 1, strides=THREE, one=False)
    model = decoded(net, offset, logarithms=logarithms)
    found = recognise(model)
    head = head_of(found.contract)
    assert head.cell_offset == offset
    assert head.coding == ("log_distance" if logarithms else "distance")
    assert found.family == ("ppyoloe" if offset else "rtmdet")
    proof = prove_it(model, found)
    assert proof.box_px <= MAX_BOX_PX
    boxes, scores, _ = decoded_by_us(model, found)
    theirs = list(answer(model, net.size).values())
    np.testing.assert_allclose(boxes, theirs[0][0], rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(scores, theirs[1][0], atol=1e-5)


@pytest.mark.parametrize("one", [True, False])
def test_four_levels_and_eight_bins_tell_picodet_from_ppyoloe(one: bool) -> None:
    model = decoded(Raw(one=one, size=(100, 76)), 0.5)
    found = recognise(model)
    assert found.family == "picodet"
    assert found.contract.input.mean == IMAGENET[0]
    assert prove_it(model, found).box_px <= MAX_BOX_PX
    assert recognise(decoded(Raw(one=one), 0.0)).family == "nanodet-plus"
    other = recognise(ppyoloe(Net(bins=17), "plain"))
    assert other.family == "ppyoloe"
    assert other.contract.input.std == (255.0, 255.0, 255.0)
    assert "--mean" in other.assumed[0]


# ---- boxes in shares of the input ---------------------------------------------------


def in_shares(model: onnx.ModelProto, rows: int, axis: int, **columns: slice) -> onnx.ModelProto:
    """The output times 1 / (width, height, width, height), as Ultralytics' TFLite has it; x and
    y of key points too, where `points` says which rows they begin at."""
    width, height = (model.graph.input[0].type.tensor_type.shape.dim[a].dim_value for a in (3, 2))
    factor = np.ones(rows, np.float32)
    factor[:4] = 1 / np.array([width, height, width, height])
    if "points" in columns:
        factor[columns["points"]] = 1 / width
        where = columns["points"]
        factor[where.start + 1 :: where.step] = 1 / height
    shaped = factor.reshape((1, -1, 1) if axis == 1 else (1, 1, -1))
    name = model.graph.output[0].name
    model.graph.initializer.append(numpy_helper.from_array(shaped, "share"))
    model.graph.node.append(helper.make_node("Mul", [name, "share"], ["shares"]))
    model.graph.output[0].name = "shares"
    return model


@pytest.mark.parametrize(
    ("make", "rows", "axis", "columns"),
    [
        (lambda: stock(Spec()), 7, 1, {}),
        (lambda: build(Head(replace(Spec(size=(64, 96), opset=17), classes=1), "pose")), 56, 1,
         {"points": slice(5, None, 3)}),
        (lambda: build(Head(replace(Spec(size=(64, 96), opset=17), classes=1), "pose")), 56, 1, {}),
        (lambda: build(Head(Spec(size=(64, 96), opset=17, bins=1), best=30)), 6, 2, {}),
        (lambda: anchored(Net()), 8, 2, {}),
        (lambda: ppyoloe(Net(bins=17), "joined"), 7, 2, {}),
    ],
    ids=["yolov8", "pose", "pose, points in pixels", "yolo26", "yolov5", "ppyoloe"],
)  # fmt: skip
def test_boxes_from_0_to_1_are_read(make, rows: int, axis: int, columns) -> None:
    plain = recognise(make())
    model = in_shares(make(), rows, axis, **columns)
    found = recognise(model)
    assert head_of(found.contract) == head_of(plain.contract)
    uncut = head_of(found.uncut).decoded
    assert uncut is not None
    assert (uncut.relative, uncut.relative_points) == (True, "points" in columns)
    proof = prove_it(model, found)
    assert proof.box_px <= MAX_BOX_PX
    assert proof.extra <= MAX_EXTRA


# ---- box and classes from one convolution -------------------------------------------


def joined(model: onnx.ModelProto) -> onnx.ModelProto:
    """The last two convolutions of each feature map made one, and its result split."""
    graph = model.graph
    weights = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    groups: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        if node.op_type == "Conv" and len(weights[node.input[1]]) != 8:
            groups.setdefault(node.input[0], []).append(node)
    for number, pair in enumerate(pair for pair in groups.values() if len(pair) == 2):
        first = pair[0]
        at = min(list(graph.node).index(node) for node in pair)
        names = [f"joined{number}_{part}" for part in range(2)]
        for index, name in enumerate(names, 1):
            whole = np.concatenate([weights[node.input[index]] for node in pair])
            graph.initializer.append(numpy_helper.from_array(whole, name))
        sizes = np.array([len(weights[node.input[1]]) for node in pair])
        graph.initializer.append(numpy_helper.from_array(sizes, f"sizes{number}"))
        made = [
            helper.make_node("Conv", [first.input[0], *names], [f"both{number}"],
                             kernel_shape=[1, 1]),
            helper.make_node("Split", [f"both{number}", f"sizes{number}"],
                             [node.output[0] for node in pair], axis=1),
        ]  # fmt: skip
        for node in pair:
            graph.node.remove(node)
        for offset, node in enumerate(made):
            graph.node.insert(at + offset, node)
    return model


@pytest.mark.parametrize(
    "make",
    [
        lambda: stock(Spec()),
        lambda: stock(Spec(tail="separate", classes=80)),
        lambda: ppyoloe(Net(bins=17), "plain"),
        lambda: ppyoloe(Net(bins=17, coarsest_first=True), "joined"),
    ],
    ids=["yolov8", "yolov8 apart", "ppyoloe", "ppyoloe joined"],
)
def test_box_and_classes_may_come_from_one_convolution(make) -> None:
    plain, model = recognise(make()), joined(make())
    found = recognise(model)
    assert head_of(found.contract) == head_of(plain.contract)
    assert all(head_tensor.channels for head_tensor in found.head_tensors)
    assert "both0" not in {
        name for node in cut_head(model, found).graph.node for name in node.output
    }
    assert prove_it(model, found).box_px <= MAX_BOX_PX
    fed = {"images": np.random.default_rng(2).random((1, 3, 64, 96), np.float32)}
    for mine, theirs in zip(
        run(cut_head(model, found), fed), run(cut_head(make(), plain), fed), strict=True
    ):
        np.testing.assert_allclose(mine, theirs, atol=1e-5)


# ---- faces --------------------------------------------------------------------------


def test_yolov5_face_gives_boxes_and_points() -> None:
    model = yolov5_face()
    found = recognise(model)
    head = head_of(found.contract)
    assert (found.family, head.faces, head.keypoints, head.classes) == ("yolov5-face", True, 5, 1)
    assert prove_it(model, found).extra <= MAX_EXTRA
    (rows,) = answer(model, (64, 96)).values()
    boxes, scores, points = decoded_by_us(model, found)
    half = rows[0, :, 2:4] / 2
    corners = np.concatenate((rows[0, :, :2] - half, rows[0, :, :2] + half), axis=1)
    np.testing.assert_allclose(boxes, corners, atol=1e-3, rtol=1e-5)
    np.testing.assert_allclose(points, rows[0, :, 5:15], atol=1e-3, rtol=1e-5)
    np.testing.assert_allclose(scores[:, 0], rows[0, :, 4] * rows[0, :, 15], atol=1e-5)


def test_five_points_of_several_classes_or_of_another_name_are_no_face() -> None:
    assert recognise(yolov5_face(classes=2)).family == "yolov5-pose"
    wide = replace(Spec(size=(64, 96), opset=17), classes=1)
    head = Head(wide, "pose", points=5)
    assert recognise(build(head)).family == "yolov8-face"
    named = recognise(build(head, names="{0: 'face'}"))
    assert named.family == "yolov8-face"
    assert named.assumed == ()
    assert recognise(build(head, names="{0: 'cow'}")).family == "yolov8-pose"


# ---- the stride of a level ----------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "cells", "expected"),
    [
        ((640, 640), (20, 20), 32),
        ((800, 608), (13, 10), 64),
        ((360, 640), (6, 10), 64),
        ((32, 32), (1, 1), 32),
        ((120, 120), (10, 10), 12),
    ],
)
def test_a_stride_is_known_from_cells_that_were_rounded_up(size, cells, expected) -> None:
    assert stride(Branch("b", (1, 4, *cells)), ImageSource(ImageInput(size=size))) == expected


def test_cells_of_no_stride_say_so() -> None:
    reason = stride(Branch("b", (1, 4, 13, 11)), ImageSource(ImageInput(size=(800, 608))))
    assert "13x11 cells are not those of one stride" in str(reason)


def test_an_output_that_is_something_else_is_refused() -> None:
    model = undecoded(Raw())
    name = model.graph.output[0].name
    model.graph.node.append(helper.make_node("Tanh", [name], ["other"]))
    model.graph.output[0].name = "other"
    with pytest.raises(RkzooError, match="not one that rkzoo knows"):
        recognise(model)
