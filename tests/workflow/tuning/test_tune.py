"""The search keeps what is better, stops when it may, and its recipe is what convert takes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import msgspec
import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from tiny_yolo import stock

from rkzoo.accuracy.dataset import Dataset
from rkzoo.accuracy.lines import LineTruth
from rkzoo.accuracy.metric import Metric, points
from rkzoo.accuracy.resampling import of_mean
from rkzoo.cli.main import main
from rkzoo.errors import RkzooError
from rkzoo.toolkit.analysis import LayerError
from rkzoo.toolkit.logscan import LayerCost
from rkzoo.toolkit.recipe import Sidecar
from rkzoo.toolkit.tensors import QuantisedTensor
from rkzoo.workflow.request.calibration_sampling import evenly, farthest, spread
from rkzoo.workflow.request.quantization import (
    Choice,
    QuantizationConfig,
    TunedRecipe,
    choose,
    read_recipe,
    write_recipe,
)
from rkzoo.workflow.request.request import Request
from rkzoo.workflow.request.resolve import resolve
from rkzoo.workflow.tuning import tune as tuning
from rkzoo.workflow.tuning.mixed_precision import Layer, branches, judged, ranked, total
from rkzoo.workflow.tuning.tune import FLOAT_LAYERS, STAGES, Held, tune

MAP = Metric("mAP50-95", 0.5, "", True, 0.01, main=True)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny.onnx"
    onnx.save(stock(names=repr(["cat", "dog", "cow"])), path)
    return path


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(3)
    for number in range(6):
        picture = random.integers(0, 256, (8, 12, 3), np.uint8)
        cv2.imwrite(str(folder / f"{number}.png"), cv2.resize(picture, (96, 64)))
    return folder


def search(
    model: Path, values: dict[tuple[str, str | None, str], float], monkeypatch: pytest.MonkeyPatch
) -> tuning._Search:
    """A search in which each (head, algorithm, method) has the value given; others cannot be
    built."""
    made = tuning._Search(
        resolve(str(model)),
        Request(),
        SimpleNamespace(items=(), name="data", source="known"),  # type: ignore[arg-type]
        MAP,
        (),
        "rk3588",
        tuning.SILENT,
    )
    monkeypatch.setattr(made, "plan", lambda setting, *_: setting, raising=False)

    def measured(setting: tuning.Setting, *_: object, **__: object) -> SimpleNamespace:
        how = setting.quantise
        key = (how.head, how.algorithm, how.method)
        if key not in values:
            raise RkzooError("It cannot be built.")
        main = replace(MAP, value=values[key])
        return SimpleNamespace(main=main, runtime="simulator", hardware="")

    monkeypatch.setattr(tuning, "evaluate_plan", measured)
    return made


def test_each_stage_goes_on_from_the_best(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = {
        ("sigmoid", None, "channel"): 0.30,
        ("logits", None, "channel"): 0.40,
        ("bounded", None, "channel"): 0.35,
        ("logits", "kl_divergence", "channel"): 0.39,
        ("logits", None, "layer"): 0.45,
        ("logits", "mmse", "layer"): 0.46,
    }
    found = search(model, values, monkeypatch)
    found.run(1.0, None, None)
    changes = [(t.stage, t.value, t.kept) for t in found.trials]
    assert changes == [
        ("start", 0.30, True),
        ("head-form", 0.40, True),
        ("head-form", 0.35, False),
        ("algorithm", 0.39, False),
        ("method", 0.45, True),
        ("slow-algorithm", 0.46, True),
        ("toolkit-hybrid", 0.46, False),
    ]
    assert found.best.quantise == QuantizationConfig("logits", "mmse", "layer")
    assert found.drop == pytest.approx(4.0)


def test_it_stops_as_soon_as_the_drop_is_small_enough(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = {("sigmoid", None, "channel"): 0.30, ("logits", None, "channel"): 0.495}
    found = search(model, values, monkeypatch)
    found.run(1.0, None, None)
    assert [trial.value for trial in found.trials] == [0.30, 0.495]
    result = found.result(1.0, 7)
    assert result.reached
    assert result.recipe.quantise.head == "logits"
    assert result.recipe.measured["drop"] == pytest.approx(0.5)


def resampled(values: list[float]) -> Metric:
    """The mean of one value a picture, as a metric."""
    return replace(MAP, value=float(np.mean(values)), resampled=of_mean(values))


def test_it_goes_on_while_the_end_of_the_interval_is_too_far(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Float is right on every picture. The first setting loses 1 of 100 pictures, which may as
    # well be 3 of 100; the second loses half a point on each, which is sure.
    figures = {"sigmoid": resampled([0.0] + [1.0] * 99), "logits": resampled([0.995] * 100)}
    found = search(model, {}, monkeypatch)
    found.metric = resampled([1.0] * 100)
    monkeypatch.setattr(
        tuning,
        "evaluate_plan",
        lambda setting, *_, **__: SimpleNamespace(
            main=figures[setting.quantise.head], runtime="simulator", hardware=""
        ),
    )
    found.run(1.0, None, None)
    first, second = found.trials
    assert (first.drop, second.drop) == pytest.approx((1.0, 0.5))
    assert first.interval is not None
    assert first.interval[1] > 1.0
    assert second.interval == pytest.approx((0.5, 0.5))
    assert found.result(1.0, 100).reached


@pytest.mark.parametrize(("plain", "best", "kept"), [(0.99, 0.97, False), (0.97, 0.99, True)])
def test_what_is_worse_on_pictures_held_back_is_left(
    model: Path, monkeypatch: pytest.MonkeyPatch, plain: float, best: float, kept: bool
) -> None:
    values = {("sigmoid", None, "channel"): 0.30, ("logits", None, "channel"): 0.495}
    found = search(model, values, monkeypatch)
    found.run(1.0, None, None)
    metrics = [resampled([value] * 40) for value in (1.0, plain, best)]
    result = found.result(1.0, 40, Held("data, other half", 40, *metrics))
    assert result.best is result.trials[int(kept)]
    assert result.recipe.quantise.head == ("logits" if kept else "sigmoid")
    assert result.drop.points == pytest.approx(1.0)
    document = result.to_json()
    assert document["drop_interval"] == pytest.approx([1.0, 1.0])
    assert document["held"]["best_drop"] == pytest.approx(100 * (1 - best))
    assert result.recipe.measured["unseen_drop_high"] == pytest.approx(1.0)


def test_halves_share_no_picture_and_few_are_not_split() -> None:
    items = tuple(Path(f"{number}.png") for number in range(41))
    data = Dataset("data", "plates", items, LineTruth(tuple(map(str, range(41)))), "ab")
    said: list[str] = []
    report = SimpleNamespace(note=said.append)
    first, second = tuning._split(data, report)  # type: ignore[arg-type]
    assert second is not None
    assert set(first.items) | set(second.items) == set(items)
    assert not set(first.items) & set(second.items)
    assert isinstance(second.truth, LineTruth)
    assert [f"{text}.png" for text in second.truth.texts] == [item.name for item in second.items]
    assert not said
    few = data.take(range(39))
    assert tuning._split(few, report) == (few, None)  # type: ignore[arg-type]
    assert "too few to hold some back" in said[0]


def test_only_the_stages_asked_for(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = {("sigmoid", None, "channel"): 0.30, ("sigmoid", None, "layer"): 0.2}
    found = search(model, values, monkeypatch)
    found.run(1.0, ["method"], None)
    assert [trial.stage for trial in found.trials] == ["start", "method"]


def test_a_first_trial_that_cannot_be_built_is_told(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RkzooError, match="cannot be built"):
        search(model, {}, monkeypatch).run(1.0, None, None)


def test_points_are_hundredths_of_a_share_and_know_the_direction() -> None:
    assert points(MAP, 0.49) == pytest.approx(1.0)
    assert points(replace(MAP, unit="%", value=90.0), 88.5) == pytest.approx(1.5)
    assert points(Metric("errors", 0.1, "characters", False, 1), 0.3) == pytest.approx(0.2)


def test_an_unknown_stage_or_chip_is_refused(model: Path, pictures: Path) -> None:
    with pytest.raises(RkzooError, match="no stage 'hybrid'") as caught:
        tune(str(model), str(pictures), "rk3588", stages=["hybrid"])
    assert FLOAT_LAYERS in caught.value.why
    assert all(name in caught.value.why for name in STAGES)
    with pytest.raises(RkzooError, match="rk9999"):
        tune(str(model), str(pictures), "rk9999")


@given(arrays(np.float32, (12, 3), elements=st.floats(-9, 9, width=32)), st.integers(1, 14))
def test_each_picture_chosen_is_the_one_least_like_those_before(
    known: np.ndarray, count: int
) -> None:
    chosen = spread(known, count)
    assert len(chosen) == min(count, 12)
    for number in range(1, len(chosen)):
        away = np.linalg.norm(known[:, None] - known[chosen[:number]], axis=2).min(axis=1)
        assert away[chosen[number]] == pytest.approx(away.max())


def test_pictures_at_equal_distances_and_apart(pictures: Path) -> None:
    files = sorted(pictures.iterdir())
    assert evenly(files, 3) == [files[0], files[2], files[5]]
    assert evenly(files, 9) == files
    chosen = farthest(files, 4)
    assert len(set(chosen)) == 4
    assert set(chosen) <= set(files)


def cost(node: str, cycles: int, kb: float = 10.0) -> LayerCost:
    return LayerCost(1, "Conv", "INT8", "NPU", (), (), cycles // 2, cycles, cycles, kb, node)


def test_layers_are_ranked_by_what_they_lose_for_what_they_cost() -> None:
    def tensor(name: str, op: str, *layer: str) -> QuantisedTensor:
        return QuantisedTensor(name, op, 0.1, 0, -1, 1, (), layer or (name,))

    def error(name: str, cosine: float | None, zero: bool = False) -> LayerError:
        return LayerError("Conv", name, cosine, 0, cosine, 0, zero)

    nodes = [onnx.helper.make_node("Conv", ["x"], [name], name=f"n{name}") for name in "abc"]
    graph = onnx.ModelProto(graph=onnx.GraphProto(node=nodes))
    tensors = [tensor("x", ""), tensor("a", "Conv", "a", "a2"), tensor("a2", "Relu", "a", "a2")]
    tensors += [tensor("b", "Conv"), tensor("c", "Conv"), tensor("d", "Conv")]
    errors = [error("x", 0.1), error("a", None), error("a2", 0.9), error("b", 0.9)]
    errors += [error("c", None, zero=True), error("d", 1.0)]
    costs = [cost("Conv:na", 1000), cost("Conv:nb", 100), cost("Conv:nc", 100_000)]
    layers = judged(tensors, errors, costs, graph)
    assert [layer.tensors for layer in layers] == [("a", "a2"), ("b",), ("c",), ("d",)]
    # b loses as much as a and costs less; c loses all and costs most; d loses nothing.
    assert [layer.tensors for layer in ranked(layers)] == [("b",), ("a", "a2"), ("c",)]


def test_layers_without_cycles_count_by_their_traffic() -> None:
    # 1000 cycles, of which 500 wait for 10 KB: 50 cycles a KB, and 4 KB more.
    assert total([cost("Conv:a", 1000, 10.0), cost("Concat:b", 0, 4.0)]) == pytest.approx(1200)


def test_a_recipe_comes_back_as_it_was(tmp_path: Path) -> None:
    recipe = TunedRecipe(
        "yolo",
        "ab" * 32,
        "2.5.0",
        QuantizationConfig("bounded", "kl_divergence", float_layers=("on", "460", "猫")),
        ("/a b/ü.jpg",),
        {"float": 0.5},
    )
    write_recipe(tmp_path / "r.yaml", recipe)
    assert read_recipe(tmp_path / "r.yaml") == recipe
    assert choose(True, tmp_path / "r.yaml").quantise == recipe.quantise


@pytest.mark.parametrize(
    "text",
    ["", "[1, 2]", "model: x", "a: !!python/object/apply:os.system [ls]", "a: [", "x: \x00"],
)
def test_what_is_no_recipe_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(text)
    with pytest.raises(RkzooError, match="no recipe") as caught:
        read_recipe(path)
    assert caught.value.fix


def test_a_recipe_of_another_model_is_refused() -> None:
    recipe = TunedRecipe("yolo", "ab" * 32, "2.3.2", QuantizationConfig(float_layers=("a",)))
    choice = Choice(recipe.quantise, recipe)
    with pytest.raises(RkzooError, match="another model"):
        choice.check("tiny", "cd" * 32, "2.3.2")
    with pytest.raises(RkzooError, match=r"needs toolkit 2\.3\.2"):
        choice.check("tiny", "ab" * 32, "2.5.0")
    choice.check("tiny", "ab" * 32, "2.3.2")
    with pytest.raises(RkzooError, match="contradict"):
        choose(False, "r.yaml")


def test_forms_that_a_model_does_not_have_are_refused(model: Path) -> None:
    bare = resolve(str(model)).quantised(QuantizationConfig(head="logits"))
    assert not bare.contract.head.activated  # type: ignore[union-attr]
    assert bare.quantised(QuantizationConfig()).contract == resolve(str(model)).contract
    with pytest.raises(RkzooError, match="no scores that could leave"):
        bare.quantised(QuantizationConfig(head="bounded"))


@pytest.mark.toolkit
def test_from_the_worst_case_to_a_converted_model(
    model: Path,
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["--soc", "rk3588", "--stages", "head-form", "--max-drop", "0.01", "--json"]
    code = main(["tune", str(model), "--data", str(pictures), "--no-cut", *arguments])
    assert code == 0
    found = json.loads(capsys.readouterr().out)
    assert found["float"] == pytest.approx(1.0), "float agrees with itself"
    trials = {trial["change"]: trial["drop"] for trial in found["trials"]}
    cut = trials["head cut off, scores after their sigmoid"]
    assert cut < trials["as convert does it"] / 2, "one scale for boxes and scores loses most"
    assert found["best"]["drop"] == min(trials.values())
    assert Path("rkzoo-tune/tiny-rk3588.png").stat().st_size > 5000

    recipe = "rkzoo-tune/tiny-rk3588.yaml"
    assert main(["convert", str(model), "--soc", "rk3588", "--recipe", recipe, "-o", "t.rknn"]) == 0
    capsys.readouterr()
    sidecar = msgspec.json.decode(Path("t.rknn.json").read_bytes(), type=Sidecar)
    assert sidecar.head == found["best"]["quantise"]["head"]
    assert len(sidecar.calibration.files) == 6


def test_a_branch_is_what_serves_outputs_of_one_role_alone() -> None:
    nodes = [
        onnx.helper.make_node("Relu", ["in"], ["trunk"]),
        onnx.helper.make_node("Relu", ["trunk"], ["b"]),
        onnx.helper.make_node("Relu", ["b"], ["box"]),
        onnx.helper.make_node("Relu", ["trunk"], ["score"]),
    ]
    graph = onnx.ModelProto(graph=onnx.GraphProto(node=nodes))
    layers = [Layer((name,), 0.1, 1.0) for name in ("trunk", "b", "box", "score")]
    found = branches(layers, graph, {"box": "box", "score": "score"})
    assert {role: [one.tensors for one in kept] for role, kept in found.items()} == {
        "score": [("score",)],
        "box": [("b",), ("box",)],
    }
    assert list(found) == ["score", "box"]
    assert branches(layers, graph, {"box": "same", "score": "same"}) == {}
