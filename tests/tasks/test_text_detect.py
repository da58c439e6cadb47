"""The DB map decoder: right places, right scores, the same in integers as in floats."""

from __future__ import annotations

import cv2
import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from text_fakes import FakeSession, det_contract, rec_contract, spec

from rkzoo.contract.inputs import ImageInput
from rkzoo.contract.text import TextDetHead
from rkzoo.errors import RkzooError
from rkzoo.tasks.text.detect_text import TextDetector, at_least, grown, postprocess
from rkzoo.tasks.text.quads import corners, overlap, sides
from rkzoo.vision.letterbox import fit, plan

HEAD = TextDetHead()


def box_of(source: tuple[int, int], size: tuple[int, int] = (256, 256), place: str = "top-left"):
    return plan(source, ImageInput(size=size, place=place))


def map_with(size: tuple[int, int], quad: np.ndarray, value: float = 0.9) -> np.ndarray:
    """A probability map with `value` where a pixel's centre lies in the quad (4, 2)."""
    y, x = np.mgrid[0 : size[0], 0 : size[1]] + 0.5
    edges = np.roll(quad, -1, axis=0) - quad
    sides_of = [
        dx * (y - cy) - dy * (x - cx)
        for (cx, cy), (dx, dy) in zip(quad.astype(float), edges.astype(float), strict=True)
    ]
    return (value * np.all(np.array(sides_of) >= 0, axis=0)).astype(np.float32)[None, None]


@settings(max_examples=60, deadline=None)
@given(
    width=st.floats(30, 150),
    height=st.floats(10, 28),
    degrees=st.floats(-80, 80),
    source=st.tuples(st.integers(120, 2000), st.integers(120, 2000)),
    place=st.sampled_from(["top-left", "center"]),
)
def test_finds_a_line_where_it_stands(width, height, degrees, source, place) -> None:
    letterbox = box_of(source, place=place)
    inside = np.array(letterbox.scaled[::-1], float)
    shrink = min(1.0, float(inside.min()) / (width + height) * 0.7)
    size = np.array([[width, height]]) * shrink
    if size.min() < 10:  # smaller ones are a matter of single pixels
        return
    core = corners(inside[None] / 2, size, np.array([degrees]))
    whole = corners(inside[None] / 2, grown(size, HEAD), np.array([degrees]))
    offset = np.array([letterbox.left, letterbox.top], np.float32)
    found = postprocess([map_with((256, 256), (core + offset)[0])], [spec()], HEAD, letterbox)
    assert len(found) == 1
    wanted = np.clip(letterbox.to_source(whole + offset), 0, np.array(source[::-1]))
    assert overlap(found.quads, wanted)[0, 0] > 0.8
    assert found.scores[0] > 0.7


def test_a_level_line_is_found_to_the_pixel() -> None:
    area = np.zeros((1, 1, 256, 256), np.float32)
    area[0, 0, 100:120, 50:150] = 1
    found = postprocess([area], [spec()], HEAD, box_of((256, 256)))
    reach = 100 * 20 * 1.5 / (2 * (100 + 20))
    left, top, right, bottom = 50 - reach, 100 - reach, 150 + reach, 120 + reach
    wanted = [[left, top], [right, top], [right, bottom], [left, bottom]]
    np.testing.assert_allclose(found.quads[0], wanted, atol=0.01)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), zero_point=st.integers(-128, 127), coarse=st.booleans())
def test_integers_give_what_floats_give(seed: int, zero_point: int, coarse: bool) -> None:
    rng = np.random.default_rng(seed)
    scale = (0.011 if coarse else 1 / 255) * 0.999
    grid = rng.uniform(0, 1, (10, 10)).astype(np.float32)
    smooth = cv2.resize(grid, (128, 128), interpolation=cv2.INTER_CUBIC)
    q = np.clip(np.round(smooth / scale) + zero_point, -128, 127).astype(np.int8)[None, None]
    values = (q.astype(np.float32) - zero_point) * np.float32(scale)
    letterbox = box_of((300, 400), (128, 128))
    head = TextDetHead(box_threshold=0.35)
    integers = postprocess([q], [spec(scale, zero_point)], head, letterbox)
    floats = postprocess([values], [spec()], head, letterbox)
    np.testing.assert_allclose(integers.quads, floats.quads, atol=1e-4)
    np.testing.assert_allclose(integers.scores, floats.scores, atol=1e-4)


