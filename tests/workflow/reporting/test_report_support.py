"""What builds for which chip: which models are tried, what is kept, what a failure leaves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest

from rkzoo.cli.main import main
from rkzoo.contract.inputs import ImageInput
from rkzoo.errors import RkzooError
from rkzoo.graph.onnx.random_weights import without_weights
from rkzoo.workflow.reporting import support as module
from rkzoo.workflow.reporting.results import (
    AccuracyRun,
    Support,
    SupportTrial,
    read_support,
    write_support,
)
from rkzoo.workflow.reporting.support import (
    Candidate,
    candidates,
    try_all,
    try_one,
    with_support,
)

ROOT = Path(__file__).parents[3]
PICTURE = ImageInput(size=(64, 64))


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RKZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("RKZOO_OFFLINE", "1")


@pytest.mark.usefixtures("no_network")
def test_a_file_of_the_list_stands_in_for_weights_that_cannot_be_reached(tmp_path: Path) -> None:
    (tmp_path / "mine.onnx").write_bytes(b"x")
    runs = [
        AccuracyRun(name="yolov8n", model="mine.onnx", data="d"),
        AccuracyRun(name="unheard-of", model="mine.onnx", data="d"),
        AccuracyRun(name="yolo11n", model="missing.onnx", data="d"),
    ]
    found = {one.name: one for one in candidates(runs, tmp_path, offline=True)}
    assert found["yolov8n"].weights == "another export"
    assert found["yolov8n"].model == str(tmp_path / "mine.onnx")
    assert found["unheard-of"].weights == "no card"
    assert not found["yolo11n"].model
    assert "cannot be reached" in found["yolo11n"].untried
    assert "PyTorch only" in found["yolo12n"].untried
    assert not {"ppocr", "font-cjk"} & set(found), "a pipeline is its parts, a font is no model"


@pytest.mark.usefixtures("no_network")
def test_only_the_named_are_looked_at_and_unknown_ones_refused() -> None:
    assert [one.name for one in candidates([], None, ["yolox-s"], offline=True)] == ["yolox-s"]
    with pytest.raises(RkzooError, match="no model 'yolov99'"):
        candidates([], None, ["yolov99"], offline=True)


def test_rows_come_back_lean_and_whole(tmp_path: Path) -> None:
    built = SupportTrial(
        dtype="int8", converts=True, bytes=5, internal=0, on_cpu=("Softmax",), ms=2.5, low=2, high=3
    )
    rows = [
        Support(
            model="b", task="detect", weights="no card", size=(64, 32), chips={"rk3588": built}
        ),
        Support(model="a", task="pose", weights="of the card", untried="far away"),
        Support(
            model="c",
            task="face",
            weights="another export",
            chips={"rk2118": SupportTrial(converts=False, why="no")},
        ),
    ]
    path = tmp_path / "s.yaml"
    write_support(path, rows)
    assert read_support(path) == rows
    assert "null" not in path.read_text()
    assert [row.model for row in with_support(rows[:1], rows[1])] == ["a", "b"]
    assert with_support(rows[:1], rows[0]) == rows[:1]
    assert read_support(tmp_path / "none.yaml") == []
    for broken in ("- {model: x}", "- [", "- {model: a, task: b, weights: stolen}"):
        path.write_text(broken)
        with pytest.raises(RkzooError, match="no table of support"):
            read_support(path)


def test_the_table_in_the_repository_can_be_read_and_was_tried() -> None:
    rows = read_support(ROOT / "results/support.yaml")
    trials = [trial for row in rows for trial in row.chips.values()]
    assert len(trials) >= 20
    assert all(trial.why for trial in trials if not trial.converts)
    assert all(trial.bytes and trial.dtype for trial in trials if trial.converts)
    assert all(row.chips or row.untried or row.problem for row in rows)
    told = (ROOT / "results/support.yaml").read_text("utf-8")
    assert "/tmp" not in told, "no place of one machine"
    assert "/root" not in told


class Bench:
    """The toolkit's place, taken by a list of what was asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, sha256: str = "aa") -> None:
        self.asked: list[str] = []
        self.kept: list[list[Support]] = []
        self.sha256 = sha256
        self.problem = ""
        monkeypatch.setattr(module, "_start", self.start)
        monkeypatch.setattr(module, "_proved", self.proved)
        monkeypatch.setattr(module, "try_one", self.try_one)
        monkeypatch.setattr(module.environment, "ensure", lambda *args, **kwargs: None)

    def start(self, one: Candidate, report: object) -> tuple[Support, object]:
        row = Support(model=one.name, task=one.task, weights=one.weights, untried=one.untried)
        ready = SimpleNamespace(dtypes=("int8", "fp16"))
        return (row, None) if one.untried else (
            module.msgspec.structs.replace(row, sha256=self.sha256), ready
        )  # fmt: skip

    def proved(self, row: Support, *rest: object) -> Support:
        from importlib.metadata import version

        told = {"toolkit": module.DEFAULT_VERSION, "rkzoo": version("rkzoo")}
        return module.msgspec.structs.replace(row, problem=self.problem, **told)

    def try_one(self, model: str, soc: str, toolkit: str, dtype: str | None) -> SupportTrial:
        self.asked.append(soc)
        if soc == "rk2118":
            raise KeyboardInterrupt
        return SupportTrial(dtype=dtype or "int8", converts=True, bytes=1)

    def run(self, rows: list[Support], *socs: str, **how: Any) -> list[Support]:
        self.asked = []
        one = Candidate(name="m", task="detect", weights="no card", model="m.onnx")
        return try_all([one], rows, socs, keep=self.kept.append, **how)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Bench]:
    return lambda **said: Bench(monkeypatch, **said)


