"""rkzoo's board code on Rockchip's own library, with a driver that plays back what the
simulator computed. No NPU: nothing here was measured on a board."""

from __future__ import annotations

import json
import os
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from built import Built
from emulated import LIBRARY, PACKAGE, Emulated
from nets import MODELS, named
from page import PAGE, RESULTS, page, record

from board_over_ssh import boards
from board_over_ssh.openssh import Missing
from rkzoo.cli.main import main
from rkzoo.graph.rknn import reader as rknn
from rkzoo.remote.boards import close_boards
from rkzoo.toolkit.recipe import DEFAULT_VERSION
from rkzoo.workflow.compile.convert import convert
from rkzoo.workflow.compile.golden import golden_path, read_golden

pytestmark = [pytest.mark.toolkit, pytest.mark.vendor]
NAMES = [entry.name for entry in MODELS]
PHOTOS = [entry.name for entry in MODELS if entry.photo]
BY_THE_PROCESSOR = {"lprnet": [0]}
"""Outputs that the library's own operators compute, so that they cannot be played."""


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
        for run in told["equal"]:
            left_out = [number for number, share in enumerate(run) if share is None]
            assert left_out == BY_THE_PROCESSOR.get(name, []), (layout, run)
            assert {share for share in run if share is not None} <= {1.0}, (layout, run)


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
    # What is flat the library copies from memory of its own.
    direct = [told for told in as_announced if told is not None]
    four = [out for out in survey[name]["attributes"]["outputs"] if len(out["shape"]) == 4]
    assert len(direct) >= len(four)
    assert False not in direct


@pytest.fixture(scope="module")
def photos(board: Emulated, models: dict[str, Built], survey: dict[str, Any]) -> dict[str, Any]:
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


def test_a_pc_finds_it_over_ssh(
    board: Emulated,
    models: dict[str, Built],
    survey: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """--on, by OpenSSH's own server: the integers of the library there, decoded here."""
    one = models["yolov8n"]
    playing = {"NPU_PLAY": one.rknn.with_suffix(".native.play")}
    tree = boards.vendor_tree(board)
    try:
        with boards.logged_into(
            "vendor-board", board, tree, tmp_path / "board", env=playing
        ) as far:
            monkeypatch.setenv("RKZOO_SSH", far.client)
            code = main(["run", str(one.rknn), str(one.photo), "--json", "--on", far.address])
            told = capsys.readouterr()
            close_boards()
    except Missing as why:
        pytest.skip(str(why))
    assert code == 0, told.err
    document = json.loads(told.out)
    assert document["runtime"] == "board"
    assert document["images"][0]["results"] == json.loads(json.dumps(one.found))


# ---- the file and the library ---------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_the_file_tells_what_the_library_announces(
    survey: dict[str, Any], models: dict[str, Built], name: str
) -> None:
    """Shapes, types and scales, plain and native: what `convert` binds a head to on a PC."""
    told, file = survey[name]["attributes"], rknn.read(models[name].rknn)
    for side, own in (("outputs", file.outputs), ("native_outputs", file.native_outputs)):
        assert len(told[side]) == len(own)
        for library, spec in zip(told[side], own, strict=True):
            assert library["name"] == spec.name
            assert library["type"].lower() == spec.dtype
            assert library["scale"] == pytest.approx(spec.scale)
            shape = tuple(library["shape"])
            if side == "native_outputs" and library["format"] == "NC1HWC2":
                # Behind the last cell of a block the library may keep spare ones.
                assert (shape[:2], shape[-1]) == (spec.shape[:2], spec.shape[-1])
                assert shape[2] * shape[3] >= spec.shape[2] * spec.shape[3]
            else:
                assert shape == spec.shape


# ---- memory and threads ---------------------------------------------------------------


# 50 ms each; what leaks by opening shows in a hundred as in thousands.
OPENINGS = os.environ.get("RKZOO_OPENINGS", "150")


