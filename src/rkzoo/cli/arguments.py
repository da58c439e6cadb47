"""A parser's arguments as plain records, for the man page and the shells."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Kind = Literal["words", "model", "chip", "file", "free"]

_MODELS = {"MODEL"}
_CHIPS = {"CHIP"}
# What no list and no file says.
_FREE = {
    "[HOST:]PORT", "A,B", "A,B,C", "ADDRESS", "AGE", "CLASS,...", "CODE", "FORMAT", "HOST", "HxW",
    "HxW,HxW,...", "KIND", "NAME=N,N,...", "SIZE", "TASK", "VERB", "VERSION", "WORDS", "X,Y[,0]",
    "X1,Y1,X2,Y2", "tcp://HOST:PORT",
}  # fmt: skip


@dataclass(frozen=True)
class Argument:
    """One argument of a command.

    Attributes:
        options: how it is called, such as -o and --output; empty for one that goes by its place.
        metavar: what stands for its value; empty for a switch.
        help: what it is, without a full stop.
        words: the values that it may have, where there is a list.
        kind: what completes it.
        many: whether several values may follow.
        optional: whether its value may be left out.
    """

    options: tuple[str, ...]
    metavar: str
    help: str
    words: tuple[str, ...]
    kind: Kind
    many: bool
    optional: bool


@dataclass(frozen=True)
class Command:
    """A verb, or what follows one: `path` is ("report", "zoo")."""

    path: tuple[str, ...]
    help: str
    description: str
    epilog: str
    arguments: tuple[Argument, ...]
    below: dict[str, str]


def commands(parser: argparse.ArgumentParser) -> list[Command]:
    """The parser itself, with an empty path, and all commands below it, each before its own."""
    return list(_walk(parser, (), ""))


def _walk(parser: argparse.ArgumentParser, path: tuple[str, ...], help: str) -> Iterator[Command]:
    below: dict[str, tuple[str, argparse.ArgumentParser]] = {}
    arguments = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            said = {choice.dest: choice.help or "" for choice in action._choices_actions}
            below = {name: (said.get(name, ""), child) for name, child in action.choices.items()}
        else:
            arguments.append(_argument(action, parser))
    texts = {name: text for name, (text, _) in below.items()}
    description, epilog = parser.description or "", parser.epilog or ""
    yield Command(path, help, description, epilog, tuple(arguments), texts)
    for name, (text, child) in below.items():
        yield from _walk(child, (*path, name), text)


def _argument(action: argparse.Action, parser: argparse.ArgumentParser) -> Argument:
    words = tuple(map(str, action.choices or ()))
    metavar = "" if action.nargs == 0 else str(action.metavar or action.dest.upper())
    if words and action.option_strings:
        metavar = "|".join(words)
    help = (action.help or "") % {**vars(action), "prog": parser.prog}
    return Argument(
        options=tuple(action.option_strings),
        metavar=metavar,
        help=help,
        words=words,
        kind="free" if action.type in (int, float) else _kind(metavar, words),
        many=action.nargs in ("*", "+"),
        optional=action.nargs in ("?", "*"),
    )


def _kind(metavar: str, words: tuple[str, ...]) -> Kind:
    if words:
        return "words"
    if metavar in _MODELS:
        return "model"
    if metavar in _CHIPS:
        return "chip"
    return "free" if metavar in _FREE or not metavar else "file"
