"""The command line: selects the verb, and turns errors into messages and exit codes.

Only the module of the chosen verb is imported, so that --help is fast.
"""

from __future__ import annotations

import argparse
import importlib
import os
import re
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

from rkzoo.cli import signals
from rkzoo.cli.streams import OutputClosed, OutputFailed, output
from rkzoo.errors import RkzooError

VERBS = {
    "demo": "demo: read a page of text, build a .rknn, compare float and INT8",
    "list": "list the models",
    "info": "details of one model",
    "fetch": "download a model's weights, verified",
    "inspect": "show what is in a model file, and whether it will work",
    "card": "write a card for a model of your own: how it is fed and read",
    "convert": "convert a model to .rknn for a chip",
    "run": "run a model on pictures, sounds or texts",
    "stream": "run a model on video: camera, file, network; live page, video, JSON lines",
    "eval": "evaluate a model on a dataset",
    "compare": "compare float, float16 and INT8, and diagnose accuracy loss",
    "check": "compare the NPU's outputs with the simulator's",
    "bench": "benchmark a model, stage by stage",
    "estimate": "estimate latency and memory on each chip, without a board",
    "doctor": "diagnose this board or PC, with remedies",
    "clocks": "show, lock and restore the clocks of a board",
    "soc": "show chips: NPU, dtypes, clocks, library, how to upgrade",
    "tune": "recover the accuracy lost in INT8",
    "report": "measure the model zoo, and generate its pages",
    "toolkit": "install, list and remove versions of RKNN-Toolkit2",
    "cache": "show what is kept on the disk, and remove it",
}

_EPILOG = "Start with: rkzoo demo        Help on a verb: rkzoo VERB --help"


class _Help(argparse.HelpFormatter):
    """Help formatter that puts parts of an epilog separated by several blanks, such as a second
    example, on lines of their own.
    """

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        fill = super()._fill_text
        return "\n".join(fill(part, width, indent) for part in re.split(r"\s{4,}", text))


class _Parser(argparse.ArgumentParser):
    """Argument parser that raises RkzooError for a wrong command line, without the usage text."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"formatter_class": _Help, **options})

    def error(self, message: str) -> NoReturn:
        raise RkzooError(
            "The command line is not understood.",
            f"{message[:1].upper()}{message[1:].rstrip('.')}.",
            f"See: {self.prog} --help",
        )


def main(argv: Sequence[str]) -> int:
    """Run one command line, and return its exit code."""
    args = argparse.Namespace(debug=False, json="--json" in argv)
    try:
        args = _parser(argv).parse_args(argv)
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


def _parser(argv: Sequence[str]) -> argparse.ArgumentParser:
    parser = _Parser(
        prog="rkzoo",
        description="Any trained model in, right results out on Rockchip NPUs.",
        epilog=_EPILOG,
    )
    parser.add_argument("--version", action="store_true", help="print the version and stop")
    parser.set_defaults(verb=_no_verb(parser), debug=False, version=False)
    verbs = parser.add_subparsers(metavar="VERB", title="verbs")
    chosen = next((word for word in argv if not word.startswith("-")), None)
    for name, summary in VERBS.items():
        if name == chosen:
            importlib.import_module(f"rkzoo.cli.{name}").add(verbs)
            added = verbs.choices[name]
            added.add_argument(
                "--debug", action="store_true", help="show the traceback of an error"
            )
        else:
            verbs.add_parser(name, help=summary)
    return parser


class _no_verb:  # noqa: N801 - a callable that holds the parser
    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self.parser = parser

    def __call__(self, args: argparse.Namespace) -> int:
        if args.version:
            from importlib.metadata import version

            print(f"rkzoo {version('rkzoo')}")
            return 0
        self.parser.print_help()
        return 0


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
    if not isinstance(error, RkzooError):
        text = f"{type(error).__name__}: {error}"
        if isinstance(error, MemoryError):
            text = "This machine has too little memory for that."
        error = RkzooError(
            "rkzoo itself failed; this is a bug in it, not in your input.",
            " ".join(text.split())[:500],
            "Run the same command with --debug and report what it prints.",
            code=1,
        )
    _print_summary(error, as_json=as_json)
    return error.code
