"""YOLO's text files and COCO's results: read back by the published formats, and by pycocotools."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from rkzoo.cli.main import main
from rkzoo.tasks.detect.result import Detections
from rkzoo.tasks.obb.result import OrientedBoxes
from rkzoo.tasks.pose.result import Poses
from rkzoo.workflow.inference.exports import coco_records, yolo_lines
from rkzoo.workflow.inference.model import Prediction, Result

FEW = 12


def _result(prediction: Prediction) -> Result:
    return Result(prediction, np.zeros((100, 200, 3), np.uint8), None, "onnx", 0.0)


BOXES = Detections(
    np.array([[20, 10, 60, 30]], np.float32), np.array([0.5], np.float32), np.array([3], np.int32)
)


def test_a_line_is_as_ultralytics_describes_it() -> None:
    """https://docs.ultralytics.com/datasets: detect, pose (x y v), obb (four corners)."""
    assert yolo_lines(_result(BOXES)) == ["3 0.2 0.2 0.2 0.2"]
    assert yolo_lines(_result(BOXES), True) == ["3 0.2 0.2 0.2 0.2 0.5"]
    points = np.array([[[20, 10, 0.75], [40, 50, 1]]], np.float32)
    assert yolo_lines(_result(Poses(BOXES, points))) == ["3 0.2 0.2 0.2 0.2 0.1 0.1 0.75 0.2 0.5 1"]
    turned = OrientedBoxes(np.array([[40, 20, 40, 20, 0]], np.float32), BOXES.score, BOXES.class_id)
    (line,) = yolo_lines(_result(turned))
    kind, *numbers = map(float, line.split())
    corners = {
        tuple(row) for row in np.round(np.array(numbers).reshape(4, 2) * (200, 100), 3).tolist()
    }
    assert (kind, corners) == (3, {(20, 10), (60, 10), (60, 30), (20, 30)})


def test_a_record_is_as_coco_describes_it() -> None:
    (record,) = coco_records(_result(BOXES), "000042", lambda kind: kind + 1)
    assert record == {"image_id": 42, "category_id": 4, "bbox": [20, 10, 40, 20], "score": 0.5}
    (record,) = coco_records(_result(BOXES), "bus", lambda kind: kind + 1)
    assert record["image_id"] == "bus"


@pytest.fixture
def few(assets: Path, tmp_path: Path) -> Path:
    """A folder of some pictures."""
    folder = tmp_path / "few"
    folder.mkdir()
    for path in sorted((assets / "data/coco128_val/images").iterdir())[:FEW]:
        shutil.copy(path, folder)
    return folder


@pytest.mark.parametrize(
    ("model", "truth", "kind"),
    [
        ("yolov8n", "instances_bbox", "bbox"),
        ("yolov8n-seg", "instances_polygons", "segm"),
        ("yolov8n-pose", "person_keypoints", "keypoints"),
    ],
)
def test_pycocotools_says_of_the_file_what_eval_says(
    model: str,
    truth: str,
    kind: str,
    few: Path,
    assets: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    coco = pytest.importorskip("pycocotools.coco")
    cocoeval = pytest.importorskip("pycocotools.cocoeval")
    weights, data = assets / f"models/{model}.onnx", assets / f"data/coco128_val/{truth}.json"
    out, limits = tmp_path / "out/found.json", ["--conf", "0.3", "--iou", "0.6"]
    assert main(["run", str(weights), str(few), "--save-json", str(out), *limits]) == 0
    # The truth of these pictures alone.
    document = json.loads(data.read_text())
    names = {path.name for path in few.iterdir()}
    document["images"] = [image for image in document["images"] if image["file_name"] in names]
    ids = {image["id"] for image in document["images"]}
    document["annotations"] = [a for a in document["annotations"] if a["image_id"] in ids]
    some = tmp_path / "truth.json"
    some.write_text(json.dumps(document))
    with contextlib.redirect_stdout(io.StringIO()):
        actual = coco.COCO(str(some))
        judged = cocoeval.COCOeval(actual, actual.loadRes(str(out)), kind)
        judged.evaluate()
        judged.accumulate()
        judged.summarize()
    capsys.readouterr()
    said = ["eval", str(weights), "--data", f"{some}@{few}", *limits, "--one-label", "--json"]
    assert main(said) == 0
    metrics = json.loads(capsys.readouterr().out)["metrics"]
    assert metrics[0]["value"] == pytest.approx(float(judged.stats[0]), abs=1e-6)


def test_text_files_of_a_folder(few: Path, assets: Path, tmp_path: Path) -> None:
    """A plain reader of the published format finds the boxes that --json tells."""
    out = tmp_path / "labels"
    weights = str(assets / "models/yolov8n.onnx")
    (few / "same.jpg").write_bytes(sorted(few.iterdir())[0].read_bytes())
    (few / "same.jpeg").write_bytes((few / "same.jpg").read_bytes())
    with contextlib.redirect_stdout(io.StringIO()) as told:
        command = ["run", weights, str(few), "--save-txt", str(out), "--save-conf", "--json"]
        assert main(command) == 0
    for image in json.loads(told.getvalue())["images"]:
        path = Path(image["file"])
        if path.stem == "same":
            continue
        rows = [list(map(float, row.split())) for row in (out / f"{path.stem}.txt").open()]
        assert len(rows) == len(image["results"])
        for (kind, cx, cy, w, h, score), box in zip(rows, image["results"], strict=True):
            assert (kind, score) == (box["class_id"], pytest.approx(box["score"], abs=1e-4))
            read = [cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2]
            size = [image["width"], image["height"]] * 2
            np.testing.assert_allclose(np.multiply(read, size), box["box"], atol=0.02)
    # Two pictures of one name do not share a file.
    assert (out / "same.txt").read_text() == (out / "same-1.txt").read_text()
    assert len(list(out.iterdir())) == FEW + 2


def test_a_model_that_finds_no_objects_refuses_them(
    few: Path, assets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = str(assets / "models/mobilenetv2.onnx")
    assert main(["run", weights, str(few), "--save-txt", str(tmp_path / "t")]) == 2
    assert "--save-txt does not go with this model" in capsys.readouterr().err


def test_two_pictures_of_one_name_are_told_apart(assets: Path, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        shutil.copy(assets / "data/images/bus_640.jpg", tmp_path / folder / "x.jpg")
    model, found = str(assets / "models/yolov8n.onnx"), tmp_path / "found.json"
    words = [str(tmp_path / "a"), str(tmp_path / "b"), "--save-json", str(found)]
    assert main(["run", model, *words]) == 0
    kinds = [record["image_id"] for record in json.loads(found.read_text())]
    assert kinds.count("x") == kinds.count("x-1") == len(kinds) / 2 > 0


def test_a_folder_is_refused_before_anything_runs(
    assets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = str(assets / "data/images/bus_640.jpg")
    words = [str(assets / "models/yolov8n.onnx"), picture, "--save-json", str(tmp_path)]
    assert main(["run", *words]) == 2
    shown = capsys.readouterr()
    assert "is a folder" in shown.err
    assert "person" not in shown.out
