"""Progress reporting interface."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol


class ProgressTask(Protocol):
    """One progress bar. `update` takes the absolute amount done so far, in the unit of `total`."""

    def update(self, completed: float, total: float | None = None) -> None: ...


class ProgressReporter(Protocol):
    """Receives progress: shows a bar on stderr, or nothing.

    A task with a `unit` (such as "pictures") also shows the count and the rate per second.
    """

    def task(
        self, label: str, total: float | None = None, *, bytes: bool = False, unit: str = ""
    ) -> AbstractContextManager[ProgressTask]: ...

    def note(self, message: str) -> None: ...


class _SilentReporter:
    def update(self, completed: float, total: float | None = None) -> None:
        pass

    def task(
        self, label: str, total: float | None = None, *, bytes: bool = False, unit: str = ""
    ) -> AbstractContextManager[ProgressTask]:
        return nullcontext(self)

    def note(self, message: str) -> None:
        pass


SILENT: ProgressReporter = _SilentReporter()
