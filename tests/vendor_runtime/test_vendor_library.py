"""rkzoo's board code on Rockchip's own library, with a driver that plays back what the
simulator computed. No NPU: nothing here was measured on a board."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from built import Built
from emulated import Emulated
from nets import MODELS, named

pytestmark = [pytest.mark.toolkit, pytest.mark.vendor]
NAMES = [entry.name for entry in MODELS]
PHOTOS = [entry.name for entry in MODELS if entry.photo]
PROCESSOR_ONLY = {"lprnet"}
"""Models whose outputs the library's own operators compute, so that none can be played."""


def folder_of(models: dict[str, Built]) -> Path:
    return next(iter(models.values())).rknn.parent


@pytest.fixture(scope="module")
def survey(board: Emulated, models: dict[str, Built]) -> dict[str, Any]:
    return board.ask("survey", folder_of(models), *NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_inputs_arrive_where_the_npu_reads_them(survey: dict[str, Any], name: str) -> None:
    answer = survey[name]
    assert "error" not in answer, answer
    for layout, told in answer["layouts"].items():
        # What stands in memory alone is read by an operator on the processor.
        assert set(told["arrived"]) <= {"read", "memory"}, (layout, told["arrived"])
        assert "read" in told["arrived"] or named(name).name.startswith("tokens")
        assert (told["played"], told["unknown"]) == (told["sets"], 0)


@pytest.mark.parametrize("name", NAMES)
def test_outputs_are_the_simulators(survey: dict[str, Any], name: str) -> None:
    """In the NPU's own layout and in the plain one, with the largest number in all padding."""
    for layout, told in survey[name]["layouts"].items():
        shares = [share for one in told["equal"] for share in one if share is not None]
        assert shares or name in PROCESSOR_ONLY
        assert set(shares) <= {1.0}, (layout, told["equal"])


@pytest.mark.parametrize("name", NAMES)
def test_the_library_means_by_its_announcement_what_sessions_take_it_for(
    survey: dict[str, Any], name: str
) -> None:
    """NC1HWC2, number by number, where the library itself reads the outputs. A batch lies
    otherwise than announced, so sessions let the library turn it."""
    as_announced = survey[name]["as_announced"]
    if name.startswith("batch"):
        assert as_announced == [False]
        assert survey[name]["layouts"]["native"]["outputs"][0][3] == "NCHW"
        return
    assert False not in as_announced


@pytest.fixture(scope="module")
def photos(
    board: Emulated, models: dict[str, Built], survey: dict[str, Any]
) -> dict[str, Any]:
    shown = [f"{name}={models[name].photo}" for name in PHOTOS]
    return board.ask("photos", folder_of(models), *shown)


@pytest.mark.parametrize("name", PHOTOS)
def test_what_is_found_in_a_photo(
    photos: dict[str, Any], models: dict[str, Built], name: str
) -> None:
    """A photo in; boxes, masks, key points, classes or text out."""
    told = photos[name]
    assert told["runtime"] == "board"
    assert (told["played"], told["unknown"]) == (1, 0)
    assert told["results"] == json.loads(json.dumps(models[name].found))
    assert told["results"]


def test_the_command_line_finds_it_too(
    board: Emulated, models: dict[str, Built], survey: dict[str, Any]
) -> None:
    one = models["yolov8n"]
    told = board.told(NPU_PLAY=one.rknn.with_suffix(".native.play"))
    done = told.rkzoo("run", one.rknn, str(one.photo), "--json")
    assert done.returncode == 0, done.stderr[-2000:]
    document = json.loads(done.stdout)
    assert document["runtime"] == "board"
    assert document["images"][0]["results"] == json.loads(json.dumps(one.found))
