"""Real weights with their preprocessing inside the graph, and of one and four channels: the whole
way from a file to what is found."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from picture_fronts import IMAGENET, SHARES
from PIL import Image

import rkzoo
from rkzoo.cli.main import main
from rkzoo.graph.onnx.view import run
from rkzoo.toolkit import environment
from rkzoo.vision.image import read


@pytest.fixture(scope="module")
def yolo(assets: Path) -> onnx.ModelProto:
    return onnx.load(assets / "models/yolov8n.onnx")


@pytest.fixture(scope="module")
def bus(assets: Path) -> Path:
    return assets / "data/images/bus_640.jpg"


def channels(model: onnx.ModelProto, count: int) -> onnx.ModelProto:
    """YOLOv8n with a first convolution of one channel, or of four: alpha takes from each what a
    third of the colours gives it."""
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    first = next(node for node in copy.graph.node if node.op_type == "Conv")
    weight = next(t for t in copy.graph.initializer if t.name == first.input[1])
    value = numpy_helper.to_array(weight)
    total = value.sum(1, keepdims=True)
    value = total if count == 1 else np.concatenate((value, -total / 3), axis=1)
    weight.CopyFrom(numpy_helper.from_array(value, weight.name))
    copy.graph.input[0].type.tensor_type.shape.dim[1].dim_value = count
    del copy.graph.value_info[:]
    return copy


def best(model: onnx.ModelProto, fed: np.ndarray) -> list[tuple[int, float]]:
    """(class, score) of the highest score of each class over 0.5, by ONNX Runtime alone: `fed` is
    a picture (640, 640, C) in 0..1."""
    x = np.ascontiguousarray(fed.transpose(2, 0, 1)[None], np.float32)
    (table,) = run(model, {model.graph.input[0].name: x})
    scores = table[0, 4:].max(axis=1)
    return [(int(i), float(scores[i])) for i in np.flatnonzero(scores > 0.5)]


@pytest.mark.parametrize("name", SHARES)
def test_yolov8n_finds_what_it_found_before(
    name: str, yolo: onnx.ModelProto, bus: Path, assets: Path, tmp_path: Path
) -> None:
    onnx.save(SHARES[name].before(yolo), tmp_path / "own.onnx")
    with (
        rkzoo.load(tmp_path / "own.onnx") as own,
        rkzoo.load(assets / "models/yolov8n.onnx") as plain,
    ):
        found, wanted = own(bus).prediction, plain(bus).prediction
    assert len(found) == 5
    np.testing.assert_array_equal(found.class_id, wanted.class_id)
    np.testing.assert_allclose(found.score, wanted.score, atol=1e-4)
    np.testing.assert_allclose(found.xyxy, wanted.xyxy, atol=0.02)


@pytest.mark.parametrize(
    "name", ["sub, div", "batch normalisation", "uint8, channels last, flipped"]
)
def test_the_dog_is_the_dog(
    name: str, assets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    onnx.save(
        IMAGENET[name].before(onnx.load(assets / "models/mobilenetv2.onnx")), tmp_path / "own.onnx"
    )
    picture = str(assets / "data/images/dog_224.jpg")
    assert main(["run", str(tmp_path / "own.onnx"), picture, "--json"]) == 0
    out, err = capsys.readouterr()
    (answer,) = json.loads(out)["images"]
    text = json.dumps(answer)
    assert "Shih-Tzu" in text
    assert "0.77" in text
    assert "The graph itself normalises the picture" in err


def test_grey_pictures_are_looked_at(yolo: onnx.ModelProto, bus: Path, tmp_path: Path) -> None:
    model = channels(yolo, 1)
    onnx.save(model, tmp_path / "grey.onnx")
    grey = np.asarray(Image.open(bus).convert("L"))[..., None] / 255
    with rkzoo.load(tmp_path / "grey.onnx") as own:
        found = own(bus).prediction
        Image.open(bus).convert("L").save(tmp_path / "grey.png")
        again = own(tmp_path / "grey.png").prediction
    for class_id, score in best(model, grey):
        mine = max(s for c, s in zip(found.class_id, found.score, strict=True) if c == class_id)
        assert mine == pytest.approx(score, abs=0.01)
    assert sorted(found.class_id) == [0, 0, 0, 5]
    np.testing.assert_allclose(again.score, found.score, atol=0.01)


def test_alpha_is_looked_at(yolo: onnx.ModelProto, bus: Path, tmp_path: Path) -> None:
    model = channels(yolo, 4)
    onnx.save(model, tmp_path / "four.onnx")
    bgr = read(bus)
    alpha = np.full((*bgr.shape[:2], 1), 10, np.uint8)
    rgba = np.concatenate((bgr[..., ::-1], alpha), axis=2)
    Image.fromarray(rgba).save(tmp_path / "clear.png")
    bgra = np.concatenate((bgr, alpha), axis=2)
    np.save(tmp_path / "clear.npy", bgra)
    with rkzoo.load(tmp_path / "four.onnx") as own:
        answers = [own(tmp_path / "clear.png"), own(tmp_path / "clear.npy"), own(bgra)]
        opaque = own(bus).prediction
        assert answers[0].draw().shape == bgr.shape
    for answer in answers:
        found = answer.prediction
        for class_id, score in best(model, rgba / 255):
            mine = max(s for c, s in zip(found.class_id, found.score, strict=True) if c == class_id)
            assert mine == pytest.approx(score, abs=1e-3)
    solid = np.concatenate((bgr[..., ::-1], np.full_like(alpha, 255)), axis=2)
    for class_id, score in best(model, solid / 255):
        mine = max(s for c, s in zip(opaque.class_id, opaque.score, strict=True) if c == class_id)
        assert mine == pytest.approx(score, abs=1e-3)
    assert len(answers[0].prediction) >= 4
    assert answers[0].prediction.score.max() != pytest.approx(
        max(opaque.score, default=0), abs=1e-3
    )


@pytest.mark.sweep
@pytest.mark.parametrize("kind", ["grey", "four", "uint8, channels last, flipped"])
def test_the_toolkits_simulator_answers_so_too(
    kind: str, yolo: onnx.ModelProto, bus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if (why := environment.unavailable()) is not None:
        pytest.skip(str(why))
    made = {"grey": 1, "four": 4}.get(kind)
    model = channels(yolo, made) if made else SHARES[kind].before(yolo)
    onnx.save(model, tmp_path / "own.onnx")
    if kind == "four":
        clear = Image.open(bus).convert("RGBA")
        clear.putalpha(10)
        bus = tmp_path / "clear.png"
        clear.save(bus)
    answers = []
    for more in ([], ["--runtime", "simulator", "--dtype", "fp16"]):
        assert main(["run", str(tmp_path / "own.onnx"), str(bus), "--json", *more]) == 0
        answers.append(json.loads(capsys.readouterr().out)["images"][0]["results"])
    floats, halves = answers
    assert len(floats) == len(halves)
    assert len(floats) >= 3
    for one, other in zip(floats, halves, strict=True):
        assert one["class_id"] == other["class_id"]
        assert one["score"] == pytest.approx(other["score"], abs=0.02)
