"""Holding the clocks of CPU, NPU and memory at their highest, and giving them back.

Nothing is guessed: the rates are those the machine offers. What was there before is written
to a journal first, in /run, which a restart empties just as it resets the clocks; so
`restore` works after a crash too. None of this was tried on a board by rkzoo.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from rkzoo.errors import RkzooError
from rkzoo.files import locked, write_text
from rkzoo.soc.chips import chips
from rkzoo.soc.machine import Governed, Machine
from rkzoo.soc.tree import Tree

JOURNAL = "/run/rkzoo/clocks.json"
_LOCK = "/run/rkzoo/clocks.lock"
KINDS = ("cpu", "npu", "ddr")


@dataclass(frozen=True)
class Write:
    """One value for one file of /sys. `old` is what it holds now."""

    path: str
    value: str
    old: str


class Entry(msgspec.Struct, frozen=True):
    path: str
    old: str


class Journal(msgspec.Struct, frozen=True):
    """What stood in each file before it was changed, in the order of the changes."""

    boot: str
    entries: tuple[Entry, ...]


# ---- what to do ---------------------------------------------------------------------


def lock_plan(machine: Machine) -> tuple[Write, ...]:
    """The writes that hold every clock at the highest rate it offers; empty when all are."""
    tree = Tree(machine.root)
    plan = [write for clock in machine.clocks for write in _hold(tree, clock)]
    return tuple(w for w in (*plan, *_npu_rate(tree, machine), *_idle(tree, machine)) if w.old)


def _hold(tree: Tree, clock: Governed) -> Iterator[Write]:
    """`performance` where it is offered; else `userspace` and the rate; else a floor."""
    if clock.kind not in KINDS or clock.top is None:
        return
    cpu = clock.kind == "cpu"
    governor = f"{clock.path}/{'scaling_governor' if cpu else 'governor'}"
    highest = f"{clock.path}/{'scaling_max_freq' if cpu else 'max_freq'}"
    unit = 1000 if cpu else 1
    top = str(clock.top // unit)
    # A cap of the kernel's against heat cannot be lifted, and ends by itself; written back by
    # `restore` it would last.
    if clock.highest is not None and clock.highest < clock.top and not clock.throttled:
        yield from _change(tree, highest, top)
    if "performance" in clock.governors:
        yield from _change(tree, governor, "performance")
    elif "userspace" in clock.governors:
        yield from _change(tree, governor, "userspace")
        setter = f"{clock.path}/{'scaling_setspeed' if cpu else 'userspace/set_freq'}"
        # It is there only once the governor is.
        yield Write(setter, top, tree.text(setter) or "-")
    else:
        lowest = f"{clock.path}/{'scaling_min_freq' if cpu else 'min_freq'}"
        yield from _change(tree, lowest, top)


def _npu_rate(tree: Tree, machine: Machine) -> Iterator[Write]:
    """Chips whose NPU has no devfreq folder: a rate in the clock tree, where the kernel
    allows to write it."""
    chip = chips()[machine.chip] if machine.chip else None
    if chip is None or machine.of("npu") or machine.npu_rate is None or not chip.npu_max_hz:
        return
    for path in chip.npu_clock:
        if path.startswith("/sys/kernel/debug/") and machine.npu_rate < chip.npu_max_hz:
            yield from _change(tree, path, str(chip.npu_max_hz))


def _idle(tree: Tree, machine: Machine) -> Iterator[Write]:
    state = chips()[machine.chip].idle_state if machine.chip else None
    if state is None:
        return
    for core in machine.online:
        path = f"/sys/devices/system/cpu/cpu{core}/cpuidle/state{state}/disable"
        yield from _change(tree, path, "1")


def _change(tree: Tree, path: str, value: str) -> Iterator[Write]:
    old = tree.text(path)
    if old is not None and old != value:
        yield Write(path, value, old)


# ---- doing it -----------------------------------------------------------------------


def lock(machine: Machine) -> tuple[Write, ...]:
    """Carries out `lock_plan`. Everything is put back when a part of it fails.

    Raises RkzooError: not root, or the kernel refuses a value.
    """
    tree = Tree(machine.root)
    _need_root(tree)
    with _guarded(tree):
        plan = lock_plan(machine)
        earlier = _journal(tree)
        known = {entry.path for entry in earlier.entries}
        fresh = tuple(Entry(w.path, w.old) for w in plan if w.path not in known)
        _save(tree, Journal(_boot(tree), earlier.entries + fresh))
        try:
            for write in plan:
                _write(tree, write.path, write.value)
        except BaseException:
            _put_back(tree)
            raise
    return plan


def restore_plan(root: Path) -> tuple[Write, ...]:
    """The writes that undo what an earlier `lock` did; empty when there is nothing."""
    tree = Tree(root)
    return tuple(_undo(tree, _journal(tree).entries))


def restore(root: Path) -> tuple[Write, ...]:
    """Carries out `restore_plan`, also after a crash. Raises RkzooError: not root, or a value
    is refused; then the journal stays, and it can be tried again."""
    tree = Tree(root)
    if not _journal(tree).entries:
        return ()
    _need_root(tree)
    with _guarded(tree):
        return _put_back(tree)


@contextmanager
def held(machine: Machine) -> Iterator[tuple[Write, ...]]:
    """Clocks at their highest inside the block, and as before after it, however it ends."""
    done = lock(machine)
    try:
        yield done
    finally:
        restore(machine.root)


def _put_back(tree: Tree) -> tuple[Write, ...]:
    undone, failed = [], None
    for write in _undo(tree, _journal(tree).entries):
        try:
            _write(tree, write.path, write.value)
            undone.append(write)
        except RkzooError as error:
            # The others are still worth putting back.
            failed = failed or error
    if failed is not None:
        raise failed
    if (real := tree.real(JOURNAL)) is not None:
        real.unlink(missing_ok=True)
    return tuple(undone)


def _undo(tree: Tree, entries: Sequence[Entry]) -> Iterator[Write]:
    """Backwards, but governors last: a rate can only be set while its governor is there."""
    order = sorted(reversed(entries), key=lambda e: e.path.endswith("governor"))
    for entry in order:
        now = tree.text(entry.path)
        if entry.old in ("-", "<unsupported>") or now is None:
            continue
        # While heat holds a clock down, its limits do not show what was asked for.
        if now != entry.old or entry.path.endswith(("max_freq", "min_freq")):
            yield Write(entry.path, entry.old, now)


def _write(tree: Tree, path: str, value: str) -> None:
    """The one place that changes anything on the machine."""
    real = tree.real(path) if path.startswith("/sys/") else None
    try:
        if real is None:
            raise FileNotFoundError(2, "It leads out of /sys")
        # Without O_CREAT: a file that is not there must not come to be.
        descriptor = os.open(real, os.O_WRONLY | os.O_TRUNC)
        try:
            os.write(descriptor, f"{value}\n".encode())
        finally:
            os.close(descriptor)
    except OSError as error:
        raise RkzooError(
            f"{path} does not take {value}.",
            f"The system says: {error.strerror or error}.",
            "This firmware may not let it be set; `rkzoo clocks show` tells where it stands.",
        ) from error


def _need_root(tree: Tree) -> None:
    if tree.live and os.geteuid() != 0:
        raise RkzooError(
            "Clocks can only be set by the administrator.",
            "The files under /sys that set them belong to root.",
            "Run the same command with sudo.",
        )


# ---- the journal --------------------------------------------------------------------


def _boot(tree: Tree) -> str:
    return tree.text("/proc/sys/kernel/random/boot_id") or ""


def _journal(tree: Tree) -> Journal:
    """What is on record of this start of the machine; an empty one otherwise."""
    empty = Journal(_boot(tree), ())
    data = tree.bytes(JOURNAL)
    if data is None:
        return empty
    try:
        found = msgspec.json.decode(data, type=Journal)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RkzooError(
            f"{JOURNAL} is damaged.",
            "It should tell which clocks were in force before.",
            "Restart the machine, which resets all clocks and empties /run.",
        ) from error
    return found if found.boot == empty.boot else empty


def _save(tree: Tree, journal: Journal) -> None:
    real = tree.real(JOURNAL)
    if real is not None:
        write_text(real, msgspec.json.encode(journal).decode())


@contextmanager
def _guarded(tree: Tree) -> Iterator[None]:
    """One rkzoo at a time changes clocks."""
    real = tree.real(_LOCK)
    if real is None:
        raise RkzooError(f"{_LOCK} leads out of the root.", "", "Check the tree.")
    with locked(real):
        yield
