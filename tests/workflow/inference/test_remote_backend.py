"""Verbs with --on: rkzoo's own server behind an ssh of the tests', and the stand-in for Rockchip's
library behind that. Each answer is equal to the one that the same library gives here."""

from __future__ import annotations

import json
import os
import pickle
import shlex
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
import yaml
from tiny_yolo import stock

import remote.conftest as cables
import rkzoo
from npu_standin import build
from rkzoo.cli.main import main
from rkzoo.cli.signals import descendants
from rkzoo.errors import RkzooError
from rkzoo.progress import SILENT
from rkzoo.remote import boards
from rkzoo.remote.boards import board
from rkzoo.workflow.comparison.check import check
from rkzoo.workflow.comparison.compare import compare
from rkzoo.workflow.compile import kept_rknn as kept_room
from rkzoo.workflow.diagnostics import on_board
from rkzoo.workflow.evaluation.evaluate import evaluate
from rkzoo.workflow.inference import remote_backend
from rkzoo.workflow.inference.board import LIBRARY
from rkzoo.workflow.inference.plan import npu_workers, on_core, open_part, plan
from rkzoo.workflow.inference.remote_backend import RemoteBackend
from rkzoo.workflow.request.request import Request
from rkzoo.workflow.tuning.tune import _check_chip, tune
from workflow.inference.test_board import Bus

ADDRESS = cables.ADDRESS


@pytest.fixture(scope="module")
def bus(assets: Path, tmp_path_factory: pytest.TempPathFactory) -> Bus:
    return Bus(assets, tmp_path_factory.mktemp("bus"))


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A board at ADDRESS; at the end nothing of it is left."""
    library = build.compiled(tmp_path_factory.mktemp("standin"))
    before = set(descendants(os.getpid()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RKZOO_SSH", shlex.join([sys.executable, str(cables.HERE / "fake_ssh.py")]))
        patch.setenv("RKZOO_BOARD_COMMAND", shlex.join([sys.executable, "-m", "rkzoo"]))
        patch.setenv("RKZOO_CONFIG", str(tmp_path_factory.mktemp("config")))
        patch.setenv("RKZOO_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv(LIBRARY, str(library))
        yield library
        boards.close_boards()
    left = set(descendants(os.getpid())) - before
    commands = [Path(f"/proc/{pid}/cmdline").read_text() for pid in left]
    # Python's own, which eval's workers need, goes with this process.
    assert [command for command in commands if "resource_tracker" not in command] == []


def answer(capsys: pytest.CaptureFixture[str], *words: str | Path) -> Any:
    code = main([*map(str, words), "--json"])
    told = capsys.readouterr()
    assert code == 0, told.err
    return json.loads(told.out)


def test_run(there: Path, bus: Bus, capsys: pytest.CaptureFixture[str]) -> None:
    far = answer(capsys, "run", bus.rknn, bus.picture, "--on", ADDRESS)
    near = answer(capsys, "run", bus.rknn, bus.picture, "--runtime", "board")
    assert far["runtime"] == "board"
    assert far["images"][0]["results"] == near["images"][0]["results"]
    assert len(far["images"][0]["results"]) == 5
    assert far["hardware"].startswith("library librknnrt.so 2.3.2")


def test_load(there: Path, bus: Bus) -> None:
    with rkzoo.load(bus.rknn, on=ADDRESS) as model:
        found = model(bus.picture)
    assert model.runtime == found.runtime == "board"
    wanted = bus.expected()
    np.testing.assert_array_equal(found.prediction.xyxy, wanted.xyxy)  # type: ignore[attr-defined]
    np.testing.assert_array_equal(found.prediction.score, wanted.score)  # type: ignore[attr-defined]


def test_the_tensors_are_those_of_the_npu(there: Path, bus: Bus) -> None:
    """Raw integers in the NPU's layout, as the local session has them."""
    far = plan(bus.rknn, Request(on=ADDRESS)).parts["model"]
    near = plan(bus.rknn, Request(runtime="board")).parts["model"]
    with open_part(far) as theirs, open_part(near) as ours:
        assert (theirs.inputs, theirs.outputs) == (ours.inputs, ours.outputs)
        assert {spec.layout for spec in theirs.outputs} == {"NC1HWC2"}
        got, wanted = theirs.run([bus.fed]), ours.run([bus.fed])
        for one, other in zip(got, wanted, strict=True):
            assert one.dtype == np.int8
            np.testing.assert_array_equal(one, other)
        del wanted, other


