"""The run-length code is COCO's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from rkzoo.accuracy import rle

masks = hnp.arrays(
    np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.integers(0, 1)
)


def decoded(code: bytes, size: tuple[int, int]) -> NDArray[np.uint8]:
    """The other way, in the simplest manner."""
    values: list[int] = []
    for number, length in enumerate(rle.from_bytes(code).tolist()):
        values += [number % 2] * length
    return np.array(values, np.uint8).reshape(size[1], size[0]).T


@given(
    crop=masks,
    x=st.integers(0, 9),
    y=st.integers(0, 9),
    more=st.tuples(st.integers(0, 9), st.integers(0, 9)),
)
def test_a_mask_comes_back(crop: NDArray[np.uint8], x: int, y: int, more: tuple[int, int]) -> None:
    h, w = crop.shape
    size = (y + h + more[0], x + w + more[1])
    whole = np.zeros(size, np.uint8)
    whole[y : y + h, x : x + w] = crop
    code = rle.encode(crop, (x, y), size)
    assert np.array_equal(decoded(code, size), whole)
    assert rle.area(rle.from_bytes(code)) == crop.sum()


@given(crop=masks, x=st.integers(0, 900), y=st.integers(0, 900))
def test_equals_pycocotools(crop: NDArray[np.uint8], x: int, y: int) -> None:
    mask = pytest.importorskip("pycocotools.mask", reason="pycocotools is not installed")
    size = (y + crop.shape[0] + 3, x + crop.shape[1])
    whole = np.zeros(size, np.uint8)
    whole[y : y + crop.shape[0], x : x + crop.shape[1]] = crop
    theirs = mask.encode(np.asfortranarray(whole))["counts"]
    assert rle.encode(crop, (x, y), size) == theirs


@given(st.lists(st.integers(0, 2**30), max_size=20))
def test_any_runs_come_back(lengths: list[int]) -> None:
    assert rle.from_bytes(rle.to_bytes(np.array(lengths, np.int64))).tolist() == lengths


@given(st.binary(max_size=30))
def test_any_bytes_are_read_or_refused(code: bytes) -> None:
    try:
        found = rle.from_bytes(code)
    except ValueError:
        return
    assert (found >= 0).all()


@given(st.lists(masks, max_size=6))
def test_many_codes_at_once(crops: list[NDArray[np.uint8]]) -> None:
    codes = [rle.encode(crop, (2, 3), (20, 30)) for crop in crops]
    joined = np.frombuffer(b"".join(codes), np.uint8)
    inside, whole = rle.areas(joined, np.array([len(code) for code in codes], np.int32))
    assert inside.tolist() == [crop.sum() for crop in crops]
    assert whole.tolist() == [600] * len(crops)
