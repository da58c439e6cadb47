"""`rkzoo check`: compare NPU outputs with the simulator's."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rkzoo.cli.model_options import add_on

if TYPE_CHECKING:
    from rkzoo.workflow.comparison.check import BoardCheck, PartCheck

REPORT = "rkzoo-check.json"


def add(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = verbs.add_parser(
        "check",
        help="compare the NPU's outputs with the simulator's",
        description="Runs, on a board, the inputs that rkzoo convert --golden stored beside a"
        " model, and compares the NPU's outputs with the simulator's: tensors, postprocessed"
        " results and time. The report has no serial numbers, names or paths.",
        epilog="Exit code: 0 ok, 3 warnings, 4 failures, 2 wrong command line."
        "        Example: rkzoo check yolov8n-rk3588-int8.rknn",
    )
    parser.add_argument(
        "model", metavar="MODEL", help="a .rknn, or the .json of a converted pipeline"
    )
    parser.add_argument(
        "--golden", metavar="FILE", help="the golden file (default: MODEL.golden.npz)"
    )
    parser.add_argument(
        "--runtime",
        choices=("board", "simulator"),
        help="simulator: rebuild the model on this PC, where all outputs must be equal",
    )
    add_on(parser)
    parser.add_argument(
        "-o", "--output", metavar="FILE", help=f"the report (default: {REPORT}; none with --json)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.set_defaults(verb=main)


def main(args: argparse.Namespace) -> int:
    from rkzoo.cli.console import ProgressBars, print_json
    from rkzoo.workflow.comparison.check import check, write_report
    from rkzoo.workflow.diagnostics.doctor import EXIT

    golden = Path(args.golden) if args.golden else None
    board_check = check(
        args.model,
        golden=golden,
        runtime=args.runtime or "board",
        on=args.on,
        report=ProgressBars(),
    )
    # Print first, in case the report cannot be written.
    if args.json:
        print_json(board_check.to_json())
    else:
        _print_summary(board_check)
    if args.output or not args.json:
        target = Path(args.output or REPORT)
        write_report(target, board_check)
        print(f"The report is {target}", file=sys.stderr)
    return EXIT[board_check.level]


def _print_summary(board_check: BoardCheck) -> None:
    from rkzoo.cli.console import table

    print(f"Figures: {board_check.label}")
    header = ("model", "output", "codes equal", "most apart", "difference", "cosine", "")
    print(table(header, [row for part in board_check.parts for row in _rows(part)]))
    for part in board_check.parts:
        _print_rest(part, timed=board_check.label != "simulator")
    print(f"{board_check.level}: {board_check.verdict}")
    print(board_check.known)
    print(f"Next: {board_check.next}")


def _rows(part: PartCheck) -> list[tuple[str, ...]]:
    return [
        (
            part.model,
            output.name,
            f"{output.equal:.2%}" if output.equal is not None else "float",
            "" if output.codes is None else str(output.codes),
            "" if output.difference is None else f"{output.difference:.3g}",
            "" if output.cosine is None else f"{output.cosine:.5f}",
            output.level,
        )
        for output in part.outputs
    ]


def _print_rest(part: PartCheck, *, timed: bool) -> None:
    for check in part.found:
        if check.agreement is not None:
            agreed = check.agreement
            alike = "" if agreed.same_text is None else f" ({agreed.same_text} of them alike)"
            print(
                f"{part.model}, {check.layout} layout: {agreed.found} of {agreed.things} things"
                f" found by both{alike}, {agreed.lost} lost, {agreed.new} new"
            )
    if timed:
        npu = f", {part.npu_ms.p50:.2f} ms of them in the NPU" if part.npu_ms else ""
        print(f"{part.model}: {part.ms.p50:.2f} ms a run (the middle of {part.runs}){npu}")
    for reason in part.reasons:
        print(f"{part.model}: {reason}")
