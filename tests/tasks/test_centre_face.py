"""CenterFace's maps, and RetinaFace with four corners: number plates."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rkzoo.contract.faces import CentreFaceHead, FaceHead
from rkzoo.contract.inputs import ImageInput, TensorSpec
from rkzoo.contract.model import Contract
from rkzoo.errors import RkzooError
from rkzoo.tasks.face.postprocess import CentreFaceDecoder, anchors
from rkzoo.tasks.face.task import FaceDetector
from rkzoo.tasks.plate.detect import PlateDetector, as_lines
from rkzoo.tasks.text.page import PageReader
from rkzoo.tasks.text.read_line import RecognizedText

HEAD = CentreFaceHead()
SIZE = (64, 96)
SHAPES = [(1, channels, 16, 24) for channels in (1, 2, 2, 10)]
SPECS = [TensorSpec(name=str(at), shape=shape, dtype="float32") for at, shape in enumerate(SHAPES)]


def maps() -> list[np.ndarray]:
    random = np.random.default_rng(5)
    score = random.random(SHAPES[0])
    return [score.astype(np.float32)] + [
        random.normal(size=shape).astype(np.float32) for shape in SHAPES[1:]
    ]


def by_loops(raw: list[np.ndarray], least: float) -> list[tuple[list[float], list[list[float]]]]:
    """As the paper has it: cell by cell, the row's number first."""
    found = []
    for row in range(SHAPES[0][2]):
        for column in range(SHAPES[0][3]):
            if raw[0][0, 0, row, column] < least:
                continue
            height, width = (4 * math.exp(raw[1][0, axis, row, column]) for axis in (0, 1))
            y = 4 * (row + raw[2][0, 0, row, column] + 0.5)
            x = 4 * (column + raw[2][0, 1, row, column] + 0.5)
            left, top = x - width / 2, y - height / 2
            points = [
                [
                    left + width * raw[3][0, 2 * number + 1, row, column],
                    top + height * raw[3][0, 2 * number, row, column],
                ]
                for number in range(5)
            ]
            found.append(([left, top, left + width, top + height], points))
    return found


def test_decoding_equals_the_formula_cell_by_cell() -> None:
    raw = maps()
    found = CentreFaceDecoder(HEAD, SIZE, SPECS).candidates(raw, 0.8)
    expected = by_loops(raw, 0.8)
    assert 20 < len(expected) < 200
    assert found.boxes == pytest.approx(np.array([box for box, _ in expected]), abs=1e-3)
    assert found.points == pytest.approx(np.array([five for _, five in expected]), abs=1e-3)


def test_integers_are_the_same_faces() -> None:
    random = np.random.default_rng(6)
    whole = [random.integers(-128, 128, shape).astype(np.int8) for shape in SHAPES]
    specs = [
        TensorSpec(name=s.name, shape=s.shape, dtype="int8", scale=scale, zero_point=zero)
        for s, (scale, zero) in zip(
            SPECS, [(1 / 255, -128), (0.02, 3), (0.004, -9), (0.01, 0)], strict=True
        )
    ]
    floats = [
        (array.astype(np.float32) - spec.zero_point) * np.float32(spec.scale)
        for array, spec in zip(whole, specs, strict=True)
    ]
    a = CentreFaceDecoder(HEAD, SIZE, specs).candidates(whole, 0.9)
    b = CentreFaceDecoder(HEAD, SIZE, SPECS).candidates(floats, 0.9)
    assert len(a.score) > 5
    assert a.boxes == pytest.approx(b.boxes)
    assert a.points == pytest.approx(b.points)


@pytest.mark.parametrize("at", range(4))
def test_maps_of_another_model_are_refused(at: int) -> None:
    wrong = list(SPECS)
    wrong[at] = TensorSpec(name="x", shape=(1, 3, 16, 24), dtype="float32")
    with pytest.raises(RkzooError, match="1x3x16x24"):
        CentreFaceDecoder(HEAD, SIZE, wrong)