def test_what_was_tried_is_not_tried_again(bench: Callable[..., Bench]) -> None:
    mine = bench()
    rows = mine.run([], "rk3588")
    rows = mine.run(rows, "rv1106", "rk3588")
    assert mine.asked == ["rv1106"]
    assert list(rows[0].chips) == ["rk3588", "rv1106"], "in the order of chips.yaml"
    rows = mine.run(rows, "rk3588", fresh=True)
    assert mine.asked == ["rk3588"]
    assert list(rows[0].chips) == ["rk3588", "rv1106"], "the others stay"


def test_float16_is_built_beside_int8_where_the_chip_has_it(bench: Callable[..., Bench]) -> None:
    mine = bench()
    rows = mine.run([], "rk3588", "rv1106")
    rows = mine.run(rows, "rk3588", "rk3568", "rv1106", also="fp16")
    assert mine.asked == ["rk3588"], "rk3568 was not built at all, rv1106 has INT8 only"
    assert {soc: trial.dtype for soc, trial in rows[0].half.items()} == {"rk3588": "fp16"}
    assert list(rows[0].chips) == ["rk3588", "rv1106"]
    assert mine.run(rows, "rk3588", also="fp16") == rows
    assert mine.asked == []


def test_a_structure_stands_in_for_weights_and_is_tried_with_random_ones(
    bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RKZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("RKZOO_OFFLINE", "1")
    weight = np.random.default_rng(0).normal(3, 2, (2000,)).astype(np.float32)
    model = onnx.helper.make_model(
        onnx.helper.make_graph([], "g", [], [], [onnx.numpy_helper.from_array(weight, "w")])
    )
    for name in ("yolo12n", "stranger"):
        (tmp_path / f"{name}.onnx.xz").write_bytes(without_weights(model))
    found = candidates([], None, ["yolo12n", "stranger"], structures=tmp_path, offline=True)
    card, bare = found
    assert {one.weights for one in found} == {"structure only"}
    assert (card.task, card.dtypes) == ("detect", ("int8", "fp16"))
    assert (bare.name, bare.task, bare.dtypes) == ("stranger", "", ())
    seen = []
    mine = bench()

    def start(one: Candidate, report: object) -> tuple[Support, object]:
        (tensor,) = onnx.load(one.model).graph.initializer
        seen.append((one.model, onnx.numpy_helper.to_array(tensor)))
        return mine.start(one, report)

    monkeypatch.setattr(module, "_start", start)
    half_only = module.msgspec.structs.replace(card, dtypes=("fp16",))
    rows = try_all([half_only, bare], [], ["rk3588"])
    assert {row.model: row.chips["rk3588"].dtype for row in rows} == {
        "yolo12n": "fp16",
        "stranger": "int8",
    }
    (file, first), (_, other) = seen
    assert Path(file).name == "yolo12n.onnx", "the name that its user gives it"
    assert not Path(file).exists()
    assert abs(first.mean() - weight.mean()) < 0.3
    assert np.array_equal(first, other), "the same each time"
    (tmp_path / "empty").mkdir()
    with pytest.raises(RkzooError, match="no structure"):
        candidates([], None, structures=tmp_path / "empty", offline=True)


def test_another_file_begins_anew(bench: Callable[..., Bench]) -> None:
    rows = bench().run([], "rk3588", "rv1106")
    again = bench(sha256="bb")
    assert list(again.run(rows, "rk3568")[0].chips) == ["rk3568"]


def test_each_build_is_kept_so_that_ctrl_c_loses_none(bench: Callable[..., Bench]) -> None:
    mine = bench()
    with pytest.raises(KeyboardInterrupt):
        mine.run([], "rk3588", "rk2118")
    assert list(mine.kept[-1][0].chips) == ["rk3588"]


def test_a_model_that_is_wrong_itself_costs_no_build(bench: Callable[..., Bench]) -> None:
    mine = bench()
    mine.problem = "The cut is not equal."
    rows = mine.run([], "rk3588")
    assert mine.asked == []
    assert rows[0].problem == "The cut is not equal."
    assert mine.kept[-1] == rows


def test_a_place_without_the_weights_forgets_no_trial(bench: Callable[..., Bench]) -> None:
    rows = bench().run([], "rk3588")
    far = Candidate(name="m", task="detect", weights="of the card", untried="far away")
    assert try_all([far], rows) == rows
    assert try_all([far], [])[0].untried == "far away"


def test_a_model_that_a_chip_refuses_is_a_trial_with_its_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise RkzooError("It cannot be built.", "See /tmp/x/y/log.txt there.", "Give up.")

    monkeypatch.setattr(module, "estimate", refuse)
    assert try_one("m", "rk3588", "2.5.0") == SupportTrial(
        converts=False, why="It cannot be built. See log.txt there."
    )


@pytest.mark.toolkit
def test_a_real_model_on_two_chips_from_the_command_line(assets: Path, tmp_path: Path) -> None:
    runs, results = tmp_path / "runs.yaml", tmp_path / "support.yaml"
    runs.write_text("- {name: lprnet, model: models/lprnet.onnx, data: data/lprnet_test}\n")
    words = ["report", "support", "lprnet", "--soc", "rk3588,rk2118", "--offline"]
    words += ["--assets", str(assets), "--runs", str(runs), "--results", str(results)]
    assert main(words) == 0
    (row,) = read_support(results)
    assert (row.task, row.size) == ("plate", (24, 94))
    assert row.chips["rk3588"].bytes > 100_000
    assert row.chips["rk3588"].ms > 0
    assert row.chips["rk2118"].ms is None, "nothing calibrates it"
