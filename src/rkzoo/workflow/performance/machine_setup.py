"""Setup of a machine for benchmarks: CPU affinity, clocks, test image."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from rkzoo.contract.schema_base import StrictStruct
from rkzoo.errors import RkzooError
from rkzoo.files import os_errors_explained, read_bytes
from rkzoo.protocol.board import SetClocks
from rkzoo.soc import clocks
from rkzoo.soc.chips import chips
from rkzoo.soc.machine import Machine
from rkzoo.speed.clock_rates import Clock, clocks_of
from rkzoo.workflow.inference.remote_backend import machine_on

Affinity = Literal["all", "big", "little"]


class Board(StrictStruct, frozen=True):
    """The machine with the NPU. `on`: its address, "" for this one, and `library` what runs models
    there; `cores` and `affinity` are of this machine's processor in any case. `npu_users`: other
    processes that have the NPU open, as "name (pid)"; `celsius`: the hottest sensor at the end.
    """

    model: str
    chip: str | None
    kernel: str
    npu_driver: str
    affinity: Affinity
    cores: tuple[int, ...]
    clocks_locked: bool
    clocks: tuple[Clock, ...]
    npu_users: tuple[str, ...]
    celsius: float | None
    on: str = ""
    library: str = ""


@dataclass(frozen=True)
class MachineSetup:
    """State of the machine before the benchmark, cores to use, and whether to lock the clocks.
    `on`: address of the board that is measured, None for this machine.
    """

    machine: Machine
    affinity: Affinity
    cores: tuple[int, ...]
    lock_clocks: bool
    on: str | None = None

    @property
    def threads(self) -> int:
        """Number of ONNX Runtime threads; 0 for its default. With a number given, it does not place
        its threads itself.
        """
        return 0 if self.affinity == "all" else len(self.cores)

    def board(self, after: Machine, library: str = "") -> Board:
        """State of the machine before and `after` the benchmark, for a report. `library` is what
        runs models on its NPU.
        """
        before = self.machine
        users = {
            f"{holder.name} ({holder.pid})"
            for holder in (*before.holders, *after.holders)
            if holder.pid != os.getpid()
        }
        return Board(
            model=before.model or before.machine,
            chip=before.chip,
            kernel=before.kernel,
            npu_driver=before.driver,
            affinity=self.affinity,
            cores=self.cores,
            clocks_locked=self.lock_clocks,
            clocks=clocks_of(before, after),
            npu_users=tuple(sorted(users)),
            celsius=max((zone.celsius for zone in after.zones), default=None),
            on=self.on or "",
            library=library,
        )


def machine_setup(affinity: Affinity, lock_clocks: bool, on: str | None = None) -> MachineSetup:
    """Plan the setup without applying it.

    Args:
        affinity: Cores of this machine to use.
        lock_clocks: Whether the clocks of the measured machine are held.
        on: Address of the board that is measured, None for this machine.

    Raises:
        RkzooError: The machine does not support it.
    """
    if on is not None and affinity != "all":
        raise RkzooError(
            "--affinity does not go with --on.",
            "It chooses among the cores of the machine that the command runs on.",
            "Leave it out.",
        )
    machine = machine_on(on)
    cores = chosen_cores(machine, affinity)
    if lock_clocks and not machine.clocks and machine.npu_rate is None:
        raise RkzooError(
            f"There is no clock {f'on {on}' if on else 'here'} that can be held.",
            "The kernel shows neither CPU nor NPU clocks under /sys, as on most PCs.",
            "Leave --lock-clocks out.",
        )
    return MachineSetup(machine, affinity, cores, lock_clocks, on)


@contextmanager
def applied(setup: MachineSetup) -> Iterator[MachineSetup]:
    """Context manager that pins cores and locks clocks, and yields the setup with the machine's
    state then.
    """
    with ExitStack() as stack:
        if setup.affinity != "all":
            stack.enter_context(pinned(setup.cores))
        if setup.lock_clocks:
            held = clocks.held(setup.machine) if setup.on is None else _held_on(setup.on)
            stack.enter_context(held)
            setup = replace(setup, machine=machine_on(setup.on))
        yield setup


@contextmanager
def _held_on(on: str) -> Iterator[None]:
    """Holds the clocks of a board; it gives them back by itself where the cable is cut."""
    from rkzoo.remote.boards import board

    client = board(on).client
    client.clocks(SetClocks("hold", apply=True))
    try:
        yield
    finally:
        with suppress(RkzooError):
            client.clocks(SetClocks("release", apply=True))


def chosen_cores(machine: Machine, affinity: Affinity) -> tuple[int, ...]:
    """Select CPU cores. Raises RkzooError where the machine has no big and little cores."""
    if affinity == "all":
        return tuple(sorted(os.sched_getaffinity(0))) if _can_pin() else ()
    chip = chips().get(machine.chip or "")
    big = chip.big_cores if chip else ()
    every = tuple(core for cluster in chip.clusters for core in cluster.cores) if chip else ()
    cores = big if affinity == "big" else tuple(core for core in every if core not in big)
    there = tuple(core for core in cores if not machine.online or core in machine.online)
    if not big or not there or not _can_pin():
        raise RkzooError(
            "This machine has no fast and slow cores that rkzoo knows of.",
            f"It is {machine.chip or 'no Rockchip board'}.",
            "Leave --affinity out.",
        )
    return there


def _can_pin() -> bool:
    return hasattr(os, "sched_setaffinity")


@contextmanager
def pinned(cores: Sequence[int]) -> Iterator[None]:
    """Pin all threads of this process to `cores` inside the block. Threads and processes started
    inside stay there.
    """
    before: dict[int, set[int]] = {}
    try:
        for thread in _threads():
            with os_errors_explained("The work cannot be kept to some of the cores."):
                before[thread] = os.sched_getaffinity(thread)
                os.sched_setaffinity(thread, cores)
        yield
    finally:
        for thread, had in before.items():
            try:
                os.sched_setaffinity(thread, had)
            except OSError:
                continue  # the thread has ended


def _threads() -> list[int]:
    try:
        return [int(name) for name in os.listdir("/proc/self/task")]
    except OSError:
        return [0]


def picture_bytes(path: str | os.PathLike[str] | None) -> tuple[bytes, Path]:
    """Return an image file's bytes and path. Without a path, a generated 1280x720 JPEG of noise,
    shapes and text, about as expensive to decode as a photo. Raises RkzooError.
    """
    if path is not None:
        file = Path(path)
        with os_errors_explained(f"The picture {file} cannot be read."):
            return read_bytes(file), file
    random = np.random.default_rng(0)
    canvas = cv2.resize(random.integers(60, 196, (45, 80, 3), np.uint8), (1280, 720))
    for index in range(6):
        corner = (60 + 200 * index, 80 + 60 * (index % 3))
        shade = [int(value) for value in random.integers(0, 256, 3)]
        cv2.rectangle(canvas, corner, (corner[0] + 120, corner[1] + 240), shade, -1)
        place = (80, 500 + 32 * index)
        text = f"rkzoo bench, line {index + 1} of 6"
        cv2.putText(canvas, text, place, cv2.FONT_HERSHEY_SIMPLEX, 1.0, (20, 20, 20), 2)
    noise = random.integers(-8, 9, canvas.shape)
    noisy = np.clip(canvas + noise, 0, 255).astype(np.uint8)
    _, encoded = cv2.imencode(".jpg", noisy)
    return encoded.tobytes(), Path("made.jpg")
