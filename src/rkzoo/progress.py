"""How long work tells how far it is, without knowing who watches."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol


class Task(Protocol):
    """One bar. `update` takes the amount done so far, in the unit of `total`."""

    def update(self, done: float, total: float | None = None) -> None: ...


class Reporter(Protocol):
    """Where progress goes: a bar on stderr, or nowhere.

    A task with a `unit` ("pictures") tells how many are done and how many a second.
    """

    def task(
        self, label: str, total: float | None = None, *, bytes: bool = False, unit: str = ""
    ) -> AbstractContextManager[Task]: ...

    def note(self, message: str) -> None: ...


class _Quiet:
    def update(self, done: float, total: float | None = None) -> None:
        pass

    def task(
        self, label: str, total: float | None = None, *, bytes: bool = False, unit: str = ""
    ) -> AbstractContextManager[Task]:
        return nullcontext(self)

    def note(self, message: str) -> None:
        pass


SILENT: Reporter = _Quiet()
