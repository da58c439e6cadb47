"""A model that comes quantised (QDQ nodes) goes through convert with the scales it has."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from tiny_yolo import Spec, stock

from rkzoo.errors import RkzooError
from rkzoo.graph.lowering.checks import is_quantised, quantization_info
from rkzoo.progress import _SilentReporter
from rkzoo.toolkit.recipe import Sidecar
from rkzoo.workflow.compile.convert import convert
from rkzoo.workflow.compile.simulate import open_rknn

# The toolkit fails on a quantised convolution of stride 8: KeyError "..__float16_conv".
SPEC = Spec(strides=(4, 8, 16))


class Notes(_SilentReporter):
    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, message: str) -> None:
        self.said.append(message)


@pytest.fixture(scope="module")
def quantised(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A YOLO whose backbone is quantised and whose head is not, as is usual."""
    quantization = pytest.importorskip("onnxruntime.quantization")
    folder = tmp_path_factory.mktemp("qdq")
    model = stock(SPEC)
    for number, node in enumerate(model.graph.node):
        node.name = f"n{number}"
    onnx.save(model, folder / "float.onnx")
    head = [
        node.name
        for node in model.graph.node
        if node.op_type == "Conv"
        and not any(a.name == "strides" and a.ints[0] > 1 for a in node.attribute)
    ]
    random = np.random.default_rng(0)

    class Reader(quantization.CalibrationDataReader):
        left = 3

        def get_next(self):
            self.left -= 1
            shape = (1, 3, *SPEC.size)
            return {"images": random.random(shape, np.float32)} if self.left >= 0 else None

    quantization.quantize_static(
        folder / "float.onnx",
        folder / "model.onnx",
        Reader(),
        quant_format=quantization.QuantFormat.QDQ,
        activation_type=quantization.QuantType.QInt8,
        weight_type=quantization.QuantType.QInt8,
        op_types_to_quantize=["Conv", "Relu"],
        nodes_to_exclude=head,
    )
    return folder / "model.onnx"


def test_what_counts_as_quantised(quantised: Path) -> None:
    assert not is_quantised(stock(SPEC))
    model = onnx.load(quantised)
    assert is_quantised(model)
    rounded = next(n.output[0] for n in model.graph.node if n.op_type == "DequantizeLinear")
    model.graph.output.append(onnx.helper.make_tensor_value_info(rounded, 1, None))
    model.graph.node[0].op_type = "QLinearConv"
    found = quantization_info(model)
    assert found is not None
    assert (found.integer, found.read_inside) == (("QLinearConv",), (rounded,))


def test_weights_that_are_only_stored_as_integers_do_not_count() -> None:
    model = stock(SPEC)
    weight = next(t.name for t in model.graph.initializer if t.dims and len(t.dims) == 4)
    for kind, reads in (("QuantizeLinear", weight), ("DequantizeLinear", "q")):
        model.graph.node.insert(0, onnx.helper.make_node(kind, [reads, "s", "z"], [f"{reads}_q"]))
    assert not is_quantised(model)


@pytest.mark.toolkit
def test_it_is_converted_without_calibration_and_simulated(quantised: Path, tmp_path: Path) -> None:
    notes = Notes()
    out = tmp_path / "model.rknn"
    (made,) = convert(str(quantised), "rk3588", output=out, report=notes)
    assert any("came quantised" in said for said in notes.said)
    assert made.dtype == "int8"
    assert made.proof is not None
    recipe = msgspec.json.decode(made.sidecar.read_bytes(), type=Sidecar).recipe
    assert recipe.quantised
    _, session = open_rknn(out)
    with session:
        picture = np.random.default_rng(1).integers(0, 256, (1, *SPEC.size, 3), dtype=np.uint8)
        assert all(np.isfinite(array).all() for array in session.run([picture]))


def test_it_is_refused_in_float(quantised: Path, tmp_path: Path) -> None:
    with pytest.raises(RkzooError, match="quantised already"):
        convert(str(quantised), "rk3588", dtype="fp16", output=tmp_path / "model.rknn")
    assert not (tmp_path / "model.rknn").exists()