@given(
    threshold=st.floats(0.01, 0.99),
    scale=st.floats(0.001, 0.05),
    zero_point=st.integers(-128, 127),
)
def test_the_integer_threshold_is_exact(threshold: float, scale: float, zero_point: int) -> None:
    limit = at_least(threshold, spec(scale, zero_point), np.dtype(np.int8))
    q = np.arange(-128, 128)
    value = (q - zero_point) * scale
    clear = np.abs(value - threshold) > 1e-9
    np.testing.assert_array_equal((q >= limit)[clear], (value > threshold)[clear])


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.float16, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(1, 1, 64, 64), (1, 64, 64, 1), (64, 64)])
def test_every_dtype_and_layout(dtype: type, shape: tuple[int, ...]) -> None:
    area = np.zeros((64, 64), np.float32)
    area[20:32, 10:50] = 1
    whole = np.issubdtype(dtype, np.integer)
    values = (area * 100).astype(dtype) if whole else area.astype(dtype)
    given_spec = spec(0.01, 0) if whole else spec()
    found = postprocess([values.reshape(shape)], [given_spec], HEAD, box_of((64, 64), (64, 64)))
    assert len(found) == 1
    assert found.scores[0] == pytest.approx(1, abs=0.01)


def test_unreachable_thresholds_find_nothing() -> None:
    q = np.full((1, 1, 64, 64), 127, np.int8)
    letterbox = box_of((64, 64), (64, 64))
    assert len(postprocess([q], [spec(0.001, 127)], HEAD, letterbox)) == 0
    assert len(postprocess([q], [spec(0.001, 0)], HEAD, letterbox)) == 0


@given(st.floats(6, 400), st.floats(6, 400))
def test_growing_is_what_a_polygon_library_does(width: float, height: float) -> None:
    pyclipper = pytest.importorskip("pyclipper")
    path = np.array([[0, 0], [width, 0], [width, height], [0, height]]) * 1000
    offset = pyclipper.PyclipperOffset()
    offset.AddPath(path.round().astype(int).tolist(), 2, 0)  # round joins, closed polygon
    reach = width * height * 1.5 / (2 * (width + height))
    points = np.array(offset.Execute(reach * 1000)[0]) / 1000
    # Boxed along the axes of the rectangle.
    wanted = points.max(axis=0) - points.min(axis=0)
    np.testing.assert_allclose(grown(np.array([[width, height]]), HEAD)[0], wanted, rtol=2e-3)


def test_holes_are_no_text_and_islands_are() -> None:
    area = np.zeros((128, 128), np.float32)
    area[10:118, 10:118] = 1
    area[30:98, 30:98] = 0
    area[58:70, 44:84] = 1
    found = postprocess(
        [area], [spec()], TextDetHead(box_threshold=0.05), box_of((128, 128), (128, 128))
    )
    assert len(found) == 2


def test_nothing_is_found_in_the_padding() -> None:
    area = np.zeros((1, 1, 128, 128), np.float32)
    area[0, 0, 100:120, 10:110] = 1  # below a picture of 64 rows
    assert len(postprocess([area], [spec()], HEAD, box_of((64, 128), (128, 128)))) == 0


def test_small_and_weak_cores_are_dropped() -> None:
    area = np.zeros((128, 128), np.float32)
    area[10:12, 10:100] = 1  # two rows
    area[40:60, 10:100] = 0.5  # above the threshold, below the box's
    assert len(postprocess([area], [spec()], HEAD, box_of((128, 128), (128, 128)))) == 0


