"""Segmentations by their graphs: recognised, cut at the logits, and the cut proved."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from rkzoo.contract.inputs import ImageInput, TensorSpec
from rkzoo.contract.model import Contract
from rkzoo.contract.segmentation import SemanticHead
from rkzoo.errors import RkzooError
from rkzoo.graph.families.registry import recognise
from rkzoo.graph.lowering.legalize import legalized
from rkzoo.graph.onnx.rewrite import bytes_as_floats
from rkzoo.runtime.onnx import OnnxSession
from rkzoo.tasks.semantic.postprocess import class_map, class_masks
from rkzoo.vision.letterbox import plan

SIDE, CLASSES = 65, 5


def graph(
    mode: str = "half_pixel",
    *,
    pick: bool = True,
    last: bool = False,
    softmax: bool = False,
    classes: int = CLASSES,
    resize: str = "linear",
) -> onnx.ModelProto:
    """1x3x65x65 by a convolution to 9x9 maps, brought to 65x65; `last`: by way of channels last,
    as TensorFlow has them."""
    rng = np.random.default_rng(3)
    weights = {
        "w": rng.normal(0, 1, (classes, 3, 3, 3)).astype(np.float32),
        "b": rng.normal(0, 1, classes).astype(np.float32),
        "roi": np.zeros(0, np.float32),
        "none": np.zeros(0, np.float32),
        "to": np.array([1, classes, SIDE, SIDE], np.int64),
    }
    node = helper.make_node
    nodes = [node("Conv", ["picture", "w", "b"], ["logits"], strides=[8, 8], pads=[1, 1, 1, 1])]
    name = "logits"
    nodes.append(
        node("Resize", [name, "roi", "none", "to"], ["large"],
             coordinate_transformation_mode=mode, mode=resize)
    )  # fmt: skip
    name, axis = "large", 1
    if last:
        nodes.append(node("Transpose", [name], ["turned"], perm=[0, 2, 3, 1]))
        name, axis = "turned", 3
    if softmax:
        nodes.append(node("Softmax", [name], ["sure"], axis=axis))
        name = "sure"
    kind, shape = TensorProto.FLOAT, [1, classes, SIDE, SIDE]
    if last:
        shape = [1, SIDE, SIDE, classes]
    if pick:
        nodes.append(node("ArgMax", [name], ["best"], axis=axis, keepdims=0))
        name, kind, shape = "best", TensorProto.INT64, [1, SIDE, SIDE]
    made = helper.make_graph(
        nodes,
        "segmentation",
        [helper.make_tensor_value_info("picture", TensorProto.FLOAT, [1, 3, SIDE, SIDE])],
        [helper.make_tensor_value_info(name, kind, shape)],
        [numpy_helper.from_array(value, key) for key, value in weights.items()],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    return model


@pytest.mark.parametrize("mode", ["half_pixel", "pytorch_half_pixel", "align_corners"])
@pytest.mark.parametrize(
    "form", [{}, {"pick": False}, {"last": True}, {"pick": False, "last": True, "softmax": True}]
)
def test_the_cut_answers_as_the_whole_graph_does(mode: str, form) -> None:
    model = graph(mode, **form)
    found = recognise(model)
    head = found.contract.head
    assert head == SemanticHead(classes=CLASSES, corners=mode == "align_corners")
    cut = legalized(model, found.contract)
    (output,) = cut.graph.output
    assert [d.dim_value for d in output.type.tensor_type.shape.dim] == [1, CLASSES, 9, 9]
    assert not {"ArgMax", "Resize", "Softmax"} & {node.op_type for node in cut.graph.node}

    feed = np.random.default_rng(4).normal(0, 1, (1, 3, SIDE, SIDE)).astype(np.float32)
    (whole,) = OnnxSession(model.SerializeToString()).run([feed])
    session = OnnxSession(cut.SerializeToString())
    (logits,) = session.run([feed])
    box = plan((SIDE, SIDE), ImageInput(size=(SIDE, SIDE), fit="stretch"))
    classes = class_map(logits, session.outputs[0], head, box)
    if not form.get("pick", True):
        whole = whole.argmax(axis=3 if form.get("last") else 1)
    # Two orders of adding floats part where two classes are as good.
    assert (classes != whole[0]).mean() < 1e-3


@pytest.mark.parametrize(
    "other",
    [
        {"resize": "nearest"},
        {"mode": "asymmetric"},
    ],
)
def test_maps_that_would_be_read_in_another_way_are_not_taken_for_one(other) -> None:
    with pytest.raises(RkzooError, match="head of this model"):
        recognise(graph(**other))


def test_a_graph_with_another_end_is_left_as_it_is() -> None:
    model = graph("asymmetric")
    contract = Contract(
        family="x",
        picture=ImageInput(size=(SIDE, SIDE), fit="stretch"),
        head=SemanticHead(classes=CLASSES, picked=True),
    )
    kept = legalized(model, contract)
    assert [node.op_type for node in kept.graph.node][-1] == "ArgMax"
    session = OnnxSession(kept.SerializeToString())
    (best,) = session.run([np.ones((1, 3, SIDE, SIDE), np.float32)])
    box = plan((130, 130), contract.input)
    spec = TensorSpec(name="best", shape=best.shape, dtype="int64")
    assert np.array_equal(
        class_map(best, spec, contract.head, box),  # type: ignore[arg-type]
        best[0].repeat(2, axis=0).repeat(2, axis=1),
    )


@pytest.mark.parametrize(("kind", "offset"), [(TensorProto.UINT8, 0), (TensorProto.INT8, 128)])
def test_inputs_of_bytes_take_pixels_as_they_are(kind: int, offset: int) -> None:
    """What a quantised TFLite begins with: a cast, its zero point and its scale."""
    constants = {"z": np.float32(128 - offset), "s": np.float32(1 / 128)}
    node = helper.make_node
    made = helper.make_graph(
        [
            node("Cast", ["x"], ["f"], to=TensorProto.FLOAT),
            node("Sub", ["f", "z"], ["c"]),
            node("Mul", ["c", "s"], ["y"]),
        ],
        "bytes",
        [helper.make_tensor_value_info("x", kind, [1, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])],
        [numpy_helper.from_array(value, key) for key, value in constants.items()],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    bytes_as_floats(model)
    onnx.checker.check_model(model)
    pixels = np.array([[0, 1, 128, 255]], np.float32)
    (values,) = OnnxSession(model.SerializeToString()).run([pixels])
    assert values.tolist() == ((pixels - 128) / 128).tolist()


@pytest.mark.parametrize(("maps", "taken"), [(3, False), (4, True)])
def test_a_picture_made_of_a_picture_is_no_segmentation(maps: int, taken: bool) -> None:
    weights = np.random.default_rng(0).normal(size=(maps, 3, 3, 3)).astype(np.float32)
    whole = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])],
        "denoiser",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 32, 32])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, maps, 32, 32])],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(whole, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    assert recognise(model).family == ("semantic" if taken else "restore")


# ---- one map, and maps with a sigmoid each -------------------------------------------


def masks(
    maps: int, behind: tuple[str, ...], *, kernel: int = 1, last: bool = False
) -> onnx.ModelProto:
    """1x3x64x64 by a convolution to maps of 16x16 and what is `behind` them, to 64x64."""
    rng = np.random.default_rng(5)
    weights = {
        "w0": rng.normal(0, 0.5, (8, 3, 3, 3)).astype(np.float32),
        "w": rng.normal(0, 1, (maps, 8, kernel, kernel)).astype(np.float32),
        "roi": np.zeros(0, np.float32),
        "by": np.array([1, 1, 4, 4], np.float32),
    }
    node, side = helper.make_node, kernel // 2
    nodes = [
        node("Conv", ["picture", "w0"], ["f"], strides=[4, 4], pads=[1] * 4),
        node("Relu", ["f"], ["r"]),
        node("Conv", ["r", "w"], ["t"], pads=[side] * 4),
    ]
    name = "t"
    for index, kind in enumerate(behind):
        made = f"b{index}"
        inputs = [name, "roi", "by"] if kind == "Resize" else [name]
        given = {"mode": "linear"} if kind == "Resize" else {}
        nodes.append(node(kind, inputs, [made], **given))
        name = made
    if last:
        nodes.append(node("Transpose", [name], ["turned"], perm=[0, 2, 3, 1]))
        name = "turned"
    made_graph = helper.make_graph(
        nodes,
        "masks",
        [helper.make_tensor_value_info("picture", TensorProto.FLOAT, ["n", 3, "h", "w_"])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, key) for key, value in weights.items()],
    )
    return helper.make_model(made_graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


ENDS = [("Resize",), ("Resize", "Sigmoid"), ("Sigmoid", "Resize")]


@pytest.mark.parametrize("maps", [1, 2, 3, 7])
@pytest.mark.parametrize("behind", ENDS)
@pytest.mark.parametrize("last", [False, True])
def test_masks_are_those_of_the_whole_graph(maps: int, behind: tuple[str, ...], last: bool) -> None:
    model = masks(maps, behind, last=last)
    found = recognise(model, (64, 64))
    head = found.contract.head
    assert isinstance(head, SemanticHead)
    sigmoid = "Sigmoid" in behind
    assert head.multi_label is (sigmoid and maps > 1)
    feed = np.random.default_rng(6).normal(0, 1, (1, 3, 64, 64)).astype(np.float32)
    (whole,) = OnnxSession(model.SerializeToString()).run([feed])
    whole = whole.transpose(0, 3, 1, 2) if last else whole
    session = OnnxSession(legalized(model, found.contract).SerializeToString())
    (output,) = session.run([feed])
    assert output.shape == (1, maps, 16, 16)
    box = plan((64, 64), ImageInput(size=(64, 64), fit="stretch"))
    if head.multi_label:
        given, wanted = class_masks(output, session.outputs[0], head, box), whole[0] > 0.5
    elif maps == 1:
        given = class_map(output, session.outputs[0], head, box)
        wanted = whole[0, 0] > (0.5 if sigmoid else 0)
    else:
        given, wanted = class_map(output, session.outputs[0], head, box), whole[0].argmax(axis=0)
    assert (given != wanted).mean() < 1e-3
    assert len(np.unique(wanted)) > 1  # else nothing is shown


def test_a_sigmoid_right_behind_the_last_convolution_stays() -> None:
    """Probabilities use all of an INT8 scale of 0..1."""
    model = masks(1, ("Resize", "Sigmoid"))
    assert recognise(model, (64, 64)).contract.head == SemanticHead(classes=2, logits=True)
    full = masks(1, ("Sigmoid",))
    with pytest.raises(RkzooError):  # a map of a quarter of the picture may be anything
        recognise(full, (64, 64))


@pytest.mark.parametrize(
    ("names", "kept"), [((), ()), (("crack",), ("background", "crack")), (("a", "b"), ("a", "b"))]
)
def test_one_map_takes_the_name_of_its_object(
    names: tuple[str, ...], kept: tuple[str, ...]
) -> None:
    found = recognise(masks(1, ("Resize", "Sigmoid")), (64, 64), names)
    assert found.contract.labels == kept
    assert any("depth" in said for said in found.assumed) is (not names)


@pytest.mark.parametrize("kernel", [1, 3])
def test_three_maps_of_a_1x1_convolution_are_classes(kernel: int) -> None:
    weights = np.random.default_rng(0).normal(size=(3, 3, kernel, kernel)).astype(np.float32)
    whole = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"], pads=[kernel // 2] * 4)],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 32, 32])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3, 32, 32])],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(whole, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    if kernel == 1:
        assert recognise(model).contract.head == SemanticHead(classes=3)
    else:
        assert recognise(model).family == "restore"
