"""The command line's parser: the verbs, and what is said of a wrong command line.

Only the module of the chosen verb is imported, so that --help is fast.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import re
import shlex
from collections.abc import Collection, Sequence
from typing import Any, NoReturn

from rkzoo.errors import RkzooError
from rkzoo.spelling import unknown

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
    "serve": "serve models over HTTP: Open Inference Protocol, OpenAI's API, a page",
    "eval": "evaluate a model on a dataset",
    "compare": "compare float, float16 and INT8, and diagnose accuracy loss",
    "check": "compare the NPU's outputs with the simulator's",
    "bench": "benchmark a model, stage by stage",
    "estimate": "estimate latency and memory on each chip, without a board",
    "advise": "what costs most on a chip, and which change would help",
    "doctor": "diagnose this board or PC, with remedies",
    "board": "set up a board over ssh, and list the known ones",
    "clocks": "show, lock and restore the clocks of a board",
    "soc": "show chips: NPU, dtypes, clocks, library, how to upgrade",
    "tune": "recover the accuracy lost in INT8",
    "report": "measure the model zoo, and generate its pages",
    "toolkit": "install, list and remove versions of RKNN-Toolkit2",
    "cache": "show what is kept on the disk, and remove it",
    "completion": "print the script for completion in bash, zsh or fish",
    "help": "help on a verb",
}

_EPILOG = "Start with: rkzoo demo        Help on a verb: rkzoo help VERB"


def build_parser(verbs: Collection[str]) -> argparse.ArgumentParser:
    """The parser, with the arguments of these verbs only: each costs the import of its module."""
    parser = _Parser(
        prog="rkzoo",
        description="Any trained model in, right results out on Rockchip NPUs.",
        epilog=_EPILOG,
    )
    parser.add_argument("--version", action="store_true", help="print the version and stop")
    parser.set_defaults(verb=_no_verb(parser), debug=False, version=False)
    known = parser.add_subparsers(metavar="VERB", title="verbs")
    for name, summary in VERBS.items():
        if name not in verbs:
            known.add_parser(name, help=summary)
            continue
        importlib.import_module(f"rkzoo.cli.{name}").add(known)
        known.choices[name].add_argument(
            "--debug", action="store_true", help="show the traceback of an error"
        )
    return parser


def chosen_verb(argv: Sequence[str]) -> list[str]:
    """The verb of a command line, if there is one."""
    return [word for word in argv if not word.startswith("-")][:1]


def with_command(error: RkzooError, argv: Sequence[str]) -> RkzooError:
    """The error, and where a word of the command line was misspelled, the command without that."""
    command = _corrected(argv, error.typo) if error.typo else None
    if command is None:
        return error
    fix = f"{error.fix} Run: {shlex.join(['rkzoo', *command])}"
    return RkzooError(error.what, error.why, fix, code=error.code, log=error.log)


def _corrected(argv: Sequence[str], typo: tuple[str, str]) -> list[str] | None:
    wrong, right = typo
    whole = re.compile(rf"(^|[=,]){re.escape(wrong)}(?=$|[=,:])")
    for index, word in enumerate(argv):
        if whole.search(word):
            corrected = whole.sub(lambda match: match[1] + right, word, count=1)
            return [*argv[:index], corrected, *argv[index + 1 :]]
    return None


class _Help(argparse.HelpFormatter):
    """Help formatter that puts parts of an epilog separated by several blanks, such as a second
    example, on lines of their own.
    """

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        fill = super()._fill_text
        return "\n".join(fill(part, width, indent) for part in re.split(r"\s{4,}", text))


class _Parser(argparse.ArgumentParser):
    """Argument parser that raises RkzooError for a wrong command line, without the usage text.

    Options are not abbreviated: a script that did so would break with the next option. One that is
    typed so is told the whole name, as for any misspelling.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"formatter_class": _Help, "allow_abbrev": False, **options})

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        if args is not None and self._subparsers is None:
            # Before what is missing is told: a misspelled option is the nearer cause.
            for word in itertools.takewhile(lambda word: word != "--", args):
                self._refuse_unknown(word)
        parsed, extra = super().parse_known_args(args, namespace)
        if extra:  # told by the verb's own parser, which knows the options
            self._refuse_unknown(extra[0])
            why = "is not known here" if extra[0].startswith("-") else "is one word too many"
            raise self._refusal(f"{extra[0]} {why}.", extra[0], ())
        return parsed, extra

    def _refuse_unknown(self, word: str) -> None:
        name = word.split("=")[0]
        options = [one for one in self._option_string_actions if one.startswith("--")]
        if name.startswith("--") and name not in options:
            raise self._refusal(f"{name} is not known here.", name, options)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is None or value in action.choices:
            return
        choices = [str(choice) for choice in action.choices]
        name = str(action.metavar or action.dest).lower()
        why = f"There is no {name} {value!r}; there are {', '.join(choices)}."
        if action.option_strings:
            why = f"{action.option_strings[-1]} is one of {', '.join(choices)}, not {value!r}."
        raise self._refusal(why, str(value), choices)

    def _refusal(self, why: str, word: str, names: Collection[str]) -> RkzooError:
        what, see = "The command line is not understood.", f"See: {self.prog} --help"
        return unknown(what, why, word, names, see)

    def error(self, message: str) -> NoReturn:
        raise RkzooError(
            "The command line is not understood.",
            f"{message[:1].upper()}{message[1:].rstrip('.')}.",
            f"See: {self.prog} --help",
        )


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
