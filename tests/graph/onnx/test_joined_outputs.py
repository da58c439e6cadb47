"""Detections that leave a graph turned, or as boxes and scores apart, are read as usual ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tiny_yolo import Spec, stock

import rkzoo
from rkzoo.graph.families.registry import recognise, recognise_arranged
from rkzoo.graph.onnx.joined_outputs import joined_outputs

SHAPES = {"turned": [(8400, 84)], "apart": [(4, 8400), (80, 8400)], "both": [(8400, 4), (8400, 80)]}


def arranged(model: onnx.ModelProto, how: str) -> onnx.ModelProto:
    """The same numbers in another arrangement."""
    graph = model.graph
    name, kind = graph.output[0].name, graph.output[0].type.tensor_type.elem_type
    ends = [name]
    if how != "turned":
        for key, values in (("four", [4]), ("nought", [0]), ("all", [1 << 30]), ("axis", [1])):
            graph.initializer.append(numpy_helper.from_array(np.int64(values), key))
        ends = ["boxes", "scores"]
        graph.node.append(helper.make_node("Slice", [name, "nought", "four", "axis"], ["boxes"]))
        graph.node.append(helper.make_node("Slice", [name, "four", "all", "axis"], ["scores"]))
    if how != "apart":
        for end in ends:
            node = helper.make_node("Transpose", [end], [f"{end}_turned"], perm=[0, 2, 1])
            graph.node.append(node)
        ends = [f"{end}_turned" for end in ends]
    sides = [side.dim_value for side in graph.output[0].type.tensor_type.shape.dim]
    del graph.output[:]
    for end, (a, b) in zip(ends, SHAPES[how], strict=True):
        shape = [1, *((x if x != 8400 else sides[2]) for x in (a, b))] if sides else [1, a, b]
        shape = [1, *(sides[1] if x == 84 else sides[1] - 4 if x == 80 else x for x in shape[1:])]
        graph.output.append(helper.make_tensor_value_info(end, kind or TensorProto.FLOAT, shape))
    return model


@pytest.mark.parametrize("how", SHAPES)
def test_yolov8n_finds_the_same_in_every_arrangement(
    assets: Path, tmp_path: Path, how: str
) -> None:
    source, picture = assets / "models/yolov8n.onnx", assets / "data/images/bus_640.jpg"
    model = onnx.load(source)
    if not model.graph.output[0].type.tensor_type.shape.dim:
        pytest.skip("the file does not tell the shape of its output")
    onnx.save(arranged(model, how), tmp_path / "net.onnx")
    with rkzoo.load(source) as plain, rkzoo.load(tmp_path / "net.onnx") as other:
        a, b = plain(picture), other(picture)
    assert len(a) == len(b) == 5
    np.testing.assert_allclose(np.asarray(a.boxes), np.asarray(b.boxes), atol=1e-2)
    np.testing.assert_allclose(np.asarray(a.scores), np.asarray(b.scores), atol=1e-5)


@pytest.mark.toolkit
def test_it_is_cut_proved_and_built(assets: Path, tmp_path: Path) -> None:
    onnx.save(arranged(onnx.load(assets / "models/yolov8n.onnx"), "both"), tmp_path / "net.onnx")
    (built,) = rkzoo.convert(tmp_path / "net.onnx", "rk3588", dtype="fp16", output=tmp_path)
    assert built.proof is not None
    with rkzoo.load(built.rknn) as model:
        assert len(model(assets / "data/images/bus_640.jpg")) == 5


def test_what_is_arranged_as_usual_is_left_alone() -> None:
    model = stock(Spec(classes=3))
    assert joined_outputs(model) is None
    same, recognition = recognise_arranged(model)
    assert same is model
    assert recognition.family == recognise(model).family
