"""Suppression, upright and rotated, against plain greedy loops."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rkzoo.vision import nms as module
from rkzoo.vision.nms import nms
from rkzoo.vision.rotated import corners, intersection, nms_rotated


def overlap(a, b):
    w = min(a[2], b[2]) - max(a[0], b[0])
    h = min(a[3], b[3]) - max(a[1], b[1])
    inter = max(w, 0) * max(h, 0)
    return inter / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter)


def plain(boxes, score, groups, threshold, iou):
    """Ties: the lower index first."""
    kept: list[int] = []
    for i in sorted(range(len(boxes)), key=lambda i: (-score[i], i)):
        if all(groups[i] != groups[k] or iou(boxes[i], boxes[k]) <= threshold for k in kept):
            kept.append(i)
    return kept


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    count=st.integers(0, 260),
    threshold=st.floats(0.05, 0.95),
    classes=st.integers(1, 5),
    mode=st.sampled_from(["class", "all", "none"]),
    ties=st.booleans(),
    few=st.sampled_from([0, 160]),
    chunk=st.sampled_from([16, 700]),
)
def test_nms_keeps_what_a_greedy_loop_keeps(
    seed, count, threshold, classes, mode, ties, few, chunk
):
    rng = np.random.default_rng(seed)
    # Some hang far out on the left and above: OpenCV alone would mix up their classes.
    start = rng.uniform(-120, 60, (count, 2))
    xyxy = np.concatenate((start, start + rng.uniform(1, 90, (count, 2))), 1).astype(np.float32)
    score = rng.integers(1, 6 if ties else 10**6, count).astype(np.float32)
    class_id = rng.integers(0, classes, count).astype(np.int32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_FEW", few)
        patch.setattr(module, "_CHUNK", chunk)
        got = nms(xyxy, score, class_id, threshold, 1000, mode)
    if mode == "none":
        assert got.tolist() == sorted(range(count), key=lambda i: (-score[i], i))
        return
    groups = class_id if mode == "class" else np.zeros(count)
    assert got.tolist() == plain(xyxy.astype(float), score, groups, threshold, overlap)


@pytest.mark.parametrize("count", [2, 400])
@pytest.mark.parametrize("mode", ["class", "all", "none"])
def test_limit_and_equal_boxes(count, mode):
    xyxy = np.tile(np.array([[3, 4, 10, 12]], np.float32), (count, 1))
    score = np.ones(count, np.float32)
    kind = np.arange(count, dtype=np.int32) % 2
    kept = nms(xyxy, score, kind, 0.5, 300, mode).tolist()
    assert kept == {"class": [0, 1], "all": [0], "none": list(range(count))[:300]}[mode]
    assert nms(xyxy, score, kind, 0.5, 1, mode).tolist() == [0]


def some_rotated(rng, count):
    return np.column_stack(
        (rng.uniform(0, 80, (count, 2)), rng.uniform(2, 50, (count, 2)),
         rng.uniform(-np.pi / 4, 3 * np.pi / 4, count))
    ).astype(np.float32)  # fmt: skip


def area_by_clipping(a, b):
    """Sutherland-Hodgman, in plain Python and doubles."""
    polygon = [tuple(p) for p in corners64(a)]
    square = corners64(b)
    for i in range(4):
        (px, py), (qx, qy) = square[i], square[(i + 1) % 4]
        result = []
        for j, (x, y) in enumerate(polygon):
            u, v = polygon[j - 1]
            here = (qx - px) * (y - py) - (qy - py) * (x - px)
            there = (qx - px) * (v - py) - (qy - py) * (u - px)
            if (here >= 0) != (there >= 0):
                t = there / (there - here)
                result.append((u + t * (x - u), v + t * (y - v)))
            if here >= 0:
                result.append((x, y))
        polygon = result
    return abs(sum(
        polygon[j - 1][0] * y - polygon[j - 1][1] * x for j, (x, y) in enumerate(polygon)
    )) / 2  # fmt: skip


def corners64(box):
    cx, cy, w, h, angle = (float(v) for v in box)
    c, s = np.cos(angle), np.sin(angle)
    return [
        (cx + c * x - s * y, cy + s * x + c * y)
        for x, y in ((-w / 2, -h / 2), (w / 2, -h / 2), (w / 2, h / 2), (-w / 2, h / 2))
    ]


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from(["free", "level", "same angle", "equal", "touch"]))
def test_the_intersection_is_exact(seed, kind):
    rng = np.random.default_rng(seed)
    a, b = some_rotated(rng, 20), some_rotated(rng, 20)
    if kind == "level":
        a[:, 4], b[:, 4] = 0, np.float32(np.pi / 2)
    elif kind == "same angle":
        b[:, 4] = a[:, 4]
    elif kind == "equal":
        b = a.copy()
    elif kind == "touch":  # side by side, and one a part of the other
        a[:, 4] = b[:, 4] = 0
        b[:, 1:4] = a[:, 1:4]
        b[:10, 0] = a[:10, 0] + a[:10, 2]
        b[10:, 0], b[10:, 2] = a[10:, 0] + a[10:, 2] / 4, a[10:, 2] / 2
    want = [area_by_clipping(p, q) for p, q in zip(a, b, strict=True)]
    np.testing.assert_allclose(intersection(a, b), want, atol=1e-4, rtol=1e-6)
    np.testing.assert_allclose(intersection(b, a), want, atol=1e-4, rtol=1e-6)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    count=st.integers(0, 60),
    threshold=st.floats(0.05, 0.9),
    classes=st.integers(1, 3),
    mode=st.sampled_from(["class", "all"]),
)
def test_rotated_nms_keeps_what_a_greedy_loop_keeps(seed, count, threshold, classes, mode):
    """Each box with its own angle and class: the original takes one box's angle for both, and
    the class of another."""
    rng = np.random.default_rng(seed)
    boxes = some_rotated(rng, count)
    score = rng.integers(1, 30, count).astype(np.float32)
    class_id = rng.integers(0, classes, count).astype(np.int32)

    def iou(a, b):
        inter = area_by_clipping(a, b)
        return inter / (a[2] * a[3] + b[2] * b[3] - inter)

    groups = class_id if mode == "class" else np.zeros(count)
    want = plain(boxes.astype(float), score, groups, threshold, iou)
    assert nms_rotated(boxes, score, class_id, threshold, 1000, mode).tolist() == want


def test_two_crossed_ships_are_two():
    """The same place and size, at right angles: little overlap, though upright hulls agree."""
    boxes = np.array([[50, 50, 80, 8, np.pi / 4], [50, 50, 80, 8, 3 * np.pi / 4]], np.float32)
    kept = nms_rotated(boxes, np.array([0.9, 0.8], np.float32), np.zeros(2, np.int32), 0.3, 9)
    assert kept.tolist() == [0, 1]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31))
def test_corners_are_those_of_opencv(seed):
    box = some_rotated(np.random.default_rng(seed), 1)[0].astype(float)
    want = cv2.boxPoints(((box[0], box[1]), (box[2], box[3]), np.degrees(box[4])))
    got = corners(box[None])[0]
    apart = np.linalg.norm(got[:, None] - want[None], axis=2)
    assert apart.min(axis=1).max() < 1e-2
    # The width side leaves the first corner in the direction of the angle.
    side = got[1] - got[0]
    np.testing.assert_allclose(side, box[2] * np.array([np.cos(box[4]), np.sin(box[4])]), atol=1e-3)
