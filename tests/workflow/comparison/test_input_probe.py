"""A wrong colour order or range is told from the model's own answers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import rkzoo
from rkzoo.cli.main import main
from rkzoo.contract.inputs import ImageInput
from rkzoo.workflow.comparison.input_probe import Probe, Trial, input_checks, likely, probe, wins
from rkzoo.workflow.request.resolve import resolve

RGB = ImageInput(size=(64, 64))


def trial(*sure: float, noise: bool = False) -> Trial:
    return Trial(RGB, sure, len(sure), noise, 0.9)


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


def test_who_wins() -> None:
    assert wins(trial(3.0), trial(0.0))
    assert wins(trial(3.0), trial(250.0, noise=True))
    assert not wins(trial(250.0, noise=True), trial(3.0))
    assert not wins(trial(0.9), trial(0.0)), "one object proves nothing"
    assert not wins(trial(3.0), trial(2.5)), "one picture does not tell colours apart"
    many = tuple(3.0 + 0.1 * (n % 3) for n in range(20))
    assert wins(trial(*many), trial(*(s - 0.4 for s in many)))
    mixed = tuple(s + (1.0 if n % 2 else -0.8) for n, s in enumerate(many))
    assert not wins(trial(*mixed), trial(*many))


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
    model = wrapped(assets / "models/yolov8n.onnx", tmp_path / "range.onnx", np.eye(3) / 255)
    with monkeypatch.context() as once:
        # inspect has recognised the model already: a second time would fail.
        once.setattr("rkzoo.workflow.request.resolve.recognise", None)
        assert main(["inspect", str(model), "--image", str(pictures[0]), "--json"]) == 0
    checks = json.loads(capsys.readouterr().out)["checks"]
    (fix,) = [c["text"] for c in checks if "--std" in c["text"]]
    assert "--color RGB --mean 0,0,0 --std 1,1,1" in fix
    with rkzoo.load(model) as wrong, rkzoo.load(model, std=(1, 1, 1)) as right:
        assert len(wrong(pictures[0])) == 0
        assert len(right(pictures[0])) >= 5
    with rkzoo.load(assets / "models/yolov8n.onnx") as plain, rkzoo.load(model, std=(1, 1, 1)) as m:
        np.testing.assert_allclose(
            plain(pictures[0]).found.xyxy, m(pictures[0]).found.xyxy, atol=0.05
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
        (["--mean", "1,2"], "three numbers"),
        (["--mean", "a,b,c"], "three numbers"),
        (["--std", "0,1,1"], "std of 0"),
        (["--std", "nan"], "three numbers"),
    ],
)
def test_numbers_that_cannot_be_used(
    arguments: list[str], word: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from rkzoo.vision.image import write

    write(tmp_path / "p.png", np.zeros((4, 4, 3), np.uint8))
    assert main(["run", "x.onnx", str(tmp_path / "p.png"), *arguments]) != 0
    assert word in capsys.readouterr().err


def test_a_pipeline_is_fed_as_its_cards_say(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from rkzoo.vision.image import write

    write(tmp_path / "p.png", np.zeros((4, 4, 3), np.uint8))
    assert main(["run", "ppocr", str(tmp_path / "p.png"), "--color", "RGB"]) != 0
    assert "several models" in capsys.readouterr().err


def test_scores_above_1_fail_the_checklist() -> None:
    loud = Trial(RGB, (5.0,), 5, False, 7.3, ("The graph gives scores from -9 to 7.3.",))
    found = Probe((loud,), 1, None)
    assert next(check.level for check in input_checks(found)) == "fail"
