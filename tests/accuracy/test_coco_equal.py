"""The figures equal pycocotools', number for number."""

from __future__ import annotations

import contextlib
import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rkzoo.accuracy import answers
from rkzoo.accuracy.objects import Measure, ObjectTruth, Shape, coco_stats

pytest.importorskip("pycocotools", reason="pycocotools is not installed")

SIZE = (150, 200)
CLASSES = 3


def boxes_of(random: np.random.Generator, count: int) -> NDArray[np.float64]:
    """x, y, w, h; some with sides at the limits of the areas, some empty."""
    side = random.choice([0.0, 8.0, 31.5, 32.0, 33.0, 60.0, 96.0, 97.0], (count, 2))
    corner = random.integers(0, 60, (count, 2)) / 2
    return np.concatenate((corner, side), axis=1)


def moved(random: np.random.Generator, boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    step = random.choice([0.0, 0.0, 0.5, 2.0, 8.0], boxes.shape)
    return np.maximum(boxes + step, 0)


def mask_of(box: NDArray[np.float64]) -> NDArray[np.uint8]:
    whole = np.zeros(SIZE, np.uint8)
    x, y, w, h = np.round(box).astype(int)
    whole[y : y + h, x : x + w] = 1
    whole[y : y + h : 3, x + w // 2 : x + w] = 0
    return whole


def made(
    random: np.random.Generator, pictures: int, most: int, measure: Measure
) -> tuple[ObjectTruth, list[answers.Record]]:
    """Objects and answers with ties, crowds, empty pictures and many answers."""
    boxes, picture, records = [], [], []
    for number in range(pictures):
        some = boxes_of(random, int(random.choice([0, 1, 4, 9])))
        boxes.append(some)
        picture += [number] * len(some)
        count = int(random.choice([0, 3, most]))
        own = some[random.integers(0, len(some), count)] if len(some) else boxes_of(random, count)
        found = moved(random, own).astype(np.float32)
        xyxy = np.concatenate((found[:, :2], found[:, :2] + found[:, 2:]), axis=1)
        record: answers.Record = {
            "size": np.array(SIZE, np.int32),
            "xyxy": xyxy,
            "score": random.choice([0.1, 0.5, 0.5, 0.9, 0.3], count).astype(np.float32),
            "class_id": random.integers(0, CLASSES, count).astype(np.int32),
        }
        if measure == "segm":
            from rkzoo.accuracy import rle

            codes = [rle.encode(mask_of(box), (0, 0), SIZE) for box in found]
            record |= answers._joined("rle", codes)
        if measure == "keypoints":
            points = random.uniform(0, 150, (count, 17, 3))
            points[..., :2] = xyxy[:, None, :2] + random.integers(0, 9, (count, 17, 2))
            record["keypoints"] = points.astype(np.float32)
        records.append(record)
    xywh = np.concatenate(boxes)
    total = len(xywh)
    marked = np.zeros((total, 17, 3))
    marked[..., :2] = xywh[:, None, :2] + random.integers(0, 9, (total, 17, 2))
    marked[..., 2] = random.integers(0, 3, (total, 17)) * (random.uniform(size=(total, 1)) < 0.8)
    shapes: tuple[Shape, ...] = tuple(outline(random, box) for box in xywh)
    truth = ObjectTruth(
        picture=np.array(picture, np.int64),
        category=random.integers(0, CLASSES, total),
        xywh=xywh,
        area=xywh[:, 2:].prod(axis=1) * random.choice([1.0, 0.5], total),
        crowd=random.uniform(size=total) < 0.2,
        sizes=np.tile(SIZE, (pictures, 1)).astype(np.int64),
        names=("a", "b", "c"),
        ids=(1, 2, 3),
        measures=(measure,),
        shapes=shapes if measure == "segm" else (),
        keypoints=marked if measure == "keypoints" else None,
    )
    return truth, records


def outline(random: np.random.Generator, box: NDArray[np.float64]) -> Shape:
    from rkzoo.accuracy import rle

    if random.uniform() < 0.4:
        return rle.encode(mask_of(box), (0, 0), SIZE)
    x, y, w, h = box.tolist()
    return [[x, y, x + w, y, x + w, y + h, x + w / 2, y + h / 2, x, y + h]]


def reference(truth: ObjectTruth, records: list[answers.Record], measure: Measure) -> Any:
    """What pycocotools says."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    marked, found = COCO(), COCO()
    images = [
        {"id": i, "height": h, "width": w}
        for i, (h, w) in enumerate(truth.sizes[: len(records)].tolist())
    ]
    kinds = [{"id": i, "name": name} for i, name in enumerate(truth.names)]
    notes = []
    for i in range(int(np.searchsorted(truth.picture, len(records)))):
        note: dict[str, Any] = {
            "id": i + 1,
            "image_id": int(truth.picture[i]),
            "category_id": int(truth.category[i]),
            "bbox": truth.xywh[i].tolist(),
            "area": float(truth.area[i]),
            "iscrowd": int(truth.crowd[i]),
        }
        if measure == "segm":
            shape = truth.shapes[i]
            size = truth.sizes[truth.picture[i]].tolist()
            note["segmentation"] = (
                {"size": size, "counts": shape} if isinstance(shape, bytes) else shape
            )
        if truth.keypoints is not None:
            note["keypoints"] = truth.keypoints[i].ravel().tolist()
            note["num_keypoints"] = int((truth.keypoints[i, :, 2] > 0).sum())
        notes.append(note)
    results: list[dict[str, Any]] = []
    for i, record in enumerate(records):
        codes = answers.codes_of(record) if measure == "segm" else []
        for j in range(len(record["score"])):
            x1, y1, x2, y2 = record["xyxy"][j].astype(float).tolist()
            result: dict[str, Any] = {
                "image_id": i,
                "category_id": int(record["class_id"][j]),
                "score": float(record["score"][j]),
            }
            if measure == "bbox":
                result["bbox"] = [x1, y1, x2 - x1, y2 - y1]
            if measure == "segm":
                size = record["size"].tolist()
                result["segmentation"] = {"size": size, "counts": codes[j]}
            if measure == "keypoints":
                result["keypoints"] = record["keypoints"][j].astype(float).ravel().tolist()
            results.append(result)
    with contextlib.redirect_stdout(io.StringIO()):
        marked.dataset = {"images": images, "categories": kinds, "annotations": notes}
        marked.createIndex()
        if results:
            found = marked.loadRes(results)
        else:
            found.dataset = {"images": images, "categories": kinds, "annotations": []}
            found.createIndex()
        judge = COCOeval(marked, found, measure)
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return judge.stats


@pytest.mark.parametrize("measure", ["bbox", "segm", "keypoints"])
@given(seed=st.integers(0, 2**32), most=st.sampled_from([6, 40, 330]))
@settings(max_examples=15, deadline=None)
def test_equals_pycocotools(measure: Measure, seed: int, most: int) -> None:
    random = np.random.default_rng(seed)
    truth, records = made(random, int(random.integers(1, 6)), most, measure)
    ours = coco_stats(truth, records, (), measure)
    np.testing.assert_allclose(ours, reference(truth, records, measure), rtol=0, atol=1e-9)


def test_a_part_of_the_pictures_is_scored_alone() -> None:
    truth, records = made(np.random.default_rng(5), 6, 40, "bbox")
    for count in range(1, 7):
        ours = coco_stats(truth, records[:count], (), "bbox")
        theirs = reference(truth, records[:count], "bbox")
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-9)
    assert (coco_stats(truth, [], (), "bbox") == -1).all()


def copied(truth: ObjectTruth, times: NDArray[np.int64]) -> ObjectTruth:
    """The truth of pictures of which each is there so many times."""
    pictures = np.repeat(np.arange(len(times)), times)
    rows = [np.flatnonzero(truth.picture == picture) for picture in pictures]
    all_rows = np.concatenate([np.zeros(0, np.int64), *rows]).astype(np.int64)
    return replace(
        truth,
        picture=np.repeat(np.arange(len(pictures)), [len(some) for some in rows]),
        category=truth.category[all_rows],
        xywh=truth.xywh[all_rows],
        area=truth.area[all_rows],
        crowd=truth.crowd[all_rows],
        sizes=truth.sizes[pictures],
        shapes=tuple(truth.shapes[row] for row in all_rows) if truth.shapes else (),
        keypoints=None if truth.keypoints is None else truth.keypoints[all_rows],
    )


@pytest.mark.parametrize("measure", ["bbox", "segm", "keypoints"])
@given(seed=st.integers(0, 2**32))
@settings(max_examples=8, deadline=None)
def test_a_resample_equals_pycocotools_on_copies_of_the_pictures(
    measure: Measure, seed: int
) -> None:
    random = np.random.default_rng(seed)
    truth, records = made(random, 5, 40, measure)
    scores = random.permutation(sum(len(r["score"]) for r in records)).astype(np.float32) + 1
    for record in records:  # no ties, whose order copies would change
        record["score"], scores = np.split(scores, [len(record["score"])])
    main = truth.score(records, (), ())[0]
    times = random.integers(0, 4, 5)
    if main.resampled is None or not len(truth) or not times.sum():
        return
    several = [record for record, n in zip(records, times, strict=True) for _ in range(n)]
    expected = reference(copied(truth, times), several, measure)[0]
    found = main.resampled.at(times.tolist())
    assert found == pytest.approx(expected, abs=1e-9) or (np.isnan(found) and expected == -1)
    assert main.resampled.at([1] * 5) == pytest.approx(main.value, abs=1e-9)
