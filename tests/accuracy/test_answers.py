"""What is kept of a result comes back from the disk as it was."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from rkzoo.accuracy import answers, rle
from rkzoo.kept import keep, kept
from rkzoo.tasks.detect.result import Detections
from rkzoo.tasks.obb.result import OrientedBoxes
from rkzoo.tasks.pose.result import Poses
from rkzoo.tasks.segment.result import Masks
from rkzoo.tasks.text.detect_text import TextBoxes
from rkzoo.tasks.text.result import TextLines

SIZE = (40, 60)


def detections(count: int) -> Detections:
    random = np.random.default_rng(count)
    return Detections(
        random.uniform(0, 30, (count, 4)).astype(np.float32),
        random.uniform(size=count).astype(np.float32),
        random.integers(0, 80, count).astype(np.int32),
    )


def masks(count: int) -> Masks:
    random = np.random.default_rng(count)
    crops = tuple((random.uniform(size=(5 + i, 7)) > 0.5).astype(np.uint8) for i in range(count))
    corners = random.integers(0, 20, (count, 2)).astype(np.int32)
    return Masks(detections(count), corners, crops, SIZE)


def lines(count: int) -> TextLines:
    texts = ("皖A1", "", "two words", "ü")[:count]
    score = np.linspace(0, 1, count, dtype=np.float32)
    quads = np.zeros((count, 4, 2), np.float32)
    return TextLines(quads, texts, score, score, np.zeros(count, np.int32))


def poses(count: int) -> Poses:
    return Poses(detections(count), np.full((count, 17, 3), 0.5, np.float32))


def oriented(count: int) -> OrientedBoxes:
    found = detections(count)
    return OrientedBoxes(np.ones((count, 5), np.float32), found.score, found.class_id)


def regions(count: int) -> TextBoxes:
    return TextBoxes(np.ones((count, 4, 2), np.float32), np.ones(count, np.float32))


@pytest.mark.parametrize("make", [detections, masks, poses, oriented, lines, regions])
@pytest.mark.parametrize("counts", [(), (0,), (3, 0, 2), (0, 0, 4)])
def test_comes_back(make: object, counts: tuple[int, ...], tmp_path: Path) -> None:
    assert callable(make)
    records = [answers.pack(make(count), SIZE) for count in counts]
    answers.save(tmp_path / "a.npz", records)
    found = answers.load(tmp_path / "a.npz")
    assert found is not None
    assert len(found) == len(records)
    for one, two in zip(records, found, strict=True):
        assert sorted(one) == sorted(two)
        assert one["size"].tolist() == two["size"].tolist() == list(SIZE)
        for key in one:
            np.testing.assert_array_equal(one[key], two[key])
            assert one[key].dtype == two[key].dtype
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]


def test_masks_are_coded_whole() -> None:
    found = masks(3)
    record = answers.pack(found, SIZE)
    areas = [rle.area(rle.from_bytes(code)) for code in answers.codes_of(record)]
    assert areas == found.areas().tolist()


def test_texts_come_back() -> None:
    assert answers.texts_of(answers.pack(lines(4), SIZE)) == list(lines(4).texts)
    assert answers.texts_of(answers.pack_texts(["x"], [0.5], SIZE)) == ["x"]
    assert answers.pack_texts([], [], SIZE)["quads"].shape == (0, 4, 2)


def test_best_classes() -> None:
    record = answers.pack_classes(np.array([0.1, 0.4, 0.4, 0.0, 0.05, 0.01]), SIZE)
    assert record["class_id"].tolist() == [1, 2, 0, 4, 5]


def test_an_unknown_result_is_refused() -> None:
    with pytest.raises(TypeError):
        answers.pack("text", SIZE)


def test_different_keys_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="same keys"):
        answers.save(
            tmp_path / "a.npz", [answers.pack(detections(1), SIZE), answers.pack(poses(1), SIZE)]
        )
    assert not list(tmp_path.iterdir())


def damaged(path: Path) -> list[bytes]:
    data = path.read_bytes()
    return [b"", b"PK", data[: len(data) // 2], data[:-30], b"\x93NUMPY" + data, b"text"]


def test_a_damaged_file_holds_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    answers.save(path, [answers.pack(masks(3), SIZE)])
    for data in damaged(path):
        path.write_bytes(data)
        assert answers.load(path) is None
    assert answers.load(tmp_path / "missing.npz") is None


@pytest.mark.parametrize(
    "change",
    [
        {"count": np.array(5)},
        {"count": np.array(-1)},
        {"rows:score": np.array([2])},
        {"rows:score": np.array([-3])},
        {"rle_length": np.array([1, 1, 1], np.int32)},
        {"score": np.array(["x"] * 3, object)},
    ],
)
def test_arrays_that_do_not_fit_are_no_records(
    change: dict[str, np.ndarray], tmp_path: Path
) -> None:
    path = tmp_path / "a.npz"
    answers.save(path, [answers.pack(masks(3), SIZE)])
    whole = kept(path)
    assert whole is not None
    with np.load(io.BytesIO(whole)) as file:
        arrays = {key: file[key] for key in file.files} | change
    packed = io.BytesIO()
    np.savez(packed, **arrays)
    keep(path, packed.getvalue())
    assert answers.load(path) is None
