"""Drawing: what is seen of each kind of result, with what a board has, and readable labels."""

from __future__ import annotations

import sys

import cv2
import numpy as np
import pytest

from rkzoo.streaming.tracking import Tracked
from rkzoo.tasks.classify.result import Classes
from rkzoo.tasks.depth.result import DepthMap
from rkzoo.tasks.detect.result import Detections
from rkzoo.tasks.face.result import Faces
from rkzoo.tasks.obb.result import OrientedBoxes
from rkzoo.tasks.pose.result import Poses
from rkzoo.tasks.segment.result import Masks
from rkzoo.tasks.semantic.result import ClassMap, ClassMasks
from rkzoo.tasks.tensors.result import Tensors
from rkzoo.tasks.text.result import TextLines
from rkzoo.tasks.vector.result import Vector
from rkzoo.vision import draw
from rkzoo.vision.draw_text import confidence_color
from rkzoo.vision.palettes import THINGS, contrast, readable_on, things, voc

# What a board's own install lacks.
EXTRAS = ("supervision", "av", "matplotlib", "onnx", "onnxruntime", "jinja2", "soundfile", "scipy")
READABLE = 4.5  # WCAG 2, level AA
F32 = np.float32
HEIGHT, WIDTH = 240, 320


def found(*xyxy: list[float], class_id: int = 0) -> Detections:
    count = len(xyxy)
    return Detections(
        np.array(xyxy, F32).reshape(-1, 4),
        np.full(count, 0.9, F32),
        np.full(count, class_id, np.int32),
        ("person", "dog"),
    )


TWO = found([20, 40, 140, 220], [160, 60, 300, 230])


def two_masks() -> Masks:
    crops = (np.ones((180, 120), np.uint8), np.ones((170, 140), np.uint8))
    return Masks(TWO, np.array([[20, 40], [160, 60]], np.int32), crops, (HEIGHT, WIDTH))


def two_poses() -> Poses:
    chance = np.random.default_rng(0)
    points = np.ones((2, 17, 3), F32)
    for number, (x1, y1, x2, y2) in enumerate(TWO.xyxy):
        points[number, :, 0] = chance.uniform(x1 + 20, x2 - 20, 17)
        points[number, :, 1] = chance.uniform(y1 + 30, y2 - 20, 17)
    return Poses(TWO, points)


