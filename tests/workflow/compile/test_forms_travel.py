"""Each form of answer that is recognised in a file: the whole way to a .rknn and back, in both
number formats, against ONNX Runtime and numpy on the file as it is."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import tiny_whole
from tiny_whole import Net, features

import rkzoo
from rkzoo.tasks.classify.result import Classes
from rkzoo.tasks.semantic.result import ClassMap, ClassMasks
from rkzoo.tasks.text.detect_text import TextBoxes
from rkzoo.tasks.text.result import TextLines, match
from rkzoo.tasks.vector.result import Vector
from rkzoo.zoo.catalogue import card
from rkzoo.zoo.fetch import weights

pytestmark = pytest.mark.toolkit

MEAN = np.array([123.675, 116.28, 103.53], np.float32)
STD = np.array([58.395, 57.12, 57.375], np.float32)
SIDE = 64


def flat(net: Net, classes: int, x: str) -> str:
    pooled = net.op("ReduceMean", x, axes=[2, 3], keepdims=0)
    return net.op("Gemm", pooled, net.weight(8, classes), net.weight(classes))


def labels() -> onnx.ModelProto:
    net = Net()
    return net.model([1, 3, SIDE, SIDE], net.op("Sigmoid", flat(net, 6, features(net))))


def questions() -> onnx.ModelProto:
    net = Net()
    x = features(net)
    return net.model(
        [1, 3, SIDE, SIDE], flat(net, 4, x), net.op("Softmax", flat(net, 3, x), axis=1)
    )


def masks(count: int) -> Callable[[], onnx.ModelProto]:
    def made() -> onnx.ModelProto:
        net = Net()
        x = net.op("ConvTranspose", features(net), net.weight(8, 4, 2, 2), strides=[2, 2])
        return net.model([1, 3, SIDE, SIDE], net.op("Sigmoid", net.conv(x, 4, count, 1)))

    return made


def number() -> onnx.ModelProto:
    return tiny_whole.classifier(classes=1, size=SIDE)


def embedding() -> onnx.ModelProto:
    return tiny_whole.classifier("unit", 64, size=SIDE)


@pytest.fixture(scope="module")
def pictures(assets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five photographs of the very size of the networks, so that nothing depends on resizing."""
    folder = tmp_path_factory.mktemp("pictures")
    for name in ("face", "zidane", "bus_640", "dog_224", "bell"):
        image = cv2.imread(str(assets / f"data/images/{name}.jpg"))
        cv2.imwrite(str(folder / f"{name}.png"), cv2.resize(image, (SIDE, SIDE)))
    return folder


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits.ravel() - logits.max())
    return np.asarray(powers / powers.sum())


def values(found: Any) -> np.ndarray:
    """What an answer says as numbers in the order of the outputs."""
    if isinstance(found, Classes):
        return np.asarray(found.score[np.argsort(found.class_id)])
    if isinstance(found, ClassMap | ClassMasks):
        return found.classes.astype(np.float32).ravel()
    assert isinstance(found, Vector)
    return found.values


FORMS: dict[str, tuple[Callable[[], onnx.ModelProto], Callable[[list[np.ndarray]], Any]]] = {
    "labels": (labels, lambda out: out[0].ravel()),
    "questions": (questions, lambda out: np.concatenate((softmax(out[0]), out[1].ravel()))),
    "one mask": (masks(1), lambda out: out[0].ravel() > 0.5),
    "masks": (masks(3), lambda out: out[0].ravel() > 0.5),
    "number": (number, lambda out: out[0].ravel()),
    "embedding": (embedding, lambda out: out[0].ravel()),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("dtype", "slack"), [("fp16", 0.01), ("int8", 0.04)])
