"""`rkzoo demo`: OCR of a page in float and INT8."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rkzoo.tasks.text.result import TextLines
    from rkzoo.workflow.apps.demo import DemoReport


def add(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = verbs.add_parser(
        "demo",
        help="demo: read a page of text, build a .rknn, compare float and INT8",
        description="Reads a page of English and Chinese on ONNX Runtime, converts the text "
        "detector to INT8 with RKNN-Toolkit2, runs it on the toolkit's simulator and "
        "compares the two. No board is needed.",
    )
    parser.add_argument("-o", "--output", metavar="DIR", default="demo-out")
    parser.add_argument(
        "--soc", metavar="CHIP", default="rk3588", help="the chip to build for (default rk3588)"
    )
    parser.add_argument("--toolkit", metavar="VERSION", help="version of RKNN-Toolkit2")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.set_defaults(verb=main)


def main(args: argparse.Namespace) -> int:
    from rkzoo.cli.console import ProgressBars, print_json
    from rkzoo.workflow.apps.demo import demo

    demo_report = demo(
        Path(args.output),
        soc=args.soc,
        toolkit=args.toolkit,
        report=ProgressBars(),
        show=(lambda lines: None) if args.json else _show,
    )
    if args.json:
        print_json(demo_report.to_json())
        return 0
    _print_summary(demo_report, Path(args.output))
    return 0


def _show(lines: TextLines) -> None:
    print(f"\nRead on ONNX Runtime: {len(lines)} lines, with confidence")
    print("\n".join(f"  {line}" for line in lines.lines()))
    print(flush=True)


def _print_summary(demo_report: DemoReport, out: Path) -> None:
    from rkzoo.cli.console import table

    if demo_report.comparison is None:
        print(f"The .rknn half was left out. {demo_report.without}", file=sys.stderr)
    else:
        c = demo_report.comparison
        cosines = ", ".join(f"{value:.4f}" for value in c.cosine.values())
        rows = [
            ("lines found", c.onnx_lines, c.simulator_lines),
            ("  by both", c.found_by_both, c.found_by_both),
            ("  read alike", c.read_alike, c.read_alike),
            ("cosine with float", "1", cosines),
            ("time on this PC", f"{c.onnx_seconds:.3f} s", f"{c.simulator_seconds:.3f} s"),
            ("file", f"{c.onnx_bytes / 1e6:.2f} MB", f"{c.rknn_bytes / 1e6:.2f} MB"),
        ]
        print(table(("text detector", "float [onnx]", "INT8 [simulator]"), rows))
        print(
            "The simulator computes what the NPU will, on this PC: its results count, its time "
            "does not."
        )
    print(
        f"\nFinished in {demo_report.seconds:.0f} s. Look at: "
        f"{', '.join(map(str, demo_report.pictures))}"
    )
    print(f"Everything, as data: {out / 'report.json'}")
    print("Next: rkzoo list, or with your own model: rkzoo inspect MODEL.onnx")
