"""RetinaFace: anchors, decoding, points and aligned faces."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rkzoo.contract.faces import FaceHead
from rkzoo.contract.inputs import ImageInput, TensorSpec
from rkzoo.contract.model import Contract
from rkzoo.errors import RkzooError
from rkzoo.tasks.detect.task import DetectOptions
from rkzoo.tasks.face.align import REFERENCE, similarity
from rkzoo.tasks.face.postprocess import FaceDecoder, anchors
from rkzoo.tasks.face.task import FaceDetector

HEAD = FaceHead()


def priors_by_loops(size: tuple[int, int], head: FaceHead) -> list[tuple[float, float, float]]:
    """As the paper's code counts them: level, row, column, side."""
    found = []
    for stride, sides in zip(head.strides, head.anchors, strict=True):
        for row in range(math.ceil(size[0] / stride)):
            for column in range(math.ceil(size[1] / stride)):
                for side in sides:
                    found.append(((column + 0.5) * stride, (row + 0.5) * stride, side))
    return found


@pytest.mark.parametrize("size", [(320, 320), (64, 100), (33, 40)])
def test_anchors_lie_as_a_loop_counts_them(size: tuple[int, int]) -> None:
    assert anchors(HEAD, size).tolist() == [list(p) for p in priors_by_loops(size, HEAD)]


def test_a_model_of_320_has_4200_anchors() -> None:
    assert len(anchors(HEAD, (320, 320))) == 4200
    assert len(anchors(HEAD, (640, 640))) == 16800


def specs(count: int) -> list[TensorSpec]:
    return [
        TensorSpec(name=name, shape=(1, count, width), dtype="float32")
        for name, width in (("landmarks", 10), ("loc", 4), ("conf", 2))
    ]


def outputs(count: int) -> list[np.ndarray]:
    random = np.random.default_rng(1)
    score = random.random((1, count, 1))
    return [
        random.normal(size=(1, count, 10)).astype(np.float32),
        random.normal(size=(1, count, 4)).astype(np.float32),
        np.concatenate([1 - score, score], axis=2).astype(np.float32),
    ]


def test_decoding_equals_the_formula_cell_by_cell() -> None:
    size = (64, 96)
    priors = priors_by_loops(size, HEAD)
    raw = outputs(len(priors))
    found = FaceDecoder(HEAD, size, specs(len(priors))).candidates(raw, 0.7)
    rows = [i for i in range(len(priors)) if raw[2][0, i, 1] >= 0.7]
    assert 10 < len(rows) < len(priors)
    for got, points, i in zip(found.boxes, found.points, rows, strict=True):
        cx, cy, side = priors[i]
        dx, dy, dw, dh = raw[1][0, i].tolist()
        x, y = cx + 0.1 * dx * side, cy + 0.1 * dy * side
        w, h = side * math.exp(0.2 * dw), side * math.exp(0.2 * dh)
        assert got == pytest.approx([x - w / 2, y - h / 2, x + w / 2, y + h / 2], abs=1e-3)
        for number, (px, py) in enumerate(points.tolist()):
            lx, ly = raw[0][0, i, 2 * number : 2 * number + 2].tolist()
            assert (px, py) == pytest.approx((cx + 0.1 * lx * side, cy + 0.1 * ly * side), abs=1e-3)


def test_scores_before_their_softmax_are_the_same_faces() -> None:
    count = len(anchors(HEAD, (64, 64)))
    raw = outputs(count)
    logits = [raw[0], raw[1], np.log(raw[2]) + 3]
    bare = FaceHead(activated=False)
    a = FaceDecoder(HEAD, (64, 64), specs(count)).candidates(raw, 0.5)
    b = FaceDecoder(bare, (64, 64), specs(count)).candidates(logits, 0.5)
    assert b.boxes == pytest.approx(a.boxes)
    assert b.score == pytest.approx(a.score, abs=1e-5)


def test_integers_are_the_same_faces() -> None:
    count = len(anchors(HEAD, (64, 64)))
    random = np.random.default_rng(2)
    whole = [random.integers(-128, 128, (1, count, w)).astype(np.int8) for w in (10, 4, 2)]
    scales = [(0.02, 3), (0.02, -7), (1 / 255, -128)]
    quantised = [
        TensorSpec(name=s.name, shape=s.shape, dtype="int8", scale=scale, zero_point=zero)
        for s, (scale, zero) in zip(specs(count), scales, strict=True)
    ]
    floats = [
        (array.astype(np.float32) - zero) * np.float32(scale)
        for array, (scale, zero) in zip(whole, scales, strict=True)
    ]
    a = FaceDecoder(HEAD, (64, 64), quantised).candidates(whole, 0.4)
    b = FaceDecoder(HEAD, (64, 64), specs(count)).candidates(floats, 0.4)
    assert len(a.score) > 5
    assert a.boxes == pytest.approx(b.boxes)
    assert a.points == pytest.approx(b.points)


