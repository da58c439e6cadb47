"""POST /v1/models/NAME:predict by curl, and held to `rkzoo run`."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from serving.server import Server, serving


@pytest.fixture(scope="module")
def server(assets: Path) -> Iterator[Server]:
    if shutil.which("curl") is None:
        pytest.skip("there is no curl here")
    with serving(f"yolo={assets / 'models/yolov8n.onnx'}", "--workers", "1") as server:
        yield server


@pytest.fixture(scope="module")
def picture(assets: Path) -> Path:
    return assets / "data/images/bus_640.jpg"


def curl(server: Server, path: str, *words: object) -> tuple[int, bytes]:
    """Status and body of an answer."""
    code = "\n%{http_code}"
    line = ["curl", "-s", "-w", code, *map(str, words), server.url + path]
    done = subprocess.run(line, capture_output=True, check=True, timeout=60)
    body, _, status = done.stdout.rpartition(b"\n")
    return int(status), body


@pytest.fixture(scope="module")
def ran(assets: Path, picture: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What `rkzoo run` answers, and the picture that it draws."""
    folder = tmp_path_factory.mktemp("run")
    words = ["run", str(assets / "models/yolov8n.onnx"), str(picture), "-o", "x.jpg", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "rkzoo", *words], cwd=folder, capture_output=True, check=True
    )
    (image,) = json.loads(done.stdout)["images"]
    return {"image": image, "drawn": (folder / "x.jpg").read_bytes()}


def test_a_picture_is_answered_as_run_answers(
    server: Server, picture: Path, ran: dict[str, Any]
) -> None:
    path = "/v1/models/yolo:predict"
    by_body = curl(server, path, "--data-binary", f"@{picture}")
    by_form = curl(server, path, "-F", f"file=@{picture}")
    for status, body in (by_body, by_form):
        assert status == 200
        answer = json.loads(body)
        assert len(answer["results"]) == 5
        for name in ("results", "width", "height", "runtime", "warnings"):
            assert answer[name] == ran["image"][name]
    assert json.loads(by_form[1])["file"] == picture.name


def test_the_drawn_picture_is_that_of_run(
    server: Server, picture: Path, ran: dict[str, Any]
) -> None:
    path = "/v1/models/yolo:predict?format=jpg"
    assert curl(server, path, "--data-binary", f"@{picture}") == (200, ran["drawn"])


def test_options_choose_among_the_results(server: Server, picture: Path) -> None:
    path = "/v1/models/yolo:predict?confidence=0.6&classes=person,5&max_boxes=3"
    _, body = curl(server, path, "--data-binary", f"@{picture}")
    assert [found["label"] for found in json.loads(body)["results"]] == ["person"] * 3


@pytest.mark.parametrize(
    ("query", "words", "status", "told"),
    [
        ("?conf=1", ("--data-binary", "x"), 400, "There is no option 'conf'"),
        ("?iou=much", ("--data-binary", "x"), 400, "iou=much cannot be read"),
        ("?confidence=7", ("--data-binary", "@PICTURE"), 400, "7"),
        ("?format=mp4", ("--data-binary", "@PICTURE"), 400, "cannot be given as .mp4"),
        ("?language=en", ("--data-binary", "@PICTURE"), 400, "--language does not go"),
        ("", ("--data-binary", "no picture"), 400, "not a picture"),
        ("", ("-X", "POST"), 400, "The body is empty"),
        ("", ("-F", "other=1"), 400, "no file `file`"),
        ("", ("-H", "content-type: application/json", "-d", "[1"), 400, "no JSON"),
        ("", (), 405, "asked with POST"),
    ],
)
def test_what_cannot_be_answered_is_said(
    server: Server, picture: Path, query: str, words: tuple[str, ...], status: int, told: str
) -> None:
    named = [word.replace("@PICTURE", f"@{picture}") for word in words]
    code, body = curl(server, f"/v1/models/yolo:predict{query}", *named)
    assert code == status
    assert told in json.loads(body)["error"]
