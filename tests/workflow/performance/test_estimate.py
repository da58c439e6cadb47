"""estimate: what is built and what is kept, with a stand-in for the toolkit, and once for real."""

from __future__ import annotations

import json
import re
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tiny_yolo import stock

from rkzoo.cli.main import main
from rkzoo.errors import RkzooError
from rkzoo.speed.table import CostTable
from rkzoo.toolkit import environment
from rkzoo.toolkit.builds import BuildInputs
from rkzoo.toolkit.logscan import LayerCost
from rkzoo.toolkit.process import ToolkitProcess
from rkzoo.toolkit.recipe import Recipe
from rkzoo.workflow.performance import estimate as module
from rkzoo.workflow.performance.estimate import estimate, every_chip, read_subject
from rkzoo.workflow.request import resolve as resolving
from rkzoo.workflow.request.request import Request


def plain(path: Path, shape: list[object], op: str = "Relu") -> Path:
    """A graph that is nothing rkzoo knows: a convolution and one operator."""
    kernel = np.random.default_rng(0).standard_normal((8, 3, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], "conv", strides=[2, 2], pads=[1] * 4),
        helper.make_node(op, ["c"], ["y"], "last"),
    ]
    graph = helper.make_graph(
        nodes,
        "plain",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(kernel, "w")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 12)])
    made.ir_version = 7
    onnx.save(made, path)
    return path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return plain(tmp_path / "net.onnx", [1, 3, 32, 32])


