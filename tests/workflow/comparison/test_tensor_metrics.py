"""What is measured of an output: cosine, difference, codes at the ends, layout."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from rkzoo.accuracy.metric import cosine
from rkzoo.contract.inputs import TensorSpec
from rkzoo.workflow.comparison.tensor_metrics import figures, over_pictures

FLOAT = TensorSpec(name="y", shape=(1, 2, 3, 4), dtype="float32", layout="NCHW")
whole = st.integers(-1000, 1000).map(float)


def coded(scale: float, zero: int) -> TensorSpec:
    return TensorSpec(name="y", shape=(1, 4), dtype="int8", scale=scale, zero_point=zero)


@given(arrays.arrays(np.float32, 12, elements=whole), st.floats(0.1, 10))
def test_a_cosine_is_1_for_a_multiple_and_minus_1_for_the_opposite(values, factor) -> None:
    assert cosine(values, values * np.float32(factor)) == pytest.approx(1, abs=1e-6)
    if np.linalg.norm(values.astype(np.float64)) > 1e-3:
        assert cosine(values, -values) == pytest.approx(-1, abs=1e-6)


def test_zeros_and_what_is_not_finite() -> None:
    zero, one = np.zeros(3), np.ones(3)
    assert cosine(zero, zero) == 1
    assert cosine(zero, one) == 0
    assert cosine(one, np.array([1, np.inf, 1])) is None
    row = figures(one.astype(np.float32), np.array([1, np.nan, 1], np.float32), FLOAT)
    assert not row.finite


def test_the_codes_of_an_output() -> None:
    # Codes stand for -1.28 .. 1.27.
    spec = coded(0.01, 0)
    wanted = np.array([[0.0, 1.0, 2.0, -1.283]], np.float32)
    row = figures(wanted, np.array([[0, 100, 127, -128]], np.int8), spec)
    assert (row.at_low, row.at_high, row.zeros) == (0.25, 0.25, 0.25)
    assert row.clipped == 0.25, "what is rounded to the last code is not cut off"
    assert row.codes == 4
    assert row.difference == pytest.approx(0.73)
    assert (row.low, row.high) == pytest.approx((-1.28, 1.27))


def test_an_end_that_means_zero_is_no_saturation() -> None:
    row = figures(np.zeros((1, 4), np.float32), np.full((1, 4), -128, np.int8), coded(0.004, -128))
    assert (row.at_low, row.zeros, row.clipped) == (0, 1, 0)


def test_channels_last_is_recognised() -> None:
    wanted = np.random.default_rng(0).standard_normal((1, 5, 3, 4)).astype(np.float32)
    last = np.ascontiguousarray(wanted.transpose(0, 2, 3, 1))
    for array in (last, last.reshape(wanted.shape)):
        row = figures(wanted, array, FLOAT)
        assert row.cosine < 0.9
        assert row.transposed == pytest.approx(1)
    assert figures(wanted, wanted, FLOAT).cosine == pytest.approx(1)


def test_other_sizes_are_no_match() -> None:
    row = figures(np.ones((1, 3), np.float32), np.ones((1, 4), np.float32), FLOAT)
    assert row.cosine is None


def test_several_pictures_as_one() -> None:
    spec = coded(1.0, 0)
    one = figures(np.array([[1.0, 2.0]], np.float32), np.array([[1, 2]], np.int8), spec)
    other = figures(
        np.array([[1.0, 0, 0, 500]], np.float32), np.array([[0, 1, 0, 127]], np.int8), spec
    )
    both = over_pictures([one, other])
    assert both.cosine == other.cosine
    assert both.difference == 373
    assert both.clipped == pytest.approx(1 / 6)
    assert both.at_high == pytest.approx(1 / 6)
    assert (both.low, both.high, both.float_high, both.count) == (0, 127, 500, 6)
