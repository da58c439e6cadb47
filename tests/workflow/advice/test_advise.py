"""advise: what is proposed, how it is ranked and told, and what is written; the toolkit by a
stand-in, and once for real."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tiny_yolo import stock

from rkzoo.accuracy.metric import Metric
from rkzoo.cli.main import main
from rkzoo.errors import RkzooError
from rkzoo.speed.latency import cpu_price
from rkzoo.speed.table import CostTable
from rkzoo.toolkit import environment
from rkzoo.toolkit.logscan import LayerCost
from rkzoo.workflow.advice import advise as advising
from rkzoo.workflow.advice.advise import Advice, advise
from rkzoo.workflow.performance import estimate as estimating
from rkzoo.workflow.performance.estimate import Estimate, EstimateSubject, every_chip
from rkzoo.workflow.request.quantization import read_recipe
from rkzoo.workflow.request.request import Request


def network(path: Path, *, free: bool = False) -> Path:
    """A convolution, SiLU, SPP's large pool, a convolution; a largest value behind them."""
    random = np.random.default_rng(0)
    sides = ("h", "w") if free else (96, 96)
    nodes = [
        helper.make_node("Conv", ["x", "a"], ["c"], "first", pads=[1] * 4),
        helper.make_node("Sigmoid", ["c"], ["s"], "bend"),
        helper.make_node("Mul", ["c", "s"], ["m"], "silu"),
        helper.make_node("MaxPool", ["m"], ["p"], "pool", kernel_shape=[9, 9], pads=[4] * 4),
        helper.make_node("Conv", ["p", "b"], ["d"], "last", pads=[1] * 4),
        helper.make_node("ReduceMax", ["d"], ["y"], "best", axes=[1], keepdims=1),
    ]
    shapes = {"a": (16, 3, 3, 3), "b": (4, 16, 3, 3)}
    stored = [
        numpy_helper.from_array((random.standard_normal(shape) * 0.2).astype(np.float32), name)
        for name, shape in shapes.items()
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, *sides])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        stored,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    onnx.save(model, path)
    return path


PRICE = f"{cpu_price('rk3588')[1]:.0f} ms"


