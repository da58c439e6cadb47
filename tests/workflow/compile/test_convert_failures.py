"""What a user does to a conversion: one sentence or success, nothing half-written, nothing
left running."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rkzoo.cli.main import main
from rkzoo.workflow.request.sidecar import read_sidecar

pytestmark = pytest.mark.toolkit


@pytest.fixture
def model(assets: Path) -> Path:
    return assets / "models/yolov8n.onnx"


@pytest.fixture
def pictures(assets: Path, tmp_path: Path) -> Path:
    """Three pictures in a folder whose name has a space and Chinese characters."""
    folder = tmp_path / "calibration 图片"
    folder.mkdir()
    for index, file in enumerate(sorted((assets / "data/coco128_val/images").glob("*.jpg"))[:3]):
        shutil.copy(file, folder / f"photo {index} 照片.jpg")
    return folder


def command(model: Path, pictures: Path, out: Path) -> list[str]:
    return [
        *(sys.executable, "-m", "rkzoo", "convert", str(model), "--soc", "rk3588"),
        *("--calib", str(pictures), "-o", str(out)),
    ]


def children_of_a_session(marker: str) -> list[int]:
    """Processes whose environment carries the marker."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if marker.encode() in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def wait_for_none(marker: str, seconds: float = 10) -> list[int]:
    end = time.monotonic() + seconds
    while (left := children_of_a_session(marker)) and time.monotonic() < end:
        time.sleep(0.1)
    return left


def leftovers(folder: Path) -> list[str]:
    return [p.name for p in folder.rglob("*") if ".part" in p.name]


def test_spaces_and_chinese_in_every_path(model: Path, pictures: Path, tmp_path: Path) -> None:
    moved = tmp_path / "my model 模型.onnx"
    shutil.copy(model, moved)
    out = tmp_path / "out 输出" / "a b 芯片.rknn"
    done = subprocess.run(command(moved, pictures, out), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert out.stat().st_size > 1_000_000
    assert json.loads(out.with_name(out.name + ".json").read_text())["source"]["file"] == str(moved)
    assert sorted(p.name for p in out.parent.iterdir()) == [out.name, out.name + ".json"]


def test_unreadable_pictures_are_left_out_and_named(
    model: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (pictures / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 cut short")
    (pictures / "empty.png").touch()
    out = tmp_path / "x.rknn"
    code = main(
        ["convert", str(model), "--soc", "rk3588", "--calib", str(pictures), "-o", str(out)]
    )
    told = capsys.readouterr().err
    assert code == 1
    assert "2 files could not be used and were left out" in told
    assert "broken.jpg" in told
    assert "empty.png" in told
    assert len(read_sidecar(out).calibration.files) == 3


def test_all_problems_in_one_list(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "x.rknn"
    code = main(["convert", str(model), "--soc", "rk2118", "--dtype", "int8", "-o", str(out)])
    told = capsys.readouterr().err
    assert code == 2
    assert "rk2118 cannot be built for in int8" in told
    assert "no calibration pictures" in told
    assert not out.exists()


@pytest.mark.parametrize("chip", ["rk1808", "rv1109", "rv1126", "rk3399pro"])
def test_first_generation_chips_are_refused_with_the_toolkit_they_need(
    chip: str, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["convert", str(model), "--soc", chip]) == 2
    assert "RKNN-Toolkit (1.7.5)" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopping_leaves_the_old_file_and_no_process(
    number: signal.Signals,
    model: Path,
    pictures: Path,
    tmp_path: Path,
    hears_ctrl_c: Callable[[], None],
) -> None:
    out = tmp_path / "out" / "kept.rknn"
    out.parent.mkdir()
    out.write_bytes(b"the earlier one")
    marker = f"RKZOO_TEST_MARK={tmp_path.name}-{os.getpid()}"
    process = subprocess.Popen(
        command(model, pictures, out),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | dict([marker.split("=")]),
        preexec_fn=hears_ctrl_c,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("Building for"):
            break
    time.sleep(1.0)
    process.send_signal(number)
    told = process.stderr.read()
    assert process.wait(20) == 128 + number
    assert "Stopped." in told
    assert "Traceback" not in told
    assert wait_for_none(marker) == []
    assert out.read_bytes() == b"the earlier one"
    assert [p.name for p in out.parent.iterdir()] == [out.name]


def test_killing_the_toolkit_in_the_middle_is_one_error(
    model: Path, pictures: Path, tmp_path: Path, hears_ctrl_c: Callable[[], None]
) -> None:
    out = tmp_path / "out" / "x.rknn"
    out.parent.mkdir()
    marker = f"RKZOO_TEST_MARK={tmp_path.name}-{os.getpid()}"
    process = subprocess.Popen(
        command(model, pictures, out),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | dict([marker.split("=")]),
        preexec_fn=hears_ctrl_c,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("Building for"):
            break
    time.sleep(1.0)
    (child,) = [pid for pid in children_of_a_session(marker) if pid != process.pid]
    os.kill(child, signal.SIGKILL)
    told = process.stderr.read()
    assert process.wait(20) == 1
    assert told.count("error: ") == 1
    assert "killed from outside" in told
    assert "The full log is in" in told
    assert "Traceback" not in told
    assert wait_for_none(marker) == []
    assert list(out.parent.iterdir()) == []


def test_two_converts_of_the_same_model_at_once(
    model: Path, pictures: Path, tmp_path: Path
) -> None:
    out = tmp_path / "same.rknn"
    both = [
        subprocess.Popen(
            command(model, pictures, out), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    for process in both:
        _, told = process.communicate(timeout=300)
        assert process.returncode == 0, told
    from rkzoo.graph.rknn import reader as rknn

    assert rknn.read(out).platforms == ("rk3588",)
    assert leftovers(tmp_path) == []


def test_a_full_disk_is_one_sentence(model: Path, pictures: Path, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(small)], capture_output=True
    ).returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        done = subprocess.run(
            command(model, pictures, small / "x.rknn"), capture_output=True, text=True
        )
        assert done.returncode == 2
        assert "are free" in done.stderr
        assert "Traceback" not in done.stderr
        assert list(small.iterdir()) == []
    finally:
        subprocess.run(["umount", str(small)], check=True)
