"""What Rockchip's library prints while it is called.

Its error codes say little (-6 stands for another chip's model, for missing memory and for a
damaged file); the line that it prints says more, so an error quotes it. The lines come through
file descriptors, as a C library writes them.
"""

from __future__ import annotations

import ctypes as c
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from threading import Lock
from typing import TypeVar

T = TypeVar("T")

_STREAMS = (1, 2)
_ERROR = re.compile(rb"E RKNN\w*: *(?:\[[\d:. ]*\] *)?(.*)")
# Descriptors belong to the whole process.
_ONE = Lock()


def overheard(call: Callable[[], T], *, guarded: bool = False) -> tuple[T, list[str]]:
    """What `call` returns, and the errors that the library printed meanwhile. Everything else
    that was written (by other threads too) is passed on. `guarded`: what was printed is shown even
    if the call ends this process, which costs a child process."""
    errors: list[str] = []
    with _ONE, ExitStack() as stack:
        kept = [one for fd in _STREAMS if (one := _redirected(fd)) is not None]
        # Each by itself, the first one first: a closed pipe behind it must not keep the other.
        for one in reversed(kept):
            stack.callback(_restore, *one, errors)
        # To a pipe or a file the C library writes only when its buffer is full.
        stack.callback(c.CDLL(None).fflush, None)
        if guarded and kept:
            stack.enter_context(_guard(kept))
        answer = call()
    return answer, errors


@contextmanager
def _guard(kept: list[tuple[int, int, int]]) -> Iterator[None]:
    """A child that shows what was printed when this process ends without a word to it."""
    logs = [log for _, _, log in kept]
    command = "read -r word || cat " + " ".join(f"/proc/self/fd/{log}" for log in logs)
    shown = kept[-1][1]
    try:
        child = subprocess.Popen(
            ["sh", "-c", command],
            stdin=subprocess.PIPE,
            stdout=shown,
            stderr=subprocess.DEVNULL,
            pass_fds=logs,
            start_new_session=True,
        )
    except OSError:  # no shell, or no room for a process
        yield
        return
    try:
        yield
    finally:
        child.communicate(b"done\n")


def pass_on(errors: list[str]) -> None:
    """Shows errors of a call that succeeded after all."""
    for line in errors:
        print(f"E RKNN: {line}", file=sys.stderr)


def _redirected(fd: int) -> tuple[int, int, int] | None:
    """A stream that goes to memory: its number, where it went, and the memory. None where it is
    closed, or the system has no such memory."""
    if not hasattr(os, "memfd_create"):
        return None
    try:
        own = os.dup(fd)
    except OSError:
        return None
    try:
        log = os.memfd_create("npu-log")
    except OSError:
        os.close(own)
        return None
    os.dup2(log, fd)
    return fd, own, log


def _restore(fd: int, own: int, log: int, errors: list[str]) -> None:
    """Gives a stream back, passes on what was written to it, and adds the library's errors."""
    os.dup2(own, fd)
    size = os.fstat(log).st_size
    lines = os.pread(log, size, 0).splitlines(keepends=True) if size else []
    os.close(log)
    try:
        for line in lines:
            if found := _ERROR.match(line):
                errors.append(found[1].decode("utf-8", "replace").strip())
            else:
                os.write(own, line)
    finally:
        os.close(own)
