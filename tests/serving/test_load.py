"""benchmarks/serve.py itself, with fewer requests: nothing is lost, and memory is flat."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from npu_standin import build

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "serve.py"


@pytest.mark.sweep
@pytest.mark.load
@pytest.mark.parametrize("way", ["pictures", "tensors"])
def test_nothing_is_lost_among_slow_clients_and_rubbish(way: str) -> None:
    build.compiler()  # skips
    words = ["--requests", "600", "--rounds", "1", "--clients", "60", "--ways", way]
    done = subprocess.run([sys.executable, str(SCRIPT), *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "600 answered" in done.stdout
    assert "nothing was lost, memory is flat" in done.stdout
