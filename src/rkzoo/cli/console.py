"""Console output: progress on stderr, tables and JSON on stdout; shared arguments."""

from __future__ import annotations

import argparse
import json
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Event, Lock, Thread
from typing import IO, TYPE_CHECKING, Any, cast

from rkzoo.cli import signals
from rkzoo.cli.streams import Unfiltered, one_line, visible
from rkzoo.errors import RkzooError, printable
from rkzoo.progress import Failure

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_LISTED = 10  # files that are named of those left out


STILL_SECONDS = 10.0
"""How often something is said of a task where there is no terminal."""


class ProgressBars:
    """Reporter with progress bars on stderr: live in a terminal, one line per task elsewhere."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()
        self._progress: Progress | None = None
        self._open = 0
        # Parallel builds open and close bars from their own threads.
        self._lock = Lock()
        self._failures: dict[str, Failure] = {}

    @contextmanager
    def task(
        self, label: str, total: float | None = None, *, bytes: bool = False, unit: str = ""
    ) -> Iterator[_Bar]:
        from time import perf_counter

        if not self._live:
            start = perf_counter()
            label = one_line(label)
            print(f"{label} …", file=sys.stderr, flush=True)
            bar = _Bar(None, None, total, bytes, unit)
            with _alive(label, bar, start):
                yield bar
            print(f"{label}: done in {perf_counter() - start:.1f} s", file=sys.stderr, flush=True)
            return
        with self._lock:
            progress = self._started()
            task = progress.add_task(one_line(label), total=total, amount="")
            self._open += 1
        try:
            yield _Bar(progress, task, total, bytes, unit)
            # End a task of unknown total as a full bar, not a pulsing one.
            progress.update(task, total=1, completed=1)
        finally:
            progress.stop_task(task)
            with self._lock:
                self._open -= 1
                if not self._open:
                    progress.stop()
                    self._progress = None

    def note(self, message: str) -> None:
        if self._progress is not None:
            self._progress.console.print(visible(message), markup=False, highlight=False)
        else:
            print(message, file=sys.stderr, flush=True)

    def failed(self, failure: Failure) -> None:
        with self._lock:
            self._failures.setdefault(failure.file, failure)

    @property
    def failures(self) -> dict[str, list[dict[str, str]]]:
        """The files that were left out, as a part of a JSON document."""
        return {"failed": [vars(failure) for failure in self._failures.values()]}

    def exit_code(self) -> int:
        """List what was left out; 1 where there is something, else 0."""
        failures = list(self._failures.values())
        if not failures:
            return 0
        files = f"{len(failures):,} file{'s' * (len(failures) > 1)}"
        self.note(f"{files} could not be used and {'were' if failures[1:] else 'was'} left out:")
        for failure in failures[:_LISTED]:
            # One line each, whatever a file is called.
            named = "" if failure.file in failure.why else f"{failure.file}: "
            self.note("  " + printable(named + failure.why, " "))
        if failures[_LISTED:]:
            self.note(f"  and {len(failures) - _LISTED:,} more")
        return 1

    def _started(self) -> Progress:
        if self._progress is None:
            from rich.console import Console
            from rich.progress import (
                BarColumn,
                Progress,
                SpinnerColumn,
                TextColumn,
                TimeElapsedColumn,
            )

            self._progress = Progress(
                SpinnerColumn(),
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                TextColumn("{task.fields[amount]}"),
                TimeElapsedColumn(),
                console=Console(file=cast("IO[str]", Unfiltered())),
            )
            self._progress.start()
        return self._progress


@contextmanager
def _alive(label: str, bar: _Bar, start: float) -> Iterator[None]:
    """Where no bar is drawn, print every few seconds how far a task is."""
    ended = Event()

    def tell() -> None:
        while not ended.wait(STILL_SECONDS):
            seconds = bar.clock() - start
            amount = f"{bar.amount}, " if bar.amount else ""
            print(f"{label}: {amount}{seconds:.0f} s so far", file=sys.stderr, flush=True)

    thread = Thread(target=tell, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


class _Bar:
    def __init__(
        self,
        progress: Progress | None,
        task: TaskID | None,
        total: float | None,
        bytes: bool,
        unit: str,
    ) -> None:
        from time import perf_counter

        self._progress, self._task, self._total = progress, task, total
        self._bytes, self._unit = bytes, unit
        self.clock = perf_counter
        self.amount = ""
        self._first: tuple[float, float] | None = None

    def update(self, completed: float, total: float | None = None) -> None:
        self._total = total = self._total if total is None else total
        self.amount = self._amount(completed, total)
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=completed, total=total, amount=self.amount)

    def _amount(self, completed: float, total: float | None) -> str:
        if self._bytes:
            return f"{completed / 1e6:.1f}" + (f"/{total / 1e6:.1f} MB" if total else " MB")
        if self._unit:
            of = f"/{total:.0f}" if total else ""
            return f"{completed:.0f}{of} {self._unit}" + self._rate(completed)
        return f"{100 * completed / total:.0f}%" if total else ""

    def _rate(self, completed: float) -> str:
        """Rate since the first update; empty before the second."""
        now = self.clock()
        if self._first is None:
            self._first = (now, completed)
        began, before = self._first
        return (
            f", {(completed - before) / max(now - began, 1e-9):.1f}/s" if completed > before else ""
        )


def print_json(document: Any, indent: int | None = 2) -> None:
    """Print a JSON document on stdout, whole even when a signal comes meanwhile."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    plain = not encoding.lower().startswith("utf")
    text = json.dumps(document, ensure_ascii=plain, indent=indent)
    with signals.held():
        print(text, flush=True)


