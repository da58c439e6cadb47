"""compare with --on: a board beside float and the real simulator.

The board's library is the stand-in, which plays back what the simulator answered, or something
else; nothing here was measured on a board."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from tiny_yolo import stock

import soc.board_trees as board_trees
from npu_standin import build
from npu_standin.recording import In, Out, Recording
from rkzoo.cli.main import main
from rkzoo.errors import RkzooError
from rkzoo.files import sha256_of
from rkzoo.progress import SILENT
from rkzoo.remote import boards
from rkzoo.session import Array
from rkzoo.toolkit import environment
from rkzoo.vision.image import read
from rkzoo.workflow.comparison.compare import compare
from rkzoo.workflow.comparison.diagnosis import Runtime
from rkzoo.workflow.comparison.kept_sessions import open_sessions
from rkzoo.workflow.comparison.planning import plans
from rkzoo.workflow.compile import kept_rknn as kept_room
from rkzoo.workflow.compile.convert import convert
from rkzoo.workflow.inference.load import detect_task
from rkzoo.workflow.request.request import Request
from serving.board_server import Served, board_server

pytestmark = pytest.mark.toolkit

Change = Callable[[str, Array], Array]


@dataclass(frozen=True)
class Simulated:
    """What the simulator answers to pictures: a recording of it is put behind a .rknn."""

    specs: tuple[Out, ...]
    fed: tuple[Array, ...]
    answers: tuple[list[Array], ...]

    def behind(self, rknn: Path, target: Path, change: Change = lambda name, array: array) -> Path:
        """The .rknn with this as what the NPU answers, after `change`."""
        recording = Recording((In("images", self.fed[0].shape),), self.specs)
        for fed, arrays in zip(self.fed, self.answers, strict=True):
            changed = [change(s.name, a) for s, a in zip(self.specs, arrays, strict=True)]
            recording.answer([fed], changed)
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(recording.bytes(rknn.read_bytes()))
        sidecar = rknn.with_name(f"{rknn.name}.json").read_text()
        assert sha256_of(rknn) in sidecar
        told = sidecar.replace(sha256_of(rknn), sha256_of(target))
        target.with_name(f"{target.name}.json").write_text(told)
        return target


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if (why := environment.unavailable()) is not None:
        pytest.skip(str(why))
    folder = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(3)
    for number in range(2):
        small = random.integers(0, 256, (8, 12, 3), np.uint8)
        image = cv2.resize(small, (96, 64), interpolation=cv2.INTER_NEAREST)
        cv2.imwrite(str(folder / f"{number}.png"), image)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("model") / "tiny.onnx"
    onnx.save(stock(names=repr(["cat", "dog", "cow"])), path)
    return str(path)


@pytest.fixture(scope="module")
def simulated(model: str, pictures: Path) -> dict[Runtime, Simulated]:
    """The oracle: the simulator asked by hand."""
    planned, _ = plans(model, Request(calibration=str(pictures)), SILENT)
    answered: dict[Runtime, Simulated] = {}
    for runtime, one in planned.items():
        if runtime == "onnx":
            continue
        with ExitStack() as stack:
            opened, _ = open_sessions(one, runtime, stack, SILENT)
            session = opened["model"]
            task = detect_task(one.parts["model"].contract, session)
            fed = [
                np.array(task.preprocess(read(file))[0][0]) for file in sorted(pictures.iterdir())
            ]
            answers = [[np.array(a) for a in session.run([array])] for array in fed]
            specs = tuple(
                Out(s.name, s.shape, _stored(s.dtype), s.scale, s.zero_point)
                for s in session.outputs
            )
        answered[runtime] = Simulated(specs, tuple(fed), tuple(answers))
    return answered


def _stored(dtype: str) -> str:
    return "float16" if dtype == "float32" else dtype


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    library = build.compiled(tmp_path_factory.mktemp("standin"))
    folder = tmp_path_factory.mktemp("board")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RKZOO_LIBRKNNRT", str(library))
        patch.setenv("STANDIN_STRICT", "1")
        board_trees.board(folder / "tree")
        with board_server(folder, folder / "tree") as served:
            yield served
            boards.close_boards()


@pytest.fixture(scope="module")
def built(model: str, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("rknn") / "tiny.rknn"
    request = Request(calibration=str(pictures), dtype="int8")
    convert(model, ["rk3588"], request=request, output=target)
    return target


def spoiled(name: str, array: Array) -> Array:
    """Every second code of the scores far off."""
    if array.dtype != np.int8 or array.shape[1] != 3:
        return array
    changed = array.copy()
    flat = changed.reshape(-1)
    flat[::2] = np.where(flat[::2] > 0, flat[::2] - 100, flat[::2] + 100)
    return changed


def test_a_board_that_answers_as_the_simulator_does(
    server: Served,
    built: Path,
    pictures: Path,
    simulated: dict[Runtime, Simulated],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = simulated["int8"].behind(built, tmp_path / "there" / "tiny.rknn")
    images = [str(path) for path in sorted(pictures.iterdir())]
    typed = ["compare", str(file), "--image", *images, "--on", server.address, "--no-layers"]
    assert main([*typed, "-o", str(tmp_path / "out"), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    by_name = {one["runtime"]: one for one in document["ran"]}
    assert list(by_name) == ["onnx", "fp16", "int8", "board_int8"]
    # The very same numbers: so all that is made of them, the boxes too.
    for name in ("outputs", "matches", "agreement", "counts", "hurt"):
        assert by_name["board_int8"][name] == by_name["int8"][name], name
    board = document["board"]
    assert board["label"] == by_name["board_int8"]["label"] == "stand-in: not measured on a board"
    assert (board["board"], board["chip"]) == ("Radxa ROCK 5B", "rk3588")
    assert board["says"] == ["The board answers as the simulator does in INT8."]
    assert {(one["equal"], one["codes"]) for one in board["against"][0]["outputs"]} == {(1.0, 0)}
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert "INT8 [stand-in: not measured on a board]" in page
    assert "no board here" not in page


def test_the_first_output_that_differs_is_named(
    server: Served,
    built: Path,
    pictures: Path,
    simulated: dict[Runtime, Simulated],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = simulated["int8"].behind(built, tmp_path / "there" / "tiny.rknn", spoiled)
    images = [str(path) for path in sorted(pictures.iterdir())]
    typed = ["compare", str(file), "--image", *images, "--on", server.address, "--no-layers"]
    assert main([*typed, "-o", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    scores = next(s.name for s in simulated["int8"].specs if s.shape[1] == 3)
    sentence = f"The board differs from the simulator in INT8, first in the output {scores}:"
    assert said.count(sentence) == 2  # beside the table, and as a cause
    assert f"Next: rkzoo doctor --on {server.address}" in said
    assert sentence in (tmp_path / "out" / "report.html").read_text("utf-8")


def test_a_model_is_built_for_the_boards_chip_in_both_formats(
    server: Served,
    model: str,
    pictures: Path,
    simulated: dict[Runtime, Simulated],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    inner = kept_room.kept_rknn
    asked = []

    def played(ready: object, soc: str, request: Request, report: object) -> Path:
        rknn = inner(ready, soc, request, report)  # type: ignore[arg-type]
        asked.append((soc, request.dtype))
        recording = simulated["int8" if request.dtype == "int8" else "fp16"]
        return recording.behind(rknn, tmp_path / str(request.dtype) / rknn.name)

    monkeypatch.setattr(kept_room, "kept_rknn", played)
    found = compare(
        model,
        request=Request(on=server.address, calibration=str(pictures)),
        images=sorted(pictures.iterdir()),
        layers=False,
    )
    assert asked == [("rk3588", "fp16"), ("rk3588", "int8")]
    assert [one.runtime for one in found.ran] == [
        "onnx",
        "fp16",
        "int8",
        "board_fp16",
        "board_int8",
    ]
    assert found.board is not None
    assert found.board.says == (
        "The board answers as the simulator does in float16.",
        "The board answers as the simulator does in INT8.",
    )
    assert not found.board.differs
    assert "on the board" in found.verdict


def test_another_chip_is_refused_before_anything_is_built(server: Served, model: str) -> None:
    with pytest.raises(RkzooError, match="--soc rk3566 is not the chip"):
        compare(model, request=Request(on=server.address), soc="rk3566")
