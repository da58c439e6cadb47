"""Heads between QuantizeLinear and DequantizeLinear: known, cut and proved, and near what ONNX
Runtime gives for the quantised graph itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from test_anchor_heads import answer, head_of, prove_it, reader
from tiny_anchor_heads import Net, anchored, ppyoloe
from tiny_undecoded import Raw, undecoded
from tiny_yolo import Spec, stock

from rkzoo.errors import RkzooError
from rkzoo.graph.families.registry import recognise
from rkzoo.graph.lowering.cut_head import cut_head
from rkzoo.graph.lowering.verify import MAX_BOX_PX
from rkzoo.graph.onnx.unrounded import unrounded

SIZE = (64, 96)
MAKE: dict[str, Callable[[], onnx.ModelProto]] = {
    "yolov8": lambda: stock(Spec()),
    "yolov5": lambda: anchored(Net()),
    "ppyoloe": lambda: ppyoloe(Net(bins=17), "plain"),
    "picodet": lambda: undecoded(Raw()),
}


def quantised(model: onnx.ModelProto, folder: Path, *, each_channel: bool) -> onnx.ModelProto:
    quantization = pytest.importorskip("onnxruntime.quantization")
    for number, node in enumerate(model.graph.node):
        node.name = f"n{number}"
    onnx.save(model, folder / "float.onnx")
    random = np.random.default_rng(0)

    class Reader(quantization.CalibrationDataReader):
        left = 4

        def get_next(self):
            self.left -= 1
            return {"images": random.random((1, 3, *SIZE), np.float32)} if self.left >= 0 else None

    quantization.quantize_static(
        folder / "float.onnx",
        folder / "model.onnx",
        Reader(),
        quant_format=quantization.QuantFormat.QDQ,
        per_channel=each_channel,
        activation_type=quantization.QuantType.QInt8,
        weight_type=quantization.QuantType.QInt8,
    )
    return onnx.load(folder / "model.onnx")


@pytest.mark.parametrize("each_channel", [False, True])
@pytest.mark.parametrize("name", MAKE)
def test_a_quantised_head_is_that_of_its_float_graph(
    name: str, each_channel: bool, tmp_path: Path
) -> None:
    plain = recognise(MAKE[name]())
    model = quantised(MAKE[name](), tmp_path, each_channel=each_channel)
    assert any(node.op_type == "QuantizeLinear" for node in model.graph.node[-30:])
    found = recognise(model)
    mine, theirs = head_of(found.contract), head_of(plain.contract)
    # Anchors of 373 pixels were rounded to steps of 3: those of the graph count.
    np.testing.assert_allclose(mine.anchors, theirs.anchors, atol=1.5)
    assert msgspec.structs.replace(mine, anchors=theirs.anchors) == theirs
    assert found.contract.input == plain.contract.input
    assert prove_it(model, found).box_px <= MAX_BOX_PX
    # The backbone keeps its rounding.
    kinds = [node.op_type for node in cut_head(model, found).graph.node]
    assert kinds.count("QuantizeLinear") >= 3


def test_the_cut_of_a_quantised_head_answers_nearly_as_the_whole(tmp_path: Path) -> None:
    model = quantised(stock(Spec()), tmp_path, each_channel=False)
    found = recognise(model)
    small = answer(cut_head(model, found), SIZE)
    boxes, scores, _ = reader(found.contract, {n: a.shape for n, a in small.items()}).dense(
        list(small.values())
    )
    (whole,) = answer(model, SIZE).values()
    centre, size = whole[0, :2].T, whole[0, 2:4].T
    corners = np.concatenate((centre - size / 2, centre + size / 2), axis=1)
    # What 8 bits for the boxes and the scores in one scale leave: a step of about a pixel.
    assert np.abs(scores - whole[0, 4:].T).max() < 1.5
    assert np.abs(boxes - corners).mean() < np.ptp(corners) / 100
    assert head_of(found.contract).reg_max == 16


def test_outputs_that_are_integers_are_read_as_the_numbers_before_rounding() -> None:
    model = undecoded(Raw())
    for output in list(model.graph.output):
        name = output.name
        for scale, kind in (("s", np.float32(0.1)), ("z", np.int8(0))):
            model.graph.initializer.append(numpy_helper.from_array(np.array(kind), name + scale))
        inputs = [name, f"{name}s", f"{name}z"]
        model.graph.node.append(helper.make_node("QuantizeLinear", inputs, [f"{name}_q"]))
        output.name = f"{name}_q"
        output.type.tensor_type.elem_type = onnx.TensorProto.INT8
    found = recognise(model)
    assert found.family == "picodet"
    assert found.contract == recognise(undecoded(Raw())).contract


@pytest.mark.parametrize("range_of", ["127 codes", "255 codes"])
def test_constants_of_a_quantised_tflite_file_are_restored(range_of: str) -> None:
    """tf2onnx leaves no scales: the bins of the distributions come as 0, .94, 2.01, ..."""
    model = stock(Spec())
    for tensor in model.graph.initializer:
        value = numpy_helper.to_array(tensor)
        if value.dtype == np.float32 and value.size > 1:
            step = np.abs(value).max() / 127
            if range_of == "255 codes":
                step = np.ptp(np.append(value, 0)) / 255
            rounded = (np.round(value / step) * step).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(rounded, tensor.name))
    with pytest.raises(RkzooError):
        recognise(model)
    model.producer_name = "tf2onnx"
    found = recognise(model)
    assert found.contract == recognise(stock(Spec())).contract
    assert prove_it(model, found).box_px <= MAX_BOX_PX


def test_only_whole_and_half_numbers_are_restored() -> None:
    def restored(values: np.ndarray, scale: float) -> np.ndarray:
        graph = helper.make_graph(
            [
                helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
                helper.make_node("Add", ["x", "d"], ["y"]),
            ],
            "g",
            [helper.make_tensor_value_info("x", 1, [len(values)])],
            [helper.make_tensor_value_info("y", 1, [len(values)])],
            [
                numpy_helper.from_array(np.round(values / scale).astype(np.int8), "q"),
                numpy_helper.from_array(np.float32(scale), "s"),
                numpy_helper.from_array(np.int8(0), "z"),
            ],
        )
        fresh = unrounded(helper.make_model(graph))
        (add,) = fresh.graph.node
        (value,) = [
            numpy_helper.to_array(t) for t in fresh.graph.initializer if t.name == add.input[1]
        ]
        return value

    bins, grid = np.arange(16.0), np.arange(80) + 0.5
    np.testing.assert_array_equal(restored(bins, 15 / 127), bins)
    np.testing.assert_array_equal(restored(grid, 79.5 / 127), grid)
    odd = np.array([0.21, 3.37, 7.93])
    np.testing.assert_allclose(restored(odd, 0.0625), odd, atol=0.0313)
    assert not np.array_equal(restored(odd, 0.0625), np.round(odd))