def test_numbers_beyond_all_sizes_do_not_overflow() -> None:
    raw = maps()
    raw[1][:] = 1e9
    with np.errstate(all="raise"):
        found = CentreFaceDecoder(HEAD, SIZE, SPECS).candidates(raw, 0.5)
    assert np.isfinite(found.boxes).all()


class Fixed:
    label = "onnx"
    inputs = ()

    def __init__(self, arrays: list[np.ndarray]) -> None:
        self.arrays = arrays
        self.outputs = tuple(
            TensorSpec(name=str(at), shape=array.shape, dtype="float32")
            for at, array in enumerate(arrays)
        )

    def run(self, arrays: object) -> list[np.ndarray]:
        return self.arrays


def contract(head: FaceHead | CentreFaceHead, size: tuple[int, int] = SIZE) -> Contract:
    return Contract(family="a", picture=ImageInput(size=size), head=head, labels=("it",))


def test_one_face_lands_where_it_is_in_the_picture() -> None:
    raw = [np.zeros_like(array) for array in maps()]
    raw[0][0, 0, 5, 7] = 0.9
    raw[1][0, :, 5, 7] = math.log(4), math.log(2)
    raw[3][0, :, 5, 7] = np.tile([1, 0], 5)
    found = FaceDetector(contract(HEAD), Fixed(raw))(np.zeros((128, 192, 3), np.uint8))  # type: ignore[arg-type]
    # The middle (30, 22), 8 wide and 16 high, in a picture twice as large.
    assert found.boxes.xyxy.tolist() == [[52, 28, 68, 60]]
    assert found.points.tolist() == [[[52, 60]] * 5]


def plate(size: tuple[int, int], corners: list[tuple[float, float]]) -> list[np.ndarray]:
    """A RetinaFace that sees one plate, at its first anchor, with these corners."""
    head = FaceHead(points=4)
    where = anchors(head, size)
    x, y, side = where[0]
    raw = [np.zeros((1, len(where), width), np.float32) for width in (4, 2, 8)]
    raw[1][0, 0, 1] = 0.9
    raw[2][0, 0] = ((np.array(corners) - (x, y)) / side / head.variances[0]).reshape(-1)
    return raw


CORNERS = [(10.0, 12.0), (50.0, 8.0), (52.0, 20.0), (12.0, 24.0)]


@pytest.mark.parametrize("first", range(4))
def test_the_corners_of_a_plate_begin_at_its_top_left(first: int) -> None:
    size = (64, 64)
    raw = plate(size, CORNERS[first:] + CORNERS[:first])
    task = PlateDetector(contract(FaceHead(points=4), size), Fixed(raw))  # type: ignore[arg-type]
    found = task(np.zeros((64, 64, 3), np.uint8))
    assert found.quads[0] == pytest.approx(np.array(CORNERS), abs=1e-4)
    assert found.to_json()[0]["score"] == pytest.approx(0.9)


def test_a_plate_is_straightened_before_it_is_read() -> None:
    size = (64, 64)
    picture = np.zeros((64, 64, 3), np.uint8)
    seen = []

    class Reader:
        def read(self, image: np.ndarray) -> tuple[str, float]:
            seen.append(image.shape)
            return "皖A12345", 0.8

    task = PlateDetector(
        contract(FaceHead(points=4), size),
        Fixed(plate(size, CORNERS)),  # type: ignore[arg-type]
    )
    found = PageReader(task, lambda lines: as_lines(Reader(), lines))(picture)  # type: ignore[arg-type]
    assert found.texts == ("皖A12345",)
    # The sides of the plate, not of the box around it.
    assert seen == [(12, 40, 3)]
    assert as_lines(Reader(), [picture]) == [RecognizedText("皖A12345", 0.8, 7)]  # type: ignore[arg-type]


def test_faces_are_no_plates() -> None:
    with pytest.raises(RkzooError, match="nothing with 4 points"):
        PlateDetector(contract(HEAD), Fixed(maps()))  # type: ignore[arg-type]
    with pytest.raises(RkzooError, match="nothing with 5 points"):
        FaceDetector(contract(FaceHead(points=4)), Fixed(maps()))  # type: ignore[arg-type]
