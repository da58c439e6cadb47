"""`rkzoo convert`: build a .rknn for a chip."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rkzoo.cli.console import add_anchors, add_feed, add_prompts
from rkzoo.cli.model_options import (
    DTYPES,
    PLAIN,
    add_algorithm,
    add_batch,
    add_calibration,
    add_inputs,
    add_sizes,
)

if TYPE_CHECKING:
    from rkzoo.workflow.compile.convert import ConversionResult
    from rkzoo.workflow.compile.dry_run import SettledConversion


def add(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = verbs.add_parser(
        "convert",
        help="convert a model to .rknn for a chip",
        description="Checks a model, cuts its head where needed, verifies the cut against the "
        "whole model, and converts it with RKNN-Toolkit2.",
        epilog="Example: rkzoo convert yolov8n.onnx --soc rk3588 --calib photos/",
    )
    parser.add_argument("model", metavar="MODEL", help="a name of rkzoo list, or an .onnx file")
    parser.add_argument(
        "--soc",
        nargs="+",
        action="extend",
        required=True,
        metavar="CHIP",
        help="rk3588, rk3576, rk3568, rk3566, rk3562, rv1126b, rv1106, rv1103 ...; several build "
        "in parallel",
    )
    parser.add_argument("--dtype", choices=DTYPES, help="default: that of the card")
    add_algorithm(parser)
    add_batch(parser)
    add_sizes(parser)
    add_calibration(
        parser, "20 to 100 calibration pictures, like those of the camera, for the INT8 ranges"
    )
    parser.add_argument(
        "--memory-plan",
        choices=("BestFit", "GreedyBySize", "GreedyByLifetime", "SlowPeakGrowth"),
        help="how the working memory is laid out (default BestFit); rkzoo estimate tells its size",
    )
    parser.add_argument(
        "--compute-order",
        choices=("WidthFirst", "DepthFirst"),
        help="in which order branches are computed (default WidthFirst)",
    )
    parser.add_argument("-o", "--output", metavar="OUT.rknn", help="the file, or a folder")
    parser.add_argument("--toolkit", metavar="VERSION", help="version of RKNN-Toolkit2")
    parser.add_argument("--size", metavar="HxW", help="input size, where the model leaves it free")
    parser.add_argument("--labels", metavar="FILE", help="class names, one a line")
    add_inputs(parser)
    add_feed(parser)
    add_anchors(parser)
    add_prompts(parser)
    parser.add_argument("--recipe", metavar="YAML", help="recipe of rkzoo tune for this model")
    parser.add_argument("--plain", action="store_true", help=PLAIN)
    parser.add_argument(
        "--golden",
        nargs="?",
        type=int,
        const=3,
        default=0,
        metavar="N",
        help="store N inputs (3) with the simulator's outputs beside the model, for rkzoo check",
    )
    parser.add_argument("--no-cut", action="store_true", help="do not cut off the detection head")
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="settle and check everything before the build, say it, and write nothing",
    )
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.set_defaults(verb=main)


def main(args: argparse.Namespace) -> int:
    from rkzoo.cli.console import ProgressBars, print_json
    from rkzoo.cli.model_options import request
    from rkzoo.workflow.compile.convert import convert

    socs = [name for word in args.soc for name in word.split(",") if name]
    bars = ProgressBars()
    asked: dict[str, Any] = {"output": args.output, "golden": args.golden, "report": bars}
    if args.dry_run:
        from rkzoo.workflow.compile.dry_run import dry_run

        settled = dry_run(args.model, socs, request(args), **asked)
        if args.json:
            would = [one.to_json() for one in settled]
            print_json({"model": args.model, "would_build": would} | bars.failures)
        else:
            _print_settled(settled)
        return bars.exit_code()
    conversions = convert(args.model, socs, request(args), **asked)
    if args.json:
        print_json(
            {"model": args.model, "built": [conversion.to_json() for conversion in conversions]}
            | bars.failures
        )
    else:
        _print_summary(conversions)
    return bars.exit_code()


def _print_settled(settled: list[SettledConversion]) -> None:
    from rkzoo.cli.console import table
    from rkzoo.files import size_text

    for one in settled:
        sizes = ", ".join(f"{height}x{width}" for height, width in one.sizes)
        rows = [
            *((("input size", sizes),) if len(one.sizes) == 1 else ()),
            *((("input sizes", f"{sizes}: all in one file"),) if len(one.sizes) > 1 else ()),
            ("batch", f"{one.batch} at once"),
            ("head", one.head),
            ("outputs", ", ".join(one.outputs)),
            ("calibration", f"{one.calibration} samples" if one.calibration else "none"),
            ("toolkit", one.toolkit + ("" if one.installed else " (would be installed first)")),
            ("weights", f"{size_text(one.weight_bytes)} in {one.dtype}"),
            ("cache", f"{size_text(one.cache_bytes)} of inputs would be kept"),
            *((soc, f"{file}{_exists(file)}") for soc, file in one.files.items()),
        ]
        print(one.name)
        print(table(("", "", ""), [("", *row) for row in rows]).lstrip("\n"))
    print("Nothing was built.")


def _exists(file: Path) -> str:
    return " (would be overwritten)" if file.exists() else ""


def _print_summary(conversions: list[ConversionResult]) -> None:
    from shlex import quote

    from rkzoo.cli.console import table
    from rkzoo.workflow.inference.inputs import input_kind_of_model

    if proof := conversions[0].proof:
        print(f"The cut equals the whole model: {proof.words}.")
    rows = [
        (
            conversion.soc,
            conversion.dtype,
            f"{conversion.size / 1e6:.2f} MB",
            f"{conversion.seconds:.1f} s",
            conversion.rknn,
        )
        for conversion in conversions
    ]
    print(table(("chip", "dtype", "size", "build", "file"), rows))
    for conversion in conversions:
        for finding in conversion.findings:
            print(f"warning ({conversion.soc}): {finding.message}")
    rknn = quote(str(conversions[0].rknn))
    whole = str(conversions[0].pipeline or conversions[0].rknn)
    input_kind = input_kind_of_model(whole)
    placeholder = "INPUT" if input_kind.name == "tensors" else input_kind.name.upper()
    print(f"Next: rkzoo inspect {rknn}, or rkzoo run {quote(whole)} {placeholder}")
    if conversions[0].golden:
        place = Path(whole).parent if conversions[0].pipeline else conversions[0].golden
        print(f"On the board, with {quote(str(place))} copied too: rkzoo check {quote(whole)}")
