"""Pages: geometry, reading order, the whole pipeline on sessions without a model, drawing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from text_fakes import FakeSession, cls_contract, det_contract, rec_contract

from rkzoo.errors import RkzooError
from rkzoo.tasks.text.classify_angle import AngleClassifier
from rkzoo.tasks.text.detect_text import TextDetector
from rkzoo.tasks.text.page import PageOptions, PageReader, SingleLine
from rkzoo.tasks.text.quads import corners, crop, overlap
from rkzoo.tasks.text.read_line import LineReader
from rkzoo.tasks.text.reading_order import reading_order
from rkzoo.tasks.text.result import TextAgreement, TextLines, agreement
from rkzoo.vision import draw_text


def quads_of(*boxes: tuple[float, float, float, float]) -> np.ndarray:
    """Level quads of x, y, width, height."""
    return np.array(
        [[[x, y], [x + w, y], [x + w, y + h], [x, y + h]] for x, y, w, h in boxes], np.float32
    )


def rotated(quads: np.ndarray, degrees: float) -> np.ndarray:
    """Turned clockwise around the origin; corners start at the same corner of the text."""
    a = np.deg2rad(degrees)
    return quads @ np.array([[np.cos(a), np.sin(a)], [-np.sin(a), np.cos(a)]])


def lines_of(quads: np.ndarray, texts: list[str] | None = None) -> TextLines:
    n = len(quads)
    full = np.ones(n, np.float32)
    given_texts = tuple(texts) if texts else tuple(f"line {i}" for i in range(n))
    return TextLines(quads.astype(np.float32), given_texts, full, full, np.zeros(n, np.int32))


# Geometry


def test_a_level_crop_is_the_slice() -> None:
    image = np.random.default_rng(0).integers(0, 256, (80, 120, 3), np.uint8)
    np.testing.assert_array_equal(crop(image, quads_of((30, 20, 60, 12))[0]), image[20:32, 30:90])
    np.testing.assert_array_equal(crop(image, quads_of((0, 0, 120, 80))[0]), image)


def test_a_tall_crop_is_laid_flat() -> None:
    image = np.random.default_rng(0).integers(0, 256, (80, 120, 3), np.uint8)
    found = crop(image, quads_of((30, 10, 12, 60))[0])
    np.testing.assert_array_equal(found, np.rot90(image[10:70, 30:42]))


@settings(max_examples=40, deadline=None)
@given(degrees=st.floats(-40, 40), x=st.floats(-30, 330), y=st.floats(-30, 230))
def test_any_quad_gives_a_crop_of_its_size(degrees: float, x: float, y: float) -> None:
    image = np.full((200, 300, 3), 90, np.uint8)
    quad = corners(np.array([[x, y]]), np.array([[70.0, 20.0]]), np.array([degrees]))[0]
    assert crop(image, quad).shape == (20, 70, 3)


@given(
    st.tuples(st.floats(0, 50), st.floats(0, 50), st.floats(2, 40), st.floats(2, 40)),
    st.tuples(st.floats(0, 50), st.floats(0, 50), st.floats(2, 40), st.floats(2, 40)),
)
@example((0.0, 0.0, 3.0, 2.0), (0.0, 1.2e-38, 2.0, 2.0))
def test_overlap_of_level_boxes(a: tuple[float, ...], b: tuple[float, ...]) -> None:
    wide = max(0.0, min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0]))
    high = max(0.0, min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1]))
    shared = wide * high
    wanted = shared / (a[2] * a[3] + b[2] * b[3] - shared)
    one, other = quads_of(a), quads_of(b)
    assert overlap(one, other)[0, 0] == pytest.approx(wanted, abs=2e-3)
    assert overlap(other, one)[0, 0] == pytest.approx(wanted, abs=2e-3)
    assert overlap(one, one)[0, 0] == pytest.approx(1, abs=1e-3)


# Reading order


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(0, 25), turn=st.floats(-180, 180))
def test_the_order_given_does_not_matter(seed: int, n: int, turn: float) -> None:
    rng = np.random.default_rng(seed)
    quads = corners(
        rng.uniform(0, 500, (n, 2)),
        np.stack([rng.uniform(20, 200, n), rng.uniform(8, 30, n)], axis=1),
        rng.normal(turn, 4, n),
    )
    angles = rng.choice([0, 180], n)
    shuffled = rng.permutation(n)
    order = reading_order(quads, angles)
    again = reading_order(quads[shuffled], angles[shuffled])
    assert sorted(order.tolist()) == list(range(n))
    np.testing.assert_array_equal(shuffled[again], order)


GRID = quads_of(*[(x, y, 80, 20) for y in (0, 30, 60) for x in (0, 120, 240)])


@pytest.mark.parametrize("degrees", [0, 5, -12, 30, -40])
@pytest.mark.parametrize("jitter", [0, 4])
def test_rows_then_left_to_right_also_askew(degrees: float, jitter: float) -> None:
    rng = np.random.default_rng(1)
    moved = GRID + rng.uniform(-jitter, jitter, (len(GRID), 1, 2))
    order = reading_order(rotated(moved, degrees))
    assert order.tolist() == list(range(9))


def test_an_upside_down_page_is_read_its_own_way() -> None:
    # Turned by 180 degrees: the corners of each quad start at the top-left of the picture.
    turned = np.roll(rotated(GRID, 180), 2, axis=1)
    order = reading_order(turned, np.full(len(GRID), 180))
    assert order.tolist() == list(range(9))


def test_a_page_on_its_side_is_read_its_own_way() -> None:
    # A quarter clockwise: text runs down the picture, its first row on the right.
    turned = np.roll(rotated(GRID, 90), -3, axis=1)
    order = reading_order(turned, np.zeros(len(GRID)))
    assert order.tolist() == list(range(9))


def test_one_upside_down_line_does_not_turn_the_page() -> None:
    angles = np.zeros(len(GRID))
    angles[4] = 180
    assert reading_order(GRID, angles).tolist() == list(range(9))


def test_columns_of_prose_are_read_one_after_the_other() -> None:
    left = [(0, 60 + 24 * i, 300, 18) for i in range(6)]
    right = [(340, 68 + 24 * i, 300, 18) for i in range(6)]
    title, foot = (0, 0, 640, 40), (200, 300, 240, 18)
    order = reading_order(quads_of(title, *left, *right, foot))
    assert order.tolist() == list(range(14))


def test_three_columns() -> None:
    columns = [(220 * c, 24 * i, 200, 18) for c in range(3) for i in range(5)]
    assert reading_order(quads_of(*columns)).tolist() == list(range(15))


def test_a_bill_is_read_row_by_row() -> None:
    rows = [box for i in range(8) for box in ((0, 30 * i, 90, 20), (400, 30 * i + 3, 60, 20))]
    assert reading_order(quads_of(*rows)).tolist() == list(range(16))


def test_nothing_has_no_order() -> None:
    assert reading_order(np.zeros((0, 4, 2))).shape == (0,)


# Results


def test_slices_and_json() -> None:
    lines = lines_of(GRID)
    assert len(lines[2:5]) == 3
    assert lines[2:5].texts == ("line 2", "line 3", "line 4")
    assert lines[np.array([8, 0])].texts == ("line 8", "line 0")
    assert lines[np.arange(9) < 1].texts == ("line 0",)
    records = json.loads(json.dumps(lines.to_json()))
    assert records[1]["text"] == "line 1"
    assert records[1]["quad"][0] == [120.0, 0.0]
    assert lines.lines()[0] == "1.000  line 0"
    assert TextLines.none().to_json() == []


def test_shapes_are_checked() -> None:
    with pytest.raises(ValueError, match="quads"):
        TextLines(GRID, ("one",), np.ones(1), np.ones(1), np.zeros(1))


def test_agreement_with_itself_and_with_nothing() -> None:
    lines = lines_of(GRID)
    assert agreement(lines, lines) == TextAgreement(9, 9, 9, 9)
    assert agreement(lines, lines).places == 1
    assert agreement(lines, TextLines.none()).places == 0
    assert agreement(TextLines.none(), TextLines.none()).places == 1


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_agreement_is_symmetric_and_one_to_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a = lines_of(GRID[rng.random(9) < 0.7] + rng.normal(0, 4))
    b = lines_of(np.concatenate([GRID, GRID + 2])[rng.random(18) < 0.6])
    one, other = agreement(a, b), agreement(b, a)
    assert one.matched == other.matched <= min(len(a), len(b))
    assert one.places == other.places
    assert 0 <= one.texts <= one.places <= 1


def test_agreement_counts_places_and_texts_apart() -> None:
    a = lines_of(quads_of((0, 0, 100, 20), (0, 40, 100, 20)), ["one", "two"])
    b = lines_of(quads_of((2, 1, 100, 20), (0, 200, 100, 20)), ["0ne", "two"])
    found = agreement(a, b)
    assert (found.matched, found.same_text) == (1, 0)
    assert found.places == pytest.approx(0.5)
    assert (found + found).matched == 2


# The pipeline, with sessions that look at grey levels instead of a model

LABELS = ("", "a", "b", "c")


def find_bright(batch: np.ndarray) -> np.ndarray:
    return (batch[..., 0] > 30).astype(np.float32)[:, None]


def read_level(batch: np.ndarray) -> np.ndarray:
    level = np.median(batch[:, :, :30].reshape(len(batch), -1), axis=1).astype(int)
    scores = np.zeros((len(batch), 4, len(LABELS)), np.float32)
    scores[:, 1:, 0] = 1
    for i, value in enumerate(level):
        scores[i, 0, 1 + value // 80] = 0.3 if value < 80 else 0.9
    return scores


def left_brighter(batch: np.ndarray) -> np.ndarray:
    """Calls a line upside down whose right end is darker than its left end."""
    upside = (batch[:, 24, 20, 0] > batch[:, 24, 100, 0].astype(int) + 10).astype(np.float32)
    return np.stack([1 - upside, upside], axis=1)


def fake_reader(**options: float) -> PageReader:
    return PageReader(
        TextDetector(
            det_contract(256, 256, unclip_ratio=0.01), FakeSession((1, 256, 256, 3), find_bright)
        ),
        LineReader(rec_contract(LABELS), FakeSession((-1, 48, -1, 3), read_level)),
        AngleClassifier(cls_contract(), FakeSession((-1, 48, 192, 3), left_brighter)),
        PageOptions(**options),
    )


def scene() -> np.ndarray:
    image = np.zeros((512, 512, 3), np.uint8)
    image[300:340, 40:440] = 200  # c
    image[100:140, 300:500] = 120  # b, right
    image[104:144, 20:260] = 220  # c, left of it
    image[400:440, 40:440] = 60  # a, unsure
    return image


def test_lines_come_in_reading_order_without_the_unsure() -> None:
    found = fake_reader()(scene())
    assert found.texts == ("c", "b", "c")
    assert found.quads[0, 0] == pytest.approx([20, 104], abs=4)
    assert found.scores.min() >= 0.5
    assert fake_reader(confidence=0.1)(scene()).texts == ("c", "b", "c", "a")


def test_an_upside_down_line_is_turned_before_it_is_read() -> None:
    image = np.zeros((256, 256, 3), np.uint8)
    image[100:140, 20:220] = 100
    image[100:140, 20:60] = 250  # brighter on the left: upside down, says the classifier
    found = fake_reader()(image)
    assert found.angles.tolist() == [180]
    assert found.texts == ("b",)  # the darker end came first


def test_an_empty_picture_has_no_lines() -> None:
    found = fake_reader()(np.zeros((97, 33, 3), np.uint8))
    assert len(found) == 0
    assert found.quads.shape == (0, 4, 2)


def test_a_picture_of_one_line() -> None:
    found = SingleLine(fake_reader().reader)(np.full((20, 100, 3), 200, np.uint8))
    assert found.texts == ("c",)
    assert found.quads[0, 2].tolist() == [100, 20]


def test_a_confidence_beyond_one_is_refused() -> None:
    with pytest.raises(RkzooError, match=r"0\.\.1"):
        PageOptions(confidence=1.5)


# Drawing


def test_the_panel_has_the_text_where_the_quads_are() -> None:
    image = np.full((700, 800, 3), 120, np.uint8)
    lines = lines_of(quads_of((100, 100, 300, 40), (500, 300, 40, 300)), ["hello there", "down"])
    drawn = lines.draw(image)
    assert drawn.shape == (700, 1600, 3)
    panel = drawn[:, 800:]
    ink = panel.max(axis=2) < 200
    assert ink[102:138, 102:398].sum() > 300
    assert ink[302:598, 502:538].sum() > 100
    ink[96:146, 96:406] = ink[296:606, 496:546] = False
    assert not ink.any()
    assert np.array_equal(image, np.full((700, 800, 3), 120, np.uint8))


def test_small_pictures_grow_and_large_ones_shrink() -> None:
    lines = lines_of(quads_of((10, 10, 60, 20)), ["abc"])
    assert lines.draw(np.zeros((100, 200, 3), np.uint8)).shape == (320, 1280, 3)
    assert lines.draw(np.zeros((4000, 3000, 3), np.uint8)).shape == (1600, 2400, 3)


def test_without_a_font_a_note_says_so() -> None:
    image = np.zeros((700, 800, 3), np.uint8)
    plain = lines_of(quads_of((10, 10, 300, 40)), ["abc"]).draw(image)
    chinese = lines_of(quads_of((10, 10, 300, 40)), ["中文"]).draw(image)
    assert np.all(plain[-30:, 800:] == 255)
    assert np.any(chinese[-30:, 800:] < 128)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), text=st.text(max_size=12))
def test_any_quad_and_any_text_can_be_drawn(seed: int, text: str) -> None:
    rng = np.random.default_rng(seed)
    quads = rng.uniform(-100, 400, (2, 4, 2)).astype(np.float32)
    drawn = draw_text.side_by_side(
        np.zeros((300, 300, 3), np.uint8), quads, [text, "x"], [0.1, 0.9]
    )
    assert drawn.shape == (640, 1280, 3)


def test_a_broken_font_is_one_sentence(tmp_path: Path) -> None:
    broken = tmp_path / "font.otf"
    broken.write_bytes(b"no font")
    lines = lines_of(quads_of((10, 10, 60, 20)), ["abc"])
    with pytest.raises(RkzooError, match="cannot be read"):
        lines.draw(np.zeros((100, 200, 3), np.uint8), broken)
    with pytest.raises(RkzooError, match="cannot be read"):
        lines.draw(np.zeros((100, 200, 3), np.uint8), tmp_path / "missing.otf")


def test_colours_go_from_red_to_green() -> None:
    low, high = draw_text.confidence_color(0.1), draw_text.confidence_color(0.99)
    assert low[2] > low[1]
    assert high[1] > high[2]
