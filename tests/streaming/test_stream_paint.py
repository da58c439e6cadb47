"""Drawing without supervision."""

from __future__ import annotations

import numpy as np
import pytest

from rkzoo.streaming import paint
from rkzoo.streaming.tracking import TrackedStream
from rkzoo.tasks.detect.result import Detections
from rkzoo.tasks.pose.result import Poses
from rkzoo.tasks.tensors.result import Tensors


def found(*boxes: list[float]) -> Detections:
    count = len(boxes)
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.full(count, 0.9, np.float32),
        np.arange(count, dtype=np.int32),
        ("cat", "dog"),
    )


def test_boxes_are_drawn_where_they_are_and_the_frame_stays_as_it_was() -> None:
    image = np.zeros((200, 300, 3), np.uint8)
    drawn = paint.draw_boxes_only(found([50, 60, 120, 150], [200, 100, 280, 190]), image)
    assert not image.any()
    assert drawn[150, 60:110].any(axis=1).all()  # the lower edge of the first
    assert drawn[105:185, 280].any(axis=1).all()  # the right edge of the second
    assert not drawn[80:140, 70:110].any()  # nothing inside
    assert (drawn[150, 60] != drawn[190, 240]).any()  # a colour for each class


def test_numbers_poses_and_text() -> None:
    image = np.zeros((200, 300, 3), np.uint8)
    boxes = found([50, 60, 120, 150])
    plain = paint.draw_boxes_only(boxes, image)
    assert (paint.draw_boxes_only(TrackedStream()(boxes), image) != plain).any()
    assert (
        paint.draw_boxes_only(Poses(boxes, np.zeros((1, 17, 3), np.float32)), image) == plain
    ).all()

    class Text:
        def lines(self) -> list[str]:
            return ["one", "two"]

    assert paint.draw_boxes_only(Text(), image)[:40, :60].any()
    # At the edge, and nothing at all.
    paint.draw_boxes_only(found([-5, -5, 310, 210]), image)
    assert not paint.draw_boxes_only(found(), image).any()


def test_without_supervision_it_is_said_quietly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "supervision", None)
    assert not paint.has_supervision()


def test_plain_tensors_leave_the_picture_as_it_is() -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    drawn = paint.draw_boxes_only(Tensors({"out": np.ones((1, 3), np.float32)}), image)
    np.testing.assert_array_equal(drawn, image)
    assert drawn is not image
