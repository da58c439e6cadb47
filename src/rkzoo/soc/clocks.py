"""Clock locking: CPU, NPU and memory at their highest rates, and restoring them.

Rates are those that the machine offers. The previous values are first written to a journal in /run,
which a reboot empties just as it resets the clocks, so `restore` works after a crash too. rkzoo has
not tested this on a board.
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
from rkzoo.soc.machine import ClockDomain, Machine
from rkzoo.soc.tree import Tree

JOURNAL = "/run/rkzoo/clocks.json"
_LOCK = "/run/rkzoo/clocks.lock"
KINDS = ("cpu", "npu", "ddr")


class NeedsRoot(RkzooError):
    """Clocks are set by somebody who may not."""


class NoClocks(RkzooError):
    """Clocks are set where there are none."""


@dataclass(frozen=True)
class Write:
    """A value to write to a file of /sys. `old` is its present value."""

    path: str
    value: str
    old: str


class Entry(msgspec.Struct, frozen=True):
    path: str
    old: str


class Journal(msgspec.Struct, frozen=True):
    """The previous value of each changed file, in the order of the changes."""

    boot: str
    entries: tuple[Entry, ...]


# ---- planning -----------------------------------------------------------------------


def settable(machine: Machine) -> Machine:
    """The machine. Raises RkzooError where it has no clock that can be set."""
    if not machine.clocks and machine.npu_rate is None:
        raise NoClocks(
            "There is no clock here that can be set.",
            "The kernel shows neither CPU nor NPU clocks under /sys, as on most PCs.",
            "Run it on the board.",
        )
    return machine


def lock_plan(machine: Machine) -> tuple[Write, ...]:
    """The writes that lock every clock at the highest rate it offers; empty when all are there."""
    tree = Tree(machine.root)
    plan = [write for clock in machine.clocks for write in _hold(tree, clock)]
    return tuple(w for w in (*plan, *_npu_rate(tree, machine), *_idle(tree, machine)) if w.old)


def _hold(tree: Tree, clock: ClockDomain) -> Iterator[Write]:
    """Governor `performance` where offered; else `userspace` and the rate; else a minimum rate."""
    if clock.kind not in KINDS or clock.top is None:
        return
    cpu = clock.kind == "cpu"
    governor = f"{clock.path}/{'scaling_governor' if cpu else 'governor'}"
    highest = f"{clock.path}/{'scaling_max_freq' if cpu else 'max_freq'}"
    unit = 1000 if cpu else 1
    top = str(clock.top // unit)
    # A thermal cap of the kernel cannot be lifted and ends by itself; if `restore` wrote it back,
    # it would persist.
    if clock.highest is not None and clock.highest < clock.top and not clock.throttled:
        yield from _change(tree, highest, top)
    if "performance" in clock.governors:
        yield from _change(tree, governor, "performance")
    elif "userspace" in clock.governors:
        yield from _change(tree, governor, "userspace")
        setter = f"{clock.path}/{'scaling_setspeed' if cpu else 'userspace/set_freq'}"
        # The file exists only while that governor is active.
        yield Write(setter, top, tree.text(setter) or "-")
    else:
        lowest = f"{clock.path}/{'scaling_min_freq' if cpu else 'min_freq'}"
        yield from _change(tree, lowest, top)


def _npu_rate(tree: Tree, machine: Machine) -> Iterator[Write]:
    """For chips whose NPU has no devfreq folder: the rate in the clock tree, where the kernel
    allows writing it.
    """
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


# ---- locking and restoring ----------------------------------------------------------


def lock(machine: Machine) -> tuple[Write, ...]:
    """Carry out `lock_plan`; everything is restored when part of it fails.

    Raises:
        RkzooError: Not root, or the kernel rejects a value.
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
    """The writes that undo an earlier `lock`; empty when there is nothing to undo."""
    tree = Tree(root)
    return tuple(_undo(tree, _journal(tree).entries))


