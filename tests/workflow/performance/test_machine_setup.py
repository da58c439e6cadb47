"""Cores are the chip's own and come back; a report tells the machine as it was."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from board_trees import board

from rkzoo.errors import RkzooError
from rkzoo.soc.machine import read_machine
from rkzoo.workflow.performance.machine_setup import MachineSetup, chosen_cores, pinned


def test_fast_and_slow_cores_are_the_chips_own(tmp_path: Path) -> None:
    board(tmp_path, "rk3588")
    machine = read_machine(tmp_path)
    assert chosen_cores(machine, "big") == (4, 5, 6, 7)
    assert chosen_cores(machine, "little") == (0, 1, 2, 3)


@pytest.mark.parametrize("kind", ["big", "little"])
def test_a_machine_with_one_kind_of_cores_is_refused(tmp_path: Path, kind: str) -> None:
    board(tmp_path, "rk3568")
    with pytest.raises(RkzooError, match="no fast and slow cores"):
        chosen_cores(read_machine(tmp_path), kind)  # type: ignore[arg-type]


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="needs Linux")
def test_cores_come_back_whatever_happens() -> None:
    before = os.sched_getaffinity(0)
    one = {min(before)}

    def interrupted() -> None:
        with pinned(sorted(one)):
            assert os.sched_getaffinity(0) == one
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert os.sched_getaffinity(0) == before
    with pytest.raises(RkzooError), pinned([100_000]):
        pass
    assert os.sched_getaffinity(0) == before


def test_clocks_and_others_on_the_npu_are_recorded(tmp_path: Path) -> None:
    board(tmp_path, "rk3588")
    machine = read_machine(tmp_path)
    told = MachineSetup(machine, "big", (4, 5), lock_clocks=False).board(machine)
    assert told.chip == "rk3588"
    assert {"cpu", "npu"} <= {clock.kind for clock in told.clocks}
    assert all(clock.before == clock.after for clock in told.clocks)
    assert len(told.npu_users) == len(machine.holders)