def test_workers_have_a_core_each(there: Path, bus: Bus) -> None:
    planned = plan(bus.rknn, Request(on=ADDRESS))
    backend = planned.parts["model"].backend
    assert isinstance(backend, RemoteBackend)
    assert npu_workers(planned) == 2 * backend.available
    pinned = [replace(backend, available=3).on_core(number).cores for number in range(4)]
    assert pinned == [1, 2, 4, 1]
    assert on_core(planned, 1).parts["model"].backend.digest == backend.digest
    again = pickle.loads(pickle.dumps(backend))
    assert again == backend
    assert again.shared == board(ADDRESS).shared
    assert "library librknnrt.so 2.3.2" in backend.hardware


def test_eval(there: Path, bus: Bus, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same digits, in this process and in workers."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(9):  # more than one piece
        shutil.copy(bus.picture, folder / f"{number}.jpg")
    truth = {
        "images": [{"id": n, "file_name": f"{n}.jpg"} for n in range(9)],
        "annotations": [
            {
                "id": n + 1,
                "image_id": n,
                "category_id": 6,
                "bbox": [10, 130, 600, 330],
                "area": 198000,
                "iscrowd": 0,
            }
            for n in range(9)
        ],
        "categories": [{"id": 6, "name": "bus"}],
    }
    data = tmp_path / "truth.json"
    data.write_text(json.dumps(truth))
    words = ("eval", bus.rknn, "--data", f"{data}@{folder}")
    near = answer(capsys, *words, "--runtime", "board", "--workers", "1")
    for workers in ("1", "2"):
        far = answer(capsys, *words, "--on", ADDRESS, "--fresh", "--workers", workers)
        assert far["metrics"] == near["metrics"]
        assert (far["runtime"], far["images"], far["reused"]) == ("board", 9, 0)
        assert far["hardware"].startswith("library librknnrt.so 2.3.2")
    # Pictures in, records out.
    far = answer(capsys, *words, "--on", ADDRESS, "--send", "files", "--workers", "2")
    assert far["metrics"] == near["metrics"]
    assert (far["runtime"], far["images"], far["reused"]) == ("board", 9, 0)
    assert main([*map(str, words), "--runtime", "board", "--send", "files"]) == 2
    assert "--send files does not go with this" in capsys.readouterr().err
    with pytest.raises(RkzooError, match="--scheduler does not go with --on"):
        evaluate(str(bus.rknn), str(data), request=Request(on=ADDRESS), scheduler="tcp://h:1")


def test_bench(there: Path, bus: Bus, tmp_path: Path) -> None:
    """Times of the board, and the network apart; the board's facts, not this machine's."""
    out = tmp_path / "report.yml"
    words = ["bench", str(bus.rknn), "--image", str(bus.picture), "--frames", "12", "-o", str(out)]
    assert main([*words, "--on", ADDRESS]) == 0
    report = yaml.safe_load(out.read_text())
    assert list(report["time_cost_ms"]) == [
        "decode",
        "preprocess",
        "inference",
        "network",
        "postprocess",
        "total",
    ]
    stages = {name: times["mean"] for name, times in report["time_cost_ms"].items()}
    assert stages["network"] > 0
    total = stages.pop("total")
    assert sum(stages.values()) == pytest.approx(total, rel=0.05)
    assert "stand-in" in report["label"]
    info = report["board_info"]
    assert info["on"] == ADDRESS
    assert info["library"].startswith("librknnrt.so")
    assert [way["name"] for way in report["ways"]] == ["floats", "rkzoo", "pool"]


def test_stream(there: Path, bus: Bus, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(6):
        shutil.copy(bus.picture, folder / f"{number}.jpg")
    lines = tmp_path / "found.jsonl"
    words = ["stream", str(bus.rknn), str(folder), "--jsonl", str(lines), "--every-frame"]
    assert main([*words, "--on", ADDRESS]) == 0
    found = [json.loads(line) for line in lines.read_text().splitlines()]
    assert [len(frame["results"]) for frame in found] == [5] * 6
    assert "[board, " in capsys.readouterr().err


def test_what_is_no_rknn_is_built_for_the_boards_chip_once(
    there: Path, bus: Bus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The build itself is the toolkit's; here what it would write is put in its place."""
    hello = msgspec.structs.replace(board(ADDRESS).hello, chip="rk3588")
    monkeypatch.setattr(board(ADDRESS), "hello", hello)
    built: list[Any] = []
    tiny = tmp_path / "tiny.onnx"
    onnx.save(stock(), tiny)

    def convert(ready: Any, socs: Any, request: Request, *, output: Path, report: Any) -> None:
        built.append((socs, request.dtype))
        shutil.copy(bus.rknn, output)

    monkeypatch.setattr(kept_room, "convert_resolved", convert)
    request = Request(on=ADDRESS, dtype="fp16")
    first, second = (plan(tiny, request) for _ in range(2))
    assert built == [(["rk3588"], "fp16")]
    assert first.label == "board"
    backend = first.parts["model"].backend
    assert isinstance(backend, RemoteBackend)
    assert backend == second.parts["model"].backend
    assert backend.file.name == "tiny-rk3588-fp16.rknn"
    with open_part(first.parts["model"]) as session:
        assert session.run([bus.fed])[0].dtype == np.int8


def test_a_board_that_tells_no_chip(
    there: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is refused before anything is built, unless --soc names the chip."""
    hello = msgspec.structs.replace(board(ADDRESS).hello, chip=None)
    monkeypatch.setattr(board(ADDRESS), "hello", hello)
    tiny = tmp_path / "tiny.onnx"
    onnx.save(stock(), tiny)
    built: list[Any] = []

    def convert(ready: Any, socs: Any, request: Request, **more: Any) -> None:
        built.append(socs)
        raise RkzooError("Nothing is built here.")

    monkeypatch.setattr(kept_room, "convert_resolved", convert)
    for refused in (
        lambda: compare(str(tiny), request=Request(on=ADDRESS)),
        lambda: plan(tiny, Request(on=ADDRESS)),
    ):
        with pytest.raises(RkzooError, match=r"tells no chip.*compare and tune also take --soc"):
            refused()
    assert built == []
    with pytest.raises(RkzooError, match="Nothing is built here"):
        plan(tiny, Request(on=ADDRESS, chip="rk3568", dtype="fp16"))
    assert built == [["rk3568"]]
    _check_chip(ADDRESS, "rk3568")


def test_tune(there: Path, bus: Bus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each setting is built, sent and measured; here all builds are one file, and one is tried."""
    hello = msgspec.structs.replace(board(ADDRESS).hello, chip="rk3588")
    monkeypatch.setattr(board(ADDRESS), "hello", hello)
    monkeypatch.setattr(
        kept_room,
        "convert_resolved",
        lambda ready, socs, request, *, output, report: shutil.copy(bus.rknn, output),
    )
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    shutil.copy(bus.picture, pictures)
    model = str(bus.picture.parents[2] / "models/yolov8n.onnx")
    with pytest.raises(RkzooError, match="cannot measure what is built for rk3568"):
        tune(model, str(pictures), "rk3568", request=Request(on=ADDRESS))
    tuning = tune(
        model, str(pictures), "rk3588", request=Request(on=ADDRESS), max_drop=100, workers=2
    )
    (trial,) = tuning.trials
    assert 0.9 < trial.value <= 1.0  # the five boxes of float
    assert tuning.runtime == tuning.to_json()["runtime"] == "board"
    assert tuning.hardware.startswith("chip rk3588, library librknnrt.so 2.3.2")
    assert tuning.recipe.measured["runtime"] == "board"


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"chip": "rk3566"}, "was built for rk3588, and that is rk3566"),
        (
            {"chip": "rk3588", "memory_free": 1000},
            f"memory of {ADDRESS}.*MiB are free.*rkzoo doctor --on {ADDRESS} names",
        ),
        ({"library": "", "chip": "rk3588"}, rf"library was found there\. Run .* --on {ADDRESS}"),
        ({"library": ""}, "no Rockchip board that rkzoo knows.*env RKZOO_LIBRKNNRT="),
        (
            {"library": "", "library_fault": "RKZOO_LIBRKNNRT names /no.so, which is no file."},
            "/no.so, which is no file.*env RKZOO_LIBRKNNRT=",
        ),
    ],
)
def test_what_cannot_run_is_told_before_it_is_sent(
    there: Path, bus: Bus, monkeypatch: pytest.MonkeyPatch, facts: Any, words: str
) -> None:
    monkeypatch.setattr(
        board(ADDRESS), "hello", msgspec.structs.replace(board(ADDRESS).hello, **facts)
    )
    with pytest.raises(RkzooError, match=words):
        plan(bus.rknn, Request(on=ADDRESS))


