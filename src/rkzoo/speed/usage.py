"""Memory and CPU usage of this process and its children, from /proc."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_PROCESSES = 256


@dataclass(frozen=True)
class ProcessUsage:
    """Usage of a process and its descendants together.

    Attributes:
        resident, peak: bytes now and at most; None where the system does not tell (not Linux).
        cpu: CPU seconds so far.
    """

    resident: int | None
    peak: int | None
    cpu: float


def usage(root: Path = _PROC, pid: int | None = None) -> ProcessUsage:
    """Current usage. Processes that have ended are not counted."""
    pid = pid or os.getpid()
    if not (root / str(pid)).is_dir():
        times = os.times()
        return ProcessUsage(None, None, times.user + times.system)
    resident = peak = 0
    cpu = 0.0
    for number in _family(root, pid):
        memory = _memory(root, number)
        resident += memory.get("VmRSS", 0)
        peak += memory.get("VmHWM", 0)
        cpu += _seconds(root, number)
    return ProcessUsage(resident, peak, cpu)


def _family(root: Path, pid: int) -> Iterator[int]:
    """The process and its descendants."""
    waiting: list[int] = [pid]
    seen: set[int] = set()
    while waiting and len(seen) < _PROCESSES:
        current = waiting.pop()
        if current in seen:
            continue
        seen.add(current)
        yield current
        try:
            tasks = list((root / str(current) / "task").iterdir())
        except OSError:
            continue
        for task in tasks:
            # Without this file (kernel option) the children are not counted.
            waiting += [int(word) for word in _text(task / "children").split() if word.isdigit()]


def _memory(root: Path, pid: int) -> dict[str, int]:
    """VmRSS and VmHWM in bytes."""
    memories = {}
    for line in _text(root / str(pid) / "status").splitlines():
        name, _, rest = line.partition(":")
        if name in ("VmRSS", "VmHWM") and rest.split():
            memories[name] = int(rest.split()[0]) * 1024
    return memories


def _seconds(root: Path, pid: int) -> float:
    # The process name in parentheses may contain anything: count fields after it.
    fields = _text(root / str(pid) / "stat").rpartition(")")[2].split()
    if len(fields) < 13:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return ""