def test_a_converted_file_answers_as_its_source(
    form: str, dtype: str, slack: float, pictures: Path, tmp_path: Path
) -> None:
    make, meaning = FORMS[form]
    source = tmp_path / "net.onnx"
    onnx.save(make(), source)
    feed: dict[str, Any] = {"mean": tuple(MEAN.tolist()), "std": tuple(STD.tolist())}
    (built,) = rkzoo.convert(
        source, "rk3588", dtype=dtype, calibration=str(pictures), output=tmp_path, **feed
    )
    session = onnxruntime.InferenceSession(source)
    with rkzoo.load(built.rknn, runtime="simulator") as model:
        for file in sorted(pictures.iterdir())[:2]:
            # A classifier sees the middle of a picture, so it is given one that is cut already.
            image = cv2.imread(str(file))
            found = values(model(image).prediction)
            fed = _fed(image, crop=form in ("labels", "questions"))
            wanted = np.asarray(meaning(session.run(None, {"images": fed})), np.float32)
            scale = max(1.0, float(np.abs(wanted).max()))
            assert found.shape == wanted.shape
            assert np.abs(found - wanted).mean() < slack * scale


def _fed(image: np.ndarray, *, crop: bool) -> np.ndarray:
    if crop:
        short = round(SIDE / 0.875)
        left = (short - SIDE) // 2
        large = cv2.resize(image, (short, short), interpolation=cv2.INTER_LINEAR)
        image = large[left : left + SIDE, left : left + SIDE]
    rgb = image[..., ::-1].astype(np.float32)
    return np.ascontiguousarray(((rgb - MEAN) / STD).transpose(2, 0, 1)[None])


def copied(name: str, tmp_path: Path) -> Path:
    """The weights of a card, under a name that tells nothing."""
    return shutil.copy(weights(card(name))["model"], tmp_path / "copy.onnx")


@pytest.mark.sweep
@pytest.mark.network
@pytest.mark.parametrize("dtype", ["fp16", "int8"])
def test_a_detector_of_text_given_as_a_file(dtype: str, assets: Path, tmp_path: Path) -> None:
    file = copied("ppocr-v4-det", tmp_path)
    page = assets / "data/images/ocr_page.jpg"
    with rkzoo.load("ppocr-v4-det") as model:
        wanted = model(page).prediction
    with rkzoo.load(file) as model:
        same = model(page).prediction
    with rkzoo.load(file, runtime="simulator", dtype=dtype, calibration=str(page)) as model:
        found = model(page).prediction
    assert isinstance(wanted, TextBoxes)
    assert isinstance(same, TextBoxes)
    assert isinstance(found, TextBoxes)
    assert np.array_equal(same.quads, wanted.quads)
    assert len(match(found.quads, wanted.quads)) >= 0.9 * len(wanted)


@pytest.mark.sweep
@pytest.mark.network
@pytest.mark.parametrize(
    ("name", "dtype"),
    [("ppocr-v4-rec", None), ("ppocr-v4-rec", "int8"), ("ppocr-v5-rec", None)],
)
def test_a_reader_given_as_a_file(
    name: str, dtype: str | None, assets: Path, tmp_path: Path
) -> None:
    """v4 holds its characters, those of v5 are known by their number. The usual format is FP16."""
    file = copied(name, tmp_path)
    line = assets / "data/images/ocr_line.png"
    for options in ({}, {"runtime": "simulator", "dtype": dtype, "calibration": str(line)}):
        with rkzoo.load(file, **options) as model:  # type: ignore[arg-type]
            found = model(line).prediction
        assert isinstance(found, TextLines)
        assert found.texts == ("JOINT",)
        assert found.scores[0] > 0.9


@pytest.mark.network
@pytest.mark.parametrize("name", ["ppocr-v4-cls", "ppocr-v5-cls"])
def test_an_angle_classifier_given_as_a_file(name: str, assets: Path, tmp_path: Path) -> None:
    file = copied(name, tmp_path)
    upright = rkzoo.load(file)(assets / "data/images/ocr_line.png").image
    turned = np.ascontiguousarray(upright[::-1, ::-1])
    for options in ({}, {"runtime": "simulator", "dtype": "fp16"}):
        with rkzoo.load(file, **options) as model:  # type: ignore[arg-type]
            found = model(turned).prediction
            other = model(upright).prediction
        assert isinstance(found, Classes)
        assert found.lines()[0].endswith("180 degrees")
        assert found.score[found.class_id == 1] > other.score[other.class_id == 1]
