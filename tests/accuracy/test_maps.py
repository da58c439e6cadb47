"""Maps of classes against their truth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from rkzoo.accuracy.answers import class_map, load, pack, save
from rkzoo.accuracy.dataset import open_dataset
from rkzoo.errors import RkzooError
from rkzoo.tasks.semantic.result import ClassMap

LABELS = ("a", "b", "c")
VOID = 255


def lay(folder: Path, names: tuple[str, str], maps: dict[str, np.ndarray], end: str = "") -> Path:
    images, labels = (folder / name for name in names)
    for stem, values in maps.items():
        for place in (images / stem).parent, (labels / stem).parent:
            place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((*values.shape, 3), np.uint8)).save(images / f"{stem}.jpg")
        Image.fromarray(values.astype(np.uint8)).save(labels / f"{stem}{end}.png")
    return folder


def record(values: np.ndarray):
    return pack(ClassMap(values.astype(np.uint8)), values.shape)


@given(
    arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 3))
)
def test_a_record_holds_the_whole_map(values) -> None:
    assert np.array_equal(class_map(record(values)), values)


def test_records_are_kept_on_disk(tmp_path: Path) -> None:
    maps = [np.eye(4), np.zeros((2, 5)), np.full((1, 1), 2)]
    save(tmp_path / "r.npz", [record(one) for one in maps])
    back = [class_map(one) for one in load(tmp_path / "r.npz")]
    assert all(np.array_equal(a, b) for a, b in zip(maps, back, strict=True))


@pytest.mark.parametrize(
    ("names", "end"),
    [
        (("images", "labels"), ""),
        (("JPEGImages", "SegmentationClass"), ""),
        (("leftImg8bit", "gtFine"), "_gtFine_labelTrainIds"),
    ],
)
def test_mean_iou_over_all_pictures_by_hand(tmp_path: Path, names, end) -> None:
    """Truth a a b b / answer a b b b, and one void pixel; b alone in the second picture."""
    data = lay(
        tmp_path,
        names,
        {"one": np.array([[0, 0, 1, 1, VOID]]), "two": np.array([[1, 1]])},
        end,
    )
    dataset = open_dataset(str(data), "semantic", LABELS)
    assert [item.stem for item in dataset.items] == ["one", "two"]
    answers = [record(np.array([[0, 1, 1, 1, 2]])), record(np.array([[1, 1]]))]
    miou, right = dataset.score(answers)
    assert miou.main
    # a: 1 of 2; b: 4 of 5; c is in neither.
    assert miou.value == pytest.approx((1 / 2 + 4 / 5) / 2)
    assert right.value == pytest.approx(5 / 6)


def test_a_class_that_is_answered_and_never_true_counts_as_nothing(tmp_path: Path) -> None:
    data = lay(tmp_path, ("images", "labels"), {"one": np.array([[0, 0, 7]])})
    miou, _ = open_dataset(str(data), "semantic", LABELS).score([record(np.array([[0, 2, 1]]))])
    assert miou.value == pytest.approx((1 / 2 + 0) / 2)  # 7 is no class of the model: void


def test_a_map_of_another_size_is_told(tmp_path: Path) -> None:
    data = lay(tmp_path, ("images", "labels"), {"one": np.zeros((3, 4))})
    with pytest.raises(RkzooError, match=r"one\.png is 4x3, its picture 2x2"):
        open_dataset(str(data), "semantic", LABELS).score([record(np.zeros((2, 2)))])


def test_maps_may_lie_apart_and_a_folder_without_any_is_told(tmp_path: Path) -> None:
    data = lay(tmp_path, ("x", "y"), {"one": np.zeros((3, 4))})
    dataset = open_dataset(f"{data / 'y'}@{data / 'x'}", "semantic", LABELS)
    assert len(dataset.items) == 1
    with pytest.raises(RkzooError, match="not recognized as data"):
        open_dataset(str(data), "semantic", LABELS)