def test_another_version_there_is_noted_once(
    there: Path, bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    report = type("Report", (type(SILENT),), {"note": lambda self, text: told.append(text)})()
    plan(bus.rknn, Request(on=ADDRESS), report)
    assert told == []
    hello = msgspec.structs.replace(board(ADDRESS).hello, rkzoo="0.0.7", machine="aarch64")
    monkeypatch.setattr(board(ADDRESS), "hello", hello)
    for _ in range(2):
        plan(bus.rknn, Request(on=ADDRESS), report)
    (said,) = told
    assert said.startswith(f"{ADDRESS} has rkzoo 0.0.7, and this PC has {version('rkzoo')}. ")
    assert said.endswith(f"rkzoo board setup {ADDRESS}")


def test_files_here_are_looked_at_before_the_board(
    bus: Bus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def connect(address: str) -> None:
        raise AssertionError("it connects")

    for room in (remote_backend, on_board):
        monkeypatch.setattr(room, "board", connect)
    nowhere = "ssh://nowhere"
    for data in (str(tmp_path / "none.json"), f"coco:{tmp_path}/none.json"):
        with pytest.raises(RkzooError, match=r"There is no .*none\.json"):
            evaluate(str(bus.rknn), data, request=Request(on=nowhere))
    with pytest.raises(RkzooError, match="checked against"):
        check(bus.rknn, golden=tmp_path / "none.npz", on=nowhere)
    with pytest.raises(RkzooError, match=r"none.rknn cannot be read"):
        on_board.diagnose_on(nowhere, tmp_path / "none.rknn")


def test_on_and_runtime() -> None:
    Request(on=ADDRESS, runtime="board")
    for runtime in ("onnx", "simulator"):
        with pytest.raises(RkzooError, match=f"--on does not go with --runtime {runtime}"):
            Request(on=ADDRESS, runtime=runtime)
    with pytest.raises(RkzooError, match="is no address of a board"):
        Request(on="board")


def test_a_chip_nobody_knows_is_none() -> None:
    hello = msgspec.convert(
        {
            **{field: "" for field in ("rkzoo", "python", "machine", "kernel", "board", "driver")},
            "protocol": 1,
            "chip": "../x",
            "npu_cores": 0,
            "library": "",
            "libraries": [],
            "memory_free": None,
            "memory_total": None,
        },
        remote_backend.Hello,
    )
    assert remote_backend.known_chip(hello) is None
