"""A data set without some of its files is scored as one that never had them."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from rkzoo.accuracy.classes import ClassTruth
from rkzoo.accuracy.dataset import Dataset, open_dataset
from rkzoo.accuracy.depth import DepthTruth
from rkzoo.accuracy.lines import LineTruth
from rkzoo.accuracy.maps import SegmentationTruth
from rkzoo.accuracy.objects import ObjectTruth
from rkzoo.accuracy.oriented import OrientedTruth
from rkzoo.accuracy.regions import TextRegion, TextRegionTruth
from rkzoo.accuracy.tensors import Measured, Outputs
from rkzoo.accuracy.transcripts import TranscriptTruth
from rkzoo.errors import RkzooError
from rkzoo.tasks.tensors.result import Tensors

KEPT = (0, 2, 5)
PICTURE = np.array([0, 0, 1, 2, 3, 5, 5, 5])


def objects(pictures: list[int]) -> ObjectTruth:
    """The objects of some pictures of PICTURE, counted from 0 again, by a loop."""
    rows = [
        (new, row) for new, old in enumerate(pictures) for row in np.flatnonzero(old == PICTURE)
    ]
    take = [row for _, row in rows]
    boxes = np.arange(8 * 4, dtype=np.float64).reshape(8, 4)
    return ObjectTruth(
        picture=np.array([new for new, _ in rows]),
        category=np.arange(8)[take] % 2,
        xywh=boxes[take],
        area=boxes[take, 2],
        crowd=np.arange(8)[take] == 3,
        sizes=np.array([[10 + old, 20] for old in pictures]),
        names=("a", "b"),
        ids=(1, 2),
        shapes=tuple([[float(row)] * 6] for row in take),
        keypoints=np.arange(8 * 2 * 3, dtype=np.float64).reshape(8, 2, 3)[take],
    )


def oriented(pictures: list[int]) -> OrientedTruth:
    whole = objects(pictures)
    quads = np.stack([whole.xywh, whole.xywh], axis=2)
    return OrientedTruth(whole.picture, whole.category, quads, ("a", "b"), (1, 2))


@pytest.mark.parametrize("make", [objects, oriented])
def test_objects_keep_their_pictures(make) -> None:
    some, expected = make(list(range(6))).take(KEPT), make(list(KEPT))
    for field in fields(expected):
        left, right = getattr(some, field.name), getattr(expected, field.name)
        np.testing.assert_array_equal(np.asarray(left), np.asarray(right), field.name)
    assert some.digest() == expected.digest()


def tensor(number: int) -> Tensors:
    return Tensors({"y": np.array([float(number), 1.0], np.float32)})


REGION = TextRegion(((0, 0), (1, 0), (1, 1)), True)
NAMES = tuple("abcdef")
FILES = tuple(map(Path, NAMES))


@pytest.mark.parametrize(
    ("truth", "field"),
    [
        (ClassTruth(NAMES), "names"),
        (LineTruth(NAMES), "texts"),
        (TranscriptTruth(NAMES), "texts"),
        (TextRegionTruth(tuple((REGION,) * number for number in range(6))), "pictures"),
        (SegmentationTruth(FILES), "files"),
        (DepthTruth(FILES), "files"),
        (Outputs(tuple(map(tensor, range(6)))), "wanted"),
        (Measured("f", lambda outputs, path: 0.0, FILES), "items"),
    ],
)
def test_what_is_one_an_item_keeps_its_order(truth, field: str) -> None:
    some = truth.take(KEPT)
    assert type(some) is type(truth)
    whole = getattr(truth, field)
    assert getattr(some, field) == tuple(whole[index] for index in KEPT)


def test_classes_keep_their_numbers_when_one_of_them_is_gone() -> None:
    truth = ClassTruth(("cat", "dog", "owl", "owl"))
    np.testing.assert_array_equal(truth.take((0, 2, 3)).numbers(()), [0, 2, 2])


def test_what_data_names_and_is_not_there_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"x")
    (tmp_path / "list.csv").write_text("file,class\na.jpg,cat\nb.jpg,dog\n")
    dataset = open_dataset(str(tmp_path / "list.csv"), "classify", ("cat", "dog"))
    assert [item.name for item in dataset.items] == ["a.jpg"]
    assert [item.name for item in dataset.missing] == ["b.jpg"]
    (tmp_path / "a.jpg").unlink()
    with pytest.raises(RkzooError, match="None of the"):
        open_dataset(str(tmp_path / "list.csv"), "classify", ("cat", "dog"))


def test_without_has_a_digest_of_its_own() -> None:
    dataset = Dataset("d", "lines", FILES, LineTruth(NAMES), "0")
    some = dataset.without({FILES[1], FILES[3], FILES[4]})
    assert some.items == tuple(FILES[index] for index in KEPT)
    assert some.digest != dataset.digest
