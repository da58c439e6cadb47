"""Key points of one person: against OpenMMLab's own decoding (scripts/pose_answers.py), and on
graphs of which the answer is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rkzoo.contract.inputs import ImageInput, TensorSpec
from rkzoo.contract.model import Contract
from rkzoo.contract.pose import TopDownPoseHead
from rkzoo.errors import RkzooError
from rkzoo.tasks.detect.result import Detections
from rkzoo.tasks.pose.crop import PersonCrop
from rkzoo.tasks.pose.keypoints import from_bins, from_maps, from_udp_maps
from rkzoo.tasks.pose.top_down import PeoplePose, TopDownPose

SIZE = (256, 192)
ANSWERS = np.load(Path(__file__).parent / "pose_answers.npz")


def floats(name: str) -> np.ndarray:
    return ANSWERS[name].astype(np.float32)


def test_bins_as_mmpose_reads_them() -> None:
    found = from_bins([floats("simcc_x"), floats("simcc_y")], SIZE)
    np.testing.assert_allclose(found, ANSWERS["simcc"], atol=1e-4)
    turned = from_bins([floats("simcc_y"), floats("simcc_x")], SIZE)
    np.testing.assert_array_equal(found, turned)


def test_maps_as_mmpose_reads_them() -> None:
    np.testing.assert_allclose(from_maps(floats("maps")[None], SIZE), ANSWERS["plain"], atol=1e-4)


def test_maps_without_bias_as_mmpose_reads_them() -> None:
    found = from_udp_maps(floats("maps")[None], SIZE)
    np.testing.assert_allclose(found, ANSWERS["udp"], atol=2e-2)


def test_equal_bins_are_met_in_their_middle() -> None:
    columns, rows = np.zeros((1, 1, 384), np.float32), np.zeros((1, 1, 512), np.float32)
    columns[0, 0, 100:105] = 0.5
    rows[0, 0, 7] = 0.25
    assert from_bins([columns, rows], SIZE).tolist() == [[51, 3.5, 0.25]]


@given(x=st.floats(6, 41), y=st.floats(6, 57))
def test_a_gaussian_is_found_where_it_stands(x: float, y: float) -> None:
    down, right = np.mgrid[0:64, 0:48]
    plane = np.exp(-((right - x) ** 2 + (down - y) ** 2) / 8).astype(np.float32)[None, None]
    (udp,) = from_udp_maps(plane, SIZE)
    assert udp[:2] == pytest.approx([x / 47 * 192, y / 63 * 256], abs=0.6)
    (plain,) = from_maps(plane, SIZE)
    assert plain[:2] == pytest.approx([x * 4, y * 4], abs=2.1)


@pytest.mark.parametrize("corners", [False, True])
def test_a_person_is_cut_out_as_by_mmpose(corners: bool) -> None:
    crop = PersonCrop.of(ANSWERS["box"], SIZE, 1.25, corners)
    assert crop.center == pytest.approx(ANSWERS["center"])
    assert crop.extent == pytest.approx(ANSWERS["extents"][int(corners)], rel=1e-5)
    canvas = np.empty((*SIZE, 3), np.uint8)
    crop.cut(ANSWERS["picture"], canvas)
    apart = np.abs(canvas.astype(int) - ANSWERS["crops"][int(corners)])
    assert np.mean(apart <= 1) > 0.995


boxes = st.tuples(st.floats(-50, 400), st.floats(-50, 400), st.floats(3, 300), st.floats(3, 300))


@given(box=boxes, corners=st.booleans(), x=st.floats(0, 1), y=st.floats(0, 1))
def test_points_go_back_to_where_they_were(
    box: tuple[float, ...], corners: bool, x: float, y: float
) -> None:
    left, top, width, height = box
    crop = PersonCrop.of(np.array([left, top, left + width, top + height]), SIZE, 1.25, corners)
    source = np.array([left + x * width, top + y * height])
    place = crop.matrix() @ [*source, 1]
    # With UDP the decoder says where the outermost pixel lies by the side itself.
    place *= np.array([192 / 191, 256 / 255]) if corners else 1
    assert crop.to_source(place) == pytest.approx(source, abs=1e-2)


class Brightest:
    """A network whose key point is the brightest pixel of its input."""

    label = "onnx"
    inputs = (TensorSpec(name="x", shape=(1, *SIZE, 3), dtype="uint8", layout="NHWC"),)
    outputs = tuple(
        TensorSpec(name=name, shape=(1, 1, bins), dtype="float32")
        for name, bins in (("x", 384), ("y", 512))
    )

    def run(self, arrays: list[np.ndarray]) -> list[np.ndarray]:
        plane = arrays[0][0].sum(axis=2).astype(np.float32) / 765
        return [plane.max(axis=0).repeat(2)[None, None], plane.max(axis=1).repeat(2)[None, None]]

    def close(self) -> None: ...


def pose(*boxes: tuple[float, float, float, float]) -> TopDownPose:
    contract = Contract(
        family="f",
        picture=ImageInput(size=SIZE, pad=0),
        head=TopDownPoseHead(points=1, coding="simcc"),
    )
    return TopDownPose(contract, Brightest(), boxes)  # type: ignore[arg-type]


def picture() -> np.ndarray:
    """Two bright squares on black."""
    image = np.zeros((300, 400, 3), np.uint8)
    image[95:106, 75:86] = image[195:206, 295:306] = 255
    return image


def test_each_box_is_a_person() -> None:
    found = pose((50, 60, 130, 180), (260, 150, 340, 290))(picture())
    assert found.boxes.labels == ("person",)
    assert found.keypoints[:, 0, :2] == pytest.approx(np.array([[80, 100], [300, 200]]), abs=1)
    assert found.keypoints[:, 0, 2].tolist() == [1, 1]
    assert found.draw(picture()).shape == (300, 400, 3)


def test_without_boxes_the_whole_picture_is_the_person() -> None:
    image = picture()
    image[150:] = 0
    found = pose()(image)
    assert found.xyxy.tolist() == [[0, 0, 400, 300]]
    assert found.keypoints[0, 0, :2] == pytest.approx([80, 100], abs=2)


@pytest.mark.parametrize("shape", [(300, 400, 1), (300, 400, 4)])
def test_pictures_of_other_channels(shape: tuple[int, ...]) -> None:
    image = np.zeros(shape, np.uint8)
    image[95:106, 75:86] = 255
    found = pose((50, 60, 130, 180))(image)
    assert found.keypoints[0, 0, :2] == pytest.approx([80, 100], abs=1)


def test_boxes_that_are_none() -> None:
    with pytest.raises(RkzooError, match="is empty"):
        pose((10, 10, 10, 20))
    with pytest.raises(RkzooError, match="outside the picture"):
        pose((500, 10, 600, 20))(picture())


def detections(labels: tuple[str, ...]) -> Detections:
    boxes = np.array([[0, 0, 9, 9], [50, 60, 130, 180], [260, 150, 340, 290]], np.float32)
    scores = np.array([0.9, 0.8, 0.7], np.float32)
    return Detections(boxes, scores, np.array([0, 1, 1], np.int32), labels)


def test_all_people_of_a_picture_and_nothing_else() -> None:
    everybody = PeoplePose(lambda image: detections(("dog", "person")), pose(), "person")
    found = everybody(picture())
    assert found.scores.tolist() == pytest.approx([0.8, 0.7])
    assert found.names == ["person", "person"]
    assert found.keypoints[:, 0, :2] == pytest.approx(np.array([[80, 100], [300, 200]]), abs=1)


def test_a_detector_of_other_things_is_refused() -> None:
    with pytest.raises(RkzooError, match="knows no people"):
        PeoplePose(lambda image: detections(("dog", "cat")), pose(), "person")(picture())


def test_a_box_clipped_to_nothing_at_the_edge_is_no_traceback() -> None:
    corner = Detections(
        np.array([[400, 300, 400, 300]], np.float32), np.ones(1, np.float32), np.zeros(1, np.int32)
    )
    assert np.isfinite(pose().of_people(picture(), corner).keypoints).all()