def test_many_openings_leave_nothing(board: Emulated, models: dict[str, Built]) -> None:
    left = board.ask("opens", folder_of(models), "one-class", OPENINGS)
    assert left == {"objects": 0, "bytes": 0, "descriptors": 0}


def test_workers_get_the_answers_to_their_own_inputs(
    board: Emulated, models: dict[str, Built], survey: dict[str, Any]
) -> None:
    answer = board.ask("workers", folder_of(models), "33-classes", "120")
    assert answer == {"right": 120, "left": 0}


def test_nothing_but_the_npu_writes_to_its_outputs(
    board: Emulated, models: dict[str, Built], tmp_path: Path
) -> None:
    """The processor's cache would be written back over what the NPU wrote: so memory of outputs
    is as the driver gave it when the NPU begins. Inputs are brought in line before that, outputs
    after it."""
    log = tmp_path / "log"
    log.touch()
    told = board.told(NPU_FILL=165, NPU_LOG=log)
    for name, one in told.ask("memory_order", folder_of(models), "33-classes", "several").items():
        zero_copy = name.startswith("33")
        if zero_copy:
            assert one["untouched"]
            assert set(one["untouched"]) == {1.0}, name
        submits = [n for n, line in enumerate(one["log"]) if line.startswith("submit")]
        to_device = [n for n, line in enumerate(one["log"]) if "to-device" in line]
        from_device = [n for n, line in enumerate(one["log"]) if "from-device" in line]
        assert submits
        assert "sync beyond" not in one["log"]
        assert min(to_device) < submits[0]
        assert max(from_device) > submits[-1]
        if zero_copy:
            synced = {int(line.split()[1]) for line in one["log"] if "to-device" in line}
            assert one["input"] in synced


# ---- the other node ---------------------------------------------------------------------


def test_the_drm_node_serves_as_well(
    board: Emulated, models: dict[str, Built], tmp_path: Path
) -> None:
    names = ("33-classes", "masks-fp16", "several", "map-fp16")
    for answer in board.told(NPU_NODE="drm").ask("survey", folder_of(models), *names).values():
        for told in answer["layouts"].values():
            assert set(told["arrived"]) == {"read"}
            assert {share for one in told["equal"] for share in one} == {1.0}


# ---- what fails -------------------------------------------------------------------------


REFUSED = {
    "one-class:NPU_NODE=none": "no device of the NPU that this user may open",
    "other-chip": "This rknn model is for RK3568, but current platform is RK3588",
    "one-class:NPU_REFUSE=1": "not enough memory that the NPU can use",
    "one-class:NPU_REFUSE=3": "not enough memory that the NPU can use",
    "one-class:NPU_FAIL_SUBMIT=1": "did not finish the job in time, or rejected it",
    "junk": "damaged",
    "empty": "empty",
}
"""What the driver does, and a word of what is to be said of it."""


@pytest.mark.parametrize("case", REFUSED)
def test_a_refusal_is_told_by_its_cause(
    board: Emulated, models: dict[str, Built], assets: Path, case: str
) -> None:
    """Each in a process of its own, since the library opens the node once; without a device tree
    that would tell the chip beforehand."""
    folder = folder_of(models)
    name, _, setting = case.partition(":")
    if name == "junk":
        (folder / "junk.rknn").write_bytes(b"RKNN" + bytes(range(256)) * 64)
    if name == "other-chip":
        calibration = str(assets / "data/coco128_val/images/*00139.jpg")
        file = folder / "other-chip.rknn"
        convert(folder / "one-class.onnx", "rk3568", calibration=calibration, output=file)
    if name == "empty":
        (folder / "empty.rknn").write_bytes(b"")
    if not (about := folder / f"{name}.rknn.json").exists():
        about.write_bytes((folder / "one-class.rknn.json").read_bytes())
    key, _, value = setting.partition("=")
    told = board.bare().told(**{key: value} if key else {})
    error = told.ask("refusal", folder, name)["error"]
    assert REFUSED[case] in error, error
    assert "alike" not in error  # as the sentence for a code that tells nothing more has it
    assert "Traceback" not in error