class Costs:
    """In place of the toolkit: a million cycles for 96x96 pixels, as many for a sigmoid and for a
    large pool; ReduceMax on the processor, reading a megabyte. Float16 takes twice as long, and has
    nothing on the processor."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.broken: set[str] = set()
        self.weights = 2**20

    def table(self, subject: EstimateSubject, soc: str, dtype: str) -> CostTable:
        graph = onnx.ModelProto.FromString(subject.graph).graph
        size = subject.inputs[0].shape[2:]
        pixels = size[0] * size[1] / 96**2
        rows = [_row("Conv", 2e6 * pixels)]
        for node in graph.node:
            if node.op_type == "Sigmoid" or _is_large(node):
                rows.append(_row(node.op_type, 1e6 * pixels))
            if node.op_type == "ReduceMax" and dtype == "int8":
                rows.append(_row(node.op_type, 0, "CPU", 1024.0))
        factor = 2 if dtype == "fp16" else 1
        rows = [row for row in rows for _ in range(factor)] if factor > 1 else rows
        return CostTable(soc, dtype, "2.5.0", 9, self.weights, 2**21, tuple(rows))  # type: ignore[arg-type]

    def __call__(self, subject, soc, dtype, toolkit, report) -> Estimate:
        self.asked.append((soc, dtype))
        value: CostTable | RkzooError = self.table(subject, soc, dtype)
        if dtype in self.broken:
            value = RkzooError("The toolkit failed.", "It always does.", "Wait.")
        return estimating._estimate(subject.known, soc, dtype, value)


def _is_large(node: onnx.NodeProto) -> bool:
    return any(a.name == "kernel_shape" and max(a.ints) > 5 for a in node.attribute)


def _row(op: str, cycles: float, target: str = "NPU", read: float = 1.0) -> LayerCost:
    shapes = ((1, 3, 96, 96), (16, 3, 3, 3)) if op == "Conv" else ((1, 16, 96, 96),)
    whole = int(cycles)
    return LayerCost(
        1, op, "INT8", target, shapes, (1, 16, 96, 96), whole // 2, whole, whole, read, f"{op}:{op}"
    )  # fmt: skip


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RKZOO_CACHE", str(tmp_path / "cache"))
    return network(tmp_path / "net.onnx")


def kinds(advice: Advice) -> list[str]:
    return [proposal.name for proposal in advice.proposals]


def test_what_saves_most_comes_first(model: Path) -> None:
    """By hand: as it is 4 Mcycles (on rk3588 about as many ms) and 1.05 MB
    on the processor, which on rk3568 is some 60 ms a MB; so what frees the processor is first."""
    costs = Costs()
    advice = advise(model, "RK3588", cost=costs)
    assert advice.soc == "rk3588"
    assert kinds(advice)[:2] == ["end-at-weights", "dtype-fp16"]
    # 64x64 is the only smaller size of two strides or more; the pool and SiLU cost the same.
    assert set(kinds(advice)[2:]) == {"size-64x64", "relu", "small-pools"}
    assert kinds(advice)[2] == "size-64x64"
    assert [proposal.number for proposal in advice.proposals] == [1, 2, 3, 4, 5]
    by = {proposal.name: proposal for proposal in advice.proposals}
    assert by["size-64x64"].gain == pytest.approx(1 - (64 / 96) ** 2, abs=0.05)
    assert by["relu"].gain == pytest.approx(0.25, abs=0.02)
    assert by["dtype-fp16"].gain == pytest.approx(-1.0, abs=0.01)  # twice the layers
    assert by["end-at-weights"].estimate.on_cpu == ()
    assert costs.asked == [("rk3588", "int8"), ("rk3588", "fp16"), *[("rk3588", "int8")] * 4]


def test_it_says_which_layers_cost_and_what_the_processor_does(model: Path) -> None:
    advice = advise(model, "rk3588", cost=Costs())
    first = advice.layers[0]
    assert (first.op, first.name) == ("Conv", "Conv:Conv")
    assert sum(layer.share for layer in advice.layers) == pytest.approx(1)
    assert any("1 ReduceMax (1.0 MB)" in hint for hint in advice.hints)
    assert any(f"{PRICE} a megabyte, as on rk3568" in hint for hint in advice.hints)
    assert any("3 NPU cores" in hint for hint in advice.hints)
    # rk3566 has one core, and a price for the processor, its family's.
    hints = advise(model, "rk3566", cost=Costs()).hints
    assert not any("cores" in hint or "as if it were" in hint for hint in hints)


def test_a_model_too_large_for_the_memory_inside_is_told(model: Path) -> None:
    """RV1103 has 64 MB inside."""
    costs = Costs()
    for weights, said in ((2**20, ""), (40 * 2**20, "fits barely"), (70 * 2**20, "does not fit")):
        costs.weights = weights
        hints = [hint for hint in advise(model, "rv1103", cost=costs).hints if "MiB" in hint]
        assert [said in hint for hint in hints] == ([True] if said else [])


def test_one_layer_that_takes_most_is_named(model: Path) -> None:
    """Of a network of more than a handful of layers."""

    class Deep(Costs):
        def table(self, subject: EstimateSubject, soc: str, dtype: str) -> CostTable:
            rows = (_row("Conv", 9e6), *(_row("Conv", 1e6) for _ in range(10)))
            return CostTable(soc, "int8", "2.5.0", 9, 1, 1, rows)

    hints = advise(model, "rk3588", cost=Deep()).hints
    assert any("alone takes 4" in hint and "16 channels of output" in hint for hint in hints)


def test_what_cannot_be_built_comes_last_and_says_why(model: Path) -> None:
    costs = Costs()
    costs.broken = {"fp16"}
    last = advise(model, "rk3588", cost=costs).proposals[-1]
    assert last.name == "dtype-fp16"
    assert "The toolkit failed. It always does." in last.note
    assert last.words == ()
    with pytest.raises(RkzooError, match="cannot be applied"):
        advise(model, "rk3588", cost=costs, apply=last.number)


def test_a_model_that_cannot_be_built_as_it_is_raises(model: Path) -> None:
    costs = Costs()
    costs.broken = {"int8"}
    with pytest.raises(RkzooError, match="The toolkit failed"):
        advise(model, "rk3588", cost=costs)
    assert kinds(advise(model, "rk3588", Request(dtype="fp16"), cost=costs))


def test_a_free_size_is_an_option_and_a_fixed_one_needs_an_export(tmp_path: Path) -> None:
    path = network(tmp_path / "free.onnx", free=True)
    advice = advise(path, "rk3588", Request(size=(96, 96)), cost=Costs())
    by = {proposal.name: proposal for proposal in advice.proposals}
    assert by["size-64x64"].words[-2:] == ("--size", "64x64")
    assert by["size-64x64"].numbers == "other size"
    fixed = advise(network(tmp_path / "fixed.onnx"), "rk3588", cost=Costs())
    (size,) = [proposal for proposal in fixed.proposals if proposal.name.startswith("size")]
    assert (size.numbers, size.words) == ("needs an export", ())


def test_a_detector_has_its_head_cut_and_its_scores_as_logits(tmp_path: Path) -> None:
    path = tmp_path / "tiny.onnx"
    onnx.save(stock(), path)
    assert "head-logits" in kinds(advise(path, "rk3588", cost=Costs()))
    assert "head-cut" in kinds(advise(path, "rk3588", Request(cut=False), cost=Costs()))
    # RV1106 has no float16.
    assert "dtype-fp16" not in kinds(advise(path, "rv1106", cost=Costs()))


def _number(advice: Advice, name: str) -> int:
    return next(p.number for p in advice.proposals if p.name == name)


def test_what_keeps_the_numbers_is_written(model: Path, tmp_path: Path) -> None:
    """Held to ONNX Runtime here too."""
    import onnxruntime

    advice = advise(model, "rk3588", cost=Costs())
    picture = {"x": np.random.default_rng(1).random((1, 3, 96, 96), np.float32)}
    expected = onnxruntime.InferenceSession(model).run(None, picture)[0]
    out = tmp_path / "out.onnx"
    done = advise(model, "rk3588", cost=Costs(), apply=_number(advice, "small-pools"), output=out)
    assert done.written == (out,)
    assert np.array_equal(onnxruntime.InferenceSession(out).run(None, picture)[0], expected)
    done = advise(
        model, "rk3588", cost=Costs(), apply=_number(advice, "end-at-weights"), output=out
    )
    first, rest = (onnxruntime.InferenceSession(path) for path in done.written)
    inner = dict(zip([o.name for o in first.get_outputs()], first.run(None, picture), strict=True))
    assert np.allclose(rest.run(None, inner)[0], expected, atol=1e-6)


def test_scores_as_logits_are_a_recipe(tmp_path: Path) -> None:
    path, out = tmp_path / "tiny.onnx", tmp_path / "out.yaml"
    onnx.save(stock(), path)
    number = _number(advise(path, "rk3588", cost=Costs()), "head-logits")
    assert advise(path, "rk3588", cost=Costs(), apply=number, output=out).written == (out,)
    assert read_recipe(out).quantise.head == "logits"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("relu", "only a training makes them right"),
        ("size-64x64", "exporter's to change"),
        ("dtype-fp16", "--dtype fp16"),
    ],
)
def test_what_changes_the_numbers_is_not_written(
    model: Path, tmp_path: Path, name: str, said: str
) -> None:
    number = _number(advise(model, "rk3588", cost=Costs()), name)
    with pytest.raises(RkzooError, match=said):
        advise(model, "rk3588", cost=Costs(), apply=number, output=tmp_path / "out.onnx")
    assert not (tmp_path / "out.onnx").exists()


@pytest.mark.parametrize("number", [6, 99])
def test_a_number_out_of_range_says_how_many_there_are(model: Path, number: int) -> None:
    with pytest.raises(RkzooError, match="There are 5"):
        advise(model, "rk3588", cost=Costs(), apply=number)


@pytest.mark.parametrize("number", [0, -1])
def test_a_number_below_one_is_refused_before_anything_is_built(model: Path, number: int) -> None:
    costs = Costs()
    with pytest.raises(RkzooError, match="numbered from 1"):
        advise(model, "rk3588", cost=costs, apply=number)
    assert not costs.asked


def test_the_model_itself_is_not_overwritten(model: Path, tmp_path: Path) -> None:
    before, costs = model.read_bytes(), Costs()
    with pytest.raises(RkzooError, match="would be overwritten"):
        advise(model, "rk3588", cost=costs, apply=1, output=model)
    with pytest.raises(RkzooError, match="goes with --apply"):
        advise(model, "rk3588", cost=costs, output=tmp_path / "out.onnx")
    assert model.read_bytes() == before
    assert not costs.asked


def test_a_wrong_suffix_is_refused(model: Path, tmp_path: Path) -> None:
    number = _number(advise(model, "rk3588", cost=Costs()), "small-pools")
    with pytest.raises(RkzooError, match=r"Give -o .*out\.onnx"):
        advise(model, "rk3588", cost=Costs(), apply=number, output=tmp_path / "out.yaml")


def test_what_cannot_be_asked_is_said_before_anything_is_built(model: Path, tmp_path: Path) -> None:
    costs = Costs()
    for chip, request, path, said in (
        ("rk3589", None, model, "rk3588"),
        ("rk3588", Request(confidence=0.5), model, "confidence does not go with rkzoo advise"),
        ("rk3588", None, tmp_path / "net.rknn", "built already"),
        ("rk3588", None, tmp_path / "none.onnx", "none.onnx"),
    ):
        with pytest.raises(RkzooError, match=said):
            advise(path, chip, request, cost=costs)
    with pytest.raises(RkzooError, match="Nothing can be written"):
        advise(model, "rk3588", cost=costs, apply=1, output=model / "out.onnx")
    for data, limit in ((tmp_path / "nowhere", None), (tmp_path, 0)):
        with pytest.raises(RkzooError):
            advise(model, "rk3588", cost=costs, data=str(data), limit=limit)
    assert costs.asked == []


@pytest.fixture
def toolkit(monkeypatch: pytest.MonkeyPatch) -> Costs:
    """The stand-in below the cache of estimates."""
    costs = Costs()

    def build(subject, requested, toolkit, report):
        ((soc, dtype),) = requested
        costs.asked.append((soc, dtype))
        table = costs.table(subject, soc, dtype)
        place = estimating._place(subject.known.digest(dtype, soc, toolkit))
        estimating.keep(place, estimating.msgspec.json.encode(table))
        return {(soc, dtype): table}

    monkeypatch.setattr(estimating, "_build_all", build)
    return costs


class Data:
    """A data set in name only."""

    name = "some pictures"


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """In place of the simulator: .9 in float32, .8 in float16, .5 in INT8; what was measured."""
    done: list[tuple[str, str]] = []

    def part(ready: Any, runtime: str, request: Request, report: Any) -> Any:
        value = {"onnx": 0.9}.get(runtime, 0.8 if request.dtype == "fp16" else 0.5)
        done.append((runtime, request.dtype or ""))
        return SimpleNamespace(backend=SimpleNamespace(label=runtime), value=value)

    def evaluated(plan: Any, dataset: Data, **options: Any) -> Any:
        value = plan.parts["model"].value
        metric = Metric("accuracy", value, "", higher_is_better=True, gate=0.01, main=True)
        return SimpleNamespace(main=metric, failed=())

    monkeypatch.setattr(advising, "part", part)
    monkeypatch.setattr(advising, "evaluate_plan", evaluated)
    monkeypatch.setattr(advising, "reference_data", lambda *_: Data())
    monkeypatch.setattr(advising, "calibrated_on", lambda dataset, request, *_: request)
    return done


def test_with_data_the_accuracy_stands_beside(
    model: Path, measured: list[tuple[str, str]], toolkit: Costs, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of what can be built from these weights: not of ReLU, nor of another size."""
    advice = advise(model, "rk3588", cost=Costs(), data="pictures")
    assert advice.metric is not None
    assert (advice.metric.value, advice.accuracy, advice.data) == (0.9, 0.5, "some pictures")
    accuracy = {proposal.name: proposal.accuracy for proposal in advice.proposals}
    assert (accuracy["dtype-fp16"], accuracy["small-pools"]) == (0.8, 0.5)
    assert accuracy["relu"] is accuracy["size-64x64"] is None
    assert measured[0] == ("onnx", "int8")
    assert main(["advise", str(model), "--soc", "rk3588", "--data", "pictures"]) == 0
    text = capsys.readouterr().out
    assert "accuracy on some pictures: float 0.9000 [onnx], int8 0.5000 [simulator]" in text
    assert "0.8000" in text