class Builds:
    """In place of the toolkit: a table whose cycles tell the chip, and a list of what was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.broken: set[str] = set()

    def __call__(self, subject, wanted, toolkit, report):
        made = {}
        for soc, dtype in wanted:
            self.asked.append((soc, dtype))
            if soc in self.broken:
                made[soc, dtype] = RkzooError(f"{soc} could not be built.", code=1)
                continue
            table = self.table(soc, dtype)
            place = module._place(subject.known.digest(dtype, soc, toolkit))
            module.keep(place, msgspec.json.encode(table))
            made[soc, dtype] = table
        return made

    @staticmethod
    def table(soc: str, dtype: str) -> CostTable:
        rows = [
            LayerCost(
                i, "ConvExSwish", "INT8", "NPU", ((1, 3, 32, 32), (8, 3, 3, 3)), (1, 8, 32, 32),
                0, 0, 1000 * (i + 1), 3.0, f"Conv:c{i}",
            )
            for i in range(15)
        ]  # fmt: skip
        return CostTable(
            soc=soc, dtype=dtype, toolkit="2.5.0", size=5, weights=2**20, internal=2**21,
            layers=tuple(rows),
        )  # fmt: skip


@pytest.fixture
def toolkit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Builds:
    monkeypatch.setenv("RKZOO_CACHE", str(tmp_path / "cache"))
    made = Builds()
    monkeypatch.setattr(module, "_build_all", made)
    return made


def test_the_second_time_nothing_is_built_nor_read(
    model: Path, toolkit: Builds, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = estimate(model, ["rk3588", "rk3562"])
    assert toolkit.asked == [("rk3588", "int8"), ("rk3562", "int8")]
    monkeypatch.setattr(module, "read_subject", None)  # a call would fail
    assert estimate(model, ["rk3588", "rk3562"]) == first
    assert len(toolkit.asked) == 2


def test_a_changed_file_or_another_size_is_built_again(tmp_path: Path, toolkit: Builds) -> None:
    path = plain(tmp_path / "net.onnx", ["n", 3, "h", "w"])
    estimate(path, ["rk3588"], Request(size=(32, 32)))
    estimate(path, ["rk3588"], Request(size=(64, 32)))
    plain(path, ["n", 3, "h", "w"], "Sigmoid")
    estimate(path, ["rk3588"], Request(size=(32, 32)))
    assert len(toolkit.asked) == 3


def test_damaged_results_are_made_again(model: Path, toolkit: Builds) -> None:
    first = estimate(model, ["rk3588"])
    for file in (module.cache_dir("estimates")).glob("*.json"):
        # Valid JSON with another figure, which only the digest shows.
        changed = re.sub(
            rb"(\d)\.0", lambda digit: b"%d.0" % ((int(digit[1]) + 1) % 10), file.read_bytes()
        )
        file.write_bytes(changed)
    assert estimate(model, ["rk3588"]) == first
    assert len(toolkit.asked) == 2


def test_a_family_is_built_once(model: Path, toolkit: Builds) -> None:
    found = estimate(model, ["rk3566", "rk3568", "rv1103", "rv1106"])
    assert len(toolkit.asked) == 2
    assert [one.soc for one in found] == ["rk3566", "rk3568", "rv1103", "rv1106"]
    assert found[0].latency == found[1].latency
    assert found[2].fit is not None
    assert found[3].fit is not None
    assert found[2].fit.memory < found[3].fit.memory


def test_all_chips_each_in_a_format_that_it_can(model: Path, toolkit: Builds) -> None:
    found = estimate(model, every_chip())
    dtypes = {one.soc: one.dtype for one in found}
    assert dtypes["rk2118"] == "fp16"
    assert dtypes["rk3588"] == "int8"
    calibrated = {one.soc for one in found if one.latency and one.latency.ms is not None}
    assert calibrated == {"rk3588", "rk3576", "rk3562", "rk3566", "rk3568"}


def test_one_chip_that_fails_does_not_take_the_others(model: Path, toolkit: Builds) -> None:
    toolkit.broken = {"rk3562"}
    good, bad = estimate(model, ["rk3588", "rk3562"])
    assert good.latency is not None
    assert bad.latency is None
    assert "rk3562" in str(bad.to_json()["error"])
    with pytest.raises(RkzooError, match="rk3562"):
        estimate(model, ["rk3562"])
    # A failure is not kept.
    toolkit.broken = set()
    assert estimate(model, ["rk3562"])[0].latency is not None


def test_the_costliest_come_first_and_are_ten(model: Path, toolkit: Builds) -> None:
    (found,) = estimate(model, ["rk3588"])
    times = [one.ms for one in found.costliest]
    assert len(times) == 10
    assert times == sorted(times, reverse=True)
    assert found.costliest[0].name == "Conv:c14"
    assert found.latency is not None
    assert found.latency.ms == pytest.approx(sum(found.latency.layers))


def test_a_known_head_is_cut_before_it_is_built(tmp_path: Path, toolkit: Builds) -> None:
    path = tmp_path / "tiny.onnx"
    onnx.save(stock(), path)
    subject = read_subject(str(path))
    outputs = onnx.load_from_string(subject.graph).graph.output
    assert len(outputs) == 6  # a box and a score for each of three levels
    assert subject.inputs[0].shape == (1, 3, 64, 96)


def test_a_graph_is_parsed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    onnx.save(stock(), tmp_path / "tiny.onnx")
    parsed = []
    for room in (module, resolving):
        inner = room.load
        monkeypatch.setattr(room, "load", lambda path, f=inner: parsed.append(path) or f(path))
    read_subject(str(tmp_path / "tiny.onnx"))
    assert len(parsed) == 1


def test_operators_that_fall_are_told_before_anything_is_built(
    tmp_path: Path, toolkit: Builds
) -> None:
    path = plain(tmp_path / "net.onnx", [1, 3, 32, 32], "Softmax")
    found = {one.soc: one for one in estimate(path, ["rk3568", "rk3588"])}
    assert [fallen.operator for fallen in found["rk3568"].expected] == ["Softmax"]
    assert found["rk3588"].expected == ()


def test_a_free_shape_needs_a_size(tmp_path: Path, toolkit: Builds) -> None:
    path = plain(tmp_path / "net.onnx", ["n", 3, "h", "w"])
    with pytest.raises(RkzooError, match="no fixed shape"):
        estimate(path, ["rk3588"])


def test_what_cannot_be_estimated_is_said(tmp_path: Path, toolkit: Builds) -> None:
    with pytest.raises(RkzooError, match="built already"):
        estimate(tmp_path / "x.rknn", ["rk3588"])
    with pytest.raises(RkzooError):
        estimate(tmp_path / "missing.onnx", ["rk3588"])
    (tmp_path / "broken.onnx").write_bytes(b"\x08\x07 no graph")
    with pytest.raises(RkzooError):
        estimate(tmp_path / "broken.onnx", ["rk3588"])
    with pytest.raises(RkzooError, match="no chip called"):
        estimate(tmp_path / "x.onnx", ["rk9999"])


def test_the_verb_tells_what_the_figures_rest_on(
    model: Path, toolkit: Builds, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["estimate", str(model), "--soc", "rk3588,rv1106"]) == 0
    shown = capsys.readouterr().out
    for word in ("not measured on a board", "uncalibrated", "costliest", "inside the chip"):
        assert word in shown
    assert main(["estimate", str(model), "--soc", "all", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert len(told["chips"]) == len(every_chip())
    assert told["basis"]["chips"]["rk3588"]["networks"] >= 16
    one = told["chips"][0]
    assert one["ms_low"] < one["ms"] < one["ms_high"]


@pytest.mark.toolkit
def test_mobilenet_for_real(tmp_path: Path) -> None:
    """The vendor documents 3.53 MiB of weights for MobileNetV2 on an RK3588, read on a board,
    and publishes 450.7 FPS."""
    if (why := environment.unavailable()) is not None:
        pytest.skip(str(why))
    from latency_networks import mobilenetv2

    path = tmp_path / "mobilenetv2.onnx"
    onnx.save(mobilenetv2().model(), path)
    (found,) = estimate(path, ["rk3588"])
    assert found.table is not None
    assert found.table.weights is not None
    assert found.table.weights / 2**20 == pytest.approx(3.53, rel=0.05)
    assert found.on_cpu == ()
    assert found.latency is not None
    assert found.latency.ms == pytest.approx(1000 / 450.7, rel=0.6)


@pytest.mark.toolkit
def test_noise_and_pictures_give_the_same_table(tmp_path: Path) -> None:
    """What is said of the INT8 ranges: they decide no layer's cost."""
    if (why := environment.unavailable()) is not None:
        pytest.skip(str(why))
    onnx.save(stock(), tmp_path / "tiny.onnx")
    subject = read_subject(str(tmp_path / "tiny.onnx"))
    random = np.random.default_rng(1)
    slope = np.linspace(0, 255, 64 * 96 * 3).reshape(1, 64, 96, 3).astype(np.uint8)
    tables = []
    for number, pictures in enumerate((random.integers(0, 256, (3, 64, 96, 3), np.uint8), slope)):
        place = tmp_path / str(number)
        place.mkdir()
        (place / "model.onnx").write_bytes(subject.graph)
        np.save(place / "calibration-0.npy", pictures)
        recipe = Recipe(soc="rk3568", dtype="int8", inputs=subject.inputs)
        with ToolkitProcess(environment.ensure()) as process:
            made = process.build(
                BuildInputs(place / "model.onnx", recipe, place), place / "out.rknn"
            )
        tables.append(((made.layers, made.weights, made.internal), made.size))
    (one, size), (other, other_size) = tables
    assert one == other
    assert size == pytest.approx(other_size, rel=0.01)  # the scales themselves take some bytes
