"""What the toolkit refuses, or drops, ends in one sentence with a way out that works."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import yaml
from onnx import helper
from tiny_operators import behind_conv, model, stored

from rkzoo.cli.main import main
from rkzoo.errors import RkzooError
from rkzoo.graph.lowering.checks import Stop, stops
from rkzoo.graph.rknn import reader
from rkzoo.progress import SILENT
from rkzoo.workflow.compile.prepare import prepare
from rkzoo.workflow.request.request import Request
from rkzoo.workflow.request.resolve import resolve

PLAIN = Request(fit="none", raw=True)


def refusal(path: Path) -> RkzooError:
    with pytest.raises(RkzooError) as caught:
        prepare(resolve(str(path), PLAIN), ["rk3588"], "fp16", None, None, SILENT)
    return caught.value


def non_zero() -> onnx.ModelProto:
    nodes = [
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("NonZero", ["r"], ["places"], name="where"),
        helper.make_node("Cast", ["places"], ["y"], to=onnx.TensorProto.FLOAT),
    ]
    return behind_conv(nodes)


def constant_output() -> onnx.ModelProto:
    nodes = [
        helper.make_node("Relu", ["c"], ["y"]),
        helper.make_node("Identity", ["grid"], ["anchors"]),
    ]
    return behind_conv(nodes, ["y", "anchors"], [stored("grid", [1.0, 2.0], np.float32)])


def test_where_a_graph_stops_and_could_end() -> None:
    assert stops(non_zero()) == (Stop("where", "NonZero", ("r",)),)
    assert stops(constant_output()) == (Stop("anchors", None, ("y",)),)
    both = behind_conv(
        [helper.make_node("Relu", ["c"], ["r"]), helper.make_node("NonZero", ["c"], ["z"])],
        ["r", "z"],
    )
    assert stops(both) == (Stop("z", "NonZero", ("r", "c")),)
    first = model([helper.make_node("NonZero", ["x"], ["y"])], {"x": (2, 3)}, ["y"], [])
    assert stops(first) == (Stop("y", "NonZero", ()),)


def test_what_a_branch_reads_from_outside_is_where_it_could_end() -> None:
    branches = {
        name: helper.make_graph(
            [helper.make_node(operator, ["c"], [f"{operator}_out"])],
            operator,
            [],
            [helper.make_tensor_value_info(f"{operator}_out", onnx.TensorProto.FLOAT, None)],
        )
        for name, operator in (("then_branch", "Relu"), ("else_branch", "Neg"))
    }
    nodes = [
        helper.make_node("ReduceMax", ["c"], ["most"], keepdims=0),
        helper.make_node("Greater", ["most", "limit"], ["large"]),
        helper.make_node("If", ["large"], ["y"], **branches),
    ]
    graph = behind_conv(nodes, initializers=[stored("limit", 1.0, np.float32)])
    assert stops(graph) == (Stop("y", "If", ("large", "c")),)


def test_a_refused_operator_is_one_sentence_and_a_card_is_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "mine.onnx"
    onnx.save(non_zero(), path)
    error = refusal(path)
    assert error.what == "The toolkit refuses the operator NonZero (where)."
    assert "rkzoo card new" in error.fix
    assert "`outputs: [r]`" in error.fix


def test_an_output_that_is_constant_is_told(tmp_path: Path) -> None:
    path = tmp_path / "mine.onnx"
    onnx.save(constant_output(), path)
    error = refusal(path)
    assert error.what == "The output anchors does not depend on any input."
    assert "`outputs: [y]`" in error.fix


@pytest.mark.toolkit
@pytest.mark.parametrize(("make", "ends"), [(non_zero, "r"), (constant_output, "y")])
def test_the_way_out_builds(make: object, ends: str, tmp_path: Path) -> None:
    path, card = tmp_path / "mine.onnx", tmp_path / "mine.yaml"
    onnx.save(make(), path)  # type: ignore[operator]
    assert main(["card", "new", str(path), "--raw", "-o", str(card)]) == 0
    card.write_text(yaml.safe_dump(yaml.safe_load(card.read_text()) | {"outputs": [ends]}))
    out = tmp_path / "mine.rknn"
    given = ["convert", str(card), "--soc", "rk3588", "--dtype", "fp16", "-o", str(out)]
    assert main(given) == 0
    assert [spec.name for spec in reader.read(out).outputs] == [ends]


def converted(path: Path, dtype: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    samples = path.parent / "samples"
    samples.mkdir(exist_ok=True)
    for number in range(3):
        drawn = np.random.default_rng(number).standard_normal((1, 3, 12, 16))
        np.save(samples / f"{number}.npy", drawn.astype(np.float32))
    out = path.with_suffix(".rknn")
    given = ["convert", str(path), "--soc", "rk3588", "--fit", "none", "--raw", "-o", str(out)]
    code = main([*given, "--dtype", dtype, "--calib", str(samples)])
    assert out.exists() == (code == 0)
    return code, capsys.readouterr().err


@pytest.mark.toolkit
def test_fp16_is_named_where_it_was_tried_and_builds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.onnx"
    onnx.save(behind_conv([helper.make_node("Log", ["c"], ["y"])]), path)
    code, told = converted(path, "int8", capsys)
    assert code == 1
    assert "FP16 was tried and builds: use --dtype fp16." in told
    assert converted(path, "fp16", capsys)[0] == 0


@pytest.mark.toolkit
def test_an_output_that_the_toolkit_drops_is_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.onnx"
    nodes = [
        helper.make_node("Relu", ["c"], ["y"]),
        helper.make_node("Mul", ["y", "one"], ["z"]),
    ]
    onnx.save(behind_conv(nodes, ["y", "z"], [stored("one", 1.0, np.float32)]), path)
    code, told = converted(path, "fp16", capsys)
    assert code == 1
    assert "left the output y out of the .rknn" in told
    assert "`outputs: [z]`" in told
    code, told = converted(path, "int8", capsys)
    assert code == 1
    assert "FP16 was tried and fails too" in told
