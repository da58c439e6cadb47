"""Tracking: one number a thing, as long as it can be seen."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from rkzoo.streaming.tracking import TrackedStream, Tracker, TrackOptions, iou, match
from rkzoo.tasks.detect.result import Detections


def box(x: float, y: float, size: float = 40) -> list[float]:
    return [x, y, x + size, y + 2 * size]


def sure(count: int) -> np.ndarray:
    return np.full(count, 0.9)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    things=st.integers(1, 6),
    speed=st.floats(-6, 6),
    shake=st.floats(0, 1.5),
)
def test_things_apart_keep_their_numbers(
    seed: int, things: int, speed: float, shake: float
) -> None:
    chance = np.random.default_rng(seed)
    tracker = Tracker()
    expected = None
    for frame in range(30):
        boxes = np.array([box(200 * n + speed * frame, 100) for n in range(things)])
        boxes += chance.uniform(-shake, shake, boxes.shape)
        order = chance.permutation(things)
        numbers = np.zeros(things, int)
        numbers[order] = tracker(boxes[order], sure(things))
        expected = numbers if expected is None else expected
        assert sorted(expected) == list(range(1, things + 1))
        assert (numbers == expected).all()


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_whatever_comes_no_number_is_given_twice_in_a_frame(seed: int) -> None:
    chance = np.random.default_rng(seed)
    tracker = Tracker(TrackOptions(track_buffer=3))
    highest = 0
    for _ in range(20):
        count = int(chance.integers(0, 12))
        corner = chance.uniform(0, 150, (count, 2))
        boxes = np.concatenate((corner, corner + chance.uniform(0, 90, (count, 2))), axis=1)
        numbers = tracker(boxes, chance.uniform(0, 1, count))
        given = numbers[numbers > 0]
        assert len(set(given.tolist())) == len(given)
        assert len(numbers) == count
        # Numbers are never used again for another thing, so they only grow.
        fresh = given[given > highest]
        assert sorted(fresh.tolist()) == list(range(highest + 1, highest + 1 + len(fresh)))
        highest += len(fresh)


def test_half_hidden_things_keep_their_number_by_their_unsure_boxes() -> None:
    tracker = Tracker()
    for frame in range(12):
        score = 0.15 if 4 <= frame < 9 else 0.9
        assert tracker([box(100 + 3 * frame, 50)], [score]).tolist() == [1]


def test_an_unsure_box_alone_begins_nothing() -> None:
    tracker = Tracker()
    for _ in range(5):
        assert tracker([box(100, 50)], [0.15]).tolist() == [0]
    # Nor does one flash of a sure box.
    assert tracker([box(300, 50)], [0.9]).tolist() == [0]
    assert tracker(np.empty((0, 4)), []).tolist() == []
    assert tracker([box(300, 50)], [0.9]).tolist() == [0]
    assert tracker([box(300, 50)], [0.9]).tolist() == [1]


def test_behind_a_tree_and_out_again_while_patience_lasts() -> None:
    tracker = Tracker(TrackOptions(track_buffer=10))

    def see(frame: int, seen: bool) -> list[int]:
        boxes = [box(100 + 4 * frame, 50)] if seen else np.empty((0, 4))
        return tracker(boxes, sure(int(seen))).tolist()

    assert [see(f, True) for f in range(10)] == [[1]] * 10
    for frame in range(10, 18):
        see(frame, False)
    assert see(18, True) == [1]
    for frame in range(19, 40):
        see(frame, False)
    assert see(40, True) == [0]
    assert see(41, True) == [2]


def test_following_leaves_unsure_boxes_out_and_numbers_the_rest() -> None:
    found = Detections(
        np.array([box(0, 0), box(200, 0), box(400, 0)], np.float32),
        np.array([0.9, 0.5, 0.12], np.float32),
        np.zeros(3, np.int32),
        ("thing",),
    )
    tracked = TrackedStream()(found)
    assert [record["track"] for record in tracked.to_json()] == [1, 2]
    assert tracked.lines()[0].startswith("#1")
    image = np.zeros((100, 500, 3), np.uint8)
    assert (tracked.draw(image) != found[:2].draw(image)).any()
    assert not image.any()


def test_overlaps_and_pairs() -> None:
    a = np.array([[0.0, 0, 10, 10], [20, 20, 20, 20]])
    assert iou(a, a)[0].tolist() == [1.0, 0.0]
    assert iou(a, np.array([[5.0, 0, 15, 10]]))[0, 0] == np.float64(50 / 150)
    assert match(np.array([[0.9, 0.8], [0.85, 0.1]]), 0.3) == ([0], [0])
    assert match(np.empty((0, 3)), 0.3) == ([], [])