QUADS = np.array([[[20, 20], [200, 24], [200, 60], [20, 56]]], F32)
CLASS_MAP = np.repeat(np.arange(3, dtype=np.uint8), HEIGHT // 3)[:, None] * np.ones(
    (1, WIDTH), np.uint8
)
KINDS = {
    "boxes": TWO,
    "masks": two_masks(),
    "poses": two_poses(),
    "faces": Faces(TWO, two_poses().keypoints[:, :5, :2].copy()),
    "rotated boxes": OrientedBoxes(
        np.array([[100, 100, 80, 40, 0.5]], F32), np.ones(1, F32), np.zeros(1, np.int32), ("ship",)
    ),
    "text": TextLines(QUADS, ("Hello",), np.ones(1, F32), np.ones(1, F32), np.zeros(1, np.int32)),
    "class map": ClassMap(CLASS_MAP, ("sky", "road", "tree")),
    "overlapping classes": ClassMasks(
        np.stack([CLASS_MAP == 1, CLASS_MAP > 0]), ("road", "ground")
    ),
    "depth": DepthMap(np.linspace(0, 1, HEIGHT * WIDTH, dtype=F32).reshape(HEIGHT, WIDTH)),
    "classes": Classes(np.array([0, 1], np.int32), np.array([0.9, 0.1], F32), ("cat", "dog")),
    "vector": Vector(np.ones(8, F32)),
    "tracked": Tracked(two_masks(), np.array([3, 9])),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_result_is_drawn_with_what_a_board_has(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in EXTRAS:
        monkeypatch.setitem(sys.modules, name, None)
    image = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    drawn = KINDS[kind].draw(image)
    assert (image == 90).all()  # the source stays as it was
    assert drawn.dtype == np.uint8
    assert drawn.shape[2] == 3
    assert (drawn != 90).any(axis=2).sum() > 500


def test_tensors_have_no_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    np.testing.assert_array_equal(Tensors({"out": np.ones((1, 3), F32)}).draw(image), image)


def test_boxes_are_where_they_are_and_nothing_is_inside() -> None:
    image = np.zeros((200, 300, 3), np.uint8)
    drawn = found([50, 60, 120, 150], [200, 100, 280, 190]).draw(image)
    assert drawn[150, 60:110].any(axis=1).all()  # the lower edge of the first
    assert drawn[105:185, 280].any(axis=1).all()  # the right edge of the second
    assert not drawn[80:140, 70:110].any()
    assert not found().draw(image).any()
    for far in ([-5, -5, 310, 210], [1e9, 1e9, 2e9, 2e9], [-1e30, 0, 1e30, 5]):
        found(far).draw(image)


def test_labels_are_readable_on_every_colour() -> None:
    white = (255, 255, 255)
    every = [*THINGS, *map(tuple, voc().tolist())]
    every += [(b, g, r) for b in range(0, 256, 15) for g in range(0, 256, 15) for r in (0, 99, 255)]
    assert min(contrast(readable_on(color), color) for color in every) >= READABLE
    assert min(contrast(confidence_color(n / 100), white) for n in range(101)) >= READABLE


def test_contrast_is_that_of_wcag() -> None:
    # Of https://webaim.org/resources/contrastchecker: yellow, gray 777 and blue on white.
    white = (255, 255, 255)
    assert contrast((0, 0, 0), white) == pytest.approx(21)
    assert contrast((0, 255, 255), white) == pytest.approx(1.07, abs=0.01)
    assert contrast((0x77, 0x77, 0x77), white) == pytest.approx(4.48, abs=0.01)
    assert contrast((255, 0, 0), white) == pytest.approx(8.59, abs=0.01)


def test_the_text_of_a_label_has_that_contrast_in_the_picture() -> None:
    for class_id in range(len(THINGS)):
        color = THINGS[class_id]
        image = np.full((60, 200, 3), 90, np.uint8)
        drawn = draw.boxes(image, np.array([[10, 30, 190, 58]]), ["MMMM"], [color])
        label = drawn[8:28, 12:60].reshape(-1, 3)
        best = max(contrast(tuple(pixel), color) for pixel in label.tolist())
        assert best >= READABLE


def test_two_of_a_class_have_two_colours_where_there_are_masks_or_limbs() -> None:
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    drawn = two_masks().draw(image)
    first, second = drawn[200, 50], drawn[200, 250]
    assert first.any()
    assert second.any()
    assert (first != second).any()
    # The edge of a box has the color of its mask, twice as bright on black.
    assert np.abs(drawn[130, 20].astype(int) - 2 * first.astype(int)).max() <= 1
    posed = two_poses().draw(image)
    assert (posed[130, 20] != posed[130, 300]).any()
    boxed = TWO.draw(image)
    assert (boxed[130, 20] == boxed[130, 300]).all()  # plain boxes are colored by class


def test_a_track_keeps_its_colour_whatever_its_place() -> None:
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    one = Tracked(TWO, np.array([5, 6])).draw(image)
    other = Tracked(TWO[[1, 0]], np.array([6, 5])).draw(image)
    assert tuple(one[130, 20].tolist()) == tuple(other[130, 20].tolist()) == things([5])[0]
    assert tuple(one[150, 300].tolist()) == tuple(other[150, 300].tolist()) == things([6])[0]
    assert Tracked(TWO, np.array([5, 0])).prediction.captions(np.array([5, 0])) == [
        "#5 person 0.90",
        "person 0.90",
    ]


def test_labels_do_not_cover_each_other_while_there_is_room() -> None:
    places: list[tuple[int, int, int, int]] = []
    canvas = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    quad = np.array([[40, 60], [200, 60], [200, 160], [40, 160]], np.int32)
    for number in range(4):
        places.append(draw._label(canvas, quad + number, "person", THINGS[number], places))
    assert not any(draw._overlap(a, b) for n, a in enumerate(places) for b in places[:n])
    for x, y, width, height in places:
        assert 0 <= x <= WIDTH - width
        assert 0 <= y <= HEIGHT - height


def test_a_label_at_the_edge_is_inside_the_picture() -> None:
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    x, y, width, height = draw._label(
        image, np.array([[300, 0], [319, 0], [319, 239], [300, 239]], np.int32), "motorcycle",
        THINGS[0], [],
    )  # fmt: skip
    assert x + width <= WIDTH
    assert y >= 0
    assert cv2.countNonZero(image[y : y + height, x : x + width].max(axis=2)) > 0.5 * width * height