def overwrite(text: str) -> None:
    """Show a line on stderr, over the one shown before."""
    stream = Unfiltered()
    stream.write("\r" + one_line(text))
    stream.flush()


class JsonList:
    """Documents for a list in a JSON document, kept on disk until it is printed whole."""

    def __init__(self) -> None:
        from tempfile import TemporaryFile

        self._file = TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115 - closed on exit

    def __enter__(self) -> JsonList:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def append(self, document: Any) -> None:
        from rkzoo.json_values import json_text

        text = json_text(document, indent=2)
        # Inside a string a line break is written as \\n, so each line begins outside of one.
        between = ",\n    " if self._file.tell() else "    "
        self._file.write(between + text.replace("\n", "\n    "))

    def print(self, head: dict[str, Any], name: str, tail: dict[str, Any]) -> None:
        """Print `head`, the list under `name`, and `tail` as one document."""
        from rkzoo.json_values import json_text

        empty = not self._file.tell()
        opening = json_text(head, indent=2).removesuffix("\n}")
        print(f"{opening},\n  {json.dumps(name)}: [", end="" if empty else "\n")
        self._file.seek(0)
        while block := self._file.read(1 << 16):
            sys.stdout.write(block)
        closing = json_text(tail, indent=2).removeprefix("{\n")
        print(("" if empty else "\n  ") + f"],\n{closing}")


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Align columns, a line a row; wide (Chinese) characters count double, as in terminals."""
    cells = [[one_line(str(cell)) for cell in row] for row in (header, *rows)]
    widths = [max(width(row[i]) for row in cells) for i in range(len(header))]
    return "\n".join(
        "  ".join(text + " " * (widths[i] - width(text)) for i, text in enumerate(row)).rstrip()
        for row in cells
    )


def width(text: str) -> int:
    """Number of terminal columns of a text."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def add_feed(parser: argparse._ActionsContainer) -> None:
    """--color, --mean and --std."""
    parser.add_argument(
        "--color",
        choices=("RGB", "BGR", "GRAY", "RGBA", "BGRA"),
        help="channel order of the training",
    )
    parser.add_argument(
        "--mean", metavar="A,B,C", help="subtracted from the pixels of 0..255, one a channel: 0,0,0"
    )
    parser.add_argument("--std", metavar="A,B,C", help="divisor after that: 255,255,255 gives 0..1")


def add_anchors(parser: argparse._ActionsContainer) -> None:
    """Add --anchors."""
    parser.add_argument(
        "--anchors",
        metavar="FILE|LIST",
        help="width,height of each anchor in pixels, for a YOLOv5 or v7 without its own",
    )


def add_prompts(parser: argparse._ActionsContainer) -> None:
    """Add --prompt, --text-model and --embeddings."""
    parser.add_argument(
        "--prompt",
        action="append",
        metavar="WORDS",
        help='class to detect with YOLO-World, once per class: --prompt "a red bus"',
    )
    parser.add_argument(
        "--text-model", metavar="MODEL", help="text encoder of the prompts (default: clip-text)"
    )
    parser.add_argument(
        "--embeddings", metavar="FILE.npy", help="precomputed embeddings of the prompts: (N, width)"
    )


def parse_numbers(text: str | None, name: str) -> tuple[float, ...] | None:
    """`0,0,0` or `0` to numbers. Raises RkzooError."""
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise RkzooError(
            f"{text!r} is not numbers.",
            f"--{name} has one for each channel.",
            f"Give e.g. --{name} {'0,0,0' if name == 'mean' else '255,255,255'}.",
        ) from None


def parse_shape(text: str) -> tuple[str, tuple[int, ...]]:
    """`NAME=1,3,224,224` to the name and its numbers. Raises RkzooError."""
    name, _, numbers = text.rpartition("=")
    try:
        shape = tuple(int(part) for part in numbers.replace("x", ",").split(","))
    except ValueError:
        shape = ()
    if not name or not shape or any(not 1 <= side <= 1 << 24 for side in shape):
        raise RkzooError(
            f"{text!r} is no shape of an input.",
            "It is the input's name and whole numbers from 1.",
            "Give e.g. --shape images=1,3,224,224; rkzoo inspect names the inputs.",
        )
    return name, shape


def parse_size(text: str | None) -> tuple[int, int] | None:
    """Parse `480x640` (height x width) or `640` to (height, width). Raises RkzooError."""
    if text is None:
        return None
    parts = text.lower().split("x")
    try:
        numbers = [int(part) for part in parts]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, 2) or any(not 1 <= n <= 16384 for n in numbers):
        raise RkzooError(
            f"{text!r} is not a size.",
            "It is height x width in pixels.",
            "Give e.g. --size 480x640.",
        )
    return numbers[0], numbers[-1]
