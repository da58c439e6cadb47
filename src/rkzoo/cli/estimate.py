"""`rkzoo estimate`: estimate latency and memory on each chip."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rkzoo.cli.console import add_anchors
from rkzoo.cli.model_options import add_inputs

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
    parser.add_argument("--dtype", choices=("int8", "fp16"), help="default: int8 where it can be")
    parser.add_argument("--size", metavar="HxW", help="input size, where the model leaves it free")
    add_inputs(parser)
    add_anchors(parser)
    parser.add_argument("--toolkit", metavar="VERSION", help="version of RKNN-Toolkit2")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.set_defaults(verb=main)


def main(args: argparse.Namespace) -> int:
    from rkzoo.cli.console import Bars, print_json
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
    found = estimate(
        args.model,
        socs,
        request(args),
        report=Bars(),
    )
    if args.json:
        document = {
            "model": args.model,
            "label": f"{CALIBRATED} {SYNTHETIC}",
            "basis": basis(),
            "chips": [one.to_json() for one in found],
        }
        print_json(document)
    else:
        _tell(found)
    return 0


def _tell(found: Sequence[Estimate]) -> None:
    from rkzoo.cli.console import table
    from rkzoo.workflow.performance.estimate import CALIBRATED, SYNTHETIC, UNCALIBRATED

    header = ("chip", "dtype", "ms", "interval", "FPS", "weights", "working", ".rknn", "traffic")
    print(table((*header, "on CPU"), [_row(one) for one in found]))
    first = next((one for one in found if one.latency is not None), None)
    if first is not None:
        print(f"\nThe costliest layers on {first.soc} (ms, name, output):")
        rows = [
            (f"{one.ms:.2f}", one.name, "x".join(map(str, one.output)), one.op, one.target)
            for one in first.costliest
        ]
        print(table(("ms", "layer", "output", "as", "on"), rows))
    for one in found:
        for text in _remarks(one):
            print(f"{one.soc}: {text}")
    print(f"\n{CALIBRATED}\n{SYNTHETIC}")
    if any(one.latency and one.latency.ms is None for one in found):
        print(f"A time with > is {UNCALIBRATED}.")


def _row(one: Estimate) -> tuple[str, ...]:
    if one.table is None or one.latency is None:
        return (one.soc, one.dtype, "cannot", *[""] * 7)
    time, table = one.latency, one.table
    if time.ms is not None and time.low is not None and time.high is not None:
        times = (f"{time.ms:.1f}", f"{time.low:.1f} .. {time.high:.1f}", f"{1000 / time.ms:.0f}")
    elif time.bound is not None:
        times = (f"> {time.bound:.1f}", "uncalibrated", "")
    else:
        times = (f"{time.cycles:.1f} Mcycles", "uncalibrated", "")
    return (
        one.soc,
        one.dtype,
        *times,
        _mib(table.weights),
        _mib(table.internal),
        _mib(table.size),
        f"{one.traffic:.0f} MB",
        str(len(one.on_cpu)),
    )


def _mib(count: int | None) -> str:
    return "?" if count is None else f"{count / 2**20:.2f} MiB"


def _remarks(one: Estimate) -> list[str]:
    from rkzoo.speed.latency import latency_model

    said = []
    if one.problem is not None:
        said.append(str(one.problem))
    if one.table is None:
        # Once built, the table itself shows it.
        said += [fallen.told() for fallen in one.expected]
    if one.on_cpu:
        ops = sorted({layer.op for layer in one.on_cpu})
        said.append(f"on the processor instead of the NPU: {', '.join(ops)}.")
    if one.latency is not None and one.latency.ms is not None and one.latency.unpriced:
        said.append("Their time is not in the estimate: no published figure covers it.")
    fitted = latency_model().toolkit
    if one.table is not None and one.table.toolkit != fitted:
        said.append(
            f"Built by RKNN-Toolkit2 {one.table.toolkit}; the estimate was fitted to {fitted}."
        )
    if one.fit is not None:
        need, memory = _mib(one.fit.need), _mib(one.fit.memory)
        verdict = {
            "yes": "fits",
            "tight": "fits barely, for system and camera need memory too",
            "no": "does not fit",
        }[one.fit.verdict]
        said.append(f"It needs {need} of the {memory} inside the chip: {verdict}.")
    return said
