"""What a 64-bit Arm board gets from the wheel, under qemu: scripts/check_arm64.py."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "check_arm64.py"
SKIPPED = 77


@pytest.mark.network
@pytest.mark.skipif(
    not (shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")),
    reason="qemu-aarch64-static is not installed",
)
def test_a_board_gets_what_it_needs_and_no_more(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(tmp_path)], capture_output=True, text=True
    )
    if done.returncode == SKIPPED:
        pytest.skip(done.stdout.strip().splitlines()[-1])
    assert done.returncode == 0, done.stdout + done.stderr


def test_without_an_emulator_it_says_so(tmp_path: Path) -> None:
    env = {**os.environ, "PATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(tmp_path / "userland")],
        env=env,
        capture_output=True,
        text=True,
    )
    assert done.returncode == SKIPPED
    assert "skipped: qemu-aarch64-static is not installed" in done.stdout