def test_best_first_at_most_so_many_and_inside_the_picture() -> None:
    area = np.zeros((128, 128), np.float32)
    for i, value in enumerate((0.7, 0.95, 0.8)):
        area[i * 40 : i * 40 + 20, 0:128] = value
    found = postprocess([area], [spec()], HEAD, box_of((128, 128), (128, 128)))
    assert np.all(np.diff(found.scores) <= 0)
    assert len(found) == 3
    assert found.quads.min() >= 0
    assert found.quads.max() <= 128
    few = postprocess([area], [spec()], TextDetHead(max_boxes=2), box_of((128, 128), (128, 128)))
    assert len(few) == 2


@settings(max_examples=50)
@given(seed=st.integers(0, 2**32 - 1))
def test_corners_go_clockwise_from_the_top_left(seed: int) -> None:
    rng = np.random.default_rng(seed)
    quads = corners(
        rng.uniform(-50, 50, (5, 2)), rng.uniform(1, 90, (5, 2)), rng.uniform(-400, 400, 5)
    ).astype(float)
    x, y = quads[..., 0], quads[..., 1]
    area = (x * np.roll(y, -1, 1) - y * np.roll(x, -1, 1)).sum(1) / 2
    assert np.all(area > 0)  # clockwise where y points down
    np.testing.assert_allclose(area, sides(quads).prod(1), rtol=1e-3)
    assert np.all(quads[:, 0].sum(-1) <= quads.sum(-1).min(1) + 1e-4)


def test_a_map_of_another_size_is_refused() -> None:
    with pytest.raises(RkzooError, match="480x480"):
        postprocess(
            [np.zeros((1, 1, 320, 320), np.float32)], [spec()], HEAD, box_of((9, 9), (480, 480))
        )
    with pytest.raises(RkzooError, match="nothing"):
        postprocess([], [], HEAD, box_of((9, 9)))


def test_the_detector_runs_a_session() -> None:
    def answer(batch: np.ndarray) -> np.ndarray:
        return (batch[..., :1].astype(np.float32) / 255).transpose(0, 3, 1, 2)

    detector = TextDetector(det_contract(), FakeSession((1, 128, 128, 3), answer))
    image = np.zeros((512, 512, 3), np.uint8)
    image[200:260, 100:400] = 255
    found = detector(image)
    assert len(found) == 1
    reach = 300 * 60 * 1.5 / (2 * 360)
    np.testing.assert_allclose(found.quads[0, 0], [100 - reach, 200 - reach], atol=4)
    assert found.to_json()[0]["score"] == pytest.approx(1, abs=0.02)
    assert found.draw(image).shape == image.shape
    assert not np.array_equal(found.draw(image), image)
    assert found.lines()[0].startswith("1.0") or found.lines()[0].startswith("0.9")


def test_another_head_is_refused() -> None:
    session = FakeSession((1, 128, 128, 3), lambda batch: batch)
    with pytest.raises(RkzooError, match="not a text detection"):
        TextDetector(rec_contract(["", "a"]), session)


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_a_large_page_is_looked_at_in_four_parts_and_no_line_is_cut(dtype: str) -> None:
    def answer(batch: np.ndarray) -> np.ndarray:
        grey = batch[..., :1].transpose(0, 3, 1, 2)
        if dtype == "int8":
            return (grey.astype(np.int32) - 128).astype(np.int8)
        return grey.astype(np.float32) / 255

    scale, zero = (1 / 255, -128) if dtype == "int8" else (None, 0)
    session = FakeSession((1, 320, 320, 3), answer, scale=scale, zero_point=zero)
    contract = det_contract(320, 320)
    image = np.zeros((1344, 1344, 3), np.uint8)
    # Across the middle, along it, and in a corner; the map of 448 cells is a third of it.
    for top, left, height, width in ((300, 90, 60, 1200), (600, 640, 700, 66), (30, 1200, 60, 120)):
        image[top : top + height, left : left + width] = 255
    found = TextDetector(contract, session)(image)
    assert session.seen == [(1, 320, 320, 3)] * 4
    canvas, box = fit(image, msgspec.structs.replace(contract.input, size=(448, 448)))
    at_once = postprocess([answer(canvas)], session.outputs, HEAD, box)
    assert len(found) == len(at_once) == 3
    np.testing.assert_allclose(found.quads, at_once.quads)
