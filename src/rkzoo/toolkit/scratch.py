"""Private scratch folders for jobs. A folder whose owner died is removed by the next job."""

from __future__ import annotations

import os
import secrets
import shutil
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from rkzoo.files import cache_dir, disposable, locked, os_errors_explained


@dataclass(frozen=True)
class Scratch:
    """A private folder, and the open lock that shows that its owner is alive."""

    path: Path
    descriptor: int
    kept: ExitStack

    def remove(self) -> None:
        """Delete the folder and release the lock."""
        self.kept.close()
        os.close(self.descriptor)


def make() -> Scratch:
    """Create an empty folder below the cache's `scratch`. Raises RkzooError when that fails."""
    root = cache_dir("scratch")
    path = root / secrets.token_hex(6)
    with (
        os_errors_explained("A working folder for the toolkit cannot be made."),
        locked(root / ".lock"),
        ExitStack() as stack,
    ):
        _sweep(root)
        stack.enter_context(disposable(_lock_of(path)))
        descriptor = os.open(_lock_of(path), os.O_CREAT | os.O_RDWR, 0o600)
        try:
            _lock_now(descriptor)
            stack.enter_context(disposable(path)).mkdir()
        except BaseException:
            os.close(descriptor)
            raise
        return Scratch(path, descriptor, stack.pop_all())


def _lock_now(descriptor: int) -> None:
    """Take the lock of an open file. Raises BlockingIOError where another has it."""
    import fcntl  # Linux alone has the toolkit

    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _lock_of(path: Path) -> Path:
    return path.with_name(path.name + ".owner")


def _sweep(root: Path) -> None:
    for lock in root.glob("*.owner"):
        descriptor = os.open(lock, os.O_RDWR)
        try:
            _lock_now(descriptor)
        except BlockingIOError:
            continue  # its owner is alive
        finally:
            os.close(descriptor)
        shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
        lock.unlink(missing_ok=True)
