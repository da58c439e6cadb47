"""A wrong colour order or range is told from the model's own answers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from tiny_yolo import stock

import rkzoo
from class_cut import only
from rkzoo.cli.main import main
from rkzoo.contract.inputs import ImageInput
from rkzoo.workflow.comparison.input_probe import (
    InputProbe,
    ProbeTrial,
    Shared,
    input_checks,
    likely,
    probe,
    wins,
)
from rkzoo.workflow.request.request import Request
from rkzoo.workflow.request.resolve import resolve

RGB = ImageInput(size=(64, 64))


def trial(*sure: float, noise: bool = False) -> ProbeTrial:
    return ProbeTrial(RGB, sure, len(sure), noise, 0.9)


def wrapped(source: Path, target: Path, matrix: np.ndarray) -> Path:
    """The model behind a 1x1 convolution that mixes the colours, which no recogniser of
    normalisation can see through."""
    model = onnx.load(source)
    name = model.graph.input[0].name
    for node in model.graph.node:
        for index, given in enumerate(node.input):
            if given == name:
                node.input[index] = "mixed"
    weight = numpy_helper.from_array(matrix.astype(np.float32).reshape(3, 3, 1, 1), "mix")
    model.graph.initializer.append(weight)
    model.graph.node.insert(0, helper.make_node("Conv", [name, "mix"], ["mixed"]))
    onnx.save(model, target)
    return target


@pytest.fixture(scope="module")
def pictures(assets: Path) -> list[Path]:
    """Two in which YOLOv8n finds little when the colours are swapped."""
    folder = assets / "data/coco128_val/images"
    return [folder / "000000008629.jpg", folder / "000000009914.jpg"]


def probed(model: Path, pictures: list[Path]):
    ready = resolve(str(model))
    return probe(ready.graph().SerializeToString(), ready.contract, pictures)


def test_the_forms_that_are_tried() -> None:
    forms = likely(RGB)
    assert forms[0] == RGB
    assert {(f.color, f.std[0]) for f in forms} == {
        ("RGB", 255.0), ("RGB", 1.0), ("BGR", 255.0), ("BGR", 1.0),
    }  # fmt: skip
    assert len(forms) == 4
    own = ImageInput(size=(64, 64), mean=(1, 2, 3), std=(4, 5, 6))
    # The other order keeps each colour's own numbers.
    assert any(f.color == "BGR" and f.mean == (3, 2, 1) and f.std == (6, 5, 4) for f in likely(own))


AGREED = Shared(1.0, 1.0)
STRANGERS = Shared(0.0, 0.0)
WIDE = ImageInput(size=(64, 64), std=(1.0,) * 3)


def test_who_wins_among_colour_orders() -> None:
    assert wins(trial(3.0), trial(1.5), AGREED)
    assert not wins(trial(3.0), trial(1.5), STRANGERS), "other objects prove nothing"
    assert not wins(trial(0.9), trial(0.0), AGREED), "one object proves nothing"
    assert not wins(trial(3.0), trial(2.5), AGREED), "one picture does not tell colours apart"
    many = tuple(3.0 + 0.1 * (n % 3) for n in range(20))
    assert wins(trial(*many), trial(*(s - 0.4 for s in many)), AGREED)
    mixed = tuple(s + (1.0 if n % 2 else -0.8) for n, s in enumerate(many))
    assert not wins(trial(*mixed), trial(*many), AGREED)


def test_who_wins_among_ranges() -> None:
    small, large = trial(3.0), replace(trial(3.0), image=WIDE)
    silent, blind = trial(0.0), replace(trial(0.0), response=0.1)
    assert wins(large, blind, AGREED), "a network that sees nothing needs larger numbers"
    assert not wins(large, silent, AGREED), "one that sees its pictures finds nothing there"
    assert not wins(replace(large, confident=(100.0,)), trial(1.8), STRANGERS)
    assert not wins(replace(large, noise=True), blind, AGREED)
    assert wins(small, replace(trial(0.0), image=WIDE), AGREED)
    assert not wins(replace(small, response=0.1), replace(trial(0.0), image=WIDE), AGREED)
    flood = replace(trial(250.0, noise=True), image=WIDE)
    assert wins(small, flood, STRANGERS)
    assert not wins(small, flood, Shared(1.0, 0.8)), "a crowd is no flood"
    assert not wins(flood, small, STRANGERS)


@pytest.mark.parametrize(
    ("model", "picture"),
    [
        ("yolov8n-pose", "zidane.jpg"),
        ("yolov8n-pose", "ocr_page.jpg"),
        ("yolov8n", "dog_224.jpg"),
        ("yolov8n-seg", "plate.jpg"),
        ("yolo11n", "bus_640.jpg"),
        ("yolox_nano", "zidane.jpg"),
    ],
)
def test_no_advice_to_a_model_that_is_fed_rightly(assets: Path, model: str, picture: str) -> None:
    found = probed(assets / f"models/{model}.onnx", [assets / "data/images" / picture])
    assert found.better is None


@pytest.mark.sweep
@pytest.mark.parametrize("kept", [[0], [23], [2, 5, 7]])
def test_no_advice_to_a_detector_of_few_classes(
    assets: Path, tmp_path: Path, kept: list[int]
) -> None:
    """On pictures with its objects and without."""
    model = only(assets / "models/yolov8n.onnx", kept, tmp_path / "few.onnx")
    for name in ("bus_640.jpg", "sam_picture.jpg", "ocr_page.jpg", "face.jpg"):
        assert probed(model, [assets / "data/images" / name]).better is None, name


@pytest.mark.parametrize(
    ("model", "std", "right"),
    [("yolox_nano", 255.0, "0..255"), ("yolov8n", 1.0, "0..1"), ("yolov8n-pose", 1.0, "0..1")],
)
def test_a_wrong_range_is_found_in_one_picture(
    assets: Path, model: str, std: float, right: str
) -> None:
    ready = resolve(str(assets / f"models/{model}.onnx"), Request(mean=(0.0,) * 3, std=(std,) * 3))
    found = probe(
        ready.graph().SerializeToString(),
        ready.contract,
        [assets / "data/images/bus_640.jpg"],
    )
    assert found.better is not None
    # The colour order is kept: a picture does not tell it.
    assert found.better.title == f"{ready.contract.input.color}, {right}"


def test_a_rightly_fed_model(assets: Path, pictures: list[Path]) -> None:
    found = probed(assets / "models/yolov8n.onnx", pictures)
    assert found.better is None
    assert found.trials[0].title == "RGB, 0..1"
    assert found.trials[0].total == max(t.total for t in found.trials if not t.noise)
    assert [c.level for c in input_checks(found)] == ["ok"]


def test_swapped_colours(assets: Path, pictures: list[Path], tmp_path: Path) -> None:
    model = wrapped(assets / "models/yolov8n.onnx", tmp_path / "bgr.onnx", np.eye(3)[::-1])
    found = probed(model, pictures)
    assert found.better is not None
    assert found.better.title == "BGR, 0..1"
    (check,) = input_checks(found)
    assert check.level == "warn"
    assert "--color BGR --mean 0,0,0 --std 255,255,255" in check.text


def test_a_range_of_255_and_the_whole_way(
    assets: Path,
    pictures: list[Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Colours that mix a little are the network's own, so that the range is not read off them.
    mixing = (np.eye(3) + 3e-4) / 255
    model = wrapped(assets / "models/yolov8n.onnx", tmp_path / "range.onnx", mixing)
    with monkeypatch.context() as once:
        # inspect has recognised the model already: a second time would fail.
        once.setattr("rkzoo.workflow.request.resolve.recognise_arranged", None)
        assert main(["inspect", str(model), "--image", str(pictures[0]), "--json"]) == 0
    checks = json.loads(capsys.readouterr().out)["checks"]
    (fix,) = [c["text"] for c in checks if "--std" in c["text"]]
    assert "--color RGB --mean 0,0,0 --std 1,1,1" in fix
    with rkzoo.load(model) as wrong, rkzoo.load(model, std=(1, 1, 1)) as right:
        assert len(wrong(pictures[0])) == 0
        assert len(right(pictures[0])) >= 5
    with rkzoo.load(assets / "models/yolov8n.onnx") as plain, rkzoo.load(model, std=(1, 1, 1)) as m:
        np.testing.assert_allclose(
            plain(pictures[0]).prediction.xyxy, m(pictures[0]).prediction.xyxy, atol=0.05
        )


def test_a_range_too_large_is_a_flood_that_is_told(
    assets: Path, pictures: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["run", str(assets / "models/yolov8n.onnx"), str(pictures[0]), "--json"]
    assert main([*arguments, "--std", "1"]) == 0
    out, err = capsys.readouterr()
    (warning,) = json.loads(out)["images"][0]["warnings"]
    assert "flood" in warning
    assert "normalisation" in warning
    assert f"warning: {pictures[0]}: {warning}" in err
    assert main(arguments) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["images"][0]["warnings"] == []
    assert "warning" not in err


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--mean", "1,2"], "The mean 1,2 does not go with this model"),
        (["--mean", "a,b,c"], "is not numbers"),
        (["--std", "0,1,1"], "std of 0"),
        (["--std", "nan"], "finite numbers"),
    ],
)
def test_numbers_that_cannot_be_used(
    arguments: list[str], word: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from rkzoo.vision.image import write

    write(tmp_path / "p.png", np.zeros((4, 4, 3), np.uint8))
    onnx.save(stock(), tmp_path / "x.onnx")
    assert main(["run", str(tmp_path / "x.onnx"), str(tmp_path / "p.png"), *arguments]) != 0
    assert word in capsys.readouterr().err


def test_a_pipeline_is_fed_as_its_cards_say(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from rkzoo.vision.image import write

    write(tmp_path / "p.png", np.zeros((4, 4, 3), np.uint8))
    assert main(["run", "ppocr", str(tmp_path / "p.png"), "--color", "RGB"]) != 0
    assert "several models" in capsys.readouterr().err


def test_scores_above_1_fail_the_checklist() -> None:
    loud = ProbeTrial(RGB, (5.0,), 5, False, 7.3, ("The graph gives scores from -9 to 7.3.",))
    found = InputProbe((loud,), 1, None)
    assert next(check.level for check in input_checks(found)) == "fail"
