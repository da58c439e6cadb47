"""A .rknn on this machine's NPU: with the stand-in for Rockchip's library, which plays back
recorded outputs. Nothing here was measured on a board."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import msgspec
import numpy as np
import pytest

import rga_standin.build
import rkzoo
import soc.board_trees as board_trees
from graph.rknn_writer import Sample
from npu_standin import build
from npu_standin.recording import In, Out, Recording
from rkzoo.cli.bench import _print_summary
from rkzoo.cli.main import main
from rkzoo.contract.detect import DetectHead
from rkzoo.contract.inputs import TensorSpec
from rkzoo.contract.model import Contract
from rkzoo.errors import RkzooError
from rkzoo.files import sha256_of
from rkzoo.progress import SILENT
from rkzoo.runtime.npu import NpuSession
from rkzoo.runtime.npu_api import Cores
from rkzoo.runtime.npu_context import Context
from rkzoo.session import Array, Session
from rkzoo.soc.machine import Machine, read_machine
from rkzoo.tasks.detect.result import Detections
from rkzoo.tasks.detect.task import HeadTask
from rkzoo.vision import letterbox
from rkzoo.vision.image import read
from rkzoo.workflow.compile.convert import custom_string
from rkzoo.workflow.evaluation.jobs import EvaluationJob, answering
from rkzoo.workflow.inference import board, rga_preprocess
from rkzoo.workflow.inference.board import (
    BoardBackend,
    contract_of,
    find_library,
    on_board,
    open_board,
)
from rkzoo.workflow.inference.load import detect_task, open_task
from rkzoo.workflow.inference.plan import (
    Plan,
    in_floats,
    npu_workers,
    on_core,
    open_part,
    plan,
)
from rkzoo.workflow.performance import bench as bench_room
from rkzoo.workflow.performance.bench import bench
from rkzoo.workflow.request.request import Request

LIBRARY = board.LIBRARY


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build.compiled(tmp_path_factory.mktemp("standin"))


@pytest.fixture
def npu(built: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """This machine, as if it had an NPU; afterwards nothing may be open on it."""
    monkeypatch.setenv(LIBRARY, str(built))
    monkeypatch.setenv("STANDIN_STRICT", "1")
    yield built
    after = build.state(built)
    assert (after.contexts, after.memories, after.misuse) == (0, 0, 0)


@pytest.fixture
def no_npu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(LIBRARY, raising=False)
    monkeypatch.setattr(board, "library_paths", lambda *_: iter(()))


class Integers:
    """Integer tensors in the graph's layout, as the simulator gives them."""

    def __init__(self, outputs: tuple[TensorSpec, ...], arrays: list[Array]) -> None:
        self.label, self.inputs, self.outputs, self.arrays = "onnx", (), outputs, arrays

    def run(self, arrays: list[Array]) -> list[Array]:
        return self.arrays

    def close(self) -> None:
        pass


def quantised(array: Array) -> tuple[Array, float, int]:
    """To int8 with one scale a tensor."""
    low, high = min(0.0, float(array.min())), max(0.0, float(array.max()))
    scale = float(np.float32((high - low) / 255))
    zero = round(-128 - low / scale)
    codes = np.clip(np.rint(array / np.float32(scale)) + zero, -128, 127)
    return codes.astype(np.int8), scale, zero


def recorded(
    contract: Contract, fed: Array, specs: tuple[TensorSpec, ...], arrays: list[Array], **how: int
) -> Recording:
    """What the NPU is to answer when it is shown `fed`; rows of its memory are longer."""
    outs = [
        Out(s.name, a.shape, str(a.dtype), s.scale, s.zero_point)
        for s, a in zip(specs, arrays, strict=True)
    ]
    width = fed.shape[2] + 16
    recording = Recording((In("images", fed.shape, w_stride=width),), outs, **how)  # type: ignore[arg-type]
    recording.answer([fed], arrays)
    return recording


