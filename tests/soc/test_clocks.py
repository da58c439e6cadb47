"""Clocks on trees: dry until applied, every write in the journal, always given back."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from board_trees import CPU, PROFILES, Board, board

from rkzoo.errors import RkzooError
from rkzoo.soc import clocks
from rkzoo.soc.machine import read_machine

POLICY = f"{CPU}/cpufreq/policy4"


def contents(root: Path) -> dict[str, str]:
    """What every file below /sys holds."""
    files = (path for path in (root / "sys").rglob("*") if path.is_file())
    return {str(path.relative_to(root)): path.read_text().strip() for path in files}


@pytest.mark.parametrize("chip", PROFILES)
def test_lock_and_restore_leave_everything_as_it_was(tmp_path: Path, chip: str) -> None:
    b = board(tmp_path, chip)
    before = contents(tmp_path)
    done = clocks.lock(read_machine(tmp_path))
    assert {write.path for write in done} == {
        f"/{path}" for path, text in contents(tmp_path).items() if text != before[path]
    }
    for number in b.profile.policies:
        assert b.read(f"{CPU}/cpufreq/policy{number}/scaling_governor") == "performance"
    if b.profile.npu_rates:
        assert b.read(f"{b.npu_clock}/governor") == "performance"
    clocks.restore(tmp_path)
    assert contents(tmp_path) == before
    assert not (tmp_path / clocks.JOURNAL.lstrip("/")).exists()


def test_a_plan_changes_nothing(tmp_path: Path) -> None:
    board(tmp_path)
    before = contents(tmp_path)
    plan = clocks.lock_plan(read_machine(tmp_path))
    assert plan
    assert all(before[write.path.lstrip("/")] == write.old for write in plan)
    assert contents(tmp_path) == before
    assert not (tmp_path / "run").exists()


def test_the_rate_comes_from_what_is_offered(tmp_path: Path) -> None:
    b = board(tmp_path)
    b.write(f"{POLICY}/scaling_available_governors", "ondemand userspace\n")
    b.write(f"{POLICY}/scaling_available_frequencies", "408000 1416000\n")
    b.write(f"{POLICY}/scaling_max_freq", "1416000\n")
    b.write(f"{b.npu_clock}/available_governors", "rknpu_ondemand userspace\n")
    b.write(f"{b.npu_clock}/userspace/set_freq", "300000000\n")
    before = contents(tmp_path)
    clocks.lock(read_machine(tmp_path))
    assert b.read(f"{POLICY}/scaling_governor") == "userspace"
    assert b.read(f"{POLICY}/scaling_setspeed") == "1416000"
    assert b.read(f"{b.npu_clock}/userspace/set_freq") == "1000000000"
    clocks.restore(tmp_path)
    after = contents(tmp_path)
    # On a real board the setter falls back to <unsupported> with its governor.
    setter = f"{POLICY}/scaling_setspeed"
    assert {k: v for k, v in after.items() if k != setter} == {
        k: v for k, v in before.items() if k != setter
    }


def test_without_a_fitting_governor_the_floor_is_raised(tmp_path: Path) -> None:
    b = board(tmp_path)
    b.write(f"{b.npu_clock}/available_governors", "simple_ondemand\n")
    clocks.lock(read_machine(tmp_path))
    assert b.read(f"{b.npu_clock}/min_freq") == "1000000000"
    assert b.read(f"{b.npu_clock}/governor") == "rknpu_ondemand"


def test_a_cap_is_lifted_first(tmp_path: Path) -> None:
    b = board(tmp_path)
    b.write(f"{b.npu_clock}/max_freq", "600000000\n")
    done = [write.path for write in clocks.lock(read_machine(tmp_path))]
    assert b.read(f"{b.npu_clock}/max_freq") == "1000000000"
    clock = f"/{b.npu_clock}"
    assert done.index(f"{clock}/max_freq") < done.index(f"{clock}/governor")


KINDS = {
    "cpu": (POLICY, "scaling_max_freq", 1608000, "cpufreq-cpu4"),
    "cpu, Linux 5.10": (POLICY, "scaling_max_freq", 1608000, "thermal-cpufreq-1"),
    "npu": ("sys/class/devfreq/fdab0000.npu", "max_freq", 600000000, "devfreq-fdab0000.npu"),
    "npu, Linux 5.10": (
        "sys/class/devfreq/fdab0000.npu",
        "max_freq",
        600000000,
        "thermal-devfreq-0",
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_cap_of_heat_is_not_made_to_last(tmp_path: Path, kind: str) -> None:
    """The kernel shows the lower of its own limit and the asked one, and keeps what is asked."""
    folder, file, rate, cooling = KINDS[kind]
    b = board(tmp_path)
    whole = b.read(f"{folder}/{file}")
    b.cap(folder, rate)
    b.cooling(cooling, 2)
    done = clocks.lock(read_machine(tmp_path))
    assert done
    assert not any(write.path.endswith("max_freq") for write in done)
    # It has cooled down by the time of the restore, and nobody asks for a limit.
    b.cap(folder, int(whole))
    b.cooling(cooling, 0)
    assert not any(write.path.endswith("max_freq") for write in clocks.restore(tmp_path))
    assert b.read(f"{folder}/{file}") == whole


def test_an_owners_cap_comes_back_though_heat_hides_it(tmp_path: Path) -> None:
    b = board(tmp_path)
    limit = f"/{b.npu_clock}/max_freq"
    b.cap(b.npu_clock, 600000000)
    clocks.lock(read_machine(tmp_path))
    # Now heat holds it at the very rate that the owner had asked for.
    b.cap(b.npu_clock, 600000000)
    b.cooling("devfreq-fdab0000.npu", 2)
    assert (limit, "600000000") in [(w.path, w.value) for w in clocks.restore(tmp_path)]


def test_a_second_lock_keeps_the_first_record(tmp_path: Path) -> None:
    b = board(tmp_path)
    before = contents(tmp_path)
    clocks.lock(read_machine(tmp_path))
    b.write(f"{POLICY}/scaling_governor", "ondemand")
    clocks.lock(read_machine(tmp_path))
    clocks.restore(tmp_path)
    assert contents(tmp_path) == before


def test_rv1106_raises_the_rate_of_the_clock_tree_only_where_it_is_low(tmp_path: Path) -> None:
    b = board(tmp_path, "rv1106")
    rate = "sys/kernel/debug/clk/clk_500m_src/clk_rate"
    assert not any(rate in write.path for write in clocks.lock_plan(read_machine(tmp_path)))
    b.write(rate, "420000000\n")
    clocks.lock(read_machine(tmp_path))
    assert b.read(rate) == "500000000"


def test_nothing_is_restored_after_a_restart(tmp_path: Path) -> None:
    b = board(tmp_path)
    clocks.lock(read_machine(tmp_path))
    b.write("proc/sys/kernel/random/boot_id", "another\n")
    assert clocks.restore_plan(tmp_path) == ()
    assert clocks.restore(tmp_path) == ()


def test_a_damaged_journal_is_said(tmp_path: Path) -> None:
    b = board(tmp_path)
    b.write(clocks.JOURNAL, "{")
    with pytest.raises(RkzooError, match="damaged"):
        clocks.restore(tmp_path)


def test_a_journal_cannot_name_other_files(tmp_path: Path) -> None:
    b = board(tmp_path)
    b.write("etc/passwd", "root")
    entry = {"path": "/etc/passwd", "old": "evil"}
    boot = b.read("proc/sys/kernel/random/boot_id")
    b.write(clocks.JOURNAL, json.dumps({"boot": boot, "entries": [entry]}))
    with pytest.raises(RkzooError):
        clocks.restore(tmp_path)
    assert b.read("etc/passwd") == "root"


def test_no_file_comes_to_be(tmp_path: Path) -> None:
    board(tmp_path)
    before = set(contents(tmp_path))
    clocks.lock(read_machine(tmp_path))
    assert set(contents(tmp_path)) == before


def _refuse(
    b: Board, monkeypatch: pytest.MonkeyPatch, path: str, error: type[BaseException]
) -> None:
    real = clocks._write

    def write(tree: clocks.Tree, where: str, value: str) -> None:
        if where == f"/{path}" and value == "performance":
            raise error("refused")
        real(tree, where, value)

    monkeypatch.setattr(clocks, "_write", write)


@pytest.mark.parametrize("error", [RkzooError, KeyboardInterrupt])
def test_what_fails_in_the_middle_is_put_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    b = board(tmp_path)
    before = contents(tmp_path)
    _refuse(b, monkeypatch, f"{b.npu_clock}/governor", error)
    with pytest.raises(error):
        clocks.lock(read_machine(tmp_path))
    assert contents(tmp_path) == before


def test_a_file_that_is_gone_is_one_error_and_no_new_file(tmp_path: Path) -> None:
    b = board(tmp_path)
    b.remove(f"{b.npu_clock}/governor")
    with pytest.raises(RkzooError, match="does not accept performance"):
        clocks._write(clocks.Tree(tmp_path), f"/{b.npu_clock}/governor", "performance")
    assert not (tmp_path / b.npu_clock / "governor").exists()


def test_held_gives_back_however_it_ends(tmp_path: Path) -> None:
    b = board(tmp_path)
    before = contents(tmp_path)
    seen = []
    with pytest.raises(ZeroDivisionError), clocks.held(read_machine(tmp_path)):
        seen.append(b.read(f"{POLICY}/scaling_governor") + str(1 // 0))
    assert contents(tmp_path) == before
    with clocks.held(read_machine(tmp_path)) as done:
        assert b.read(f"{POLICY}/scaling_governor") == "performance"
    assert done
    assert contents(tmp_path) == before


def test_a_killed_program_is_undone_later(tmp_path: Path) -> None:
    board(tmp_path)
    before = contents(tmp_path)
    script = (
        "import sys, time; from pathlib import Path\n"
        "from rkzoo.soc.clocks import held; from rkzoo.soc.machine import read_machine\n"
        "with held(read_machine(Path(sys.argv[1]))): print('held', flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
    assert contents(tmp_path) != before
    assert clocks.restore_plan(tmp_path)
    clocks.restore(tmp_path)
    assert contents(tmp_path) == before


def test_only_root_may(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(RkzooError, match="administrator") as refused:
        clocks.lock(read_machine())
    assert "sudo" in refused.value.fix
