"""Figures that can be worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rkzoo.accuracy.metric import (
    confusion_matrix,
    edit_distance,
    mean_iou,
    similarity,
    word_error_rate,
)

words = st.text("abc", max_size=8)


@pytest.mark.parametrize(
    ("a", "b", "steps"), [("kitten", "sitting", 3), ("", "abc", 3), ("a", "a", 0), ("ab", "ba", 2)]
)
def test_edit_distance(a: str, b: str, steps: int) -> None:
    assert edit_distance(a, b) == steps


@given(a=words, b=words, c=words)
def test_edit_distance_is_a_distance(a: str, b: str, c: str) -> None:
    assert edit_distance(a, b) == edit_distance(b, a)
    assert (edit_distance(a, b) == 0) == (a == b)
    assert edit_distance(a, c) <= edit_distance(a, b) + edit_distance(b, c)
    assert abs(len(a) - len(b)) <= edit_distance(a, b) <= max(len(a), len(b))
    assert 0 <= similarity(a, b) <= 1


def test_word_error_rate() -> None:
    assert word_error_rate([("the cat sat", "the cat sat")]) == 0
    assert word_error_rate([("the cat sat", "a cat"), ("on", "on")]) == 2 / 4
    assert word_error_rate([("a", "b c d")]) == 3
    assert word_error_rate([]) == 0
    assert word_error_rate([("", "x")]) == float("inf")


def test_mean_iou() -> None:
    truth = np.array([[0, 0, 1], [1, 255, 2]])
    found = np.array([[0, 1, 1], [1, 0, 2]])
    counts = confusion_matrix(truth, found, 4)
    assert counts.sum() == 5
    assert mean_iou(counts) == pytest.approx((1 / 2 + 2 / 3 + 1) / 3)
    assert mean_iou(np.zeros((3, 3))) == 0


def test_confusion_refuses() -> None:
    with pytest.raises(ValueError, match="one shape"):
        confusion_matrix(np.zeros(2), np.zeros(3), 2)
    with pytest.raises(ValueError, match="outside"):
        confusion_matrix(np.zeros(2), np.array([0, 7]), 2)
