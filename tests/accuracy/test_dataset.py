"""Data sets of each kind: recognised, read, scored; broken ones refused in one sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rkzoo.accuracy import answers, rle
from rkzoo.accuracy.answers import Record
from rkzoo.accuracy.dataset import FORMATS, Dataset, open_dataset
from rkzoo.accuracy.metric import Metric
from rkzoo.accuracy.objects import ObjectTruth
from rkzoo.errors import RkzooError

SIZE = (100, 200)


def values(metrics: tuple[Metric, ...]) -> dict[str, float]:
    return {metric.name: metric.value for metric in metrics}


def main_of(metrics: tuple[Metric, ...]) -> float:
    (found,) = [metric for metric in metrics if metric.main]
    return found.value


def write(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def boxes(*rows: tuple[float, float, float, float, float, int]) -> Record:
    """x1, y1, x2, y2, score, class."""
    table = np.array(rows, np.float64).reshape(-1, 6)
    return {
        "size": np.array(SIZE, np.int32),
        "xyxy": table[:, :4].astype(np.float32),
        "score": table[:, 4].astype(np.float32),
        "class_id": table[:, 5].astype(np.int32),
    }


def coco_data() -> dict[str, Any]:
    return {
        "info": {"year": 2017},
        "images": [
            {"id": 9, "file_name": "b.jpg", "height": 100, "width": 200, "license": 1},
            {"id": 2, "file_name": "a.jpg", "height": 100, "width": 200},
            {"id": 5, "file_name": "missing.jpg", "height": 100, "width": 200},
        ],
        "categories": [{"id": 3, "name": "car"}, {"id": 1, "name": "person"}],
        "annotations": [
            {"id": 1, "image_id": 9, "category_id": 3, "bbox": [10, 10, 40, 40], "area": 1600},
            {"id": 2, "image_id": 2, "category_id": 1, "bbox": [0, 0, 50, 60]},
            {"id": 3, "image_id": 5, "category_id": 1, "bbox": [0, 0, 50, 60]},
        ],
    }


def coco(folder: Path, data: Any = None, pictures: str = "images") -> Path:
    for name in ("a.jpg", "b.jpg"):
        write(folder / pictures / name)
    return write(folder / "truth.json", json.dumps(coco_data() if data is None else data))


# COCO


def test_coco_boxes(tmp_path: Path) -> None:
    found = open_dataset(str(coco(tmp_path)), "detect", ("dog", "Person", "car"))
    assert found.kind == "boxes"
    assert [item.name for item in found.items] == ["a.jpg", "b.jpg"]
    right = [boxes((0, 0, 50, 60, 0.9, 1)), boxes((10, 10, 50, 50, 0.8, 2), (0, 0, 9, 9, 0.9, 0))]
    metrics = found.score(right)
    assert main_of(metrics) == pytest.approx(1)
    assert "mAP large" not in values(metrics)
    assert {metric.unit for metric in metrics} == {""}
    wrong = [boxes((0, 0, 50, 60, 0.9, 2)), boxes()]
    assert main_of(found.score(wrong)) == 0
    # The first picture alone.
    assert main_of(found.score(right[:1])) == pytest.approx(1)
    assert found.score([]) == ()


@pytest.mark.parametrize("place", ["images", "val2017", ".", "images/val2017"])
def test_coco_pictures_are_found(tmp_path: Path, place: str) -> None:
    path = coco(tmp_path, pictures=place)
    path = path.rename(tmp_path / "instances_val2017.json")
    assert len(open_dataset(str(path), "detect", ()).items) == 2


def test_coco_pictures_beside_annotations(tmp_path: Path) -> None:
    coco(tmp_path, pictures="val2017")
    path = write(tmp_path / "annotations" / "instances_val2017.json", json.dumps(coco_data()))
    assert len(open_dataset(str(path), "detect", ()).items) == 2


def test_coco_pictures_elsewhere(tmp_path: Path) -> None:
    path = coco(tmp_path / "x@y", pictures="../other")
    found = open_dataset(f"coco:{path}@{tmp_path / 'other'}", "detect", ())
    assert len(found.items) == 2
    with pytest.raises(RkzooError, match="pictures"):
        open_dataset(str(path), "detect", ())


def test_classes_by_coco_numbers(tmp_path: Path) -> None:
    data = coco_data()
    data["categories"] = [{"id": 1, "name": "人"}, {"id": 3, "name": "车"}]
    names = tuple(f"label {number}" for number in range(80))
    found = open_dataset(str(coco(tmp_path, data)), "detect", names)
    right = [boxes((0, 0, 50, 60, 0.9, 0)), boxes((10, 10, 50, 50, 0.8, 2))]
    assert main_of(found.score(right)) == pytest.approx(1)
    with pytest.raises(RkzooError, match="no class in common"):
        open_dataset(str(coco(tmp_path, data)), "detect", ("cat", "dog"))


def test_the_digest_tells_truths_apart(tmp_path: Path) -> None:
    one = open_dataset(str(coco(tmp_path / "1")), "detect", ())
    assert one.digest == open_dataset(str(coco(tmp_path / "2")), "detect", ()).digest
    data = coco_data()
    data["annotations"][0]["bbox"][0] = 11
    assert one.digest != open_dataset(str(coco(tmp_path / "3", data)), "detect", ()).digest


def test_another_size_is_refused(tmp_path: Path) -> None:
    found = open_dataset(str(coco(tmp_path)), "detect", ())
    record = boxes((0, 0, 5, 5, 0.5, 0))
    with pytest.raises(RkzooError, match=r"a\.jpg is 50x40"):
        found.score([record | {"size": np.array([40, 50], np.int32)}])
    with pytest.raises(RkzooError, match="3 results for 2"):
        found.score([record] * 3)


def test_coco_masks(tmp_path: Path) -> None:
    data = coco_data()
    crop = np.ones((40, 40), np.uint8)
    code = rle.encode(crop, (10, 10), SIZE)
    data["annotations"][0]["segmentation"] = {"size": list(SIZE), "counts": code.decode()}
    data["annotations"][1]["segmentation"] = [[0, 0, 50, 0, 50, 60, 0, 60]]
    found = open_dataset(str(coco(tmp_path, data)), "segment", ("person", "car"))
    assert found.kind == "masks"
    codes = [rle.encode(np.ones((60, 50), np.uint8), (0, 0), SIZE), code]
    records = [
        boxes((0, 0, 50, 60, 0.9, 0)) | answers._joined("rle", codes[:1]),
        boxes((10, 10, 50, 50, 0.9, 1)) | answers._joined("rle", codes[1:]),
    ]
    found_values = values(found.score(records))
    assert found_values["mask mAP50-95"] == pytest.approx(1)
    assert found_values["box mAP50-95"] == pytest.approx(1)
    with pytest.raises(RkzooError, match="another size"):
        found.score([records[0] | answers._joined("rle", [b"00"])])


def test_coco_uncompressed_masks(tmp_path: Path) -> None:
    data = coco_data()
    lengths = rle.runs(np.ones((4, 4), np.uint8), (1, 1), SIZE).tolist()
    data["annotations"][0]["segmentation"] = {"size": list(SIZE), "counts": lengths}
    truth = open_dataset(str(coco(tmp_path, data)), "segment", ()).truth
    assert isinstance(truth, ObjectTruth)
    assert rle.encode(np.ones((4, 4), np.uint8), (1, 1), SIZE) in truth.shapes


def broken(change: Callable[[dict[str, Any]], object]) -> str:
    data = coco_data()
    change(data)
    return json.dumps(data)


def in_first(**values: Any) -> str:
    return broken(lambda data: data["annotations"][0].update(values))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        "[" * 100_000,
        '{"images": [], "annotations": []}',
        broken(lambda data: data.update(annotations=[])),
        broken(lambda data: data["images"][0].update(file_name="../../etc/passwd")),
        broken(lambda data: data["images"][0].update(file_name="/etc/passwd")),
        broken(lambda data: data["images"][0].update(height=-1)),
        broken(lambda data: data["images"][0].update(width=10**12)),
        in_first(bbox=[0, 0, -1, 5]),
        in_first(bbox=[0, 0, 1e300, 5]),
        in_first(bbox=[0, 0, 1]),
        in_first(bbox=None),
        in_first(category_id=77),
        in_first(category_id="car"),
        in_first(bbox=[0, 0, 5, float("nan")]),
        in_first(segmentation=[[0, 0, 1e9, 0, 1e9, 1e9]]),
        in_first(segmentation=[[0, 0, 5, 0, 5, 5, 6]]),
        in_first(segmentation={"size": [100, 200], "counts": [5, 5]}),
        in_first(segmentation={"size": [10, 20], "counts": [200]}),
        in_first(segmentation={"size": [100, 200], "counts": "\x7fzzz"}),
        in_first(segmentation={"size": [100, 200], "counts": [2**70]}),
    ],
)
def test_broken_coco_is_one_sentence(tmp_path: Path, text: str) -> None:
    path = coco(tmp_path)
    path.write_text(text)
    with pytest.raises(RkzooError) as error:
        open_dataset(str(path), "segment", ())
    assert error.value.fix


def test_key_points_of_different_number_are_refused(tmp_path: Path) -> None:
    data = coco_data()
    for note, count in zip(data["annotations"], (17, 16, 17), strict=True):
        note["keypoints"] = [1.0, 2.0, 2.0] * count
    with pytest.raises(RkzooError, match="number of key points"):
        open_dataset(str(coco(tmp_path, data)), "pose", ())


# YOLO


def yolo(folder: Path, rows: str, size: int = 2) -> Path:
    for number in range(size):
        write(folder / "images" / "val" / f"{number}.jpg")
    write(folder / "labels" / "val" / "0.txt", rows)
    return folder


YAML = "path: /of/another/computer\nval: images/val\nnames: {0: person, 1: car}\n"


def test_yolo_boxes(tmp_path: Path) -> None:
    yolo(tmp_path, "0 0.25 0.5 0.5 1\n\n1 0.1 0.1 0.1 0.1\n")
    path = write(tmp_path / "data.yaml", YAML)
    for spec in (path, tmp_path):
        found = open_dataset(str(spec), "detect", ("car", "person"))
        assert len(found.items) == 2
        # Shares of the picture that was read.
        right = boxes((0, 0, 100, 100, 0.9, 1), (10, 5, 30, 15, 0.8, 0))
        assert main_of(found.score([right, boxes()])) == pytest.approx(1)


def test_yolo_folder_without_yaml(tmp_path: Path) -> None:
    found = open_dataset(str(yolo(tmp_path, "0 .5 .5 .5 .5")), "detect", ("a", "b"))
    assert main_of(found.score([boxes((50, 25, 150, 75, 0.9, 0))])) == pytest.approx(1)


def test_yolo_polygons_and_boxes_of_them(tmp_path: Path) -> None:
    yolo(tmp_path, "0 0 0 .5 0 .5 .5 0 .5")
    found = open_dataset(str(tmp_path), "segment", ())
    code = rle.encode(np.ones((50, 100), np.uint8), (0, 0), SIZE)
    record = boxes((0, 0, 100, 50, 0.9, 0))
    metrics = values(found.score([record | answers._joined("rle", [code])]))
    assert metrics["mask mAP50-95"] == metrics["box mAP50-95"] == pytest.approx(1)
    assert main_of(open_dataset(str(tmp_path), "detect", ()).score([record])) == pytest.approx(1)


def test_yolo_poses(tmp_path: Path) -> None:
    yolo(tmp_path, "0 .5 .5 .5 .5 .4 .4 .6 .6")
    write(tmp_path / "data.yaml", YAML + "kpt_shape: [2, 2]\n")
    found = open_dataset(str(tmp_path), "pose", ())
    points = np.array([[[80, 40, 1], [120, 60, 1]]], np.float32)
    record = boxes((50, 25, 150, 75, 0.9, 0)) | {"keypoints": points}
    assert main_of(found.score([record])) == pytest.approx(1)
    with pytest.raises(RkzooError, match="3 key points where the data marks 2"):
        found.score([record | {"keypoints": np.zeros((1, 3, 3), np.float32)}])


def test_yolo_oriented(tmp_path: Path) -> None:
    yolo(tmp_path, "0 .25 .2 .5 .5 .4 .8 .15 .5\n1 .6 .6 .8 .6 .8 .8 .6 .8")
    found = open_dataset(str(tmp_path), "obb", ())
    assert found.kind == "oriented"
    import cv2

    quad = np.array([[50, 20], [100, 50], [80, 80], [30, 50]], np.float32)
    (x, y), (w, h), angle = cv2.minAreaRect(quad)
    record: Record = {
        "size": np.array(SIZE, np.int32),
        "xywhr": np.array([[x, y, w, h, np.radians(angle)], [140, 70, 40, 20, 0]], np.float32),
        "score": np.array([0.9, 0.8], np.float32),
        "class_id": np.array([0, 1], np.int32),
    }
    assert main_of(found.score([record])) == pytest.approx(1)
    turned = record["xywhr"] + np.array([0, 0, 0, 0, np.pi / 2], np.float32)
    assert main_of(found.score([record | {"xywhr": turned}])) < 0.2
    assert values(found.score([record | {"xywhr": turned}]))["mAP50"] < 1


@pytest.mark.parametrize(
    "row",
    [
        "0 .5 .5 .5",
        "x .5 .5 .5 .5",
        "-1 .5 .5 .5 .5",
        "0 nan 0 0 0",
        "0.5 0 0 0 0",
        "0 9 0 0 0",
        "1e9 0 0 0 0",
        "",
        "\ufffd",
    ],
)
@pytest.mark.parametrize("task", ["detect", "segment", "pose", "obb"])
def test_broken_labels_are_one_sentence(tmp_path: Path, row: str, task: str) -> None:
    with pytest.raises(RkzooError) as error:
        open_dataset(str(yolo(tmp_path, row)), task, ())
    assert error.value.fix


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[1]",
        "a: [",
        "val: 5",
        "val: /etc\nnames: [a]",
        "val: ../../x\nnames: [a]",
        "val: nowhere",
        "val: images/val\nnames: {x: 1}",
        "val: images/val\nnames: {-1: a}",
        "val: images/val\nkpt_shape: [9999999, 3]",
        "val: images/val\nkpt_shape: 3",
        "val: !!python/object/apply:os.system ['true']",
    ],
)
def test_broken_yaml_is_one_sentence(tmp_path: Path, text: str) -> None:
    yolo(tmp_path, "0 .5 .5 .5 .5")
    with pytest.raises(RkzooError) as error:
        open_dataset(str(write(tmp_path / "data.yaml", text)), "pose", ())
    assert error.value.fix


def test_list_of_pictures_in_yaml(tmp_path: Path) -> None:
    yolo(tmp_path, "0 .5 .5 .5 .5")
    write(tmp_path / "val.txt", "./images/val/0.jpg\n")
    path = write(tmp_path / "data.yaml", "val: val.txt\nnames: [a]\n")
    assert [item.name for item in open_dataset(str(path), "detect", ()).items] == ["0.jpg"]
    write(tmp_path / "val.txt", "/etc/passwd\n")
    with pytest.raises(RkzooError, match="outside"):
        open_dataset(str(path), "detect", ())


# Whole pictures


def classes(*best: int) -> Record:
    scores = np.zeros(8)
    scores[list(best)] = np.arange(len(best), 0, -1)
    return answers.pack_classes(scores, SIZE)


def test_csv_of_classes(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg"):
        write(tmp_path / name)
    path = write(tmp_path / "labels.csv", "file,class\na.jpg,3\nb.jpg,7\nmissing.jpg,1\n")
    found = open_dataset(str(path), "classify", ())
    assert values(found.score([classes(3), classes(1, 7)])) == {"top-1": 50, "top-5": 100}
    assert values(found.score([classes(3)]))["top-1"] == 100
    with pytest.raises(RkzooError, match="class 7"):
        open_dataset(str(path), "classify", ("a", "b", "c"))


def test_folders_of_classes(tmp_path: Path) -> None:
    for name in ("tench/1.jpg", "great white shark/2.png"):
        write(tmp_path / name)
    labels = ("tench, Tinca tinca", "goldfish", "Great White Shark")
    found = open_dataset(str(tmp_path), "classify", labels)
    assert values(found.score([classes(2), classes(0)]))["top-1"] == 100
    assert [item.parent.name for item in found.items] == ["great white shark", "tench"]
    with pytest.raises(RkzooError, match="no class"):
        open_dataset(str(tmp_path), "classify", ("tench", "b", "c"))
    # As many folders as labels, and no name in common: by the alphabet.
    found = open_dataset(str(tmp_path), "classify", ("x", "y"))
    assert values(found.score([classes(0), classes(1)]))["top-1"] == 100


# Text


def read(*texts: str) -> Record:
    return answers.pack_texts(texts, [1.0] * len(texts), SIZE)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("rec_gt.txt", "img/a.jpg\thello world \nimg/b.jpg\t皖A1\n"),
        ("truth.csv", 'img/a.jpg,"hello world"\nimg/b.jpg,皖A1\n'),
    ],
)
def test_lines_of_text(tmp_path: Path, name: str, text: str) -> None:
    for picture in ("a.jpg", "b.jpg"):
        write(tmp_path / "img" / picture)
    found = open_dataset(str(write(tmp_path / name, text)), "text-rec", ("", "a"))
    assert found.kind == "lines"
    assert values(found.score([read("hello world"), read("皖", "A2")])) == {
        "exact": 50,
        "similarity": pytest.approx(100 * (1 + 2 / 3) / 2),
        "edit distance": 0.5,
    }


def test_plates(tmp_path: Path) -> None:
    for name in ("皖AJ9565.jpg", "京B1_2.png"):
        write(tmp_path / name)
    found = open_dataset(str(tmp_path), "plate", ())
    assert found.kind == "plates"
    order = {"皖AJ9565.jpg": read("皖AJ9565"), "京B1_2.png": read("京B2")}
    metrics = found.score([order[item.name] for item in found.items])
    assert main_of(metrics) == 50


def quads(*rows: list[list[float]]) -> Record:
    return {
        "size": np.array(SIZE, np.int32),
        "quads": np.array(rows, np.float32).reshape(-1, 4, 2),
        "score": np.ones(len(rows), np.float32),
    }


def square(x: float, y: float, side: float) -> list[list[float]]:
    return [[x, y], [x + side, y], [x + side, y + side], [x, y + side]]


def test_places_of_text(tmp_path: Path) -> None:
    write(tmp_path / "a.jpg")
    lines = [
        {"transcription": "one", "points": square(0, 0, 20)},
        {"transcription": "two", "points": square(50, 0, 20)},
        {"transcription": "###", "points": square(0, 50, 40)},
    ]
    path = write(tmp_path / "Label.txt", f"x/a.jpg\t{json.dumps(lines)}\n")
    found = open_dataset(str(path), "text-det", ())
    assert found.kind == "regions"
    # One right, a second on the same line, one on what nobody can read, one anywhere.
    record = quads(square(1, 0, 20), square(0, 1, 20), square(5, 55, 20), square(120, 0, 20))
    expected = {"precision": 1 / 3, "recall": 1 / 2, "hmean": 2 / 5}
    assert values(found.score([record])) == pytest.approx(expected)
    assert main_of(found.score([quads()])) == 0


@pytest.mark.parametrize(
    "text",
    [
        "a.jpg\t[",
        "a.jpg\t[{}]",
        'a.jpg\t[{"points": [[0, 0]]}]',
        "a.jpg",
        "\t[]",
        'a.jpg\t[{"points": [[0, 0], [1e99, 0], [1, 1]]}]',
        "../a.jpg\t[]",
        "b.jpg\t[]",
    ],
)
def test_broken_label_txt_is_one_sentence(tmp_path: Path, text: str) -> None:
    write(tmp_path / "a.jpg")
    path = write(tmp_path / "Label.txt", text)
    with pytest.raises(RkzooError) as error:
        open_dataset(f"regions:{path}", "text-det", ())
    assert error.value.fix


# All kinds


def test_what_cannot_be_recognised(tmp_path: Path) -> None:
    write(tmp_path / "notes.md", "nothing")
    tasks = sorted({task for form in FORMATS for task in form.tasks})
    for task in tasks:
        for spec in (tmp_path, tmp_path / "notes.md", tmp_path / "missing", "", "coco:", "yolo:@"):
            with pytest.raises(RkzooError) as error:
                open_dataset(str(spec), task, ())
            assert error.value.fix
    with pytest.raises(RkzooError, match="not scored"):
        open_dataset(str(tmp_path), "voice", ())


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
@given(data=st.binary(max_size=60))
@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_bytes_are_one_sentence(tmp_path: Path, form: Any, data: bytes) -> None:
    suffixes = (".json", ".yaml", ".txt", ".csv")
    for suffix in suffixes:
        path = tmp_path / f"data{suffix}"
        path.write_bytes(data)
        for task in sorted(form.tasks)[:2]:
            with pytest.raises(RkzooError):
                open_dataset(f"{form.name}:{path}", task, ())


def perfect(found: Dataset) -> list[Record]:
    """The truth as an answer."""
    truth = found.truth
    assert isinstance(truth, ObjectTruth)
    records = []
    for number, size in enumerate(truth.sizes):
        rows = np.flatnonzero(truth.picture == number)
        xywh = truth.xywh[rows]
        record: Record = {
            "size": size.astype(np.int32),
            "xyxy": np.concatenate((xywh[:, :2], xywh[:, :2] + xywh[:, 2:]), 1).astype(np.float32),
            "score": np.linspace(1, 0.5, len(rows), dtype=np.float32),
            "class_id": truth.category[rows].astype(np.int32),
        }
        if truth.keypoints is not None:
            record["keypoints"] = truth.keypoints[rows].astype(np.float32)
        if truth.shapes:
            from rkzoo.accuracy.objects import _marked_code

            height, width = size.tolist()
            codes = [_marked_code(truth.shapes[row], height, width)["counts"] for row in rows]
            record |= answers._joined("rle", codes)
        records.append(record)
    return records


@pytest.mark.parametrize(
    ("file", "task", "pictures"),
    [
        ("instances_bbox", "detect", 128),
        ("instances_polygons", "segment", 100),
        ("person_keypoints", "pose", 70),
    ],
)
def test_the_truth_itself_scores_one(assets: Path, file: str, task: str, pictures: int) -> None:
    found = open_dataset(str(assets / "data" / "coco128_val" / f"{file}.json"), task, ())
    assert len(found.items) == pictures
    records = perfect(found)
    metrics = found.score(records)
    assert main_of(metrics) == pytest.approx(1, abs=1e-9)
    # Moved by a tenth of its size, each box overlaps by about .68.
    for record in records:
        side = record["xyxy"][:, 2:] - record["xyxy"][:, :2]
        record["xyxy"] += np.tile(side / 10, 2)
    name = "mAP50-95" if task == "detect" else "box mAP50-95"
    assert 0.3 < values(found.score(records))[name] < 0.45


def test_real_lists(assets: Path) -> None:
    data = assets / "data"
    found = open_dataset(str(data / "imagenet20" / "labels.csv"), "classify", ())
    assert len(found.items) == 20
    plates = open_dataset(str(data / "lprnet_test"), "plate", ())
    assert all(item.is_file() for item in plates.items)
    right = [read(item.stem) for item in plates.items]
    assert main_of(plates.score(right)) == 100
