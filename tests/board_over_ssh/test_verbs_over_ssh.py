"""Verbs with --on, by a real ssh into an arm64 board with the stand-in for Rockchip's library: what
they answer is equal to what the same stand-in, built for this machine, gives here.

One connection serves all of them, for starting Python is dear under qemu. The fake ssh of
tests/workflow/inference/test_remote_backend.py looks closer at each verb."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from golden_net import Net

from board_over_ssh.openssh import SshBoard
from npu_standin import build
from rkzoo.cli.main import main
from rkzoo.remote import boards
from rkzoo.remote.known_boards import known_boards
from rkzoo.workflow.inference.board import LIBRARY
from workflow.inference.test_board import Bus

pytestmark = [
    pytest.mark.vendor,
    pytest.mark.skipif(sys.platform != "linux", reason="needs Linux"),
]


@pytest.fixture(scope="module")
def bus(assets: Path, tmp_path_factory: pytest.TempPathFactory) -> Bus:
    return Bus(assets, tmp_path_factory.mktemp("bus"))


@pytest.fixture(scope="module")
def on(standin_board: SshBoard, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """The words that send a verb to the board."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RKZOO_SSH", standin_board.client)
        patch.setenv(LIBRARY, str(build.compiled(tmp_path_factory.mktemp("standin"))))
        patch.setenv("RKZOO_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield ["--on", standin_board.address]
        boards.close_boards()


HERE = ["--runtime", "board"]


def answer(capsys: pytest.CaptureFixture[str], *words: str | Path) -> Any:
    code = main([*map(str, words), "--json"])
    told = capsys.readouterr()
    assert code == 0, told.err
    return json.loads(told.out)


def test_run(on: list[str], bus: Bus, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("run", bus.rknn, bus.picture)
    far, near = (answer(capsys, *words, *where) for where in (on, HERE))
    assert far["runtime"] == "board"
    assert far["images"][0]["results"] == near["images"][0]["results"]
    assert len(far["images"][0]["results"]) == 5


def test_it_was_the_arm_board(on: list[str], bus: Bus) -> None:
    hello = boards.board(on[1]).hello
    assert (hello.machine, hello.chip, hello.library) == (
        "aarch64",
        "rk3588",
        "/usr/lib/librknnrt.so",
    )
    (known,) = (board for board in known_boards() if board.address == on[1])
    assert known.library == "/usr/lib/librknnrt.so 2.3.2 (rkzoo stand-in)"


def test_eval(on: list[str], bus: Bus, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    shutil.copy(bus.picture, folder / "0.jpg")
    # Near to what is found, so that the figures are none of 0 and 1.
    box = {"id": 1, "image_id": 0, "category_id": 6, "bbox": [60, 120, 500, 330]}
    truth = {
        "images": [{"id": 0, "file_name": "0.jpg"}],
        "annotations": [{**box, "area": 144640, "iscrowd": 0}],
        "categories": [{"id": 6, "name": "bus"}],
    }
    data = tmp_path / "truth.json"
    data.write_text(json.dumps(truth))
    words = ("eval", bus.rknn, "--data", f"{data}@{folder}")
    far, near = (answer(capsys, *words, *where) for where in (on, HERE))
    assert far["metrics"] == near["metrics"]
    assert 0.1 < far["metrics"][0]["value"] < 0.9
    assert "chip rk3588" in far["hardware"]


def test_bench(on: list[str], bus: Bus, capsys: pytest.CaptureFixture[str]) -> None:
    """Figures differ; whose they are does not."""
    words = ("bench", bus.rknn, "--image", bus.picture, "--frames", "2", "--warm-up", "1")
    report = answer(capsys, *words, *on)
    info = report["board_info"]
    assert (info["model"], info["chip"], info["on"]) == ("Radxa ROCK 5B", "rk3588", on[1])
    assert info["library"] == "librknnrt.so 2.3.2 (rkzoo stand-in)"
    assert "stand-in" in report["label"]
    assert report["time_cost_ms"]["network"]["mean"] > 0


def test_stream(
    on: list[str], bus: Bus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    for number in range(3):
        shutil.copy(bus.picture, folder / f"{number}.jpg")
    lines = []
    for where in (on, HERE):
        out = tmp_path / f"{len(lines)}.jsonl"
        assert main(["stream", str(bus.rknn), str(folder), "--jsonl", str(out), *where]) == 0
        lines.append([json.loads(line)["results"] for line in out.read_text().splitlines()])
    assert lines[0] == lines[1]
    assert [len(found) for found in lines[0]] == [5, 5, 5]


def test_check(on: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An output that is wrong, so that there is something to tell."""
    net = Net(tmp_path)
    net.changed(lambda array: array ^ 1)
    reports = []
    for where in (on, []):
        main(["check", str(net.file), *where, "--json"])
        report = json.loads(capsys.readouterr().out)
        for part in report["parts"]:
            del part["ms"], part["npu_ms"]
        reports.append((report["level"], report["label"], report["parts"]))
    assert reports[0] == reports[1]
    assert "stand-in" in reports[0][1]


def test_doctor_says_what_it_says_there(
    on: list[str], standin_board: SshBoard, capsys: pytest.CaptureFixture[str]
) -> None:
    there = json.loads(standin_board.run("rkzoo", "doctor", "--json").stdout)
    code = main(["doctor", *on, "--json"])
    far = json.loads(capsys.readouterr().out)
    assert [(one["id"], one["level"]) for one in far["findings"]] == [
        (one["id"], one["level"]) for one in there["findings"]
    ]
    assert (code, far["level"]) == (4, "fail")
    for fact in ("chip", "model", "libraries", "kernel", "machine", "nodes"):
        assert far["machine"][fact] == there["machine"][fact]


def test_clocks(on: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """The userland has none, and this machine's are not taken for its."""
    assert main(["clocks", "show", *on, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["clocks"], told["npu_rate"]) == ([], None)