class Bus:
    """yolov8n in float on one picture, its outputs as integers, and a .rknn that plays them."""

    def __init__(self, assets: Path, folder: Path) -> None:
        self.picture = assets / "data/images/bus_640.jpg"
        self.image = read(self.picture)
        planned = plan(assets / "models/yolov8n.onnx", Request())
        part = planned.parts["model"]
        self.contract = part.contract
        with part.backend.open(part.contract) as session:
            task = detect_task(self.contract, session)
            self.float: Detections = task(self.image)
            arrays, _ = task.preprocess(self.image)
            self.fed = arrays[0].copy()
            found = [quantised(array) for array in session.run(arrays)]
            self.specs = tuple(
                TensorSpec(
                    name=spec.name,
                    shape=codes.shape,
                    dtype="int8",
                    layout="NCHW",
                    scale=scale,
                    zero_point=zero,
                )
                for spec, (codes, scale, zero) in zip(session.outputs, found, strict=True)
            )
        self.arrays = [codes for codes, _, _ in found]
        self.recording = recorded(self.contract, self.fed, self.specs, self.arrays)
        # The contract is in the file alone, as rkzoo convert puts it there.
        self.before = Sample(custom=custom_string(self.contract)).write()
        self.rknn = folder / "yolov8n.rknn"
        self.rknn.write_bytes(self.recording.bytes(self.before))

    def expected(self) -> Detections:
        """The same integers, decoded in the graph's layout."""
        session: Session = Integers(self.specs, self.arrays)  # type: ignore[assignment]
        found: Detections = detect_task(self.contract, session)(self.image)
        return found


@pytest.fixture(scope="module")
def bus(assets: Path, tmp_path_factory: pytest.TempPathFactory) -> Bus:
    return Bus(assets, tmp_path_factory.mktemp("bus"))


# ---- the whole way ------------------------------------------------------------------


def test_the_same_script_runs_on_the_npu(npu: Path, bus: Bus) -> None:
    with rkzoo.load(bus.rknn) as model:
        result = model(bus.picture)
    assert model.runtime == result.runtime == "board"
    wanted = bus.expected()
    np.testing.assert_array_equal(result.prediction.xyxy, wanted.xyxy)
    np.testing.assert_array_equal(result.prediction.score, wanted.score)
    np.testing.assert_array_equal(result.prediction.class_id, wanted.class_id)
    # And the integers tell what float tells: the same five things.
    assert sorted(wanted.class_id) == sorted(bus.float.class_id)
    assert len(wanted) == 5


def test_the_picture_is_written_into_the_npus_memory(npu: Path, bus: Bus) -> None:
    with open_board(BoardBackend(bus.rknn, str(npu)), bus.contract) as session:
        assert isinstance(session, NpuSession)
        task = detect_task(bus.contract, session)
        (fed,), _ = task.preprocess(bus.image)
        assert fed.ctypes.data == session.canvas.ctypes.data  # type: ignore[union-attr]
        assert fed.strides[1] == (640 + 16) * 3
        np.testing.assert_array_equal(fed, bus.fed)
        outputs = session.run([fed])
        assert {spec.layout for spec in session.outputs} == {"NC1HWC2"}
        assert all(array.base is not None and array.dtype == np.int8 for array in outputs)
        del fed, outputs, task


