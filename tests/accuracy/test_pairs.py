"""Pairs of faces: LFW's file, and its accuracy by plain loops."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rkzoo.accuracy.answers import load, save
from rkzoo.accuracy.dataset import open_dataset
from rkzoo.accuracy.pairs import PairTruth, best_threshold
from rkzoo.errors import RkzooError

PAIRS = "2\t1\nann\t1\t2\nann\t1\tben\t1\nben\t1\t2\nann\t2\tben\t2\n"


def folder(tmp_path: Path, text: str = PAIRS) -> Path:
    for name in ("ann/ann_0001.jpg", "ann/ann_0002.png", "ben/ben_0001.jpg", "ben/ben_0002.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "pairs.txt").write_text(text)
    return tmp_path


def records(*rows: tuple[float, ...]) -> list[dict[str, np.ndarray]]:
    return [
        {"embedding": np.array(row, np.float32), "size": np.array([1, 1], np.int32)} for row in rows
    ]


@pytest.mark.parametrize("task", ["face-recognition", "vector"])
def test_a_file_as_lfws_names_pictures_and_pairs(task: str, tmp_path: Path) -> None:
    data = open_dataset(str(folder(tmp_path)), task, ())
    names = [str(item.relative_to(tmp_path)) for item in data.items]
    assert names == ["ann/ann_0001.jpg", "ann/ann_0002.png", "ben/ben_0001.jpg", "ben/ben_0002.jpg"]
    truth = data.truth
    assert isinstance(truth, PairTruth)
    assert truth.pairs.tolist() == [[0, 1], [0, 2], [2, 3], [1, 3]]
    assert truth.same.tolist() == [True, False, True, False]
    assert truth.fold.tolist() == [0, 0, 1, 1]
    # Lengths do not count. Cosines are .994 and 0 in the first set, .406 (one person) and .953
    # (two) in the second. Whatever is best on the second takes one of the first wrong, and .497,
    # the middle of the first, both of the second.
    scored = data.score(records((2, 0), (1.8, 0.2), (0, 3), (0.9, 0.4)))
    (accuracy, threshold) = scored
    assert (accuracy.name, accuracy.main, accuracy.value) == ("accuracy", True, 0.25)
    assert -1 <= threshold.value <= 1


def by_loops(cosines: list[float], same: list[bool], threshold: float) -> int:
    return sum((cosine >= threshold) == one for cosine, one in zip(cosines, same, strict=True))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(-5, 5), st.booleans()), min_size=1, max_size=12))
def test_no_threshold_is_better_than_the_best(pairs: list[tuple[int, bool]]) -> None:
    cosines, same = [whole / 5 for whole, _ in pairs], [one for _, one in pairs]
    threshold = best_threshold(np.array(cosines), np.array(same))
    best = max(by_loops(cosines, same, t / 10) for t in range(-10, 12))
    # Above 1 nothing lies, but a threshold of 1 still takes in what is wholly alike.
    slack = sum(cosine == 1 for cosine in cosines)
    assert by_loops(cosines, same, threshold) >= best - slack
    assert -1 <= threshold <= 1


def test_a_picture_without_a_face_is_like_no_other_and_records_are_kept(tmp_path: Path) -> None:
    data = open_dataset(str(folder(tmp_path)), "face-recognition", ())
    rows = records((1, 0), (1, 0), (0, 1), ())
    save(tmp_path / "records.npz", rows)
    assert [row["embedding"].tolist() for row in load(tmp_path / "records.npz")] == [
        [1, 0], [1, 0], [0, 1], [],
    ]  # fmt: skip
    # In each set one of the two: those of the second are alike to any threshold.
    assert data.score(rows)[0].value == 0.5
    fewer = data.without({data.items[3]})
    assert isinstance(fewer.truth, PairTruth)
    assert (fewer.truth.pairs.tolist(), fewer.truth.same.tolist()) == (
        [[0, 1], [0, 2]], [True, False],
    )  # fmt: skip
    assert fewer.score(rows[:3])[0].value == 1
    assert data.score(rows[:1]) == ()


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "holds no pairs"),
        ("ten 3\nann 1 2\n", "holds no pairs"),
        ("1 1\nann one two\n", "holds no pairs"),
        ("1 1\nann 1\n", "holds no pairs"),
        ("1 1\n../ann 1 2\n", "names the file"),
        ("1 1\nzoe 1 2\n", "None of the 2 files"),
    ],
)
def test_what_is_no_file_of_pairs_is_refused(text: str, what: str, tmp_path: Path) -> None:
    with pytest.raises(RkzooError, match=what):
        open_dataset(str(folder(tmp_path, text)), "face-recognition", ())
