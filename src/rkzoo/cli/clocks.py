"""`rkzoo clocks`: lock the clocks at their maximum, and restore them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rkzoo.cli.model_options import add_on
from rkzoo.cli.streams import one_line

if TYPE_CHECKING:
    from rkzoo.protocol.board import ClockWrite
    from rkzoo.soc.clocks import Write
    from rkzoo.soc.machine import Machine

_LABEL = "Not measured on a board: rkzoo knows these files from Rockchip's script and kernel."


def add(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = verbs.add_parser(
        "clocks",
        help="show, lock and restore the clocks of CPU, NPU and memory on a board",
        description="Locks the clocks of a board at their maximum, for benchmarks, and restores"
        " them. lock and restore only show what they would do, unless --apply is given.",
        epilog="Example: sudo rkzoo clocks lock --apply ... sudo rkzoo clocks restore --apply",
    )
    parser.add_argument(
        "action", nargs="?", choices=("show", "lock", "restore"), default="show", metavar="ACTION",
        help="show (the default), lock or restore",
    )  # fmt: skip
    parser.add_argument("--apply", action="store_true", help="do it; needs root")
    parser.add_argument("--root", metavar="DIR", help="work below DIR instead of /")
    add_on(parser, "a board whose clocks are meant, in place of this machine's")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.set_defaults(verb=main)


def main(args: argparse.Namespace) -> int:
    from rkzoo.errors import RkzooError
    from rkzoo.soc import clocks
    from rkzoo.soc.machine import read_machine

    if args.on:
        return _main_on(args)
    root = Path(args.root or "/")
    if not root.is_dir():
        raise RkzooError(
            f"{root} is not a folder.", "", "Give the root of a tree, or leave it out."
        )
    machine = read_machine(root)
    if args.action == "show":
        return _show(machine, as_json=args.json)
    if args.action == "restore":
        writes = clocks.restore(root) if args.apply else clocks.restore_plan(root)
    else:
        clocks.settable(machine)
        writes = clocks.lock(machine) if args.apply else clocks.lock_plan(machine)
    hot = tuple(clock.name for clock in machine.clocks if clock.throttled)
    return _print_summary(writes, args, hot)


def _main_on(args: argparse.Namespace) -> int:
    """The same, of a board at the other end of a cable."""
    from rkzoo.cli.console import ProgressBars
    from rkzoo.errors import RkzooError
    from rkzoo.protocol.board import SetClocks
    from rkzoo.remote.boards import board, note_version
    from rkzoo.workflow.inference.remote_backend import machine_on

    if args.root:
        raise RkzooError(
            "--root does not go with --on.", "The board's own clocks are meant.", "Leave one out."
        )
    note_version(board(args.on), ProgressBars())
    if args.action == "show":
        return _show(machine_on(args.on), as_json=args.json)
    told = board(args.on).client.clocks(SetClocks(args.action, args.apply))
    return _print_summary(told.writes, args, told.throttled)


def _show(machine: Machine, *, as_json: bool) -> int:
    from rkzoo.cli.console import print_json, table

    if as_json:
        from dataclasses import asdict

        rows = [asdict(clock) for clock in machine.clocks]
        print_json({"clocks": rows, "npu_rate": machine.npu_rate, "label": _LABEL})
        return 0
    cells = [
        (
            clock.kind,
            clock.name,
            clock.governor or "?",
            _mhz(clock.current),
            _mhz(clock.highest),
            _mhz(clock.top),
            ",".join(map(str, clock.cores)),
        )
        for clock in machine.clocks
    ]
    if machine.npu_rate is not None and not machine.of("npu"):
        cells.append(("npu", "clock tree", "-", _mhz(machine.npu_rate), "", "", ""))
    if not cells:
        print("The kernel shows no clocks here.")
        return 0
    print(table(("kind", "name", "governor", "MHz now", "capped at", "highest", "cores"), cells))
    return 0


def _mhz(rate: int | None) -> str:
    return "?" if rate is None else f"{rate / 1e6:.0f}"


def _print_summary(
    writes: Sequence[Write | ClockWrite], args: argparse.Namespace, hot: Sequence[str]
) -> int:
    """`hot`: clocks that are thermally throttled, which no setting changes."""
    from rkzoo.cli.console import print_json

    action, applied = args.action, args.apply
    if args.json:
        rows = [{"path": one.path, "value": one.value, "old": one.old} for one in writes]
        document = {"action": action, "applied": applied, "writes": rows, "throttled": hot}
        print_json(document | {"label": _LABEL})
        return 0
    if hot:
        print(one_line(f"Heat holds {', '.join(hot)} down; only cooling helps against that."))
    if not writes:
        print("Nothing to do: the clocks are as they should be.")
        return 0
    for write in writes:
        print(one_line(f"{write.path}: {write.old} -> {write.value}"))
    command, there = ("rkzoo", f" --on {args.on}") if args.on else ("sudo rkzoo", "")
    if applied and action == "lock":
        print(
            f"\nDone. `{command} clocks restore --apply{there}` gives them back; so does a restart."
        )
    elif applied:
        print("\nDone: as before.")
    else:
        print(f"\nNothing was changed. Do it with: {command} clocks {action} --apply{there}")
    print(_LABEL)
    return 0