def test_the_2d_engine_finds_the_same(
    npu: Path, bus: Bus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a processor made slow; the stand-in answers the recorded picture alone, to the bit."""
    library = rga_standin.build.compiled(tmp_path)
    monkeypatch.setenv(rga_preprocess.LIBRARY, str(library))
    usual = letterbox.fit

    def slow(*given: Any) -> Any:
        time.sleep(0.05)
        return usual(*given)

    monkeypatch.setattr(letterbox, "fit", slow)
    with rkzoo.load(bus.rknn) as model:
        found = [model(bus.image).prediction for _ in range(14)]
    # Two pictures, a sample and seven rounds; then the engine alone.
    told = rga_standin.build.state(library)
    assert (told.pictures, told.handles, told.misuse) == (1 + 7 + 5, 0, 0)
    wanted = bus.expected()
    for one in found:
        np.testing.assert_array_equal(one.xyxy, wanted.xyxy)  # type: ignore[attr-defined]
    # What is measured does not depend on it.
    job = EvaluationJob(plan(bus.rknn, Request(runtime="board")))
    with answering(job) as answer:
        data = bus.picture.read_bytes()
        records = [answer(data, bus.picture) for _ in range(4)]
    assert rga_standin.build.state(library).imports == told.imports
    assert len(records) == 4


def test_run_says_board(npu: Path, bus: Bus, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["run", str(bus.rknn), str(bus.picture), "--json"]
    assert main([*command, "--runtime", "board"]) == 0
    told = capsys.readouterr()
    document = json.loads(told.out)
    assert document["runtime"] == "board"
    assert len(document["images"][0]["results"]) == 5
    assert "stand-in" in told.err


def test_workers_share_the_weights_and_have_a_core_each(npu: Path, bus: Bus) -> None:
    planned = plan(bus.rknn, Request(runtime="board"))
    part = planned.parts["model"]
    assert part.backend is not None
    assert on_core(planned, 1) == planned  # nobody knows how many cores there are
    three = three_cores(planned)
    pinned = [on_core(three, number).parts["model"].backend for number in range(4)]
    assert [one.cores for one in pinned if one] == [1, 2, 4, 1]
    before = build.state(npu).memories
    sessions = [open_part(on_core(three, number).parts["model"]) for number in range(4)]
    assert build.state(npu).contexts == 4
    assert build.state(npu).memories > before
    outputs = [session.run([bus.fed])[0].copy() for session in sessions]
    assert all((output == outputs[0]).all() for output in outputs)
    # The first may go before those that were made of it.
    for session in sessions:
        session.close()


def test_a_board_has_no_onnx(npu: Path, bus: Bus, tmp_path: Path) -> None:
    script = tmp_path / "board.py"
    script.write_text(
        "import sys\n"
        "class Nothing:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('onnx', 'onnxruntime', 'uv', 'supervision'):\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Nothing())\n"
        "import rkzoo\n"
        "with rkzoo.load(sys.argv[1]) as model:\n"
        "    print(model.runtime, len(model(sys.argv[2])))\n"
        "try:\n"
        "    rkzoo.load(sys.argv[3])\n"
        "except rkzoo.RkzooError as error:\n"
        "    print(error.fix)\n"
        "from rkzoo.cli.main import main\n"
        "print(main(['run', sys.argv[1], sys.argv[2]]))\n"
    )
    onnx = tmp_path / "model.onnx"
    onnx.write_bytes(b"\x08\x08")
    command = [sys.executable, str(script), str(bus.rknn), str(bus.picture), str(onnx)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    first, second, third, *boxes, code = done.stdout.splitlines()
    assert first == "board 5"
    assert second == 'Do this on a PC, or install it with: pip install "rkzoo[pc]"'
    assert "[board, " in third
    assert len(boxes) == 5
    assert code == "0"
    # It draws with what it has.
    (drawn,) = (tmp_path / "rkzoo-out").iterdir()
    assert cv2.absdiff(cv2.imread(str(drawn)), cv2.imread(str(bus.picture))).max() > 100


@pytest.mark.toolkit
def test_boxes_of_the_simulator(
    npu: Path, assets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real .rknn; what the simulator answers is what the stand-in plays."""
    pictures = sorted((assets / "data/coco128_val/images").glob("*.jpg"))[-8:]
    listed = tmp_path / "pictures.txt"
    listed.write_text("".join(f"{file}\n" for file in pictures))
    out = tmp_path / "yolov8n.rknn"
    rkzoo.convert(assets / "models/yolov8n.onnx", "rk3588", calibration=str(listed), output=out)
    picture = assets / "data/images/bus_640.jpg"
    part = plan(out, Request(runtime="simulator")).parts["model"]
    with open_part(part) as session:
        task = detect_task(part.contract, session)
        arrays, letterbox = task.preprocess(read(picture))
        outputs = session.run(arrays)
        wanted = task.postprocess(outputs, letterbox)
        recording = recorded(part.contract, arrays[0], session.outputs, outputs)
    out.write_bytes(recording.bytes(out.read_bytes()))
    sidecar = out.with_name(out.name + ".json")
    sidecar.write_text(json.dumps(json.loads(sidecar.read_text()) | {"rknn": sha256_of(out)}))
    for beside in (True, False):
        with rkzoo.load(out) as model:
            found = model(picture).prediction
        assert model.runtime == "board"
        np.testing.assert_array_equal(found.xyxy, wanted.xyxy)
        np.testing.assert_array_equal(found.score, wanted.score)
        assert len(found) >= 4
        if beside:
            sidecar.unlink()


# ---- where it runs ------------------------------------------------------------------


def test_a_pc_has_no_npu(no_npu: None, bus: Bus) -> None:
    assert find_library() is None
    assert on_board(bus.rknn, requested=False) is None
    with pytest.raises(RkzooError, match="no Rockchip board") as caught:
        plan(bus.rknn, Request(runtime="board"))
    assert "--runtime simulator" in caught.value.fix


def test_where_nothing_simulates_the_missing_npu_is_said(
    no_npu: None, bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(board, "_simulates", lambda: False)
    with pytest.raises(RkzooError, match="no Rockchip board") as caught:
        plan(bus.rknn, Request())
    assert "rkzoo[pc]" in caught.value.fix
    assert "--runtime simulator" not in caught.value.fix


def test_a_board_without_its_library(
    no_npu: None, bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = read_machine()

    def machine_of_a_board() -> Machine:
        return replace(machine, compatible=("vendor,thing", "rockchip,rk3588"), chip="rk3588")

    monkeypatch.setattr(board, "read_machine", machine_of_a_board)
    with pytest.raises(RkzooError, match=r"librknnrt\.so") as caught:
        plan(bus.rknn, Request())
    assert "rkzoo doctor" in caught.value.fix


def test_the_library_of_another_machine_is_passed_over(
    built: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(LIBRARY, raising=False)
    monkeypatch.setattr(board, "library_paths", lambda *_: iter((str(built),)))
    assert find_library() == str(built)
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    assert find_library() is None


@pytest.mark.parametrize(("bits", "number"), [(32, 40), (64, 183)])
def test_a_library_is_found_for_the_programs_and_not_for_the_kernel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bits: int, number: int
) -> None:
    """As doctor judges: a 64-bit kernel may run programs of 32 bit."""
    for name, machine in (("other", 223 - number), ("mine", number)):
        (tmp_path / name).write_bytes(board_trees.elf("librknnrt version: 2.3.2", machine))
    monkeypatch.delenv(LIBRARY, raising=False)
    paths = [str(tmp_path / "other"), str(tmp_path / "mine")]
    monkeypatch.setattr(board, "library_paths", lambda *_: iter(paths))
    monkeypatch.setattr(board, "bits_of", lambda tree: bits)
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert find_library() == str(tmp_path / "mine")


def test_the_variable_must_name_a_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, bus: Bus
) -> None:
    monkeypatch.setenv(LIBRARY, str(tmp_path / "gone.so"))
    with pytest.raises(RkzooError, match="which is no file"):
        plan(bus.rknn, Request())


def test_an_onnx_is_not_for_the_npu(npu: Path, assets: Path) -> None:
    with pytest.raises(RkzooError, match=r"runs \.rknn files only") as caught:
        plan(assets / "models/yolov8n.onnx", Request(runtime="board"))
    assert "rkzoo convert" in caught.value.fix


def test_the_simulator_may_still_be_asked_for(npu: Path, bus: Bus) -> None:
    with pytest.raises(RkzooError, match=r"\.json"):  # nothing was kept to build it from
        plan(bus.rknn, Request(runtime="simulator"))


def test_rockchips_python_package_where_that_is_what_there_is(
    no_npu: None, bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Lite:
        def __init__(self, verbose: bool) -> None:
            pass

        def load_rknn(self, path: str) -> int:
            return 0

        def init_runtime(self) -> int:
            return 0

        def inference(self, inputs: list[Array], data_format: list[str]) -> list[Array]:
            return [np.zeros((1, 64, 4, 4), np.float32), np.zeros((1, 4), np.float32)]

        def release(self) -> None:
            pass

    api = ModuleType("rknnlite.api")
    api.RKNNLite = Lite  # type: ignore[attr-defined]
    package = ModuleType("rknnlite")
    package.__spec__ = ModuleSpec("rknnlite", None)
    monkeypatch.setitem(sys.modules, "rknnlite", package)
    monkeypatch.setitem(sys.modules, "rknnlite.api", api)
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    monkeypatch.setattr("ctypes.util.find_library", lambda name: None)
    assert find_library() == board.LITE
    model = on_board(bus.rknn, requested=False)
    assert model is not None
    with open_board(model, bus.contract) as session:
        assert session.label == "board"
        assert session.inputs[0].shape == (1, 32, 48, 3)
        assert [a.shape for a in session.run([np.zeros((1, 32, 48, 3), np.uint8)])] == [
            (1, 64, 4, 4),
            (1, 4),
        ]


@pytest.mark.parametrize(
    ("chip", "driver", "alone", "workers"),
    [
        ("rk3588", "0.9.8", Cores.AUTO, [1, 2, 4, 1, 2, 4]),
        ("rk3588", "0.9.6", Cores.AUTO, [1, 2, 4, 1, 2, 4]),
        # Cores 1 and 2 do not work: neither the workers nor the driver may take them.
        ("rk3588", "0.9.2", Cores.CORE_0, [1, 1]),
        ("rk3588", "0.9.5", Cores.CORE_0, [1, 1]),
        ("rk3583", "0.9.8", Cores.AUTO, [1, 2, 1, 2]),
        ("rk3583", "0.9.3", Cores.CORE_0, [1, 1]),
        ("rk3576", "0.9.8", Cores.AUTO, [1, 2, 1, 2]),
        ("rk3576", "0.9.3", Cores.AUTO, [1, 2, 1, 2]),
        # Chips with one core refuse to be told one.
        ("rk3568", "0.9.8", Cores.AUTO, [0, 0]),
    ],
)
@pytest.mark.parametrize("debugfs", [True, False])
def test_work_is_given_to_cores_that_there_are_and_that_work(
    npu: Path,
    bus: Bus,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    chip: str,
    driver: str,
    alone: Cores,
    workers: list[int],
    debugfs: bool,
) -> None:
    made = board_trees.board(tmp_path, chip)
    made.driver(driver)
    if not debugfs:  # what every user may read
        made.ordinary_user()
        made.write("sys/module/rknpu/version", f"{driver}\n")
    monkeypatch.setattr(board, "read_machine", lambda: read_machine(tmp_path))
    model = on_board(bus.rknn, requested=True)
    assert model is not None
    assert model.cores == alone
    planned = plan(bus.rknn, Request())
    count = npu_workers(planned)
    given = [on_core(planned, number).parts["model"].backend for number in range(count)]
    assert [model.cores for model in given if model] == workers


def test_where_nobody_knows_the_cores_the_driver_shares_out_work(
    npu: Path, bus: Bus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = board_trees.board(tmp_path, "rk3582")
    monkeypatch.setattr(board, "read_machine", lambda: read_machine(tmp_path))
    known = on_board(bus.rknn, requested=True)
    made.ordinary_user()
    unknown = on_board(bus.rknn, requested=True)
    assert known is not None
    assert unknown is not None
    assert (known.available, unknown.available) == (3, 1)
    assert unknown.on_core(1).cores == unknown.cores == Cores.AUTO


def test_a_driver_with_one_good_core_is_obeyed_to_the_last_call(
    npu: Path, bus: Bus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    board_trees.board(tmp_path).driver("0.9.3")
    monkeypatch.setattr(board, "read_machine", lambda: read_machine(tmp_path))
    monkeypatch.setenv("STANDIN_STRICT", "0")  # bench feeds floats, too
    told: list[Cores] = []
    real = Context.set_cores

    def watched(context: Context, cores: Cores) -> None:
        told.append(cores)
        real(context, cores)

    monkeypatch.setattr(Context, "set_cores", watched)
    report = bench(str(bus.rknn), picture=bus.picture, frames=4, warm_up=1)
    assert report.throughput_fps.workers == 2
    # One session alone, two for the pool, one in floats.
    assert len(told) >= 4
    assert set(told) == {Cores.CORE_0}


def three_cores(planned: Plan) -> Plan:
    part = planned.parts["model"]
    assert part.backend is not None
    return replace(
        planned, parts={"model": replace(part, backend=replace(part.backend, available=3))}
    )


def test_floats_and_every_cell_decoded_give_the_same_boxes(
    npu: Path, bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STANDIN_STRICT", "0")
    wanted = bus.expected()
    with ExitStack() as stack:
        task = open_task(in_floats(plan(bus.rknn, Request())), stack)
        assert isinstance(task, HeadTask)
        arrays, letterbox = task.preprocess(bus.image)
        found = task.postprocess_unsuppressed(task.session.run(arrays), letterbox)
    np.testing.assert_allclose(found.xyxy, wanted.xyxy, atol=0.01)
    np.testing.assert_allclose(found.score, wanted.score, atol=1e-6)
    np.testing.assert_array_equal(found.class_id, wanted.class_id)


def test_bench_compares_floats_this_way_and_the_pool(
    npu: Path, bus: Bus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STANDIN_STRICT", "0")
    monkeypatch.setattr(bench_room, "plan", lambda *given: three_cores(plan(*given)))
    monkeypatch.chdir(tmp_path)
    report = bench(bus.rknn, picture=bus.picture, frames=6, warm_up=1)
    assert [(way.name, way.workers) for way in report.ways] == [
        ("floats", 1),
        ("rkzoo", 1),
        ("pool", 6),
    ]
    floats, ours, _ = report.ways
    # What the float way does is many times the work, so a busy machine does not hide it.
    assert floats.ms > ours.ms
    assert report.throughput_fps.workers == 6


def test_times_of_the_stand_in_are_not_called_a_boards(
    npu: Path, bus: Bus, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STANDIN_STRICT", "0")
    notes: list[str] = []

    class Heard(type(SILENT)):  # type: ignore[misc]
        def note(self, message: str) -> None:
            notes.append(message)

    report = bench(bus.rknn, picture=bus.picture, frames=3, warm_up=1, report=Heard())
    assert report.runtime == "board"
    assert report.label.startswith("A stand-in")
    # Several sessions were opened; it is said once.
    assert len([note for note in notes if "stand-in" in note]) == 1
    _print_summary(report)
    assert "floats in and out, every cell decoded" in capsys.readouterr().out


def test_answers_of_another_file_are_not_taken_for_this_ones(npu: Path, bus: Bus) -> None:
    other = bus.rknn.with_name("other.rknn")
    other.write_bytes(bus.recording.bytes(bus.before + b" "))
    digests = {EvaluationJob(plan(path, Request())).digest for path in (bus.rknn, other)}
    assert len(digests) == 2


# ---- what a file tells --------------------------------------------------------------


def test_the_contract_of_the_file_itself(bus: Bus) -> None:
    nameless = msgspec.structs.replace(bus.contract, labels=())
    assert msgspec.structs.replace(contract_of(bus.rknn), labels=()) == nameless
    assert isinstance(contract_of(bus.rknn).head, DetectHead)


@pytest.mark.parametrize(
    ("custom", "words"),
    [
        ("", "another program"),
        ("free text", "another program"),
        ('{"contract": {"family": 3}, "rkzoo": "9.9"}', r"rkzoo 9\.9"),
    ],
)
def test_files_that_do_not_tell(npu: Path, tmp_path: Path, custom: str, words: str) -> None:
    path = tmp_path / "other.rknn"
    path.write_bytes(Sample(custom=custom).write())
    with pytest.raises(RkzooError, match=words):
        rkzoo.load(path)


@pytest.mark.parametrize("name", ["missing.rknn", "folder.rknn"])
def test_files_that_are_not_there(npu: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "folder.rknn").mkdir()
    with pytest.raises(RkzooError, match="cannot be read"):
        rkzoo.load(tmp_path / name)


def test_versions_are_held_against_each_other(
    bus: Bus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = build.compiled(tmp_path, '-DSTANDIN_VERSION="1.4.0"')
    monkeypatch.setenv(LIBRARY, str(old))
    with pytest.raises(RkzooError, match=r"model 2\.5\.0, runtime 1\.4\.0") as caught:
        rkzoo.load(bus.rknn)
    assert str(old) in caught.value.fix


def test_a_failure_of_the_npu_reaches_the_reader(
    npu: Path, bus: Bus, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STANDIN_FAIL", "run:0:-2")
    assert main(["run", str(bus.rknn), str(bus.picture), "--json"]) == 2
    assert "did not answer in time" in capsys.readouterr().err


def test_cores_are_told_to_the_library(npu: Path, bus: Bus) -> None:
    model = BoardBackend(bus.rknn, str(npu), cores=Cores.CORE_2)
    open_board(model, bus.contract).close()
    with pytest.raises(RkzooError, match="cores"):
        open_board(replace(model, cores=Cores(1 << 4)), bus.contract)


def test_it_was_all_the_stand_in(built: Path) -> None:
    assert b"rkzoo stand-in" in built.read_bytes()
