"""`rkzoo estimate`: estimate latency and memory on each chip."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rkzoo.cli.console import add_anchors
from rkzoo.cli.model_options import DTYPES, add_inputs

if TYPE_CHECKING:
    from rkzoo.workflow.performance.estimate import Estimate


def add(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = verbs.add_parser(
        "estimate",
        help="estimate latency and memory on each chip, without a board",
        description="Builds the model for each chip, reads the cost of each layer from the"
        " compiler, and estimates the latency with an interval. Needs no pictures and no board.",
        epilog="Example: rkzoo estimate yolov8n.onnx --soc rk3588,rk3568        rkzoo estimate"
        " yolov8n.onnx --soc all",
    )
    parser.add_argument("model", metavar="MODEL", help="a name of rkzoo list, or an .onnx file")
    parser.add_argument(
        "--soc",
        nargs="+",
        default=["rk3588"],
        metavar="CHIP",
        help="chips, or all (default rk3588)",
    )
    parser.add_argument("--dtype", choices=DTYPES, help="default: int8 where it can be")
    parser.add_argument("--size", metavar="HxW", help="input size, where the model leaves it free")
    add_inputs(parser)
    add_anchors(parser)
    parser.add_argument("--toolkit", metavar="VERSION", help="version of RKNN-Toolkit2")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.set_defaults(verb=main)


def main(args: argparse.Namespace) -> int:
    from rkzoo.cli.console import ProgressBars, print_json
    from rkzoo.cli.model_options import request
    from rkzoo.workflow.performance.estimate import (
        CALIBRATED,
        SYNTHETIC,
        basis,
        estimate,
        every_chip,
    )

    named = [name for word in args.soc for name in word.split(",") if name]
    socs = every_chip() if "all" in [name.lower() for name in named] else named
    estimates = estimate(
        args.model,
        socs,
        request(args),
        report=ProgressBars(),
    )
    if args.json:
        document = {
            "model": args.model,
            "label": f"{CALIBRATED} {SYNTHETIC}",
            "basis": basis(),
            "chips": [estimate.to_json() for estimate in estimates],
        }
        print_json(document)
    else:
        _print_summary(estimates)
        _print_known(args.model, [estimate.soc for estimate in estimates])
    return 0


def _print_known(model: str, socs: Sequence[str]) -> None:
    from rkzoo.cli.known_speeds import known_speeds

    if lines := known_speeds(model, socs):
        print("\nKnown without this estimate:")
        for line in lines:
            print(f"  {line}")


def _print_summary(estimates: Sequence[Estimate]) -> None:
    from rkzoo.cli.console import table
    from rkzoo.workflow.performance.estimate import CALIBRATED, SYNTHETIC, UNCALIBRATED

    header = ("chip", "dtype", "ms", "interval", "FPS", "weights", "working", ".rknn", "traffic")
    print(table((*header, "on CPU"), [_row(estimate) for estimate in estimates]))
    first = next((estimate for estimate in estimates if estimate.latency is not None), None)
    if first is not None:
        print(f"\nThe costliest layers on {first.soc} (ms, name, output):")
        rows = [
            (f"{cost.ms:.2f}", cost.name, "x".join(map(str, cost.output)), cost.op, cost.target)
            for cost in first.costliest
        ]
        print(table(("ms", "layer", "output", "as", "on"), rows))
    for estimate in estimates:
        for text in _remarks(estimate):
            print(f"{estimate.soc}: {text}")
    print(f"\n{CALIBRATED}\n{SYNTHETIC}")
    if any(estimate.latency and estimate.latency.ms is None for estimate in estimates):
        print(f"A time with > is {UNCALIBRATED}.")


def _row(estimate: Estimate) -> tuple[str, ...]:
    if estimate.table is None or estimate.latency is None:
        return (estimate.soc, estimate.dtype, "cannot", *[""] * 7)
    time, table = estimate.latency, estimate.table
    if time.ms is not None and time.low is not None and time.high is not None:
        times = (f"{time.ms:.1f}", f"{time.low:.1f} .. {time.high:.1f}", f"{1000 / time.ms:.0f}")
    elif time.bound is not None:
        times = (f"> {time.bound:.1f}", "uncalibrated", "")
    else:
        times = (f"{time.cycles:.1f} Mcycles", "uncalibrated", "")
    return (
        estimate.soc,
        estimate.dtype,
        *times,
        _mib(table.weights),
        _mib(table.internal),
        _mib(table.size),
        f"{estimate.traffic:.0f} MB",
        str(len(estimate.on_cpu)),
    )


def _mib(count: int | None) -> str:
    return "?" if count is None else f"{count / 2**20:.2f} MiB"


def _remarks(estimate: Estimate) -> list[str]:
    from rkzoo.speed.latency import latency_model

    remarks = []
    if estimate.problem is not None:
        remarks.append(str(estimate.problem))
    if estimate.table is None:
        # Once built, the table itself shows it.
        remarks += [fallen.describe() for fallen in estimate.expected]
    if estimate.on_cpu:
        ops = sorted({layer.op for layer in estimate.on_cpu})
        remarks.append(f"on the processor instead of the NPU: {', '.join(ops)}.")
    if (
        estimate.latency is not None
        and estimate.latency.ms is not None
        and estimate.latency.unpriced
    ):
        remarks.append("Their time is not in the estimate: no published figure covers it.")
    fitted = latency_model().toolkit
    if estimate.table is not None and estimate.table.toolkit != fitted:
        remarks.append(
            f"Built by RKNN-Toolkit2 {estimate.table.toolkit}; the estimate was fitted to {fitted}."
        )
    if estimate.fit is not None:
        need, memory = _mib(estimate.fit.need), _mib(estimate.fit.memory)
        verdict = {
            "yes": "fits",
            "tight": "fits barely, for system and camera need memory too",
            "no": "does not fit",
        }[estimate.fit.verdict]
        remarks.append(f"It needs {need} of the {memory} inside the chip: {verdict}.")
    return remarks
