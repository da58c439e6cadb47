"""Masks, poses and oriented boxes: from tensors to source pixels, and what results can do."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rkzoo.contract.detect import DetectHead, HeadOutput
from rkzoo.contract.inputs import ImageInput, TensorSpec
from rkzoo.contract.model import Contract
from rkzoo.errors import RkzooError
from rkzoo.tasks.detect.result import Detections
from rkzoo.tasks.detect.task import DetectOptions, Detector
from rkzoo.tasks.obb.result import OrientedBoxes
from rkzoo.tasks.obb.task import OrientedDetector, boxes_to_source
from rkzoo.tasks.pose.result import Poses
from rkzoo.tasks.pose.task import PoseEstimator
from rkzoo.tasks.segment.result import Masks
from rkzoo.tasks.segment.task import Segmenter
from rkzoo.vision.letterbox import plan
from rkzoo.vision.masks import mask_crops


class Still:
    """A session that always answers the same."""

    label = "onnx"

    def __init__(self, tensors: dict[str, np.ndarray]) -> None:
        self.tensors = [t.astype(np.float32) for t in tensors.values()]
        self.inputs = ()
        self.outputs = tuple(
            TensorSpec(
                name=name, shape=t.shape, dtype="float32",
                layout="NCHW" if t.ndim == 4 else "plain",
            )
            for name, t in tensors.items()
        )  # fmt: skip

    def run(self, arrays):
        assert arrays[0].dtype == np.uint8
        return self.tensors


def contract(tensors, size, **head) -> Contract:
    outputs = tuple(HeadOutput(name=name, role=name) for name in tensors)
    whole = DetectHead(outputs=outputs, reg_max=1, coding="distance", strides=(8,), **head)
    return Contract(
        family="test", picture=ImageInput(size=size), head=whole, labels=("ship", "plane")
    )


def scene(classes=2, found=True):
    """64x64, cells of 8: one object at cell (3, 4), 2 cells to each side."""
    box, score = np.zeros((1, 4, 8, 8)), np.zeros((1, classes, 8, 8))
    if found:
        box[0, :, 4, 3], score[0, 1, 4, 3] = 2, 0.9
    return {"box": box, "score": score}


def boxes_of(n):
    corner = np.arange(n, dtype=np.float32)[:, None] * 3
    xyxy = np.concatenate((corner, corner, corner + 10, corner + 12), axis=1)
    score = np.linspace(0.9, 0.5, n, dtype=np.float32)
    return Detections(xyxy, score, np.zeros(n, np.int32), ("ship",))


def test_masks_go_from_prototypes_to_source_pixels():
    tensors = scene()
    tensors["coefficients"] = np.zeros((1, 3, 8, 8))
    tensors["coefficients"][0, :, 4, 3] = (1, 0, -1)
    tensors["prototypes"] = np.zeros((1, 3, 16, 16))
    tensors["prototypes"][0, 0] = 8
    tensors["prototypes"][0, 2, :, :7] = 16  # the mask ends at column 28 of 64
    task = Segmenter(contract(tensors, (64, 64), classes=2, coefficients=3), Still(tensors))
    image = np.zeros((128, 128, 3), np.uint8)
    found = task(image)
    # Box in model pixels: centre (28, 36), 16 to each side; twice that in the picture.
    np.testing.assert_allclose(found.boxes.xyxy, [[24, 40, 88, 104]])
    assert found.corners.tolist() == [[24, 40]]
    assert found.crops[0].shape == (64, 64)
    whole = found.dense()[0]
    assert whole.shape == (128, 128)
    ys, xs = np.nonzero(whole)
    assert (ys.min(), ys.max(), xs.max()) == (40, 103, 87)
    assert abs(xs.min() - 56) <= 1
    record = json.loads(json.dumps(found.to_json()))[0]
    assert record["label"] == "plane"
    assert record["area"] == int(found.crops[0].sum())
    assert record["polygons"][0][0] == xs.min()
    pytest.importorskip("supervision")
    assert found.to_supervision().mask.shape == (1, 128, 128)
    drawn = found.draw(image + 100)
    assert np.abs(drawn.astype(int) - 100).max(axis=2)[60:100, 60:86].min() > 0
    assert found.lines()[0].endswith(" px")


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    layout=st.sampled_from(["NCHW", "NHWC", "NC1HWC2"]),
    integers=st.booleans(),
    count=st.integers(0, 6),
)
def test_masks_are_those_of_the_full_size_way(seed, layout, integers, count):
    """Not one pixel differs from sigmoid, whole upsampling, threshold, and zero outside."""
    rng = np.random.default_rng(seed)
    height, width, channels = 96, 160, 9
    smooth = cv2.resize(rng.normal(0, 2, (6, 8, channels)).astype(np.float32), (40, 24))
    maps = smooth.transpose(2, 0, 1)[None]
    scale, zero = (0.06, -7) if integers else (None, 0)
    stored = maps
    if integers:
        stored = np.clip(np.round(maps / scale) + zero, -128, 127).astype(np.int8)
        maps = (stored.astype(np.float32) - zero) * np.float32(scale)
    if layout == "NHWC":
        view = np.ascontiguousarray(stored.transpose(0, 2, 3, 1))
    elif layout == "NC1HWC2":
        padded = np.full((1, 16, 24, 40), 55, stored.dtype)
        padded[:, :channels] = stored
        native = np.ascontiguousarray(padded.reshape(1, 2, 8, 24, 40).transpose(0, 1, 3, 4, 2))
        view = native[0]
    else:
        view = stored[0][..., None]
    weights = rng.normal(0, 0.6, (count, channels)).astype(np.float32)
    start = rng.uniform(-10, 150, (count, 2))
    boxes = np.concatenate((start, start + rng.uniform(0, 120, (count, 2))), axis=1)
    boxes = np.clip(boxes, 0, [width, height] * 2).astype(np.float32)
    letterbox = plan((height, width), ImageInput(size=(height, width)))
    places, crops = mask_crops(view, weights, boxes, letterbox, scale, zero)
    found = Masks(
        Detections(boxes, np.ones(count, np.float32), np.zeros(count, np.int32)),
        places, crops, (height, width),
    )  # fmt: skip
    share = 1 / (1 + np.exp(-np.tensordot(weights, maps[0], 1)))
    whole = [cv2.resize(one.astype(np.float32), (width, height)) for one in share]
    x, y = np.arange(width), np.arange(height)[:, None]
    for got, one, (x1, y1, x2, y2) in zip(found.dense(), whole, boxes, strict=True):
        want = (one > 0.5) & (x >= x1) & (x < x2) & (y >= y1) & (y < y2)
        undecided = np.abs(one - 0.5) < 1e-5
        np.testing.assert_array_equal(got | undecided, want | undecided)
    assert sum(crop.size for crop in crops) <= sum(
        np.prod(np.ceil(b[2:]) - np.ceil(b[:2])) for b in boxes
    )


def test_a_mask_in_a_scaled_picture_lies_where_it_should():
    """A disc of prototypes; letterboxed, so that scale and offset both count."""
    y, x = np.mgrid[0:40, 0:40] + 0.5
    disc = (10 - np.hypot(x - 20, y - 20)).astype(np.float32)[None, ..., None]
    letterbox = plan((300, 500), ImageInput(size=(160, 160)))
    box = letterbox.boxes_to_source(np.array([[38, 38, 122, 122]], np.float32))
    places, crops = mask_crops(disc, np.ones((1, 1), np.float32), box, letterbox)
    got = Masks(
        Detections(box, np.ones(1, np.float32), np.zeros(1, np.int32)), places, crops, (300, 500)
    ).dense()[0]
    py, px = np.mgrid[0:300, 0:500] + 0.5
    mx, my = px * 160 / 500, py * 160 / 500 + letterbox.top
    want = np.hypot(mx - 80, my - 80) < 40
    assert np.count_nonzero(got ^ want) / want.sum() < 0.01


def test_prototypes_of_another_size_are_refused():
    letterbox = plan((64, 64), ImageInput(size=(64, 64)))
    with pytest.raises(RkzooError, match="15x16"):
        mask_crops(
            np.zeros((2, 15, 16, 1)), np.ones((1, 2), np.float32),
            np.ones((1, 4), np.float32), letterbox,
        )  # fmt: skip


@pytest.mark.parametrize("values", [2, 3])
def test_poses_go_back_into_the_picture(values):
    """The offsets of cell and stride are right, and so is the letterbox (faults of the
    original)."""
    tensors = scene(classes=1, found=False)
    tensors["box"][0, :, 4, 3], tensors["score"][0, 0, 4, 3] = 2, 0.9
    tensors["keypoints"] = np.zeros((1, 17 * values, 8, 8))
    tensors["keypoints"][0, 0, 4, 3] = 0.25  # x = (2 * 0.25 + 3) * 8 = 28
    tensors["keypoints"][0, 1, 4, 3] = 0.5  # y = (2 * 0.5 + 4) * 8 = 40
    if values == 3:
        tensors["keypoints"][0, 2, 4, 3] = 4
    head = contract(tensors, (64, 64), classes=1, keypoints=17, keypoint_values=values)
    found = PoseEstimator(head, Still(tensors))(np.zeros((64, 128, 3), np.uint8))
    # The picture was halved and sits 16 below the top.
    x, y, v = found.keypoints[0, 0]
    assert (x, y) == (56, 48)
    assert v == pytest.approx(1 / (1 + np.exp(-4)) if values == 3 else 1)
    record = json.loads(json.dumps(found.to_json()))[0]
    assert record["keypoints"][0][:2] == [56, 48]
    pytest.importorskip("supervision")
    assert found.to_supervision().data["keypoints"].shape == (1, 17, 3)
    assert found.draw(np.zeros((64, 128, 3), np.uint8)).any()
    assert "of 17 points" in found.lines()[0]


@settings(max_examples=40, deadline=None)
@given(
    angle=st.floats(-np.pi / 4, 3 * np.pi / 4 - 1e-3),
    source=st.tuples(st.integers(40, 900), st.integers(40, 900)),
    fit=st.sampled_from(["letterbox", "stretch"]),
)
def test_rotated_boxes_keep_their_angle(angle, source, fit):
    letterbox = plan(source, ImageInput(size=(320, 320), fit=fit))
    box = np.array([[300, 20, 80, 30, angle]], np.float32)
    got = OrientedBoxes(boxes_to_source(box, letterbox), np.ones(1, np.float32),
                        np.zeros(1, np.int32))  # fmt: skip
    np.testing.assert_allclose(
        got.boxes[0, :2], letterbox.to_source(box[:, :2])[0], rtol=1e-5, atol=1e-3
    )
    if fit == "letterbox":  # a rounded side may turn it by a hair
        assert got.boxes[0, 4] == pytest.approx(angle, abs=0.02)
    # The width side is followed exactly, whatever the scale.
    way = np.array([np.cos(angle), np.sin(angle)]) * 80 * letterbox.scale
    np.testing.assert_allclose(got.quads()[0, 1] - got.quads()[0, 0], way, rtol=1e-3, atol=1e-2)


def test_oriented_boxes_from_tensors_to_results():
    tensors = scene()
    tensors["box"][0, :, 4, 3] = (3, 1, 3, 1)
    tensors["angle"] = np.zeros((1, 1, 8, 8))  # (0.5 - 0.25) pi
    task = OrientedDetector(contract(tensors, (64, 64), classes=2, rotated=True), Still(tensors))
    image = np.zeros((64, 64, 3), np.uint8)
    found = task(image)
    np.testing.assert_allclose(found.boxes, [[28, 36, 48, 16, np.pi / 4]], rtol=1e-5)
    record = json.loads(json.dumps(found.to_json()))[0]
    assert record["angle"] == pytest.approx(np.pi / 4, abs=1e-4)
    assert record["label"] == "plane"
    assert np.array(record["corners"]).shape == (4, 2)
    pytest.importorskip("supervision")
    assert found.to_supervision().data["xyxyxyxy"].shape == (1, 4, 2)
    assert found.draw(image).any()
    assert "turned 45.0 degrees" in found.lines()[0]


@pytest.mark.parametrize("mode", ["class", "all", "none"])
def test_the_head_says_how_boxes_suppress_each_other(mode):
    tensors = scene()
    for x, kind, score in ((4, 1, 0.8), (2, 0, 0.7)):
        tensors["box"][0, :, 4, x], tensors["score"][0, kind, 4, x] = 2, score
    tensors["box"][0, 0, 4, 4], tensors["box"][0, 2, 4, 4] = 3, 1  # just the first box again
    tensors["box"][0, 0, 4, 2], tensors["box"][0, 2, 4, 2] = 1, 3  # and again, another class
    task = Detector(contract(tensors, (64, 64), classes=2, suppression=mode), Still(tensors))
    found = task(np.zeros((64, 64, 3), np.uint8))
    want = {"class": [0.9, 0.7], "all": [0.9], "none": [0.9, 0.8, 0.7]}[mode]
    np.testing.assert_allclose(found.score, want, rtol=1e-6)


EMPTY = {
    Detector: {},
    Segmenter: {"coefficients": (1, 2, 8, 8), "prototypes": (1, 2, 16, 16)},
    PoseEstimator: {"keypoints": (1, 51, 8, 8)},
    OrientedDetector: {"angle": (1, 1, 8, 8)},
}


@pytest.mark.parametrize("task", EMPTY)
@pytest.mark.parametrize("shape", [(64, 64), (1, 1), (800, 10)])
def test_empty_results(task, shape):
    tensors = scene(found=False) | {k: np.zeros(s) for k, s in EMPTY[task].items()}
    head = contract(
        tensors, (64, 64), classes=2, rotated=task is OrientedDetector,
        keypoints=17 * (task is PoseEstimator), coefficients=2 * (task is Segmenter),
    )  # fmt: skip
    image = np.full((*shape, 3), 7, np.uint8)
    found = task(head, Still(tensors), DetectOptions(confidence=0.25))(image)
    assert len(found) == 0
    assert found.to_json() == found.lines() == []
    pytest.importorskip("supervision")
    assert len(found.to_supervision()) == 0
    assert np.array_equal(found.draw(image), image)
    assert len(found[:3]) == 0


def test_slices_keep_parts_together():
    boxes = boxes_of(3)
    crops = tuple(np.full((5 + i, 4), 1, np.uint8) for i in range(3))
    masks = Masks(boxes, np.arange(6, dtype=np.int32).reshape(3, 2), crops, (40, 40))
    part = masks[np.array([False, True, True])]
    assert [c.shape[0] for c in part.crops] == [6, 7]
    assert part.corners.tolist() == [[2, 3], [4, 5]]
    assert masks[np.array([2, 0])].areas().tolist() == [28, 20]
    poses = Poses(boxes, np.arange(3 * 4 * 3, dtype=np.float32).reshape(3, 4, 3))
    assert poses[1:].keypoints[0, 0, 0] == 12
    turned = OrientedBoxes(np.ones((3, 5), np.float32), boxes.score, boxes.class_id, ("ship",))
    assert turned[:2].labels == ("ship",)
    assert len(turned[boxes.score > 0.6]) == 2


def test_parts_that_do_not_belong_together_are_refused():
    boxes = boxes_of(2)
    crop = np.ones((5, 5), np.uint8)
    corner = np.zeros((2, 2), np.int32)
    with pytest.raises(ValueError, match="as many as boxes"):
        Masks(boxes, corner, (crop,), (40, 40))
    with pytest.raises(ValueError, match="inside the picture"):
        Masks(boxes, corner + 38, (crop, crop), (40, 40))
    with pytest.raises(ValueError, match="uint8"):
        Masks(boxes, corner, (crop, crop.astype(float)), (40, 40))
    with pytest.raises(ValueError, match="keypoints"):
        Poses(boxes, np.zeros((1, 17, 3), np.float32))
    with pytest.raises(ValueError, match=r"\(N, 5\)"):
        OrientedBoxes(np.zeros((2, 4), np.float32), boxes.score, boxes.class_id)
