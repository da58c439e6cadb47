"""Entry point of the command line: runs the verb, and turns errors into messages and exit codes."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from rkzoo.cli.parser import build_parser, chosen_verb, with_command
from rkzoo.errors import RkzooError


def run() -> NoReturn:
    """Console script."""
    signal.signal(signal.SIGTERM, _terminate)
    try:
        code = main(sys.argv[1:])
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader of stdout has closed it (`rkzoo list | head`).
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    sys.exit(code)


def main(argv: Sequence[str]) -> int:
    """Run one command line, and return its exit code."""
    try:
        args = build_parser(chosen_verb(argv)).parse_args(argv)
    except RkzooError as error:
        _print_summary(with_command(error, argv), as_json="--json" in argv)
        return error.code
    try:
        with _document_alone(getattr(args, "json", False)):
            code = args.verb(args)
        return int(code)
    except KeyboardInterrupt:
        if args.debug:
            raise
        print("\nStopped. Nothing half-written was left behind.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        raise
    except RkzooError as error:
        if args.debug:
            raise
        _print_summary(with_command(error, argv), as_json=getattr(args, "json", False))
        return error.code
    except MemoryError:
        return _unexpected(args, "This machine has too little memory for that.")
    except Exception as error:
        if args.debug:
            raise
        return _unexpected(args, f"{type(error).__name__}: {error}")


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
    sys.stdout = os.fdopen(kept, "w", encoding=before.encoding, errors=before.errors)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        sys.stdout.close()
        sys.stdout = before


def _print_summary(error: RkzooError, *, as_json: bool) -> None:
    if as_json:
        import json

        print(json.dumps({"error": error.to_json()}, ensure_ascii=False))
    parts = [error.what, error.why, error.fix]
    if error.log:
        parts.append(f"The full log is in {error.log}")
    for index, part in enumerate(part for part in parts if part):
        print(("error: " if index == 0 else "       ") + part, file=sys.stderr)


def _unexpected(args: argparse.Namespace, text: str) -> int:
    error = RkzooError(
        "rkzoo itself failed; this is a bug in it, not in your input.",
        " ".join(text.split())[:500],
        "Run the same command with --debug and report what it prints.",
        code=1,
    )
    _print_summary(error, as_json=getattr(args, "json", False))
    return 1


def _terminate(number: int, frame: FrameType | None) -> None:
    # As Ctrl-C: runs every `finally`, stops children and removes temporary files.
    raise KeyboardInterrupt


if __name__ == "__main__":
    run()
