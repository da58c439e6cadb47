"""rkzoo check on the stand-in for the NPU's library, which plays back what was recorded: the
golden outputs, or others. Nothing here was measured on a board."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from board_trees import board as board_tree
from golden_net import (
    BOXES,
    SCORES,
    Net,
    golden_with,
)
from text_fakes import rec_contract

from graph.rknn_writer import Sample
from npu_standin import build
from npu_standin.recording import In, Out, Recording
from rkzoo.cli.main import main
from rkzoo.contract.inputs import TensorSpec
from rkzoo.contract.model import Contract
from rkzoo.errors import RkzooError
from rkzoo.files import sha256_of
from rkzoo.runtime.npu import NpuSession
from rkzoo.runtime.npu_context import Context
from rkzoo.session import Array
from rkzoo.soc.machine import read_machine
from rkzoo.workflow.comparison import check as room
from rkzoo.workflow.comparison.check import BoardCheck, check, write_report
from rkzoo.workflow.comparison.check_outputs import (
    KNOWN_CODES,
    KNOWN_SHARE,
    OutputCheck,
    check_output,
)
from rkzoo.workflow.compile.convert import convert, custom_string
from rkzoo.workflow.compile.golden import (
    golden_path,
    read_golden,
    write_golden,
)
from rkzoo.workflow.inference import board
from rkzoo.workflow.inference.load import answer_at
from rkzoo.workflow.request.pipeline_file import write_pipeline


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build.compiled(tmp_path_factory.mktemp("standin"))


@pytest.fixture
def npu(built: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """This machine, as if it had an NPU, which answers golden inputs alone."""
    monkeypatch.setenv(board.LIBRARY, str(built))
    monkeypatch.setenv("STANDIN_STRICT", "1")
    yield built
    after = build.state(built)
    assert (after.contexts, after.memories, after.misuse) == (0, 0, 0)


@pytest.fixture
def net(npu: Path, tmp_path: Path) -> Net:
    return Net(tmp_path)


# ---- what agrees, and what does not ---------------------------------------------------------


def test_what_agrees_is_well(net: Net) -> None:
    found = check(net.file)
    (part,) = found.parts
    assert found.level == "ok"
    assert [(one.name, one.equal, one.codes) for one in part.outputs] == [
        ("box", 1.0, 0),
        ("score", 1.0, 0),
    ]
    assert part.steady
    assert part.runs == 2 * room.ROUNDS
    # Decoded from NCHW, and as `run` does from the NPU's own layout.
    assert [(one.layout, one.agreement and one.agreement.found) for one in part.found] == [
        ("plain", 8),
        ("native", 8),
    ]
    assert part.ms.p50 > 0
    assert "100.00%" in found.verdict


def test_what_plays_back_something_else_fails(net: Net) -> None:
    random = np.random.default_rng(9)
    net.changed(lambda array: random.integers(-128, 128, array.shape, np.int8))
    found = check(net.file)
    assert found.level == "fail"
    assert all((one.cosine or 0) < 0.5 for one in found.parts[0].outputs)
    assert {one.level for one in found.parts[0].outputs} == {"fail"}
    assert {one.level for one in found.parts[0].found} == {"fail"}
    assert "rkzoo doctor" in found.next


def test_memory_that_nobody_wrote_fails(net: Net) -> None:
    net.changed(np.zeros_like)
    assert check(net.file).level == "fail"


def test_the_layout_taken_for_another_fails(net: Net) -> None:
    net.changed(
        lambda array: np.ascontiguousarray(array.transpose(0, 2, 3, 1)).reshape(array.shape)
    )
    assert check(net.file).level == "fail"


def test_each_input_is_compared_with_its_own_answer(net: Net) -> None:
    net.play([told for _, told in reversed(net.runs)])
    assert check(net.file).level == "fail"


@pytest.mark.parametrize(("share", "level"), [(0.10, "ok"), (0.16, "ok"), (0.20, "warn")])
def test_as_far_apart_as_a_board_was_seen_to_be_is_well(net: Net, share: float, level: str) -> None:
    random = np.random.default_rng(4)

    def moved(array: Array) -> Array:
        # Counted, so that the share is what is asked for: it is held against a threshold.
        array = array.reshape(-1)
        some = random.permutation(array.size)[: int(share * array.size)]
        array[some] += np.where(array[some] > 0, -1, 1).astype(np.int8)
        return array.reshape(BOXES.shape if array.size == np.prod(BOXES.shape) else SCORES.shape)

    net.changed(moved)
    found = check(net.file)
    assert found.level == level
    for one in found.parts[0].outputs:
        assert one.codes == 1
        assert one.equal == pytest.approx(1 - share, abs=1e-3)


def test_a_lost_thing_is_told_although_the_codes_agree(net: Net) -> None:
    def lost(array: Array) -> Array:
        if array.shape == SCORES.shape:
            array[array == 100] = -128
        return array

    net.changed(lost)
    found = check(net.file)
    assert found.level == "fail"
    assert "loses 8" in " ".join(found.parts[0].reasons)


def test_another_scale_than_the_files_fails(net: Net) -> None:
    net.play([told for _, told in net.runs], box=0.2)
    found = check(net.file)
    assert found.level == "fail"
    assert "scale and zero point 0.2" in found.verdict


def test_answers_that_change_fail(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a board whose first answer lies under dirty cache lines."""
    usual, runs = NpuSession.run, [0]

    def first_is_zero(self: NpuSession, arrays: Any) -> list[Array]:
        runs[0] += 1
        found = usual(self, arrays)
        return [np.zeros_like(array) for array in found] if runs[0] == 1 else found

    monkeypatch.setattr(NpuSession, "run", first_is_zero)
    found = check(net.file)
    assert found.level == "fail"
    assert not found.parts[0].steady
    assert "run again" in found.verdict


