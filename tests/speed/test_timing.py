"""Summaries of measured times, and what /proc says of a process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rkzoo.speed.timing import growth, percentile, times
from rkzoo.speed.usage import usage

SECONDS = st.lists(st.floats(0, 100), min_size=1, max_size=60)


@given(SECONDS, st.floats(0, 1))
def test_a_percentile_is_what_numpy_says(values: list[float], share: float) -> None:
    assert percentile(sorted(values), share) == pytest.approx(
        float(np.quantile(values, share)), abs=1e-9
    )


@given(SECONDS)
def test_a_summary_is_in_order_and_in_milliseconds(values: list[float]) -> None:
    found = times(values)
    assert found.least <= found.p50 <= found.p90 <= found.p99 <= found.most
    assert found.most == pytest.approx(1000 * max(values))
    assert found.mean == pytest.approx(1000 * float(np.mean(values)))


@given(st.floats(-50, 50), st.integers(4, 80))
def test_steady_growth_is_found(step: float, count: int) -> None:
    assert growth([1000 + step * i for i in range(count)]) == pytest.approx(step, abs=1e-6)


def test_one_jump_is_no_growth() -> None:
    assert growth([10.0] * 3 + [500.0] + [10.0] * 16) == 0
    assert growth([1.0, 2.0, 3.0]) == 0  # too few to say


def _process(root: Path, pid: int, rss: int, peak: int, ticks: int, children: str = "") -> None:
    task = root / str(pid) / "task" / str(pid)
    task.mkdir(parents=True)
    (task / "children").write_text(children)
    (root / str(pid) / "status").write_text(f"Name:\tx\nVmHWM:\t{peak} kB\nVmRSS:\t{rss} kB\n")
    # A name with brackets and blanks in it, as the kernel allows.
    fields = ["S"] + ["0"] * 10 + [str(ticks), str(2 * ticks)] + ["0"] * 5
    (root / str(pid) / "stat").write_text(f"{pid} (a) b) " + " ".join(fields))


def test_children_and_theirs_are_counted_once(tmp_path: Path) -> None:
    _process(tmp_path, 10, 100, 150, 100, "11 12")
    _process(tmp_path, 11, 20, 30, 0, "10")  # a circle, as a reused number may make
    _process(tmp_path, 12, 3, 4, 50)
    found = usage(tmp_path, 10)
    assert (found.resident, found.peak) == (123 * 1024, 184 * 1024)
    assert found.cpu == pytest.approx(450 / os.sysconf("SC_CLK_TCK"))


def test_a_child_that_ends_meanwhile_is_no_error(tmp_path: Path) -> None:
    _process(tmp_path, 10, 100, 150, 100, "99")
    assert usage(tmp_path, 10).resident == 100 * 1024


def test_without_proc_only_the_processor_is_known(tmp_path: Path) -> None:
    found = usage(tmp_path)
    assert found.resident is None
    assert found.peak is None
    assert found.cpu > 0


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux")
def test_a_real_child_adds_to_the_memory() -> None:
    before = usage().resident
    script = "import sys; a = bytearray(64 << 20); print(1, flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert (usage().resident or 0) - (before or 0) > 60 << 20
        child.kill()
