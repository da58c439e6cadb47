"""Two answers are matched one to one, and what is lost is told from what moved a hair."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rkzoo.tasks.detect.result import Detections
from rkzoo.tasks.obb.result import OrientedBoxes
from rkzoo.tasks.pose.result import Poses
from rkzoo.tasks.segment.result import Masks
from rkzoo.tasks.text.detect_text import TextBoxes
from rkzoo.tasks.text.result import TextLines
from rkzoo.workflow.comparison.matching import (
    MatchedPair,
    Matches,
    above,
    compared,
    iou,
    matched,
    summed,
)

LABELS = ("cat", "dog")


def boxes(*rows: tuple[float, ...]) -> Detections:
    """x1, y1, x2, y2, score, class."""
    table = np.array(rows, np.float32).reshape(-1, 6)
    return Detections(table[:, :4], table[:, 4], table[:, 5].astype(np.int32), LABELS)


CAT = (0, 0, 100, 100, 0.9, 0)
DOG = (200, 0, 300, 100, 0.8, 1)


@st.composite
def crowds(draw: st.DrawFn) -> Detections:
    count = draw(st.integers(0, 12))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    low = random.uniform(0, 80, (count, 2))
    xyxy = np.concatenate((low, low + random.uniform(5, 60, (count, 2))), axis=1)
    score, kind = random.uniform(0.25, 1, count), random.integers(0, 2, count)
    return Detections(
        xyxy.astype(np.float32), score.astype(np.float32), kind.astype(np.int32), LABELS
    )


@given(crowds(), st.randoms())
def test_an_answer_agrees_with_itself_in_any_order(found: Detections, random) -> None:
    order = list(range(len(found)))
    random.shuffle(order)
    result = compared(found, found[np.array(order, int)], 0.25)
    assert (len(result.found), result.lost, result.new) == (len(found), (), ())
    assert all(pair.iou == pytest.approx(1) and pair.change == 0 for pair in result.found)


@given(crowds(), crowds())
def test_every_thing_is_counted_once(a: Detections, b: Detections) -> None:
    result = compared(a, b, 0.25)
    assert len(result.found) + len(result.lost) == len(a)
    assert len(result.found) + len(result.new) == len(b)
    back = compared(b, a, 0.25)
    assert (len(back.lost), len(back.new)) == (len(result.new), len(result.lost))
    assert all(pair.iou >= 0.5 for pair in result.found)


def test_the_highest_overlap_first() -> None:
    overlaps = np.array([[0.6, 0.9], [0.0, 0.8]])
    assert matched(overlaps, 0.5) == [(0, 1, 0.9)]
    assert iou(np.array([[0, 0, 2, 2.0]]), np.array([[1, 0, 3, 2.0]])) == pytest.approx(1 / 3)
    assert iou(np.zeros((1, 4)), np.zeros((1, 4))) == 0


def test_another_class_is_another_thing() -> None:
    result = compared(boxes(CAT), boxes((*CAT[:5], 1)), 0.25)
    assert [pair.label for pair in result.lost] == ["cat"]
    assert [pair.label for pair in result.new] == ["dog"]
    assert len(result.serious) == 2


def test_lost_by_a_hair_and_lost_for_good() -> None:
    a = boxes(CAT, DOG, (0, 200, 50, 250, 0.3, 0))
    b = boxes((*CAT[:4], 0.2, 0), (0, 200, 50, 250, 0.24, 0), (200, 0, 300, 110, 0.7, 1))
    result = compared(a, b, 0.25)
    assert [(p.label, p.change) for p in result.found] == [("dog", pytest.approx(-0.1))]
    assert sorted(p.after for p in result.lost) == pytest.approx([0.2, 0.24])
    assert [p.before for p in result.serious] == [pytest.approx(0.9)]
    whole = summed([result])
    assert (whole.things, whole.found, whole.lost) == (3, 1, 2)
    assert whole.share == pytest.approx(2 / 3)
    assert whole.largest_change == pytest.approx(0.1)


def test_what_is_below_the_threshold_in_both_does_not_count() -> None:
    faint = boxes((*CAT[:4], 0.2, 0))
    assert compared(faint, faint, 0.25).things == 0
    assert len(above(boxes(CAT, (*CAT[:4], 0.2, 0)), 0.25)) == 1
    nothing = summed([compared(boxes(), boxes(), 0.25)])
    assert (nothing.share, nothing.iou) == (1, None)


def test_masks_are_compared_by_pixels() -> None:
    def masks(corner: tuple[int, int], crop: np.ndarray) -> Masks:
        return Masks(boxes(CAT), np.array([corner], np.int32), (crop,), (120, 120))

    full = np.ones((10, 10), np.uint8)
    result = compared(masks((0, 0), full), masks((5, 0), full), 0.25)
    assert result.found[0].mask_iou == pytest.approx(50 / 150)
    apart = compared(masks((0, 0), full), masks((50, 50), full), 0.25)
    assert apart.found[0].mask_iou == 0


def test_poses_are_compared_by_the_points_that_float_sees() -> None:
    seen = np.array([[[10, 10, 0.9], [20, 20, 0.1]]], np.float32)
    moved = np.array([[[13, 14, 0.9], [90, 90, 0.9]]], np.float32)
    result = compared(Poses(boxes(CAT), seen), Poses(boxes(CAT), moved), 0.25)
    assert result.found[0].points_px == pytest.approx(5)
    hidden = seen * np.array([1, 1, 0], np.float32)
    blind = compared(Poses(boxes(CAT), hidden), Poses(boxes(CAT), moved), 0.25)
    assert blind.found[0].points_px is None


def quads(*lefts: float) -> np.ndarray:
    corners = np.array([[0, 0], [80, 0], [80, 20], [0, 20]], np.float32)
    return np.array([corners + np.array([x, 0]) for x in lefts], np.float32).reshape(-1, 4, 2)


def lines(*rows: tuple[float, str]) -> TextLines:
    ones = np.ones(len(rows), np.float32)
    texts = tuple(text for _, text in rows)
    return TextLines(quads(*(x for x, _ in rows)), texts, ones, ones, np.zeros(len(rows), np.int32))


def test_texts_that_differ_are_told() -> None:
    result = compared(lines((0, "one"), (100, "two")), lines((2, "0ne"), (100, "two")), 0.0)
    assert [(p.label, p.text) for p in result.found] == [("two", "two"), ("one", "0ne")]
    assert summed([result]).same_text == 1


def test_text_boxes_and_rotated_boxes() -> None:
    ones = np.ones(2, np.float32)
    result = compared(TextBoxes(quads(0, 200), ones), TextBoxes(quads(200, 400), ones), 0.0)
    assert (len(result.found), len(result.lost), len(result.new)) == (1, 1, 1)
    turned = np.array([[50, 50, 40, 10, 0.3]], np.float32)
    other = turned + np.array([0, 0, 0, 0, np.pi / 2], np.float32)
    kind = np.zeros(1, np.int32)
    one = OrientedBoxes(turned, ones[:1], kind, LABELS)
    assert compared(one, one, 0.25).found[0].iou == pytest.approx(1, abs=1e-5)
    assert not compared(one, OrientedBoxes(other, ones[:1], kind, LABELS), 0.25).found


def test_the_share_has_an_interval_where_the_pictures_are_enough() -> None:
    pair = MatchedPair("cat", (0.0, 0.0, 1.0, 1.0), 0.9, None)
    agreed, lost = Matches(found=(pair,) * 4), Matches(found=(pair,) * 3, lost=(pair,))
    found = summed([lost, *[agreed] * 19])
    assert found.share_interval is not None
    # Of 20 pictures one loses a quarter: a resample has it none to three times or so.
    low, high = found.share_interval
    assert high == 1.0
    assert low == pytest.approx(1 - 3 / 80)
    assert summed([agreed] * 19).share_interval is None
    assert summed([Matches()] * 20).share_interval is None
