"""What was tuned for a card is what `convert CARD` does, with the figures of accuracy.yaml."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import msgspec
import numpy as np
import onnx
import pytest
from tiny_yolo import stock

from rkzoo.cli import convert
from rkzoo.cli.main import main
from rkzoo.errors import RkzooError
from rkzoo.files import sha256_of
from rkzoo.progress import SILENT
from rkzoo.toolkit.recipe import DEFAULT_VERSION
from rkzoo.workflow.compile.prepare import prepare
from rkzoo.workflow.evaluation.evaluate import calibrated_on
from rkzoo.workflow.reporting.results import AccuracyRow, read_rows
from rkzoo.workflow.request.calibration import from_arrays, from_files
from rkzoo.workflow.request.calibration_sampling import evenly, farthest, picked
from rkzoo.workflow.request.models import find_model
from rkzoo.workflow.request.quantization import (
    QuantizationConfig,
    TunedRecipe,
    of_card,
    write_recipe,
)
from rkzoo.workflow.request.request import Request
from rkzoo.workflow.request.resolved import ResolvedModel
from rkzoo.workflow.tuning.tune import OWN_RANGES
from rkzoo.zoo.catalogue import card_of_file, cards
from rkzoo.zoo.schema import Card, Int8Recipe

ROOT = Path(__file__).parents[3]
ROWS = {row.model: row for row in read_rows(ROOT / "results/accuracy.yaml")}
TUNED = [card for card in cards() if card.int8]
OTHER = "0" * 64


@pytest.mark.parametrize("card", TUNED, ids=[card.name for card in TUNED])
def test_a_card_does_what_was_measured(card: Card) -> None:
    row, recipe = ROWS[card.name], card.int8
    assert recipe is not None
    assert recipe.graph == row.sha256
    config, left_out = of_card(recipe, row.sha256, row.toolkit)
    assert (config, left_out) == (row.how, "")
    assert ("unlike" in row.calibration) == (recipe.pictures == "unlike")
    assert card_of_file(row.sha256) == card, "the file by its path does the same"


def test_whatever_was_measured_as_better_ships() -> None:
    shipped = {card.name for card in TUNED}
    better = {
        row.model
        for row in ROWS.values()
        if row.tuned_drop < row.int8_drop and row.change != OWN_RANGES  # which all have
    }
    assert better <= shipped


def test_names_of_layers_hold_for_one_file_and_one_toolkit() -> None:
    recipe = Int8Recipe(graph="a" * 64, head="logits", float_layers=("x", "y"), toolkit="2.5.0")
    whole = QuantizationConfig("logits", float_layers=("x", "y"))
    assert of_card(recipe, "a" * 64, "2.5.0") == (whole, "")
    for sha256, toolkit, words in ((OTHER, "2.5.0", "another file"), ("a" * 64, "2.3.2", "2.5.0")):
        config, left_out = of_card(recipe, sha256, toolkit)
        assert config == QuantizationConfig("logits")
        assert "2 tensors in float16 are left out" in left_out
        assert words in left_out


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file for which a card in RKZOO_CARDS holds a recipe."""
    path = tmp_path / "mine.onnx"
    onnx.save(stock(names=repr(["cat", "dog", "cow"])), path)
    folder = tmp_path / "cards"
    folder.mkdir()
    (folder / "tuned.yaml").write_text(
        f"file: {path}\ntask: detect\n"
        f"int8: {{graph: {sha256_of(path)}, head: logits, pictures: unlike, count: 2}}\n"
    )
    monkeypatch.setenv("RKZOO_CARDS", str(folder))
    return path


def head(name: str, *, to_run: bool = False, **said: object) -> str:
    return find_model(name, Request(**said), to_run=to_run).quantise.head  # type: ignore[arg-type]


