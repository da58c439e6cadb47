"""The score of relative depth, against formulas written out and least squares by numpy."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from rkzoo.accuracy.answers import load, pack, save
from rkzoo.accuracy.dataset import Dataset, open_dataset
from rkzoo.accuracy.depth import errors, read_depth
from rkzoo.errors import RkzooError
from rkzoo.tasks.depth.result import DepthMap

F64 = NDArray[np.float64]


def rooms(seed: int = 0, shape: tuple[int, int] = (20, 30)) -> tuple[F64, F64]:
    """True depth in metres with a hole, and a poor guess of its inverse."""
    rng = np.random.default_rng(seed)
    truth = rng.uniform(1, 8, shape)
    found = 300 / truth + rng.normal(0, 20, shape) + 50
    truth[:4, :5] = 0
    return truth, found


def by_hand(found: F64, truth: F64) -> tuple[float, float]:
    known = truth > 0
    columns = np.stack([found[known], np.ones(known.sum())], axis=1)
    (scale, shift), *_ = np.linalg.lstsq(columns, 1 / truth[known], rcond=None)
    cap = truth[known].max()
    relative, within = [], 0
    for guess, right in zip(found[known], truth[known], strict=True):
        disparity = min(max(scale * guess + shift, 1 / cap), 1000 / cap)
        depth = 1 / disparity
        relative.append(abs(depth - right) / right)
        within += max(depth / right, right / depth) < 1.25
    return float(np.mean(relative)), within / len(relative)


@pytest.mark.parametrize("seed", range(5))
def test_it_is_what_the_formulas_say(seed: int) -> None:
    truth, found = rooms(seed)
    assert errors(found, truth, inverse=True) == pytest.approx(by_hand(found, truth), abs=1e-9)


def test_scale_shift_and_unit_do_not_count() -> None:
    truth, found = rooms()
    wanted = errors(found, truth, inverse=True)
    assert errors(found * 7 - 3, truth, inverse=True) == pytest.approx(wanted)
    assert errors(found, truth * 1000, inverse=True) == pytest.approx(wanted)


def test_depth_itself_is_brought_to_depth() -> None:
    truth, _ = rooms()
    assert errors(3 * truth + 2, truth, inverse=False) == pytest.approx((0, 1), abs=1e-9)
    assert errors(1 / np.maximum(truth, 0.1), truth, inverse=False)[0] > 0.1


def test_an_answer_without_differences_is_the_mean() -> None:
    truth = np.array([[1.0, 2.0]])
    # Inverse depth 1 and .5, so .75 for both: depth 4/3.
    relative, within = errors(np.ones((1, 2)), truth, inverse=True)
    assert relative == pytest.approx((1 / 3 + 1 / 3) / 2)
    assert within == 0


def data(tmp_path: Path, truths: list[F64], *, png: bool = False, beside: bool = False) -> Path:
    images, depths = (tmp_path, tmp_path) if beside else (tmp_path / "images", tmp_path / "depth")
    for number, truth in enumerate(truths):
        for folder in (images, depths):
            folder.mkdir(exist_ok=True)
        picture = np.zeros((*truth.shape, 3), np.uint8)
        assert cv2.imwrite(str(images / f"{number}.jpg"), picture)
        if png:
            stored = np.rint(truth * 1000).astype(np.uint16)
            assert cv2.imwrite(str(depths / f"{number}.png"), stored)
        else:
            np.save(depths / f"{number}.npy", truth)
    return tmp_path


def opened(path: Path) -> Dataset:
    return open_dataset(str(path), "depth", ())


@pytest.mark.parametrize("png", [False, True])
@pytest.mark.parametrize("beside", [False, True])
def test_a_data_set_is_the_mean_over_its_pictures(tmp_path: Path, png: bool, beside: bool) -> None:
    pairs = [rooms(1), rooms(2, (25, 16))]
    dataset = opened(data(tmp_path / "d", [t for t, _ in pairs], png=png, beside=beside)
                     if (tmp_path / "d").mkdir() is None else tmp_path)  # fmt: skip
    assert [item.name for item in dataset.items] == ["0.jpg", "1.jpg"]
    assert dataset.kind == "depth"
    records = [pack(DepthMap(found.astype(np.float32)), truth.shape) for truth, found in pairs]
    save(tmp_path / "kept.npz", records)
    main, relative = dataset.score(load(tmp_path / "kept.npz"))
    wanted = np.mean([by_hand(found, truth) for truth, found in pairs], axis=0)
    assert (main.name, main.main, main.higher_is_better) == ("delta<1.25", True, True)
    assert relative.value == pytest.approx(wanted[0], abs=1e-3)
    assert main.value == pytest.approx(wanted[1], abs=5e-3)
    assert not relative.higher_is_better


def test_a_picture_of_which_nothing_is_known_does_not_count(tmp_path: Path) -> None:
    truth, found = rooms()
    dataset = opened(data(tmp_path, [truth, np.full_like(truth, np.nan)]))
    records = [pack(DepthMap(found.astype(np.float32)), truth.shape)] * 2
    assert dataset.score(records) == dataset.score(records[:1])


def test_a_map_of_another_size_is_refused(tmp_path: Path) -> None:
    truth, _ = rooms()
    dataset = opened(data(tmp_path, [truth]))
    with pytest.raises(RkzooError, match="30x20, its picture 7x5"):
        dataset.score([pack(DepthMap(np.ones((5, 7), np.float32)), (5, 7))])


def test_what_is_no_depth_is_refused(tmp_path: Path) -> None:
    for name, write in (
        ("a.npy", lambda path: path.write_bytes(b"no numpy")),
        ("b.npy", lambda path: np.save(path, np.zeros((2, 2, 3)))),
        ("c.npy", lambda path: np.save(path, np.array([["a"]]))),
        ("d.npy", lambda path: np.save(path, np.array([[{}]]), allow_pickle=True)),
        ("e.png", lambda path: cv2.imwrite(str(path), np.zeros((2, 2), np.uint8))),
        ("f.png", lambda path: path.write_bytes(b"")),
    ):
        write(tmp_path / name)
        with pytest.raises(RkzooError, match="not a depth map"):
            read_depth(tmp_path / name)


def test_a_folder_without_depth_is_told_so(tmp_path: Path) -> None:
    assert cv2.imwrite(str(tmp_path / "a.jpg"), np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(RkzooError, match="not recognized as data for a model of the task 'depth'"):
        opened(tmp_path)
    with pytest.raises(RkzooError, match="no picture with its depth"):
        open_dataset(f"depth:{tmp_path}", "depth", ())
