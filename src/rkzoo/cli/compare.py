"""`rkzoo compare`: accuracy of float, float16 and INT8."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from rkzoo.cli.model_options import add_model_options, add_on
from rkzoo.cli.streams import one_line

if TYPE_CHECKING:
    from rkzoo.workflow.comparison.result import Comparison
    from rkzoo.workflow.comparison.tensor_metrics import OutputFigures

# Options repeated in the suggested commands.
_REPEATED = ("calib", "size", "labels", "color", "mean", "std", "fit", "anchors", "toolkit")


def add(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = verbs.add_parser(
        "compare",
        help="compare float, float16 and INT8, and diagnose accuracy loss",
        description="Runs a model in float and on the simulator in float16 and INT8, on the same "
        "pictures, and shows what changes, in which layer it begins, and the likely cause.",
        epilog="Example: rkzoo compare yolov8n.onnx --soc rk3588 --calib photos/ --image bus.jpg",
    )
    parser.add_argument("model", metavar="MODEL", help="a name of rkzoo list, an .onnx or a .rknn")
    parser.add_argument(
        "--soc",
        default="",
        metavar="CHIP",
        help="the chip it is for (default: that of the .rknn, or rk3588); the simulator's figures "
        "are the same for every chip",
    )
    parser.add_argument(
        "--image",
        nargs="+",
        default=[],
        metavar="PICTURE",
        help="pictures, folders or globs, of a model with plain inputs .npy, .npz or NAME=FILE too "
        "(default: three of the calibration samples)",
    )
    parser.add_argument("--conf", type=float, help="confidence threshold in 0..1 (default 0.25)")
    parser.add_argument(
        "--no-layers", action="store_true", help="do not compare layer by layer: much faster"
    )
    parser.add_argument(
        "-o", "--output", default="rkzoo-compare", metavar="DIR", help="folder of report.html"
    )
    add_on(parser, "a board that runs it, too, built for its chip, and is held to the simulator")
    add_model_options(parser)
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.set_defaults(verb=main)


def main(args: argparse.Namespace) -> int:
    from rkzoo.cli.console import ProgressBars, print_json
    from rkzoo.cli.model_options import request
    from rkzoo.files import check_folder
    from rkzoo.workflow.comparison.compare import compare
    from rkzoo.workflow.comparison.html_report import write_report

    check_folder(Path(args.output))
    bars = ProgressBars()
    comparison = compare(
        args.model,
        request=request(args),
        soc=args.soc,
        images=args.image,
        layers=not args.no_layers,
        options=repeated(args),
        report=bars,
    )
    report = write_report(comparison, Path(args.output))
    if args.json:
        print_json(comparison.to_json() | {"report": str(report)} | bars.failures)
    else:
        _print_summary(comparison)
        print(f"Pictures, curves and all figures: {report}", file=sys.stderr)
    return bars.exit_code()


def repeated(args: argparse.Namespace, without: Collection[str] = ()) -> str:
    """The options that describe the model, as typed."""
    from shlex import quote

    inputs = [(name, getattr(args, name, None)) for name in _REPEATED if name not in without]
    for name in ("prompt", "shape"):
        inputs += [(name, typed) for typed in getattr(args, name, None) or ()]
    options = [f"--{name} {quote(str(value))}" for name, value in inputs if value]
    flags = [f"--{name}" for name in ("raw", "plain") if getattr(args, name, False)]
    return " ".join([*options, *flags])


def _print_summary(comparison: Comparison) -> None:
    from rkzoo.cli.console import table
    from rkzoo.workflow.comparison.html_report import (
        AGREED,
        BOARD_OUTPUTS,
        agreement_row,
        board_hardware,
        board_rows,
        extras,
        title,
    )

    rows = [
        _row(title(variant), row) for variant in comparison.ran for row in variant.outputs
    ]  # fmt: skip
    header = ("", "output", "cosine", "max diff", "mean", "scale", "zero", "at ends", "cut off")
    print(table(header, rows))
    agreed = [
        (title(variant), variant.agreement) for variant in comparison.ran if variant.agreement
    ]
    if agreed:
        print()
        print(table(AGREED, [agreement_row(name, agreement) for name, agreement in agreed]))
        for name, agreement in agreed:
            for what, value in extras(agreement):
                print(one_line(f"{name}: {what} {value}"))
        for name, text in describe_differences(comparison):
            print(one_line(f"{name}: {text}"))
    if comparison.board is None:
        print("board: no board here; --on ADDRESS asks one, too")
    else:
        print(f"\n{table(BOARD_OUTPUTS, board_rows(comparison.board))}")
        print(one_line(board_hardware(comparison.board)))
        for said in comparison.board.says:
            print(one_line(said))
    for layer in comparison.layers:
        where = "" if layer.part == "model" else f"{layer.part}: "
        first = layer.first_bad or "none"
        print(f"\n{where}first layer with a cosine below 0.99: {first}")
        worst = [(row.tensor, row.op, f"{row.cosine_single:.5f}") for row in layer.worst]
        print(table(("worst alone", "kind", "cosine"), worst))
    for text in comparison.skipped:
        print(f"left out: {text}")
    print(f"\n{comparison.note}\n\n{comparison.verdict}")
    several = len({cause.model for cause in comparison.causes}) > 1
    for number, cause in enumerate(comparison.causes, 1):
        where = f"{cause.model}: " if several else ""
        print(f"{number}. {where}{cause.text}\n   -> {cause.fix}")
    print(f"Next: {comparison.next}")


def describe_differences(comparison: Comparison, most: int = 8) -> list[tuple[str, str]]:
    """Lost, new and misread items of each backend, at most `most`."""
    from rkzoo.workflow.comparison.html_report import number, title

    lines = []
    for variant in comparison.ran:
        some = []
        for picture, matches in zip(comparison.pictures, variant.matches, strict=False):
            for kind, pairs in (("lost", matches.lost), ("new", matches.new)):
                some += [
                    f"{kind} in {picture}: {pair.label} ({number(pair.before, 3) or 'nothing'} "
                    f"-> {number(pair.after, 3) or 'nothing'})"
                    for pair in pairs
                ]
            some += [
                f"{picture}: {pair.label!r} is read as {pair.text!r}"
                for pair in matches.found
                if pair.text is not None and pair.text != pair.label
            ]
        more = [f"… and {len(some) - most} more"] if len(some) > most else []
        lines += [(title(variant), text) for text in [*some[:most], *more]]
    return lines


def _row(title: str, row: OutputFigures) -> tuple[str, ...]:
    coded = row.scale is not None
    ends = (row.at_low or 0) + (row.at_high or 0)
    name = row.name if row.part in ("", "model") else f"{row.part}: {row.name}"
    return (
        title,
        f"{name} ({row.role})" if row.role else name,
        "not finite" if row.cosine is None else f"{row.cosine:.5f}",
        f"{row.difference:.4g}",
        f"{row.mean_difference:.4g}",
        f"{row.scale:.4g}" if coded else "",
        str(row.zero_point) if coded else "",
        f"{ends:.2%}" if coded else "",
        f"{row.clipped or 0:.2%}" if coded else "",
    )
