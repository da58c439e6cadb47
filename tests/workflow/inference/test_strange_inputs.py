"""What a stranger feeds, and fed wrongly: ranges of -1..1, scalars, inputs that nothing reads,
numbers beyond a type, options that would change nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from tiny_yolo import stock

import rkzoo
from rkzoo.errors import RkzooError
from rkzoo.workflow.request.request import Request
from rkzoo.workflow.request.resolve import resolve

MEAN, STD = np.float32([123.675, 116.28, 103.53]), np.float32([58.395, 57.12, 57.375])


def in_front(model: onnx.ModelProto, factor: np.ndarray, shift: np.ndarray) -> onnx.ModelProto:
    """The graph with x * factor + shift, one number a channel, before it."""
    graph, name = model.graph, model.graph.input[0].name
    for node in graph.node:
        for place, read in enumerate(node.input):
            if read == name:
                node.input[place] = "fed"
    for key, value in (("factor", factor), ("shift", shift)):
        values = np.broadcast_to(np.asarray(value, np.float32).reshape(1, -1, 1, 1), (1, 3, 1, 1))
        graph.initializer.append(numpy_helper.from_array(np.array(values), key))
    graph.node.insert(0, helper.make_node("Add", ["scaled", "shift"], ["fed"]))
    graph.node.insert(0, helper.make_node("Mul", [name, "factor"], ["scaled"]))
    return model


def test_a_graph_that_takes_both_signs_is_fed_so(assets: Path, tmp_path: Path) -> None:
    """A division by two and a half more: what takes -1..1 brings it to 0..1; and with ImageNet's
    normalisation at once."""
    plain = {"yolo": "yolov8n.onnx", "imagenet": "mobilenetv2.onnx"}
    fronts = {
        "yolo": (np.float32(0.5), np.float32(0.5), "bus_640.jpg"),
        "imagenet": (127.5 / STD, (127.5 - MEAN) / STD, "dog_224.jpg"),
    }
    for kind, (factor, shift, picture) in fronts.items():
        model = onnx.load(assets / "models" / plain[kind])
        onnx.save(in_front(model, factor, shift), tmp_path / f"{kind}.onnx")
        with (
            rkzoo.load(assets / "models" / plain[kind]) as own,
            rkzoo.load(tmp_path / f"{kind}.onnx") as changed,
        ):
            a, b = (m(assets / "data/images" / picture) for m in (own, changed))
        assert len(a) == len(b)
        np.testing.assert_allclose(np.asarray(a.scores), np.asarray(b.scores), atol=2e-3)


@pytest.mark.parametrize("how", ["Resize", "Conv", "AveragePool"])
def test_a_normalisation_behind_what_moves_pixels_is_not_done_twice(
    assets: Path, tmp_path: Path, how: str
) -> None:
    """The file is asked itself, fed pixels of 0..255."""
    model = onnx.load(assets / "models/mobilenetv2.onnx")
    source = model.graph.input[0].name
    factor, shift = 1 / STD, -MEAN / STD
    if how == "Conv":  # of 1x1, which mixes no channels
        for node in model.graph.node:
            for place, read in enumerate(node.input):
                node.input[place] = "fed" if read == source else read
        model.graph.initializer.append(
            numpy_helper.from_array(np.diag(factor).reshape(3, 3, 1, 1), "factor")
        )
        model.graph.initializer.append(numpy_helper.from_array(shift, "shift"))
        model.graph.node.insert(0, helper.make_node("Conv", [source, "factor", "shift"], ["fed"]))
    else:
        model = in_front(model, factor, shift)
        model.graph.node[0].input[0] = "moved"
        if how == "Resize":
            scales = numpy_helper.from_array(np.float32([1, 1, 0.5, 0.5]), "scales")
            model.graph.initializer.append(scales)
            old = model.opset_import[0].version < 11
            reads = [source, "scales"] if old else [source, "roi", "scales"]
            model.graph.initializer.append(numpy_helper.from_array(np.float32([]), "roi"))
            node = helper.make_node("Resize", reads, ["moved"], mode="nearest")
        else:
            node = helper.make_node(
                "AveragePool", [source], ["moved"], kernel_shape=[2, 2], strides=[2, 2]
            )
        model.graph.node.insert(0, node)
        for side in model.graph.input[0].type.tensor_type.shape.dim[2:]:
            side.dim_value = 448
    onnx.save(model, tmp_path / "net.onnx")
    size = 224 if how == "Conv" else 448
    bgr = cv2.resize(cv2.imread(str(assets / "data/images/dog_224.jpg")), (size, size))
    pixels = bgr[..., ::-1].transpose(2, 0, 1)[None].astype(np.float32)
    (expected,) = ort.InferenceSession(tmp_path / "net.onnx").run(None, {source: pixels})
    with rkzoo.load(tmp_path / "net.onnx", fit="stretch") as net_model:
        result = net_model(bgr)
    assert result.class_ids is not None
    assert result.class_ids[0] == expected.argmax()
    odds = np.exp(expected[0] - expected.max())
    np.testing.assert_allclose(result.scores, (odds / odds.sum())[result.class_ids], atol=1e-4)


def net(**inputs: tuple[int, tuple[int, ...]]) -> onnx.ModelProto:
    """y = x * alpha, whatever else is declared."""
    infos = [helper.make_tensor_value_info(n, kind, shape) for n, (kind, shape) in inputs.items()]
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    nodes = [
        helper.make_node("Cast", ["x"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["float", "alpha"], ["y"]),
    ]
    graph = helper.make_graph(nodes, "net", infos, [y])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])


@pytest.fixture
def scaled(tmp_path: Path) -> Path:
    """An input of whole numbers, a scalar, and one that nothing reads."""
    file = tmp_path / "scaled.onnx"
    model = net(
        x=(TensorProto.INT32, (1, 4)), alpha=(TensorProto.FLOAT, ()), junk=(TensorProto.FLOAT, (3,))
    )
    onnx.save(model, file)
    return file


def test_scalars_and_inputs_that_nothing_reads(scaled: Path) -> None:
    x, alpha = np.int32([[1, -2, 3, 4]]), np.array(0.5, np.float32)
    fed = {"x": x, "alpha": alpha, "junk": np.zeros(3, np.float32)}
    (expected,) = ort.InferenceSession(scaled).run(None, fed)
    with rkzoo.load(scaled) as model:
        found = model({"x": x.tolist(), "alpha": alpha}).prediction["y"]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("x", "what"),
    [
        (np.int64([[1 << 40, 0, 0, 0]]), "beyond int32"),
        (np.float32([[0.5, 0, 0, 0]]), "fractions"),
        (np.array([[None] * 4], object), "no array of numbers"),
        ([["a", "b", "c", "d"]], "no array of numbers"),
        ([[1, 2], [3]], "no array of numbers"),
        (np.complex64([[1j, 0, 0, 0]]), "no array of numbers"),
        (np.zeros((1, 5)), "was given an array of 1x5"),
    ],
)
def test_what_an_input_cannot_take_is_refused(scaled: Path, x: Any, what: str) -> None:
    with rkzoo.load(scaled) as model, pytest.raises(RkzooError, match=what):
        model({"x": x, "alpha": 1.0})


def test_a_name_that_is_no_input_is_said(scaled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from rkzoo.cli.main import main

    assert main(["run", str(scaled), "x=a.npy", "alhpa=b.npy"]) == 2
    told = capsys.readouterr().err
    assert "no input alhpa" in told
    assert "x, alpha" in told


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"shapes": {"foo": (1, 3, 64, 96)}}, "no input foo"),
        ({"shapes": {"images": (1, 3, 32, 32)}}, "cannot have the shape"),
        ({"fit": "none"}, "--fit none"),
        ({"mean": "a,b"}, "--mean 'a,b'"),
    ],
)
def test_options_that_would_change_nothing_are_refused(
    tmp_path: Path, options: dict[str, Any], what: str
) -> None:
    onnx.save(stock(), tmp_path / "net.onnx")
    with pytest.raises(RkzooError, match=what):
        rkzoo.load(tmp_path / "net.onnx", **options)


def test_a_shape_fixes_the_size_of_a_known_head(tmp_path: Path) -> None:
    model = stock()
    sides = model.graph.input[0].type.tensor_type.shape.dim
    name = model.graph.input[0].name
    wanted = [side.dim_value for side in sides]
    sides[2].dim_param, sides[3].dim_param = "h", "w"
    onnx.save(model, tmp_path / "net.onnx")
    file = str(tmp_path / "net.onnx")
    contract = resolve(file, Request(shapes={name: wanted})).contract
    assert contract.input.size == tuple(wanted[2:])
    with pytest.raises(RkzooError, match="--size"):
        resolve(file)


def test_one_number_is_the_mean_of_every_channel_and_a_dict_is_no_picture(tmp_path: Path) -> None:
    onnx.save(stock(), tmp_path / "net.onnx")
    options: dict[str, Any] = {"mean": 127.5, "std": 127.5}
    with (
        rkzoo.load(tmp_path / "net.onnx", **options) as model,
        pytest.raises(RkzooError, match="one picture at a time"),
    ):
        model({"images": np.zeros((8, 8, 3), np.uint8)})
