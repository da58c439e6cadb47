"""Capture of what Rockchip's library prints during a call.

Its error codes say little (-6 stands for another chip's model, lack of memory and a damaged file);
the line that it prints says more, so errors quote it. Capturing works on file descriptors, as a C
library writes to them.
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


def captured(call: Callable[[], T], *, guarded: bool = False) -> tuple[T, list[str]]:
    """Run `call` and capture the errors that the library prints.

    Everything else that is written meanwhile (by other threads too) is passed on.

    Args:
        call: The function to run.
        guarded: Show the output even if the call ends this process; costs a child process.

    Returns:
        Its result, and the error lines.
    """
    errors: list[str] = []
    with _ONE, ExitStack() as stack:
        kept = [redirected for fd in _STREAMS if (redirected := _redirected(fd)) is not None]
        # Each by itself, the first one first: a closed pipe must not keep the other from being
        # restored.
        for redirected in reversed(kept):
            stack.callback(_restore, *redirected, errors)
        # To a pipe or a file the C library writes only when its buffer is full.
        stack.callback(c.CDLL(None).fflush, None)
        if guarded and kept:
            stack.enter_context(_guard(kept))
        answer = call()
    return answer, errors


@contextmanager
def _guard(kept: list[tuple[int, int, int]]) -> Iterator[None]:
    """A child process that shows the captured output when this process dies."""
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
    except OSError:  # no shell, or no more processes
        yield
        return
    try:
        yield
    finally:
        child.communicate(b"done\n")


def pass_on(errors: list[str]) -> None:
    """Print errors of a call that succeeded after all."""
    for line in errors:
        print(f"E RKNN: {line}", file=sys.stderr)


def _redirected(fd: int) -> tuple[int, int, int] | None:
    """Redirect a stream to memory: its number, its original descriptor, and the memory's. None
    where it is closed, or the system has no memfd.
    """
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
    """Restore a stream, pass on what was written to it, and collect the library's errors."""
    os.dup2(own, fd)
    size = os.fstat(log).st_size
    lines = os.pread(log, size, 0).splitlines(keepends=True) if size else []
    os.close(log)
    try:
        for line in lines:
            if match := _ERROR.match(line):
                errors.append(match[1].decode("utf-8", "replace").strip())
            else:
                os.write(own, line)
    finally:
        os.close(own)
