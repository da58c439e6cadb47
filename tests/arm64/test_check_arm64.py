"""scripts/check_arm64.py, which .ci/run runs where qemu is installed: without it, it says so."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts" / "check_arm64.py"
SKIPPED = 77


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