def test_the_last_words_of_a_process_that_the_library_ends(
    board: Emulated, models: dict[str, Built]
) -> None:
    """Without memory at its second request the library dies by SIGSEGV."""
    one = models["one-class"]
    done = board.told(NPU_REFUSE=2).rkzoo("run", one.rknn, str(one.photo), "--json")
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert "Cannot allocate memory" in done.stderr


# ---- held against the simulator, as a board owner does ------------------------------------


@pytest.fixture(scope="module")
def golden(board: Emulated, models: dict[str, Built], assets: Path) -> Path:
    """A model with a golden file, and what is to be played for it, rightly and wrongly."""
    folder = folder_of(models)
    source = folder / "33-classes.onnx"
    file = folder / "golden.rknn"
    calibration = str(assets / "data/coco128_val/images/*00139.jpg")
    convert(source, "rk3588", calibration=calibration, output=file, golden=1)
    kept = read_golden(golden_path(file))
    inputs = {f"in0_{i}": array for i, array in enumerate(kept.inputs(0))}
    right = {f"out0_{i}": array for i, array in enumerate(kept.outputs(0))}
    wrong = {key: np.roll(array, 7) for key, array in right.items()}
    scalings = (folder / "33-classes.scalings.json").read_text()
    for name, outputs in (("golden", right), ("wrong", wrong)):
        np.savez(folder / f"{name}.npz", **inputs, **outputs)
        (folder / f"{name}.scalings.json").write_text(scalings)
    (folder / "wrong.rknn").write_bytes(file.read_bytes())
    board.ask("survey", folder, "golden", "wrong")
    return file


@pytest.mark.parametrize(("played", "code"), [("golden", 0), ("wrong", 4)])
def test_check_tells_whether_a_board_computes_as_the_simulator(
    board: Emulated, golden: Path, played: str, code: int
) -> None:
    # `check` reads the outputs plain and as `run` does: the shorter file serves both.
    told = board.told(NPU_PLAY=golden.with_name(f"{played}.plain.play")).bare()
    done = told.rkzoo("check", golden, "--json")
    assert done.returncode == code, done.stderr[-2000:]
    report = json.loads(done.stdout)
    assert report["label"] == "not measured on a board"


# ---- the page ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def findings(board: Emulated, models: dict[str, Built]) -> dict[str, Any]:
    return board.ask("findings", folder_of(models))


def test_what_the_page_tells_is_seen_again(findings: dict[str, Any]) -> None:
    """docs/board.md tells of the library that the package carries."""
    if os.environ.get(LIBRARY):
        pytest.skip("another library was given")
    told = yaml.safe_load(RESULTS.read_text("utf-8"))["findings"]
    seen = {key: findings[key] for key in told}
    # What stood in memory before is there by chance.
    assert seen["nchw"].pop("arrived") < 0.5
    told["nchw"].pop("arrived")
    assert seen == told


def test_the_results_are_written(
    findings: dict[str, Any],
    survey: dict[str, Any],
    photos: dict[str, Any],
    models: dict[str, Built],
) -> None:
    if os.environ.get("RKZOO_WRITE_RESULTS") != "1":
        pytest.skip("RKZOO_WRITE_RESULTS=1 writes results/vendor_library.yaml anew")
    found = {name: json.loads(json.dumps(one.found)) for name, one in models.items()}
    about = {
        "package": PACKAGE,
        "toolkit": DEFAULT_VERSION,
        "rkzoo": version("rkzoo"),
        "date": datetime.now(timezone.utc).date().isoformat(),
    }
    data = record(findings, survey, photos, found, **about)
    text = yaml.safe_dump(data, sort_keys=False, allow_unicode=True)
    RESULTS.write_text(f"# Written by tests/vendor_runtime; not by hand.\n{text}", "utf-8")
    PAGE.write_text(page(data), "utf-8")
