"""Progress reporting interface."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol, TypeVar

from rkzoo.errors import RkzooError

Source = TypeVar("Source")
T = TypeVar("T")


@dataclass(frozen=True)
class Failure:
    """A file of many that was left out, and why: one or two sentences."""

    file: str
    why: str


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

    def failed(self, failure: Failure) -> None:
        """A file was left out: told at the end, and the work did not wholly succeed."""


class _SilentReporter:
    def update(self, completed: float, total: float | None = None) -> None:
        pass

    def task(
        self, label: str, total: float | None = None, *, bytes: bool = False, unit: str = ""
    ) -> AbstractContextManager[ProgressTask]:
        return nullcontext(self)

    def note(self, message: str) -> None:
        pass

    def failed(self, failure: Failure) -> None:
        # Nobody shows progress here, but nothing is left out without a word.
        warnings.warn(f"{failure.file} was left out: {failure.why}", stacklevel=3)


class NoteKeeper(_SilentReporter):
    """Shows nothing, and keeps what is noted."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, message: str) -> None:
        self.notes.append(message)


SILENT: ProgressReporter = _SilentReporter()


def readable(
    sources: Sequence[Source],
    read: Callable[[Source], T],
    file: Callable[[Source], object],
    report: ProgressReporter,
) -> Iterator[tuple[Source, T]]:
    """What can be made of each of many files, one after another; `report` is told of those that
    fail.

    Raises:
        RkzooError: All fail, or the only one.
    """
    # Not the errors themselves: they would hold this frame, and what it uses, as it holds them.
    failed: list[tuple[str, str]] = []
    for source in sources:
        try:
            made = read(source)
        except RkzooError as error:
            # A fault of rkzoo's or of the toolkit's is none of the file's, and the next fails too.
            failed.append((error.reason, error.fix))
            if error.code != 2 or len(sources) == 1:
                raise
            report.failed(Failure(str(file(source) or source), error.reason))
            if len(failed) == len(sources):
                raise RkzooError(
                    f"None of the {len(failed):,} files can be used.",
                    *failed[0],
                ) from error
        else:
            yield source, made
