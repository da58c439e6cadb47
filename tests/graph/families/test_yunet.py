"""YuNet: known, cut, proved, and decoded as OpenCV's own FaceDetectorYN decodes it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from test_anchor_heads import prove_it
from tiny_undecoded import yunet

from rkzoo.contract.detect import DetectHead
from rkzoo.contract.inputs import TensorSpec
from rkzoo.errors import RkzooError
from rkzoo.graph.families.registry import recognise
from rkzoo.graph.lowering.cut_head import cut_head
from rkzoo.graph.onnx.view import run
from rkzoo.tasks.detect.postprocess import DetectDecoder
from rkzoo.workflow.inference.load import load
from upstream_networks import network

# Shapes and noise, drawn: what a random network finds in it matters to nobody.
PICTURE = cv2.GaussianBlur(
    np.random.default_rng(3).integers(0, 256, (640, 640, 3), np.uint8), (0, 0), 9
)


def with_lively_scores(model: onnx.ModelProto) -> onnx.ModelProto:
    """The network, the last convolutions of class and objectness such that about half of the scores
    are above a half: what a random network makes of them is all 0 or all 1."""
    makers = {name: node for node in model.graph.node for name in node.output}
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    last = []
    for output in model.graph.output[:6]:
        node = makers[output.name]
        while node.op_type != "Conv":
            node = makers[node.input[0]]
        last.append(node)
    open_ends = onnx.ModelProto()
    open_ends.CopyFrom(model)
    del open_ends.graph.output[:]
    open_ends.graph.output.extend(onnx.ValueInfoProto(name=node.output[0]) for node in last)
    logits = run(open_ends, {"input": PICTURE.transpose(2, 0, 1)[None].astype(np.float32)})
    for node, values in zip(last, logits, strict=True):
        middle, spread = float(np.median(values)), float(values.std())
        kernel, bias = (onnx.numpy_helper.to_array(weights[name]) for name in node.input[1:])
        for name, changed in ((node.input[1], kernel), (node.input[2], bias - middle)):
            scaled = np.float32(changed / spread)
            weights[name].CopyFrom(onnx.numpy_helper.from_array(scaled, name))
    return model


def test_boxes_points_and_scores_are_those_of_opencv(tmp_path: Path) -> None:
    file = tmp_path / "network.onnx"
    file.write_bytes(with_lively_scores(network("yunet")).SerializeToString())
    detector = cv2.FaceDetectorYN.create(str(file), "", (640, 640), 0.6, 1.0, 9000)
    _, expected = detector.detect(PICTURE)
    with load(file, confidence=0.6, iou=1, max_boxes=9000) as model:
        found = model(PICTURE).prediction
    assert 5 < len(expected) == len(found)
    expected = expected[np.lexsort((expected[:, 0], -expected[:, 14]))]
    order = np.lexsort((found.xyxy[:, 0], -found.scores))
    boxes = np.concatenate((expected[:, :2], expected[:, :2] + expected[:, 2:4]), axis=1)
    inside = np.clip(boxes, 0, 640)
    assert found.scores[order] == pytest.approx(expected[:, 14], abs=1e-5)
    assert found.xyxy[order] == pytest.approx(inside, abs=0.05)
    assert found.points[order] == pytest.approx(expected[:, 4:14].reshape(-1, 5, 2), abs=0.05)


@pytest.mark.parametrize("maps", [False, True])
@pytest.mark.parametrize("size", [(64, 96), (100, 76)])
def test_rows_and_maps_are_known_and_the_cut_is_proved(maps: bool, size: tuple[int, int]) -> None:
    model = yunet(size, maps=maps)
    found = recognise(model)
    head = found.contract.head
    assert isinstance(head, DetectHead)
    assert (found.family, head.faces, head.keypoints, head.objectness) == (
        "yunet", True, 5, "geometric",
    )  # fmt: skip
    assert found.contract.input.color == "BGR"
    prove_it(model, found)


def decoded_by_loops(
    outputs: list[np.ndarray], size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """After OpenCV's FaceDetectorYN, cell by cell in double precision."""
    boxes, scores, points = [], [], []
    for level, stride in enumerate((8, 16, 32)):
        columns = -(-size[1] // stride)
        cls, obj, box, five = (np.float64(outputs[3 * part + level][0]) for part in range(4))
        for cell in range(len(cls)):
            row, column = divmod(cell, columns)
            x, y = (column + box[cell, 0]) * stride, (row + box[cell, 1]) * stride
            w, h = np.exp(box[cell, 2]) * stride, np.exp(box[cell, 3]) * stride
            boxes.append((x - w / 2, y - h / 2, x + w / 2, y + h / 2))
            scores.append(np.sqrt(cls[cell, 0] * obj[cell, 0]))
            points.append((five[cell].reshape(5, 2) + np.array([column, row])) * stride)
    return np.array(boxes), np.array(scores), np.array(points)


def test_all_cells_are_decoded_by_the_formula_and_none_is_lost_below_it() -> None:
    size = (64, 96)
    model = yunet(size)
    found = recognise(model)
    picture = np.random.default_rng(1).normal(0, 60, (1, 3, *size)).astype(np.float32)
    boxes, scores, points = decoded_by_loops(run(model, {"images": picture}), size)
    cut = run(cut_head(model, found), {"images": picture})
    head = found.contract.head
    assert isinstance(head, DetectHead)
    specs = [
        TensorSpec(name=output.name, shape=array.shape, dtype="float32", layout="NCHW")
        for output, array in zip(head.outputs, cut, strict=True)
    ]
    decoder = DetectDecoder(head, size, specs)
    threshold = float(np.median(scores))
    candidates = decoder.candidates(cut, threshold)
    assert len(candidates) == int((scores >= threshold).sum())
    start = np.array([0, 96, 120])[candidates.level] + candidates.cell
    assert candidates.score == pytest.approx(scores[start], abs=1e-5)
    assert candidates.boxes == pytest.approx(boxes[start], rel=1e-4, abs=1e-3)
    assert decoder.extras(cut, candidates).keypoints == pytest.approx(points[start], abs=1e-3)


def test_one_output_too_many_is_no_yunet() -> None:
    model = yunet()
    model.graph.output.append(model.graph.output[0])
    with pytest.raises(RkzooError):
        recognise(model)
