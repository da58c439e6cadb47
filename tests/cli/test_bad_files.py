"""One bad file of many: the work goes on, it is listed at the end, and the exit code is 1."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from tiny_plain import one_picture

from rkzoo.cli.main import main


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RKZOO_CACHE", str(tmp_path / "cache"))
    onnx.save(one_picture(), "m.onnx")
    (tmp_path / "photos").mkdir()
    for number in range(3):
        cv2.imwrite(f"photos/{number}.png", np.full((32, 32, 3), number, np.uint8))
    return tmp_path


def test_run_goes_on_and_lists_it(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("photos/1a.png").write_bytes(b"no picture")
    assert main(["run", "m.onnx", "photos", "-o", "out"]) == 1
    shown = capsys.readouterr()
    assert [line.split()[0] for line in shown.out.splitlines() if line.startswith("photos")] == [
        f"photos/{number}.png" for number in range(3)
    ]
    assert "1 file could not be used and was left out:\n  photos/1a.png" in shown.err
    assert len(list((place / "out").iterdir())) == 3


def test_run_tells_it_in_json_too(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("photos/1a.png").write_bytes(b"no picture")
    assert main(["run", "m.onnx", "photos", "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert [Path(one["file"]).name for one in document["samples"]] == ["0.png", "1.png", "2.png"]
    ((failed),) = document["failed"]
    assert failed["file"] == "photos/1a.png"
    assert "not a picture" in failed["why"]


def test_the_json_of_whole_folders_has_no_failures(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "m.onnx", "photos", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["failed"] == []


def test_a_single_one_is_the_error(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("photos/1a.png").write_bytes(b"no picture")
    assert main(["run", "m.onnx", "photos/1a.png"]) == 2
    assert "error: photos/1a.png is not a picture" in capsys.readouterr().err


def test_all_bad_is_an_error(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for file in Path("photos").iterdir():
        file.write_bytes(b"no picture")
    assert main(["run", "m.onnx", "photos"]) == 2
    assert "None of the 3 files can be used" in capsys.readouterr().err


def test_ten_are_named_and_the_rest_counted(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(13):
        Path(f"photos/bad{number}.png").write_bytes(b"no picture")
    assert main(["run", "m.onnx", "photos"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert sum("bad" in line for line in lines) == 10
    assert "  and 3 more" in lines


def test_stream_goes_on(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assets = Path("photos")
    Path("photos/1a.png").write_bytes(b"no picture")
    assert main(["stream", "m.onnx", str(assets), "--jsonl", "lines", "--json"]) == 1
    assert len(Path("lines").read_text().splitlines()) == 3
    assert [Path(one["file"]).name for one in json.loads(capsys.readouterr().out)["failed"]] == [
        "1a.png"
    ]


@pytest.mark.parametrize("workers", ["1", "2"])
def test_eval_is_over_those_that_can_be_read(
    place: Path, assets: Path, capsys: pytest.CaptureFixture[str], workers: str
) -> None:
    known = json.loads((assets / "data/coco128_val/instances_bbox.json").read_text())

    def written(name: str, images: list[dict[str, object]]) -> str:
        there = {image["id"] for image in images}
        notes = [note for note in known["annotations"] if note["image_id"] in there]
        text = json.dumps(known | {"images": images, "annotations": notes})
        Path(name).write_text(text)
        return f"{name}@images"

    images = known["images"][:9]
    Path("images").mkdir()
    for image in images:
        shutil.copy(assets / "data/coco128_val/images" / image["file_name"], "images")
    (place / "images" / images[1]["file_name"]).unlink()
    (place / "images" / images[3]["file_name"]).write_bytes(b"no picture")
    good = [image for number, image in enumerate(images) if number not in (1, 3)]
    model = str(assets / "models/yolox_nano.onnx")
    command = ["eval", model, "--json", "--workers", workers, "--data"]
    assert main([*command, written("all.json", images)]) == 1
    bad = json.loads(capsys.readouterr().out)
    assert main([*command, written("good.json", good)]) == 0
    right = json.loads(capsys.readouterr().out)
    assert bad["metrics"] == right["metrics"]
    assert bad["images"] == right["images"] == 7
    assert {Path(one["file"]).name for one in bad["failed"]} == {
        images[1]["file_name"],
        images[3]["file_name"],
    }
    # A mended file counts the next time, though the records of the others are kept.
    shutil.copy(assets / "data/coco128_val/images" / images[3]["file_name"], place / "images")
    assert main([*command, "all.json@images"]) == 1
    assert json.loads(capsys.readouterr().out)["images"] == 8
