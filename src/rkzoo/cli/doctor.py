"""`rkzoo doctor`: diagnose a board, a PC or a model, with remedies."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from rkzoo.cli.model_options import add_on
from rkzoo.cli.streams import one_line

if TYPE_CHECKING:
    from rkzoo.workflow.diagnostics.doctor import Diagnosis

_MARK = {"ok": "ok  ", "warn": "warn", "fail": "FAIL"}


def add(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = verbs.add_parser(
        "doctor",
        help="diagnose this board or PC, with remedies",
        description="Examines this board or PC, and whether it can run a model. Changes nothing.",
        epilog="Exit code: 0 ok, 3 warnings, 4 failures, 2 wrong command line."
        "        Example: rkzoo doctor yolov8n.rknn",
    )
    parser.add_argument("model", nargs="?", metavar="MODEL", help="a .rknn or .onnx to check, too")
    parser.add_argument(
        "--root", metavar="PLACE", help="read a captured tree, a folder or a .tar, not this machine"
    )
    parser.add_argument(
        "--capture", metavar="OUT.tar", help="write the files that doctor reads, for a bug report"
    )
    add_on(parser, "a board to examine in place of this machine")
    parser.add_argument("--soc", metavar="CHIP", help="on a PC: the target chip of the model")
    parser.add_argument("--adb", action="store_true", help="list adb's devices; starts its daemon")
    parser.add_argument("--all", action="store_true", help="show the evidence of ok findings, too")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.set_defaults(verb=main)


def main(args: argparse.Namespace) -> int:
    from rkzoo.soc.chips import find
    from rkzoo.workflow.diagnostics.doctor import diagnose

    if args.on:
        return _main_on(args)
    soc = find(args.soc) if args.soc else None
    model = Path(args.model) if args.model else None
    with _root(args.root) as root:
        if args.capture:
            return _capture(Path(args.capture), root, as_json=args.json)
        diagnosis = diagnose(root, model=model, adb=args.adb, soc=soc)
    return _told(diagnosis, args)


def _told(diagnosis: Diagnosis, args: argparse.Namespace) -> int:
    from rkzoo.cli.console import print_json

    if args.json:
        print_json(diagnosis.to_json())
    else:
        on_board = diagnosis.place == "board"
        print_findings(diagnosis.findings, board=on_board, everything=args.all)
    return diagnosis.exit_code


def _main_on(args: argparse.Namespace) -> int:
    """The same, of a board at the other end of a cable."""
    from rkzoo.cli.console import ProgressBars
    from rkzoo.errors import RkzooError
    from rkzoo.workflow.diagnostics.on_board import capture_on, diagnose_on

    given = [name for name in ("root", "soc", "adb") if getattr(args, name)]
    if given:
        raise RkzooError(
            f"--{given[0]} does not go with --on.",
            "The board at that address is examined, as it is.",
            "Leave one of them out.",
        )
    if args.capture:
        target = Path(args.capture)
        return _told_of_capture(target, capture_on(args.on, target), as_json=args.json)
    diagnosis = diagnose_on(args.on, Path(args.model) if args.model else None, ProgressBars())
    return _told(diagnosis, args)


def _root(place: str | None) -> AbstractContextManager[Path]:
    if place is None:
        return nullcontext(Path("/"))
    from rkzoo.soc.capture import opened

    return opened(Path(place))


def _capture(target: Path, root: Path, *, as_json: bool) -> int:
    from rkzoo.soc.capture import write_capture

    return _told_of_capture(target, write_capture(target, root), as_json=as_json)


def _told_of_capture(target: Path, paths: Sequence[str], *, as_json: bool) -> int:
    from rkzoo.cli.console import print_json

    if as_json:
        print_json({"capture": str(target), "paths": paths})
        return 0
    print(f"{target}: {len(paths)} files, without serial numbers, addresses and keys.")
    print(f"Look into it before you send it: tar -xOf {target} | less")
    return 0


class Found(Protocol):
    """A finding, of this machine or as a board tells it."""

    @property
    def level(self) -> str: ...
    @property
    def text(self) -> str: ...
    @property
    def evidence(self) -> str: ...
    @property
    def fix(self) -> str: ...
    @property
    def command(self) -> str: ...


def print_findings(findings: Sequence[Found], *, board: bool, everything: bool = False) -> None:
    """Print findings and the verdict.

    Args:
        findings: In their order.
        board: Whether the machine is a board.
        everything: Show the evidence of those that are ok, too.
    """
    from rkzoo.workflow.diagnostics.doctor import DISCLAIMER

    for finding in findings:
        print(f"{_MARK[finding.level]}  {one_line(finding.text)}")
        if finding.evidence and (everything or finding.level != "ok"):
            print(f"        seen:  {one_line(finding.evidence)}")
        if finding.fix:
            print(f"        fix:   {one_line(finding.fix)}")
        if finding.command:
            print(f"        type:  {one_line(finding.command)}")
    levels = [finding.level for finding in findings]
    failures, warnings = levels.count("fail"), levels.count("warn")
    if failures or warnings:
        verdict = f"{_count(failures, 'failure')}, {_count(warnings, 'warning')}."
    else:
        verdict = "Nothing is wrong."
    print("\n" + " ".join([verdict, *([DISCLAIMER] if board else [])]))


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'s' * (number != 1)}"
