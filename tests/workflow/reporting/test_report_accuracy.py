"""The accuracy page is made of the results, and of nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from rkzoo.accuracy.metric import Metric
from rkzoo.cli.main import main
from rkzoo.errors import RkzooError
from rkzoo.workflow.reporting.accuracy import choose_runs, is_measured, page, row_of, with_row
from rkzoo.workflow.reporting.results import (
    AccuracyPart,
    AccuracyRow,
    read_rows,
    read_runs,
    titles_of,
    write_rows,
)
from rkzoo.workflow.request.quantization import QuantizationConfig, TunedRecipe
from rkzoo.workflow.tuning.tune import Held, Setting, TuningResult, TuningTrial

ROOT = Path(__file__).parents[3]
RUNS = read_runs(ROOT / "results/runs.yaml")


def row(**changed: object) -> AccuracyRow:
    values: dict = {
        "model": "tiny",
        "sha256": "ab",
        "dataset": "coco",
        "truth": "known",
        "images": 128,
        "protocol": "as run",
        "metric": "mAP50-95",
        "unit": "",
        "original": 0.41,
        "int8": 0.35,
        "int8_drop": 6.0,
        "tuned": 0.405,
        "tuned_drop": 0.5,
        "how": QuantizationConfig("logits"),
        "change": "scores leave as logits",
        "calibration": "20 pictures",
        "runtime": "simulator",
        "toolkit": "2.5.0",
        "rkzoo": "0.1.0",
        "date": "2026-11-22",
    }
    return AccuracyRow(**(values | changed))


def test_the_page_in_the_repository_is_that_of_the_results() -> None:
    rows = read_rows(ROOT / "results/accuracy.yaml")
    assert rows, "the table has been filled"
    assert (ROOT / "docs/accuracy.md").read_text("utf-8") == page(rows, titles_of(RUNS))


def test_every_run_of_the_list_can_be_read() -> None:
    runs = read_runs(ROOT / "results/runs.yaml")
    assert len({run.name for run in runs}) == len(runs)
    assert all(bool(run.model) != bool(run.card) for run in runs)


def test_rows_come_back_and_replace_their_own(tmp_path: Path) -> None:
    rows = [row(), row(model="other")]
    write_rows(tmp_path / "r.yaml", with_row(rows, row(tuned=0.407)))
    back = read_rows(tmp_path / "r.yaml")
    assert [one.tuned for one in back] == [0.407, 0.405]
    assert read_rows(tmp_path / "none.yaml") == []


def test_the_page_shows_each_row_and_the_medians() -> None:
    text = page([row(), row(model="b|c", int8_drop=2.0, tuned_drop=1.5), row(truth="float model")])
    assert "| tiny | coco | 128 | mAP50-95 | 0.41 | 0.35 | 6.00 | 0.405 | 0.50 |" in text
    assert "| tiny | COCO val2017 | 128 |" in page([row()], {"tiny": "COCO val2017"})
    assert "b\\|c" in text
    assert "(agreement with float, not accuracy)" in text
    assert (
        "Over the 2 COCO models the median drop is 4.00 points with --plain and 1.00 by default"
        in text
    )
    assert "largest by default is 1.50 (b|c)" in text


def test_the_page_shows_intervals_and_what_cannot_be_told_apart() -> None:
    parts = (
        AccuracyPart("one half", 64, 0.42, 0.40, 2.0, 0.415, 0.5, (1.0, 3.0), (-0.25, 1.25)),
        AccuracyPart("coco_more_val", 79, 0.43, 0.41, 2.0, 0.42, 1.0, (0.5, 3.5), (0.2, 1.8)),
    )
    ends = {"int8_interval": (4.0, 8.0), "tuned_interval": (-0.3, 1.3)}
    mine = row(**ends, parts=parts, gain=0.5, gain_interval=(-0.5, 1.5))
    text = page([mine, row(model="sure", **ends, gain=5.5, gain_interval=(3.0, 8.0))])
    assert "| 6.00 (4.00 to 8.00) | 0.405 | 0.50 (-0.30 to 1.30, not told apart) |" in text
    assert "cannot be told apart by these pictures: tiny (0.50 points, -0.50 to 1.50)." in text
    assert (
        "| tiny | one half | 64 | 0.42 | 2.00 (1.00 to 3.00) | "
        "0.50 (-0.25 to 1.25, not told apart) |" in text
    )
    assert "| tiny | coco_more_val | 79 | 0.43 |" in text


def test_a_search_is_shown_by_the_pictures_that_it_has_not_seen() -> None:
    def metric(value: float) -> Metric:
        return Metric("mAP50-95", value, "", True, 0.01, True)

    trials = tuple(
        TuningTrial(stage, change, Setting(QuantizationConfig()), value, drop, None, 1.0, True)
        for stage, change, value, drop in (("start", "c", 0.45, 5.0), ("method", "m", 0.5, 0.0))
    )
    held = Held("data, other half", 30, metric(0.6), metric(0.5), metric(0.55))
    recipe = TunedRecipe("tiny", "ab", "2.5.0", QuantizationConfig())
    tuning = TuningResult(
        *("tiny", "data", "known", 31, "rk3588", "2.5.0", metric(0.5), 1.0, trials, recipe),
        held=held,
    )
    found = row_of(RUNS[0], tuning)
    assert (found.images, found.original, found.int8, found.tuned) == (30, 0.6, 0.5, 0.55)
    assert (found.int8_drop, found.tuned_drop, found.gain) == (10.0, 5.0, 5.0)
    assert found.command.endswith("--search --fresh")


def test_unknown_names_and_broken_files_are_refused(tmp_path: Path) -> None:
    runs = read_runs(ROOT / "results/runs.yaml")
    with pytest.raises(RkzooError, match="no run 'yolov99'"):
        choose_runs(runs, ["yolov99"])
    assert choose_runs(runs, []) == runs
    broken = tmp_path / "r.yaml"
    broken.write_text("- {name: x}")
    with pytest.raises(RkzooError, match="no list of runs"):
        read_runs(broken)


def test_what_is_measured_already_is_known_by_its_versions() -> None:
    from importlib.metadata import version

    (run, *_) = read_runs(ROOT / "results/runs.yaml")
    this = {"model": run.name, "rkzoo": version("rkzoo"), "int8_interval": (5.0, 7.0)}
    mine = row(**this, command="rkzoo eval")
    assert not is_measured([row(**this)], run, "2.5.0")
    assert not is_measured([replace(mine, int8_interval=None)], run, "2.5.0")
    assert is_measured([mine], run, "2.5.0")
    assert not is_measured([mine], run, "2.3.2")
    assert not is_measured([row(model=run.name, rkzoo="0.0.1")], run, "2.5.0")


def test_the_page_is_written_from_the_command_line(tmp_path: Path) -> None:
    results, out = tmp_path / "r.yaml", tmp_path / "page.md"
    write_rows(results, [row()])
    arguments = ["--page-only", "--results", str(results), "--page", str(out)]
    assert main(["report", "accuracy", *arguments]) == 0
    assert out.read_text() == page([row()], titles_of(RUNS))