def restore(root: Path) -> tuple[Write, ...]:
    """Carry out `restore_plan`, also after a crash.

    Raises:
        RkzooError: Not root, or a value is rejected; the journal is kept, so it can be retried.
    """
    tree = Tree(root)
    if not _journal(tree).entries:
        return ()
    _need_root(tree)
    with _guarded(tree):
        return _put_back(tree)


@contextmanager
def held(machine: Machine) -> Iterator[tuple[Write, ...]]:
    """Lock the clocks inside the block, and restore them after it, however it ends."""
    writes = lock(machine)
    try:
        yield writes
    finally:
        restore(machine.root)


def _put_back(tree: Tree) -> tuple[Write, ...]:
    undone, failed = [], None
    for write in _undo(tree, _journal(tree).entries):
        try:
            _write(tree, write.path, write.value)
            undone.append(write)
        except RkzooError as error:
            # Restore the others all the same.
            failed = failed or error
    if failed is not None:
        raise failed
    if (real := tree.real(JOURNAL)) is not None:
        real.unlink(missing_ok=True)
    return tuple(undone)


def _undo(tree: Tree, entries: Sequence[Entry]) -> Iterator[Write]:
    """In reverse, but governors last: a rate can only be set while its governor is active."""
    order = sorted(reversed(entries), key=lambda e: e.path.endswith("governor"))
    for entry in order:
        now = tree.text(entry.path)
        if entry.old in ("-", "<unsupported>") or now is None:
            continue
        # While the clock is throttled, its limits do not show the requested values.
        if now != entry.old or entry.path.endswith(("max_freq", "min_freq")):
            yield Write(entry.path, entry.old, now)


def _write(tree: Tree, path: str, value: str) -> None:
    """The only function that changes the machine."""
    real = tree.real(path) if path.startswith("/sys/") else None
    try:
        if real is None:
            raise FileNotFoundError(2, "It is outside of /sys")
        # Without O_CREAT: a missing file must not be created.
        descriptor = os.open(real, os.O_WRONLY | os.O_TRUNC)
        try:
            os.write(descriptor, f"{value}\n".encode())
        finally:
            os.close(descriptor)
    except OSError as error:
        raise RkzooError(
            f"{path} does not accept {value}.",
            f"The system says: {error.strerror or error}.",
            "This firmware may not allow setting it; `rkzoo clocks show` shows its state.",
        ) from error


def _need_root(tree: Tree) -> None:
    if tree.live and hasattr(os, "geteuid") and os.geteuid() != 0:
        raise NeedsRoot(
            "Clocks can only be set by the administrator.",
            "The files under /sys that set them belong to root.",
            "Run the same command with sudo.",
        )


# ---- the journal --------------------------------------------------------------------


def _boot(tree: Tree) -> str:
    return tree.text("/proc/sys/kernel/random/boot_id") or ""


def _journal(tree: Tree) -> Journal:
    """The journal of this boot; an empty one otherwise."""
    empty = Journal(_boot(tree), ())
    data = tree.bytes(JOURNAL)
    if data is None:
        return empty
    try:
        journal = msgspec.json.decode(data, type=Journal)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RkzooError(
            f"{JOURNAL} is damaged.",
            "It should hold the previous clock settings.",
            "Restart the machine, which resets all clocks and empties /run.",
        ) from error
    return journal if journal.boot == empty.boot else empty


def _save(tree: Tree, journal: Journal) -> None:
    real = tree.real(JOURNAL)
    if real is not None:
        write_text(real, msgspec.json.encode(journal).decode())


@contextmanager
def _guarded(tree: Tree) -> Iterator[None]:
    """Lock, so that only one rkzoo changes clocks at a time."""
    real = tree.real(_LOCK)
    if real is None:
        raise RkzooError(f"{_LOCK} is outside of the root.", "", "Check the tree.")
    with locked(real):
        yield
