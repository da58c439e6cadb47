"""Entry point of the command line: selects the verb, and turns errors into messages and exit codes.

Only the module of the chosen verb is imported, so that --help is fast.
"""

from __future__ import annotations

import argparse
import importlib
import os
import re
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

from rkzoo.errors import RkzooError, is_memory_shortage, too_little_memory

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
        args = _parser(argv).parse_args(argv)
    except RkzooError as error:
        _print_summary(error, as_json="--json" in argv)
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
        _print_summary(error, as_json=getattr(args, "json", False))
        return error.code
    except Exception as error:
        if args.debug:
            raise
        if is_memory_shortage(error):
            shortage = too_little_memory()
            _print_summary(shortage, as_json=getattr(args, "json", False))
            return shortage.code
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
