"""Ctrl-C, SIGTERM and SIGHUP: one line, one exit code, and nothing left behind.

The first signal raises Stopped in the main thread, so that every `finally` runs; later ones change
nothing. Whatever reaches `main` after that counts as the signal, for an import that is interrupted
may end in an ImportError, and a destructor or a library may swallow the exception. Where the
command has not ended a second later, a thread ends it.

Imports nothing heavy: it is the first that the command does.
"""

from __future__ import annotations

import _thread
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, NoReturn

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")  # Windows has no SIGHUP
_GRACE = 1.0  # seconds for the `finally` blocks
_TEXT = "Stopped. Nothing half-written was left behind."

_seen: int | None = None
_held = False
_finished = False
_telling = _thread.allocate_lock()  # taken by the first who tells, and kept


class Stopped(KeyboardInterrupt):
    """The command was told to end."""


def install() -> None:
    """Handle the signals from now on. One that is ignored, as under nohup, stays so."""
    for name in _NAMES:
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _stop)
    if os.name == "posix":
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        _thread.start_new_thread(_watch, (reading,))


def seen() -> int | None:
    """The signal that ends this command; None where there was none."""
    return _seen


def tell() -> int:
    """Say on stderr that the command was stopped, once; returns its exit code."""
    if _telling.acquire(blocking=False):
        # A terminal shows ^C at the beginning of the line.
        print(("\n" if sys.stderr.isatty() else "") + _TEXT, file=sys.stderr, flush=True)
    return 128 + (_seen or signal.SIGINT)


@contextmanager
def held() -> Iterator[None]:
    """Keep a signal back inside the block: what is written there is written whole."""
    global _held
    before, _held = _held, True
    try:
        yield
    finally:
        _held = before
    if _seen is not None and not _held:
        raise Stopped


def finish(code: int) -> NoReturn:
    """End the process with `code`, or as the signal that it has seen."""
    global _finished
    _finished = True
    if _seen is not None:
        _end(_seen)
    for name in _NAMES:
        # The work is done: at its end Python would die of a signal that it handled before.
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    sys.exit(code)


def _stop(number: int, frame: FrameType | None) -> None:
    global _seen
    if _seen is not None:
        return  # what runs now is the cleaning up
    _seen = number
    if _finished:
        _end(number)
    # An exception that nobody can catch, as in a destructor or a thread, is a consequence.
    sys.unraisablehook = _silent
    if threading := sys.modules.get("threading"):
        threading.excepthook = _silent  # type: ignore[attr-defined]
    if not _held:
        raise Stopped


def _silent(*details: Any) -> None:
    pass


def _watch(reading: int) -> None:
    """Hear of each signal, even while the main thread is inside a library."""
    while data := os.read(reading, 1):
        if signal.getsignal(data[0]) is not _stop:
            # A verb that ends in its own way, as stream does, calls ours when it hears another.
            time.sleep(_GRACE / 10)
            if _seen is None:
                continue
        time.sleep(_GRACE)
        _end(data[0])


def _end(number: int) -> NoReturn:
    """Leave at once, without what an interpreter does at its end, which may wait or crash here."""
    kill_descendants()
    files = sys.modules.get("rkzoo.files")
    remove = getattr(files, "remove_temporary", None)  # missing while it is imported
    if remove is not None:
        with suppress(Exception):
            remove()
    if _telling.acquire(blocking=False):
        # Not by sys.stderr, which the main thread may hold. First the cursor, hidden by a bar.
        text = f"\x1b[?25h\n{_TEXT}\n" if os.isatty(2) else f"{_TEXT}\n"
        with suppress(OSError):
            os.write(2, text.encode())
    os._exit(128 + number)


def kill_descendants() -> None:
    """Kill every process below this one, where /proc tells them."""
    for pid in descendants(os.getpid()):
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL)


def descendants(pid: int) -> list[int]:
    """The processes below `pid`, from /proc; none where there is no such folder."""
    children: dict[int, list[int]] = {}
    with suppress(OSError):
        for name in filter(str.isdigit, os.listdir("/proc")):
            # The name in parentheses may contain anything.
            with suppress(OSError, IndexError), open(f"/proc/{name}/stat", "rb") as file:
                parent = int(file.read().rpartition(b")")[2].split()[1])
                children.setdefault(parent, []).append(int(name))
    below = list(children.get(pid, ()))
    for one in below:  # grows
        below += children.get(one, ())
    return below
