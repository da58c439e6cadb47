"""A figure's interval: a part of the pictures has the figure that it has alone, and the interval
covers as often as it says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest

from rkzoo.accuracy.answers import Record, pack_classes, pack_texts
from rkzoo.accuracy.average_precision import _Kind, _resampled
from rkzoo.accuracy.classes import ClassTruth
from rkzoo.accuracy.dataset import Truth, halves, open_dataset
from rkzoo.accuracy.lines import LineTruth
from rkzoo.accuracy.maps import SegmentationTruth
from rkzoo.accuracy.metric import Drop, Metric, drop_of
from rkzoo.accuracy.oriented import OrientedTruth
from rkzoo.accuracy.regions import TextRegion, TextRegionTruth
from rkzoo.accuracy.resampling import Resampled, of_mean
from rkzoo.accuracy.restored import RestoreTruth
from rkzoo.accuracy.transcripts import TranscriptTruth

HERE = Path(__file__).parent
COUNT = 12
SIZE = (32, 24)
RANDOM = np.random.default_rng(11)


def classes(folder: Path) -> tuple[Truth, list[Record]]:
    records = [pack_classes(RANDOM.uniform(size=3), SIZE) for _ in range(COUNT)]
    return ClassTruth(tuple(str(n % 3) for n in range(COUNT))), records


def texts(kind: type[LineTruth]) -> Callable[[Path], tuple[Truth, list[Record]]]:
    def made(folder: Path) -> tuple[Truth, list[Record]]:
        said = [" ".join(RANDOM.choice(["a", "b", "c"], 2 + n % 4)) for n in range(COUNT)]
        heard = [text if n % 2 else text[:-1] + "d a" for n, text in enumerate(said)]
        return kind(tuple(said)), [pack_texts([text], [1.0], SIZE) for text in heard]

    return made


def regions(folder: Path) -> tuple[Truth, list[Record]]:
    quads = RANDOM.uniform(0, 20, (COUNT, 2, 1, 2)) + np.array([[0, 0], [9, 0], [9, 5], [0, 5]])
    moved = quads + RANDOM.choice([0.5, 6.0], (COUNT, 2, 1, 1))
    truth = tuple(tuple(TextRegion(tuple(map(tuple, q)), True) for q in p) for p in quads.tolist())
    return TextRegionTruth(truth), [
        {"size": np.array(SIZE), "quads": quad[: n % 3].astype(np.float32)}
        for n, quad in enumerate(moved)
    ]


def maps(folder: Path) -> tuple[Truth, list[Record]]:
    files, records = [], []
    for number in range(COUNT):
        # The third class is in few pictures only.
        truth = RANDOM.choice([0, 1, 2 if number < 3 else 0, 255], SIZE).astype(np.uint8)
        files.append(folder / f"{number}.png")
        cv2.imwrite(str(files[-1]), truth)
        found = np.where(RANDOM.uniform(size=SIZE) < 0.7, truth % 255, 1).ravel()
        records.append(
            {
                "size": np.array(SIZE),
                "class_id": found.astype(np.int32),
                "run": np.ones(32 * 24, int),
            }
        )
    return SegmentationTruth(tuple(files)), records


def restored(folder: Path) -> tuple[Truth, list[Record]]:
    files, records = [], []
    for number in range(COUNT):
        truth = RANDOM.integers(0, 256, (*SIZE, 3), np.uint8)
        files.append(folder / f"r{number}.png")
        cv2.imwrite(str(files[-1]), truth)
        noise = RANDOM.integers(0, number + 2, truth.shape)
        made = np.clip(truth.astype(int) + noise, 0, 255).astype(np.uint8)
        records.append({"size": np.array(SIZE), "pixels": made.ravel()})
    return RestoreTruth(tuple(files)), records


def oriented(folder: Path) -> tuple[Truth, list[Record]]:
    centres = RANDOM.uniform(0.3, 0.7, (COUNT, 1, 2))
    quads = centres + np.array([[-0.2, -0.1], [0.2, -0.1], [0.2, 0.1], [-0.2, 0.1]])
    truth = OrientedTruth(np.arange(COUNT), np.arange(COUNT) % 2, quads, ("ship", "plane"), (0, 1))
    side = np.array([SIZE[1], SIZE[0]], np.float64)
    records = []
    for n, centre in enumerate(centres[:, 0] * side):
        boxes = np.array([[*(centre + n % 4), *(side * [0.4, 0.2]), 0.0], [5, 5, 4, 4, 0.3]])
        records.append(
            {
                "size": np.array(SIZE),
                "xywhr": boxes.astype(np.float32),
                "score": np.array([0.5 + n / 50, 0.6 - n / 70], np.float32),
                "class_id": np.array([n % 2, 1], np.int32),
            }
        )
    return truth, records


@pytest.mark.parametrize(
    "make",
    [classes, texts(LineTruth), texts(TranscriptTruth), regions, maps, restored, oriented],
    ids=["classes", "lines", "speech", "regions", "maps", "restored", "oriented"],
)
def test_a_part_has_the_figure_that_its_pictures_have_alone(
    make: Callable[[Path], tuple[Truth, list[Record]]], tmp_path: Path
) -> None:
    truth, records = make(tmp_path)

    def main(truth: Truth, records: Sequence[Record]) -> Metric:
        return next(metric for metric in truth.score(records, (), ()) if metric.main)

    whole = main(truth, records)
    assert whole.resampled is not None
    assert whole.resampled.rows == COUNT
    values = {whole.value}
    for kept in ([*range(COUNT)], [0, 1, 2, 3, 4], [2, 5, 6, 9, 11]):
        alone = main(truth.take(kept), [records[i] for i in kept])
        part = whole.part(kept)
        assert part.value == pytest.approx(alone.value, abs=1e-12)
        assert part.interval == pytest.approx(alone.interval, abs=1e-9)
        values.add(alone.value)
    assert len(values) > 1
    low, high = whole.interval or (0, 0)
    assert low < whole.value < high


def test_the_interval_of_a_share_covers_the_true_one() -> None:
    # 200 sets of 100 pictures of which 70 % are right: 95 % of the intervals hold 70.
    right = np.random.default_rng(2).uniform(size=(200, 100)) < 0.7
    ends = [Metric("top-1", 0, "%", True, 1, True, of_mean(r, 100)).interval for r in right]
    covered = np.mean([found is not None and found[0] <= 70 <= found[1] for found in ends])
    assert 0.9 <= covered <= 0.98


def test_a_drop_is_paired() -> None:
    random = np.random.default_rng(3)
    first = random.uniform(size=200) < 0.7
    second = first.copy()
    second[:4] = False

    def metric(right: np.ndarray) -> Metric:
        value = 100 * float(right.mean())
        return Metric("top-1", value, "%", True, 1, True, of_mean(right, 100))

    floating, int8 = metric(first), metric(second)
    drop = drop_of(floating, int8)
    assert drop.interval is not None
    assert drop.points == pytest.approx(50 * float(first[:4].mean()) * 4 / 100)
    # Only the four pictures that changed matter; unpaired it would be 12 points wide.
    assert drop.interval[1] - drop.interval[0] < 4
    assert "95 %, paired bootstrap over 200 pictures" in drop.words()
    same = drop_of(floating, floating)
    assert same.interval == (0.0, 0.0)
    assert not same.apart
    assert same.words().endswith("float and INT8 cannot be told apart")
    assert drop_of(replace(floating, resampled=None), int8) == Drop(drop.points)


def recorded(name: str) -> Metric:
    """The mAP of yolov8n over coco128_val, by scripts/record_matches.py."""
    file = np.load(HERE / "matches_yolov8n.npz")

    def split(key: str) -> list[np.ndarray]:
        ends = np.cumsum(file[f"{name} {key} sizes"].astype(int))
        return np.split(file[f"{name} {key}"].astype(np.int64), ends[:-1])

    marks = split("marks")
    pairs = list(zip(marks[::2], marks[1::2], strict=True))  # ten a category
    kinds = [
        _Kind(objects, answers, tuple(pairs[10 * number : 10 * number + 10]))
        for number, (objects, answers) in enumerate(
            zip(split("objects"), split("answers"), strict=True)
        )
    ]
    resampled = Resampled(int(file[f"{name} rows"]), partial(_resampled, kinds))
    whole = resampled.at([1] * resampled.rows)
    return Metric("mAP50-95", whole, "", True, 0.01, True, resampled)


def test_of_two_halves_one_drop_lies_in_the_others_interval() -> None:
    """Two halves differ by sqrt(2) of what one varies by, so an interval that covers the true drop
    in 95 % of cases holds that of the other half in 83 % (erf of 1.96 / 2); some fewer here, since
    80 resamples tell the ends of 95 % a little too near."""
    floating, int8 = recorded("float").resampled, recorded("int8").resampled
    assert floating is not None
    assert int8 is not None
    splits, resamples, pictures = 100, 80, 128
    random = np.random.default_rng(0)
    # Of each split: the other half, and resamples of the one.
    counts = np.zeros((splits, 1 + resamples, pictures), np.int64)
    for of_split in counts:
        one, other = np.array_split(random.permutation(pictures), 2)
        of_split[0, other] = 1
        even = np.full(len(one), 1 / len(one))
        of_split[1:, one] = random.multinomial(len(one), even, resamples)
    rows = np.array_split(counts.reshape(-1, pictures), 40)
    drops = np.concatenate([floating.value(some) - int8.value(some) for some in rows])
    drops = drops.reshape(splits, 1 + resamples)
    low, high = np.percentile(drops[:, 1:], (2.5, 97.5), axis=1)
    covered = np.mean((low <= drops[:, 0]) & (drops[:, 0] <= high))
    assert 0.7 <= covered <= 0.92


def test_halves_are_the_same_whatever_the_order() -> None:
    files = [Path(f"{number:03d}.jpg") for number in range(41)]
    first, second = halves(files)
    assert sorted(first + second) == list(range(41))
    assert (len(first), len(second)) == (21, 20)
    turned = halves(files[::-1])
    assert {files[i] for i in first} == {files[::-1][i] for i in turned[0]}


@pytest.mark.parametrize(("task", "count"), [("detect", 79), ("segment", 79), ("pose", 38)])
def test_a_folder_of_several_annotations_is_read_by_task(
    assets: Path, task: str, count: int
) -> None:
    found = open_dataset(str(assets / "data/coco_more_val"), task, ())
    assert len(found.items) == count
    kinds = {"detect": "boxes", "segment": "masks", "pose": "keypoints"}
    assert found.kind == kinds[task]
