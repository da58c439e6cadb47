"""The boards themselves: that what is run over ssh runs in the arm64 userland."""

from __future__ import annotations

import json
import sys

import pytest

import rkzoo
from board_over_ssh.openssh import SshBoard

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")


def test_it_is_an_arm_machine_down_to_what_python_starts(vendor_board: SshBoard) -> None:
    ask = "import platform; print(platform.machine(), end=' ')"
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {ask!r}])"
    done = vendor_board.run("python3", "-c", f"{child}; {ask}")
    assert (done.stdout.split(), done.returncode) == (["aarch64", "aarch64"], 0), done.stderr


def test_rkzoo_answers(vendor_board: SshBoard) -> None:
    done = vendor_board.run("rkzoo", "--version")
    assert (done.stdout, done.stderr, done.returncode) == (f"rkzoo {rkzoo.__version__}\n", "", 0)


@pytest.mark.parametrize(
    ("name", "version"), [("vendor_board", "1.5.2"), ("standin_board", "2.3.2 (rkzoo stand-in)")]
)
def test_doctor_finds_board_and_library(
    name: str, version: str, request: pytest.FixtureRequest
) -> None:
    board: SshBoard = request.getfixturevalue(name)
    done = board.run("rkzoo", "doctor", "--json")
    machine = json.loads(done.stdout)["machine"]
    assert (machine["chip"], machine["machine"]) == ("rk3588", "aarch64")
    (library,) = machine["libraries"]
    assert library["path"] == "/usr/lib/librknnrt.so"
    assert library["version"].startswith(version), library


def test_the_driver_is_below_the_library_in_what_python_starts(vendor_board: SshBoard) -> None:
    """And nothing but the userland hears of it."""
    ask = "import ctypes; print(ctypes.CDLL(None).npu_objects())"
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {ask!r}])"
    done = vendor_board.run("python3", "-c", child)
    assert (done.stdout.strip().isdecimal(), done.stderr, done.returncode) == (True, "", 0)