def test_anchors_of_another_training_are_named_in_the_error() -> None:
    count = len(anchors(HEAD, (64, 64)))
    decoder = FaceDecoder(HEAD, (32, 32), specs(count))
    with pytest.raises(RkzooError, match=f"{count} anchors, its description"):
        decoder.candidates(outputs(count), 0.5)


def test_outputs_of_another_model_are_refused() -> None:
    with pytest.raises(RkzooError, match="1x10x4, 1x10x3"):
        FaceDecoder(
            HEAD,
            (64, 64),
            [TensorSpec(name="a", shape=(1, 10, n), dtype="float32") for n in (4, 3)],
        )


def test_numbers_beyond_all_sizes_do_not_overflow() -> None:
    count = len(anchors(HEAD, (64, 64)))
    raw = outputs(count)
    raw[1][:] = 1e9
    with np.errstate(all="raise"):
        found = FaceDecoder(HEAD, (64, 64), specs(count)).candidates(raw, 0.5)
    assert np.isfinite(found.boxes).all()


class Fixed:
    label = "onnx"
    inputs = ()

    def __init__(self, arrays: list[np.ndarray]) -> None:
        self.arrays = arrays
        self.outputs = tuple(specs(arrays[0].shape[1]))

    def run(self, arrays: object) -> list[np.ndarray]:
        return self.arrays


def test_one_face_lands_where_it_is_in_the_picture() -> None:
    contract = Contract(
        family="retinaface", picture=ImageInput(size=(64, 64)), head=HEAD, labels=("face",)
    )
    raw = [np.zeros_like(a) for a in outputs(len(anchors(HEAD, (64, 64))))]
    # Two neighbours on the same face: the second is suppressed.
    raw[2][0, [0, 1], 1] = 0.6, 0.9
    raw[1][0, 0, 2:] = 5 * math.log(2)  # 16 becomes 32, as the other's side
    task = FaceDetector(contract, Fixed(raw), DetectOptions(confidence=0.5))  # type: ignore[arg-type]
    picture = np.zeros((128, 256, 3), np.uint8)
    found = task(picture)
    # Scaled by 1/4 to 32x64, 16 rows of grey above.
    assert found.boxes.xyxy.tolist() == [[0, 0, 80, 16]]
    assert found.points[0].tolist() == [[16, -48]] * 5
    record = found.to_json()[0]
    assert (record["label"], record["points"]["nose"]) == ("face", [16, -48])
    assert found.draw(picture).shape == picture.shape
    assert len(found.aligned(picture)) == 1


@settings(max_examples=60, deadline=None)
@given(st.floats(-math.pi, math.pi), st.floats(0.1, 8), st.floats(-300, 300), st.floats(-300, 300))
def test_turning_scaling_and_moving_are_found_again(
    angle: float, scale: float, dx: float, dy: float
) -> None:
    a, b = scale * math.cos(angle), scale * math.sin(angle)
    matrix = np.array([[a, -b, dx], [b, a, dy]])
    moved = REFERENCE @ matrix[:, :2].T + matrix[:, 2]
    assert similarity(REFERENCE, moved) == pytest.approx(matrix, abs=1e-6)


def test_noisy_points_are_met_as_least_squares_says() -> None:
    random = np.random.default_rng(3)
    source = random.normal(size=(5, 2)) * 40
    target = random.normal(size=(5, 2)) * 40
    # a, b, dx, dy of [[a, -b, dx], [b, a, dy]] as a plain linear system.
    rows = [[x, -y, 1, 0] for x, y in source] + [[y, x, 0, 1] for x, y in source]
    wanted = np.concatenate([target[:, 0], target[:, 1]])
    a, b, dx, dy = np.linalg.lstsq(np.array(rows), wanted, rcond=None)[0]
    assert similarity(source, target) == pytest.approx(np.array([[a, -b, dx], [b, a, dy]]))


def test_a_turned_face_is_put_upright() -> None:
    upright = np.zeros((112, 112, 3), np.uint8)
    for x, y in REFERENCE.round().astype(int):
        cv2.circle(upright, (int(x), int(y)), 5, (255, 255, 255), -1)
    turn = cv2.getRotationMatrix2D((56, 56), 40, 2.0)
    turn[:, 2] += 144
    picture = cv2.warpAffine(upright, turn, (400, 400))
    points = (REFERENCE @ turn[:, :2].T + turn[:, 2])[None].astype(np.float32)
    from rkzoo.tasks.face.align import aligned

    (face,) = aligned(picture, points)
    difference = np.abs(face.astype(int) - upright.astype(int)).mean()
    assert difference < 4  # the edges of the circles only


def test_points_that_fall_together_do_no_harm() -> None:
    assert np.isfinite(similarity(np.ones((5, 2)), REFERENCE)).all()
