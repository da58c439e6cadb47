"""The command line: runs the verb, and turns errors into messages and exit codes."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rkzoo.cli import signals
from rkzoo.cli.parser import build_parser, chosen_verb, with_command
from rkzoo.cli.streams import OutputClosed, OutputFailed, output
from rkzoo.errors import RkzooError, is_memory_shortage, too_little_memory


def main(argv: Sequence[str]) -> int:
    """Run one command line, and return its exit code."""
    args = argparse.Namespace(debug=False, json="--json" in argv)
    try:
        args = build_parser(chosen_verb(argv)).parse_args(argv)
        with _document_alone(getattr(args, "json", False)):
            since = time.time()
            code = int(args.verb(args))
            _bound_cache(since)
            return code
    except (OutputClosed, OutputFailed):
        raise
    except (Exception, KeyboardInterrupt) as error:
        if args.debug:
            raise
        # After a signal, whatever arrives is its consequence.
        if signals.seen() or isinstance(error, KeyboardInterrupt):
            return signals.tell()
        if isinstance(error, RkzooError):
            error = with_command(error, argv)
        return _explained(error, as_json=getattr(args, "json", False))


def _bound_cache(since: float) -> None:
    """Hold the cache below its limit, where the verb has written to it."""
    if "rkzoo.files" not in sys.modules or not sys.modules["rkzoo.files"].caches_in_use():
        return
    from rkzoo import cache
    from rkzoo.files import size_text

    try:
        removal = cache.prune_written(since)
    except RkzooError as error:  # the work is done, and this never spoils it
        print(f"note: {error}", file=sys.stderr)
        return
    if removal is not None and removal.removed:
        print(
            f"The cache had grown above {size_text(cache.limit())}: {size_text(removal.size)} that"
            " were used least recently were removed. `rkzoo cache` shows the rest.",
            file=sys.stderr,
        )


@contextmanager
def _document_alone(as_json: bool) -> Iterator[None]:
    """Keep stdout for the JSON document: redirects what C libraries print there to stderr."""
    try:
        ours = as_json and sys.stdout.fileno() == 1
    except (OSError, ValueError, AttributeError):
        ours = False
    if not ours:
        yield
        return
    kept, before = os.dup(1), sys.stdout
    sys.stdout = output(kept, before)
    os.dup2(2, 1)
    try:
        yield
    finally:
        ours_now, sys.stdout = sys.stdout, before
        os.dup2(kept, 1)
        try:
            ours_now.flush()
        finally:
            os.close(kept)


def _print_summary(error: RkzooError, *, as_json: bool) -> None:
    if as_json:
        from rkzoo.cli.console import print_json

        print_json({"error": error.to_json()}, indent=None)
    parts = [error.what, error.why, error.fix]
    if error.log:
        parts.append(f"The full log is in {error.log}")
    for index, part in enumerate(part for part in parts if part):
        # A line that another's text begins shall not look like one of ours.
        text = part.rstrip().replace("\n", "\n       ")
        print(("error: " if index == 0 else "       ") + text, file=sys.stderr)


def _explained(error: Exception, *, as_json: bool) -> int:
    """Tell of an error; returns the exit code."""
    if is_memory_shortage(error):
        error = too_little_memory()
    if isinstance(error, OSError) and error.filename is not None:
        name = os.fsdecode(error.filename) if not isinstance(error.filename, int) else "A file"
        why = f"The system says: {error.strerror}."
        error = RkzooError(f"{name} cannot be used.", why, "Check the path and the disk.")
    if not isinstance(error, RkzooError):
        text = f"{type(error).__name__}: {error}"
        error = RkzooError(
            "rkzoo itself failed; this is a bug in it, not in your input.",
            " ".join(text.split())[:500],
            "Run the same command with --debug and report what it prints.",
            code=1,
        )
    _print_summary(error, as_json=as_json)
    return error.code