# ---- the command line ---------------------------------------------------------------


def test_the_table_names_commands_that_are_whole(
    model: Path, toolkit: Costs, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["advise", str(model), "--soc", "rk3588", "--mean", "0,0,0"]) == 0
    text = capsys.readouterr().out
    for words in ("[estimate]", "no, needs training", "1 (1.0 MB) -> 0 (0.0 MB)", PRICE):
        assert words in text
    assert f"rkzoo convert {model} --soc rk3588 --dtype fp16 --mean 0,0,0" in text
    assert re.search(r"fp16 in place of int8 .* \+\d+% ", text)  # with a time of its own
    assert "--apply 1 -o net-end-at-weights.onnx --mean 0,0,0" in text


def test_json_is_one_document_and_nothing_is_built_twice(
    model: Path, toolkit: Costs, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["advise", str(model), "--soc", "rk3588"]
    assert main([*words, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [proposal["number"] for proposal in document["proposals"]] == [1, 2, 3, 4, 5]
    assert document["proposals"][0]["next"].endswith("net-end-at-weights.onnx")
    assert document["base"]["ms"] == pytest.approx(4.4, abs=0.5)
    assert len(toolkit.asked) == 6
    out = model.parent / "out.onnx"
    number = next(p["number"] for p in document["proposals"] if p["name"] == "small-pools")
    assert main([*words, "--apply", str(number), "-o", str(out)]) == 0
    assert f"Next: rkzoo convert {out} --soc rk3588 --calib FOLDER\n" in capsys.readouterr().out
    assert len(toolkit.asked) == 6
    assert main([*words, "--apply", "9"]) == 2
    assert "There is no proposal 9" in capsys.readouterr().err


def test_every_chip_is_answered(model: Path) -> None:
    for soc in every_chip():
        assert advise(model, soc, cost=Costs()).proposals


@pytest.mark.toolkit
def test_the_toolkit_agrees(model: Path, tmp_path: Path) -> None:
    """Float16 and a smaller picture of a network that it builds in seconds."""
    if (why := environment.unavailable()) is not None:
        pytest.skip(str(why))
    advice = advise(model, "rk3588")
    by = {proposal.name: proposal for proposal in advice.proposals}
    assert advice.base.latency is not None
    assert all(proposal.estimate.table is not None for proposal in advice.proposals)
    assert by["size-64x64"].gain > 0.1
    assert by["relu"].gain > 0
    assert by["dtype-fp16"].estimate.dtype == "fp16"