def test_a_decoder_that_refuses_the_npus_layout_is_a_failure_and_no_crash(
    net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusing(contract: Contract, session: Any, threshold: float) -> Any:
        if session.outputs[0].layout == "NC1HWC2":
            raise RkzooError("The score tensor has too many channels.", f"See {net.file}.")
        return answer_at(contract, session, threshold)

    monkeypatch.setattr(room, "answer_at", refusing)
    found = check(net.file)
    assert [(one.layout, one.level) for one in found.parts[0].found] == [
        ("plain", "ok"),
        ("native", "fail"),
    ]
    assert "too many channels. See net.rknn." in found.verdict


# ---- one output -------------------------------------------------------------------------------


def spec(dtype: str = "float32", **how: Any) -> TensorSpec:
    return TensorSpec(name="y", shape=(1, 1000), dtype=dtype, **how)


def one(golden: TensorSpec, wanted: Array, told: TensorSpec, found: Array) -> OutputCheck:
    return check_output(golden, [wanted], told, [found])


def test_floats_are_compared_by_steps_of_float16() -> None:
    wanted = np.random.default_rng(0).standard_normal((1, 1000)).astype(np.float32)
    half = one(spec(), wanted, spec("float16"), wanted.astype(np.float16))
    assert (half.level, half.within) == ("ok", 1.0)
    assert 0 < (half.difference or 0) < 0.002
    off = one(spec(), wanted, spec("float16"), (wanted * 1.01).astype(np.float16))
    assert (off.within or 0) < 0.1
    assert off.level == "ok"  # the cosine counts; how many are within a step is told
    other = one(spec(), wanted, spec("float16"), wanted[:, ::-1].astype(np.float16))
    assert other.level == "fail"


def test_numbers_that_are_none() -> None:
    wanted = np.ones((1, 1000), np.float32)
    broken = wanted.copy()
    broken[0, 3] = np.nan
    assert one(spec(), wanted, spec(), broken).level == "fail"
    # What float16 cannot hold is infinite on both sides.
    large = wanted.copy()
    large[0, 3] = np.inf
    assert one(spec(), large, spec(), large).level == "ok"


def test_floats_of_the_python_package_are_codes_again() -> None:
    golden = spec("int8", scale=0.25, zero_point=3)
    codes = np.random.default_rng(0).integers(-128, 128, (1, 1000), np.int8)
    floats = (codes.astype(np.float32) - 3) * np.float32(0.25)
    found = one(golden, codes, spec(), floats)
    assert (found.equal, found.codes, found.level) == (1.0, 0, "ok")


def test_an_output_of_another_size_fails() -> None:
    found = one(spec(), np.ones((1, 1000), np.float32), spec(), np.ones((1, 999), np.float32))
    assert found.level == "fail"
    assert found.cosine is None


def test_scores_that_hardly_move_do_not_fail_by_their_cosine() -> None:
    golden = spec("int8", scale=1 / 255, zero_point=-128)
    wanted = np.full((1, 1000), -128, np.int8)
    found = wanted.copy()
    wanted[0, :30] += 1
    found[0, 20:50] += 1
    row = one(golden, wanted, golden, found)
    assert (row.cosine or 0) < 0.5
    assert row.level == "ok"
    assert (KNOWN_SHARE, KNOWN_CODES) == (0.84, 5)


# ---- what the report says ---------------------------------------------------------------------


def test_the_stand_in_is_no_board(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    assert check(net.file).label == "stand-in: not measured on a board"
    # A library that does not say so is none either where there is no Rockchip board.
    monkeypatch.setattr(Context, "stand_in", False)
    found = check(net.file)
    assert found.label == "not measured on a board"
    assert "Send" not in found.next


@pytest.fixture
def on_rock(net: Net, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BoardCheck:
    """The report of a modelled board whose library is no stand-in."""
    tree = board_tree(tmp_path / "tree")
    machine = read_machine(tree.root)
    later = replace(machine, clocks=tuple(replace(c, current=7) for c in machine.clocks))
    given = iter((machine, later))
    monkeypatch.setattr(room, "machine_on", lambda on: next(given))
    monkeypatch.setattr(Context, "stand_in", False)
    return check(net.file)


def test_what_is_told_of_the_machine(on_rock: BoardCheck, built: Path) -> None:
    assert on_rock.label == "board"
    assert "Send the report" in on_rock.next
    place = on_rock.place
    assert (place.board, place.chip, place.driver) == ("Radxa ROCK 5B", "rk3588", "0.9.8")
    assert (place.library, place.driver_told) == (built.name, "0.9.8 (rkzoo stand-in)")
    assert "rkzoo stand-in" in place.library_version
    npu = next(clock for clock in place.clocks if clock.kind == "npu")
    assert npu.governor
    assert (npu.before or 0) > 1e6
    assert npu.after == 7


def test_nobody_is_named(on_rock: BoardCheck, tmp_path: Path) -> None:
    target = tmp_path / "report.json"
    write_report(target, on_rock)
    text = target.read_text()
    assert json.loads(text) == on_rock.to_json()
    for word in (str(tmp_path), tmp_path.name, os.path.expanduser("~"), socket.gethostname()):
        assert word not in text
    assert '"/' not in text


def test_names_of_hosts_in_what_went_wrong_go(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    def refusing(*_: Any) -> Any:
        raise RkzooError("It broke.", f"See {net.file} and /home/ann/lib.so.")

    monkeypatch.setattr(room, "answer_at", refusing)
    text = json.dumps(check(net.file).to_json())
    assert "lib.so" in text
    assert "ann" not in text


# ---- the command ------------------------------------------------------------------------------


def test_the_command(
    net: Net, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["check", str(net.file)]) == 0
    told = capsys.readouterr()
    assert "stand-in: not measured on a board" in told.out
    assert "84 to 92 %" in told.out
    assert "native layout: 8 of 8 things found by both" in told.out
    assert json.loads((tmp_path / "rkzoo-check.json").read_text())["level"] == "ok"
    net.changed(np.zeros_like)
    assert main(["check", str(net.file), "--json"]) == 4
    document = json.loads(capsys.readouterr().out)
    assert document["level"] == "fail"
    assert main(["check", str(net.file), "-o", str(tmp_path / "mine.json")]) == 4
    assert "Next: Run rkzoo doctor net.rknn" in capsys.readouterr().out
    assert (tmp_path / "mine.json").exists()


def test_a_golden_file_elsewhere(net: Net, tmp_path: Path) -> None:
    moved = tmp_path / "kept.npz"
    golden_path(net.file).rename(moved)
    with pytest.raises(RkzooError, match="has no"):
        check(net.file)
    assert check(net.file, golden=moved).level == "ok"


def test_a_board_needs_no_onnx(net: Net, tmp_path: Path) -> None:
    script = tmp_path / "board.py"
    script.write_text(
        "import sys\n"
        "class Nothing:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('onnx', 'onnxruntime', 'uv', 'supervision'):\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Nothing())\n"
        "from rkzoo.cli.main import main\n"
        "sys.exit(main(['check', sys.argv[1], '--json', '--debug']))\n"
    )
    command = [sys.executable, str(script), str(net.file)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["level"] == "ok"


def test_another_build_is_refused(net: Net) -> None:
    net.file.write_bytes(b"RKNN" + net.file.read_bytes())
    with pytest.raises(RkzooError, match="another build"):
        check(net.file)


def test_what_is_checked_where_there_is_no_board(
    net: Net, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(board.LIBRARY)
    monkeypatch.setattr(board, "library_paths", lambda *_: iter(()))
    assert main(["check", str(net.file)]) == 2
    told = capsys.readouterr().err
    assert "net.rknn, net.rknn.json and net.rknn.golden.npz" in told
    assert "--runtime simulator" in told


@pytest.mark.parametrize("name", ["yolov8n.onnx", "yolov8n"])
def test_only_rknn_files_are_checked(name: str) -> None:
    with pytest.raises(RkzooError, match="cannot be checked"):
        check(name)


# ---- pipelines --------------------------------------------------------------------------------


def reader(folder: Path, role: str, said: list[int]) -> Path:
    """A reader of lines that says `said` to one picture where its golden file says ab."""
    contract = rec_contract(("", "a", "b"))
    fed = TensorSpec(name="x", shape=(1, 48, 320, 3), dtype="uint8", layout="NHWC")
    out = TensorSpec(name="y", shape=(1, 4, 3), dtype="float32")
    picture = np.random.default_rng(1).integers(0, 256, fed.shape, np.uint8)
    told, wanted = (np.eye(3, dtype=np.float32)[ids][None] for ids in (said, [1, 0, 2, 0]))
    recording = Recording((In("x", fed.shape),), (Out("y", out.shape, "float32", native=3),))
    recording.answer([picture], [told])
    file = folder / f"page-{role}.rknn"
    file.write_bytes(recording.bytes(Sample(custom=custom_string(contract)).write()))
    runs = [((picture,), (wanted,))]
    write_golden(golden_path(file), golden_with((fed,), (out,), runs, sha256_of(file)))
    return file


def test_each_part_of_a_pipeline_is_checked(npu: Path, tmp_path: Path) -> None:
    files = {"rec": reader(tmp_path, "rec", [1, 0, 2, 0])}
    path = tmp_path / "page.json"
    write_pipeline(path, "page", files)
    found = check(path)
    assert (found.level, [part.role for part in found.parts]) == ("ok", ["rec"])
    files["other"] = reader(tmp_path, "other", [2, 0, 1, 0])
    write_pipeline(path, "page", files)
    found = check(path)
    assert [part.level for part in found.parts] == ["ok", "fail"]
    (agreed,) = found.parts[1].found
    assert agreed.agreement is not None
    assert (agreed.agreement.found, agreed.agreement.same_text) == (1, 0)
    assert "page-other.rknn" in found.verdict
    assert "rkzoo doctor page-other.rknn" in found.next
    with pytest.raises(RkzooError, match="does not go with a pipeline"):
        check(path, golden=golden_path(files["rec"]))


# ---- a real .rknn -----------------------------------------------------------------------------


@pytest.mark.toolkit
def test_from_a_model_to_a_check(npu: Path, assets: Path, tmp_path: Path) -> None:
    """convert --golden 2, the stand-in plays back what the simulator answered, check."""
    pictures = sorted((assets / "data/coco128_val/images").glob("*.jpg"))[:3]
    listed = tmp_path / "pictures.txt"
    listed.write_text("".join(f"{file}\n" for file in pictures))
    out = tmp_path / "yolov8n.rknn"
    (made,) = convert(
        assets / "models/yolov8n.onnx", "rk3576", calibration=str(listed), output=out, golden=2
    )
    assert made.golden == golden_path(out)
    golden = read_golden(made.golden)
    assert (golden.about.count, golden.about.origin) == (2, "calibration")
    assert golden.about.model == sha256_of(out)
    assert {spec.dtype for spec in golden.about.outputs} == {"int8"}
    # Built again for the simulator, which is for another chip, it answers the same.
    simulated = check(out, runtime="simulator")
    assert (simulated.level, simulated.label) == ("ok", "simulator")
    assert {one.equal for one in simulated.parts[0].outputs} == {1.0}

    specs = golden.about.outputs
    outs = [Out(s.name, s.shape, s.dtype, s.scale, s.zero_point) for s in specs]
    recording = Recording((In("images", golden.about.inputs[0].shape),), outs)
    for index in range(2):
        recording.answer(golden.inputs(index), golden.outputs(index))
    out.write_bytes(recording.bytes(out.read_bytes()))
    sidecar = out.with_name(out.name + ".json")
    sidecar.write_text(json.dumps(json.loads(sidecar.read_text()) | {"rknn": sha256_of(out)}))
    about = type(golden.about)(**{**_fields(golden.about), "model": sha256_of(out)})
    write_golden(made.golden, replace(golden, about=about))
    found = check(out)
    assert found.level == "ok"
    assert {(one.equal, one.codes) for one in found.parts[0].outputs} == {(1.0, 0)}
    agreed = [one.agreement for one in found.parts[0].found]
    assert all(one is not None and one.found == one.things > 0 for one in agreed)

    # A build that keeps none leaves no golden file of an earlier one.
    convert(assets / "models/yolov8n.onnx", "rk3576", dtype="fp16", output=out)
    assert not made.golden.exists()


@pytest.mark.toolkit
def test_float16_is_fed_pictures_that_are_given_or_made(assets: Path, tmp_path: Path) -> None:
    pictures = sorted((assets / "data/coco128_val/images").glob("*.jpg"))[:1]
    how: dict[str, Any] = {"dtype": "fp16", "output": tmp_path / "net.rknn", "golden": 2}
    model = assets / "models/mobilenetv2.onnx"
    (made,) = convert(model, "rk3588", calibration=str(pictures[0]), **how)
    assert made.golden is not None
    given = read_golden(made.golden).about
    assert (given.origin, given.count) == ("pictures", 1)
    assert {spec.dtype for spec in given.outputs} == {"float32"}
    (made,) = convert(model, "rk3588", **how)
    assert made.golden is not None
    assert (read_golden(made.golden).about.origin, read_golden(made.golden).about.count) == (
        "made",
        2,
    )


def _fields(record: Any) -> dict[str, Any]:
    return {name: getattr(record, name) for name in record.__struct_fields__}
