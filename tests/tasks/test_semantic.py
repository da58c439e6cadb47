"""Maps of classes: scaling against plain loops, layouts, results, drawing, label maps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from rkzoo.contract.inputs import ImageInput, TensorSpec
from rkzoo.contract.segmentation import SemanticHead
from rkzoo.errors import RkzooError
from rkzoo.tasks.semantic.postprocess import class_map
from rkzoo.tasks.semantic.result import ClassMap
from rkzoo.vision.letterbox import plan
from rkzoo.vision.maps import read_map, to_source
from rkzoo.vision.palettes import palette, voc
from rkzoo.zoo.labels import label_set

PLAIN = TensorSpec(name="logits", shape=(1, -1, -1, -1), dtype="float32", layout="NCHW")


def sample(values: np.ndarray, y: float, x: float) -> float:
    """Bilinear between the four nearest, by its definition; outside, the nearest edge."""
    rows, columns = values.shape
    y, x = min(max(y, 0.0), rows - 1.0), min(max(x, 0.0), columns - 1.0)
    top, left = int(y), int(x)
    bottom, right = min(top + 1, rows - 1), min(left + 1, columns - 1)
    upper = values[top, left] * (1 - (x - left)) + values[top, right] * (x - left)
    lower = values[bottom, left] * (1 - (x - left)) + values[bottom, right] * (x - left)
    return upper * (1 - (y - top)) + lower * (y - top)


def scaled(values: np.ndarray, size: tuple[int, int], corners: bool) -> np.ndarray:
    made = np.zeros(size)
    for row in range(size[0]):
        for column in range(size[1]):
            place = []
            for index, wanted, there in zip((row, column), size, values.shape, strict=True):
                if corners:
                    place.append(index * (there - 1) / max(wanted - 1, 1))
                else:
                    place.append((index + 0.5) * there / wanted - 0.5)
            made[row, column] = sample(values, *place)
    return made


sides = st.integers(2, 12)


@settings(max_examples=25, deadline=None)
@given(
    grid=st.tuples(sides, sides),
    size=st.tuples(st.integers(8, 24), st.integers(8, 24)),
    source=st.tuples(st.integers(3, 40), st.integers(3, 40)),
    corners=st.booleans(),
    fit=st.sampled_from(["stretch", "letterbox"]),
    seed=st.integers(0, 9),
)
def test_scaling_is_bilinear_by_its_definition(grid, size, source, corners, fit, seed) -> None:
    values = np.random.default_rng(seed).normal(size=grid).astype(np.float32)
    box = plan(source, ImageInput(size=size, fit=fit))
    whole = scaled(values, size, corners)
    part = whole[box.top : box.top + box.scaled[0], box.left : box.left + box.scaled[1]]
    expected = scaled(part, source, corners=False)
    np.testing.assert_allclose(to_source(values, box, corners=corners), expected, atol=2e-4)


def laid_out(maps: np.ndarray, layout: str) -> np.ndarray:
    channels, rows, columns = maps.shape
    if layout == "NHWC":
        return maps.transpose(1, 2, 0)[None]
    if layout == "NC1HWC2":
        blocks = -(-channels // 8)
        padded = np.full((blocks * 8, rows, columns), 99, maps.dtype)
        padded[:channels] = maps
        return padded.reshape(blocks, 8, rows, columns).transpose(0, 2, 3, 1)[None]
    return maps[None]


@pytest.mark.parametrize("layout", ["NCHW", "NHWC", "NC1HWC2"])
@pytest.mark.parametrize("integers", [False, True])
def test_every_layout_gives_the_best_class_and_of_equal_ones_the_lower(layout, integers) -> None:
    maps = np.random.default_rng(1).integers(-100, 100, (11, 6, 9))
    maps[4] = maps[2]  # never chosen: as good as a lower one
    codes = maps.astype(np.int8 if integers else np.float32)
    spec = TensorSpec(
        name="logits",
        shape=(1,),
        dtype="int8" if integers else "float32",
        layout=layout,
        scale=0.1 if integers else None,
        zero_point=-3,
    )
    box = plan((6, 9), ImageInput(size=(6, 9), fit="stretch"))
    found = class_map(laid_out(codes, layout), spec, SemanticHead(classes=11), box)
    assert np.array_equal(found, maps.argmax(axis=0))
    assert 4 not in found


def test_classes_that_were_picked_in_the_graph_are_never_mixed() -> None:
    picked = np.zeros((1, 4, 4), np.int64)
    picked[0, :, 2:] = 7
    box = plan((8, 16), ImageInput(size=(4, 4), fit="stretch"))
    found = class_map(picked, PLAIN, SemanticHead(classes=8, picked=True), box)
    assert np.array_equal(found, np.repeat([[0] * 8 + [7] * 8], 8, axis=0))
    with pytest.raises(RkzooError, match="8 classes, and 7"):
        class_map(picked, PLAIN, SemanticHead(classes=7, picked=True), box)


def test_one_map_alone_parts_two_classes() -> None:
    values = np.array([[[[0.2, 0.6], [0.51, 0.5]]]], np.float32)
    box = plan((2, 2), ImageInput(size=(2, 2), fit="stretch"))
    found = class_map(values, PLAIN, SemanticHead(classes=2), box)
    assert found.tolist() == [[0, 1], [1, 0]]


@pytest.mark.parametrize(
    ("output", "said"),
    [
        (np.zeros((1, 5, 2, 2), np.float32), "5 classes, and 3"),
        (np.zeros((1, 3), np.float32), "output of"),
    ],
)
def test_an_output_that_was_not_promised(output, said: str) -> None:
    box = plan((2, 2), ImageInput(size=(2, 2), fit="stretch"))
    with pytest.raises(RkzooError, match=said):
        class_map(output, PLAIN, SemanticHead(classes=3), box)


def test_vocs_colours_are_those_that_are_published() -> None:
    known = [(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128), (128, 0, 128)]
    assert voc()[:6].tolist() == [list(one) for one in known]
    assert voc()[20].tolist() == [0, 64, 128]  # tvmonitor
    assert voc()[255].tolist() == [224, 224, 192]  # the border of the objects


def test_streets_have_the_colours_of_cityscapes() -> None:
    labels = label_set("cityscapes19")
    table = dict(zip(labels, palette(labels).tolist(), strict=False))
    assert table["road"] == [128, 64, 128]
    assert table["sky"] == [70, 130, 180]
    assert table["person"] == [220, 20, 60]
    assert table["bicycle"] == [119, 11, 32]
    assert palette(label_set("voc21"))[15].tolist() == [192, 128, 128]


def test_the_result_says_how_much_there_is_and_keeps_the_map(tmp_path: Path) -> None:
    classes = np.zeros((10, 20), np.uint8)
    classes[:, 15:] = 2
    classes[0, 0] = 1
    found = ClassMap(classes, ("ground", "a", "b"))
    assert len(found) == 3
    assert [(r["label"], r["pixels"]) for r in found.to_json()] == [
        ("ground", 149),
        ("b", 50),
        ("a", 1),
    ]
    assert found.lines()[1].split() == ["25.0%", "b"]
    masks = found.masks()
    assert masks.boxes.class_id.tolist() == [0, 2, 1]
    assert masks.boxes.xyxy[1].tolist() == [15, 0, 20, 10]
    assert np.array_equal(masks.dense(), [classes == c for c in (0, 2, 1)])
    found.save_sidecar(tmp_path / "x.jpg")
    assert np.array_equal(read_map(tmp_path / "x-classes.png"), classes)


def test_the_drawing_leaves_the_background_and_names_what_is_there() -> None:
    image = np.full((60, 200, 3), 100, np.uint8)
    classes = np.zeros((60, 200), np.uint8)
    classes[:, 100:] = 1
    drawn = ClassMap(classes, ("background", "thing")).draw(image)
    assert np.array_equal(drawn[:60, :100], image[:, :100])
    assert drawn[30, 150].tolist() == [50, 50, 114]  # half 100, half BGR 0, 0, 128
    assert drawn.shape[0] > 60
    assert (drawn[60:] != 255).any()


def test_a_picture_is_no_map_of_classes(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "rgb.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "rgb.png").read_bytes()[:40])
    for name in ("rgb.png", "cut.png"):
        with pytest.raises(RkzooError):
            read_map(tmp_path / name)