def test_the_recipe_counts_where_int8_is_built(model: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    own = TunedRecipe("mine", sha256_of(model), DEFAULT_VERSION, QuantizationConfig("bounded"))
    write_recipe(recipe, own)
    for name in ("tuned", str(model)):
        assert head(name) == "logits"
        assert head(name, to_run=True, runtime="simulator") == "logits"
        assert head(name, to_run=True) == "sigmoid", "ONNX Runtime runs the model as it is"
        assert head(name, dtype="fp16") == "sigmoid"
        assert head(name, plain=True) == "sigmoid"
        assert head(name, cut=False) == "uncut"
        assert head(name, recipe=recipe) == "bounded"
    with pytest.raises(RkzooError, match="contradict"):
        Request(plain=True, recipe=recipe)


def test_a_card_of_ones_own_says_no_less_than_the_file(model: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text(f"file: {model}\ntask: detect\n")
    assert head(str(own)) == "logits"
    assert head(str(own), plain=True) == "sigmoid"
    assert find_model(str(model), Request(raw=True), to_run=False).tuned is None


def test_another_file_of_no_card_is_left_alone(model: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.onnx"
    onnx.save(stock(names=repr(["cat", "dog", "pig"])), other)
    assert head(str(other)) == "sigmoid"
    assert card_of_file(OTHER) is None


class Notes:
    task = SILENT.task

    def __init__(self) -> None:
        self.told: list[str] = []

    def note(self, message: str) -> None:
        self.told.append(message)


def pictures_in(folder: Path, count: int = 6) -> list[Path]:
    random = np.random.default_rng(3)
    files = [folder / f"{number}.png" for number in range(count)]
    for file in files:
        cv2.imwrite(str(file), random.integers(0, 256, (64, 96, 3), np.uint8))
    return files


def test_convert_says_what_is_tuned_and_takes_those_pictures(model: Path, tmp_path: Path) -> None:
    files, notes = pictures_in(tmp_path), Notes()

    def calibrated(ready: ResolvedModel) -> tuple[str, ...]:
        return prepare(ready, ["rk3588"], "int8", from_files(files), None, notes).calibration.files

    taken = calibrated(find_model("tuned", Request(), to_run=False))
    assert taken == tuple(str(file) for file in farthest(files, 2))
    (said,) = [note for note in notes.told if "as tuned" in note]
    assert "scores as logits, 2 calibration pictures as unlike as possible" in said
    assert "--plain leaves it out" in said
    notes.told.clear()
    assert len(calibrated(find_model("tuned", Request(plain=True), to_run=False))) == len(files)
    assert not [note for note in notes.told if "as tuned" in note]


def test_pictures_are_taken_as_the_recipe_says(tmp_path: Path) -> None:
    files = pictures_in(tmp_path)
    recipe = Int8Recipe(graph=OTHER, pictures="evenly", count=3)
    assert picked(recipe, from_files(files)).names == from_files(evenly(files, 3)).names
    every = msgspec.structs.replace(recipe, pictures="")
    assert len(picked(every, from_files(files))) == len(files)
    few = from_files(files[:3])
    assert picked(recipe, few) is few
    made = from_arrays([np.zeros((4, 4, 3), np.uint8)] * 9, ["made"])
    assert picked(recipe, made) is made, "pictures that are no files are all taken"


def test_eval_calibrates_on_those_that_the_recipe_takes(tmp_path: Path) -> None:
    files = pictures_in(tmp_path, 24)
    data: Any = SimpleNamespace(kind="objects", items=files)
    recipe = Int8Recipe(graph=OTHER, pictures="unlike", count=5)
    for tuned, wanted in ((None, evenly(files, 20)), (recipe, farthest(files, 5))):
        departures: list[str] = []
        pictures = calibrated_on(data, Request(), None, departures, tuned).pictures
        assert pictures is not None
        assert pictures.names == from_files(wanted).names
        assert departures == [f"calibrated on {len(wanted)} pictures of the same data, scored too"]


def test_layers_without_their_toolkit_are_refused() -> None:
    with pytest.raises(ValueError, match="toolkit"):
        Int8Recipe(graph=OTHER, float_layers=("x",))


def test_the_command_line_knows_plain() -> None:
    parser = argparse.ArgumentParser()
    convert.add(parser.add_subparsers())
    assert parser.parse_args(["convert", "lprnet", "--soc", "rk3588", "--plain"]).plain


@pytest.mark.toolkit
@pytest.mark.parametrize("name", ["lprnet"])
def test_the_commands_in_the_results_give_their_figures(
    name: str, assets: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(assets)
    row = ROWS[name]
    for command, value in ((row.command, row.tuned), (row.plain_command, row.int8)):
        assert main([*command.split()[1:], "--json"]) == 0
        (main_metric,) = _main(json.loads(capsys.readouterr().out), row)
        assert main_metric == pytest.approx(value, abs=5e-5)


def _main(document: dict, row: AccuracyRow) -> list[float]:
    return [one["value"] for one in document["metrics"] if one["name"] == row.metric]
