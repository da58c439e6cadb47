"""doctor, clocks and soc as a user meets them."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import onnx
import pytest
from board_trees import CPU, board
from rknn_writer import Sample
from tiny_plain import one_picture, two_pictures

from rkzoo.cli.main import main
from rkzoo.toolkit import environment, interpreter
from rkzoo.workflow.diagnostics import pc_checks
from rkzoo.workflow.diagnostics.findings import Finding

Capture = pytest.CaptureFixture[str]


def test_a_healthy_board_is_0(tmp_path: Path, capsys: Capture) -> None:
    board(tmp_path)
    assert main(["doctor", "--root", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "Nothing is wrong." in out
    assert "not measured it on a board" in out
    assert not any(line.endswith(" ") for line in out.splitlines())
    assert "FAIL" not in out
    assert "fix:" not in out


def test_a_warning_is_3_and_a_failure_4(tmp_path: Path, capsys: Capture) -> None:
    b = board(tmp_path)
    b.heat(99.0)
    assert main(["doctor", "--root", str(tmp_path)]) == 3
    b.no_driver()
    assert main(["doctor", "--root", str(tmp_path)]) == 4
    out = capsys.readouterr().out
    assert "FAIL  No NPU driver is at work." in out
    assert "type:  sudo modprobe rknpu" in out
    assert "1 failure, 1 warning." in out


def test_json_has_all_of_it(tmp_path: Path, capsys: Capture) -> None:
    b = board(tmp_path / "root")
    b.held()
    model = tmp_path / "m.rknn"
    model.write_bytes(Sample(cpu=False).write())
    assert main(["doctor", str(model), "--root", str(tmp_path / "root"), "--json"]) == 3
    document = json.loads(capsys.readouterr().out)
    assert document["level"] == "warn"
    assert document["machine"]["chip"] == "rk3588"
    assert document["machine"]["holders"][0]["name"] == "frigate"
    assert document["label"] == "not measured on a board"
    for finding in document["findings"]:
        assert set(finding) == {"id", "level", "text", "evidence", "fix", "command"}
        assert (finding["fix"] == "") == (finding["level"] == "ok")


def test_a_capture_is_written_and_read_back(tmp_path: Path, capsys: Capture) -> None:
    board(tmp_path / "root")
    tar = tmp_path / "board.tar"
    assert main(["doctor", "--root", str(tmp_path / "root"), "--capture", str(tar)]) == 0
    assert "without serial numbers" in capsys.readouterr().out
    assert main(["doctor", "--root", str(tar)]) == 0
    assert main(["doctor", "--root", str(tmp_path / "none.tar")]) == 2
    assert "cannot be read" in capsys.readouterr().err


def test_a_board_needs_neither_numpy_nor_onnx(tmp_path: Path) -> None:
    """It is also why the answer comes in a second."""
    board(tmp_path / "root")
    model = tmp_path / "m.rknn"
    model.write_bytes(Sample(cpu=False).write())
    script = (
        "import sys\nfrom rkzoo.cli.main import main\n"
        f"code = main(['doctor', {str(model)!r}, '--root', {str(tmp_path / 'root')!r}])\n"
        "print(sorted({'numpy', 'onnx', 'cv2', 'rich'} & set(sys.modules)), code)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    # The sample is by toolkit 2.5.0, newer than the board's library: a warning.
    assert done.stdout.endswith("[] 3\n"), done.stdout + done.stderr


def test_names_cannot_steer_the_terminal(tmp_path: Path, capsys: Capture) -> None:
    b = board(tmp_path)
    b.write("proc/device-tree/model", b"evil \x1b[31mboard\0")
    main(["doctor", "--root", str(tmp_path)])
    assert "\x1b" not in capsys.readouterr().out


def test_an_onnx_on_a_board_is_to_be_converted(
    tmp_path: Path, assets: Path, capsys: Capture
) -> None:
    board(tmp_path)
    model = str(assets / "models/yolov8n.onnx")
    assert main(["doctor", model, "--root", str(tmp_path)]) == 3
    out = capsys.readouterr().out
    assert "rkzoo convert yolov8n.onnx --soc rk3588" in out
    assert "yolov8" in out


# ---- a PC ---------------------------------------------------------------------------


@pytest.fixture
def pc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PC with an empty cache, nothing on its PATH."""
    monkeypatch.setenv("RKZOO_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    return tmp_path


def ids(found: list[Finding]) -> dict[str, Finding]:
    return {finding.id: finding for finding in found}


def test_a_pc_that_can_install_is_well(pc: Path) -> None:
    found = pc_checks.pc_findings()
    assert {finding.level for finding in found} <= {"ok", "fail"}
    assert ids(found)["python"].level == "ok"


def test_a_python_without_wheels_is_named(pc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interpreter, "_candidates", lambda release: iter(()))
    finding = ids(pc_checks.pc_findings())["toolkit-unavailable"]
    assert finding.level == "fail"
    assert "uv python install 3.11" in finding.fix


def test_a_foreign_system_is_named(pc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    finding = ids(pc_checks.pc_findings())["toolkit-unavailable"]
    assert "Linux" in finding.evidence


def test_a_full_disk_is_named(pc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=100 << 20))
    finding = ids(pc_checks.pc_findings())["disk-low"]
    assert finding.level == "fail"
    assert "RKZOO_CACHE" in finding.fix


def test_a_cache_that_cannot_be_used_is_named(pc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (pc / "file").write_text("")
    monkeypatch.setattr(environment, "installed", lambda: ())
    monkeypatch.setattr(environment, "unavailable", lambda: None)
    monkeypatch.setenv("RKZOO_CACHE", str(pc / "file"))
    assert ids(pc_checks.pc_findings())["cache-unusable"].level == "fail"


def test_little_memory_is_named(pc: Path) -> None:
    assert ids(pc_checks.pc_findings(memory=1 << 20))["memory-low"].level == "warn"


ADB = """#!/bin/sh
touch {mark}
printf 'List of devices attached\\n{rows}'
"""


@pytest.mark.parametrize(
    ("rows", "name", "level"),
    [
        ("", "adb-empty", "warn"),
        ("abc\\tunauthorized\\n", "adb-device", "warn"),
        ("abc\\tno permissions; see [http]\\n", "adb-device", "warn"),
        ("abc\\tdevice\\n", "adb", "ok"),
    ],
)
def test_adb_s_devices(
    pc: Path, monkeypatch: pytest.MonkeyPatch, rows: str, name: str, level: str
) -> None:
    program, mark = pc / "bin" / "adb", pc / "asked"
    program.parent.mkdir()
    program.write_text(ADB.format(mark=mark, rows=rows))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}/bin{os.pathsep}/usr/bin")
    # Not without leave: it would start a daemon.
    assert ids(pc_checks.pc_findings())["adb"].level == "ok"
    assert not mark.exists()
    assert ids(pc_checks.pc_findings(adb=True))[name].level == level
    assert mark.exists()


# ---- clocks and soc -----------------------------------------------------------------


def test_clocks_are_dry_unless_applied(tmp_path: Path, capsys: Capture) -> None:
    b = board(tmp_path)
    governor = f"{CPU}/cpufreq/policy0/scaling_governor"
    root = ["--root", str(tmp_path)]
    assert main(["clocks", "lock", *root]) == 0
    assert "Nothing was changed" in capsys.readouterr().out
    assert b.read(governor) == "ondemand"
    assert main(["clocks", "lock", "--apply", *root]) == 0
    assert b.read(governor) == "performance"
    assert main(["clocks", "restore", *root]) == 0
    assert b.read(governor) == "performance"
    assert main(["clocks", "restore", "--apply", *root]) == 0
    assert b.read(governor) == "ondemand"
    out = capsys.readouterr().out
    assert "Not measured on a board" in out
    assert main(["clocks", "restore", *root]) == 0
    assert "Nothing to do" in capsys.readouterr().out


def test_clocks_show(tmp_path: Path, capsys: Capture) -> None:
    board(tmp_path)
    assert main(["clocks", "--root", str(tmp_path)]) == 0
    assert "fdab0000.npu" in capsys.readouterr().out
    assert main(["clocks", "show", "--root", str(tmp_path), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [clock["kind"] for clock in document["clocks"]] == ["cpu", "cpu", "cpu", "ddr", "npu"]


def test_clocks_where_there_are_none(tmp_path: Path, capsys: Capture) -> None:
    assert main(["clocks", "lock", "--root", str(tmp_path)]) == 2
    assert main(["clocks", "lock", "--root", str(tmp_path / "none")]) == 2
    assert "Run it on the board." in capsys.readouterr().err


def test_soc_lists_all_and_shows_one(capsys: Capture) -> None:
    assert main(["soc"]) == 0
    out = capsys.readouterr().out
    assert "rk3588" in out
    assert "not measured on a board" in out
    assert main(["soc", "rk3588s"]) == 0
    out = capsys.readouterr().out
    assert "4 Cortex-A55 to 1800 MHz" in out
    assert "scaling_frequency.sh" in out
    assert "upgrade library: Copy a newer librknnrt.so" in out
    assert main(["soc", "rk1828"]) == 0
    assert "coprocessor" in capsys.readouterr().out
    assert main(["soc", "rk9999"]) == 2


def test_soc_as_json(capsys: Capture) -> None:
    assert main(["soc", "rv1106", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["runtime"] == "librknnmrt.so"
    assert document["sources"]["clusters"].startswith("https://")
    assert main(["soc", "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)["chips"]) > {"rk3588", "rk1820"}


def test_a_head_that_nobody_knows_is_no_failure(tmp_path: Path, capsys: Capture) -> None:
    onnx.save(two_pictures(), tmp_path / "two.onnx")
    main(["doctor", str(tmp_path / "two.onnx"), "--json"])
    text = capsys.readouterr().out
    assert json.loads(text)
    assert "Its outputs stay plain tensors" in text
    assert "head of this model is not one" not in text
    onnx.save(one_picture(("h", "w")), tmp_path / "open.onnx")
    main(["doctor", str(tmp_path / "open.onnx"), "--json"])
    assert "The shape of the input picture is open." in capsys.readouterr().out
