"""`rkzoo advise`: what costs most on a chip, and which change would help."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from rkzoo.cli.console import add_anchors, add_feed, add_prompts
from rkzoo.cli.model_options import PLAIN, add_calibration, add_inputs

if TYPE_CHECKING:
    from rkzoo.workflow.advice.advise import Advice, Proposal
    from rkzoo.workflow.performance.estimate import Estimate


def add(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = verbs.add_parser(
        "advise",
        help="what costs most on a chip, and which change would help",
        description="Builds the model and its changes for a chip, one after another, estimates "
        "each, and ranks them: number format, form of the head, operators, activation, input size. "
        "With --data it measures in the simulator what each does to the accuracy.",
        epilog="Example: rkzoo advise yolov8n.onnx --soc rk3588        rkzoo advise yolov8n.onnx "
        "--soc rk3588 --data photos/ --limit 20",
    )
    parser.add_argument("model", metavar="MODEL", help="a name of rkzoo list, or an .onnx file")
    parser.add_argument("--soc", required=True, metavar="CHIP", help="rk3588, rk3568, rv1106 ...")
    parser.add_argument(
        "--data",
        metavar="SPEC",
        help="dataset as for rkzoo eval, or a folder of pictures without ground truth, for which "
        "the float model's results serve as reference",
    )
    parser.add_argument("--limit", type=int, metavar="N", help="use only the first N samples")
    parser.add_argument(
        "--apply",
        type=int,
        metavar="N",
        help="write proposal N, where it keeps the numbers, held to the original first",
    )
    parser.add_argument("-o", "--output", metavar="FILE", help="what --apply writes")
    parser.add_argument("--dtype", choices=("int8", "fp16"), help="default: int8 where it can be")
    parser.add_argument("--size", metavar="HxW", help="input size, where the model leaves it free")
    parser.add_argument("--labels", metavar="FILE", help="class names, one a line")
    parser.add_argument("--no-cut", action="store_true", help="leave the detection head on")
    parser.add_argument("--plain", action="store_true", help=PLAIN)
    add_inputs(parser)
    add_feed(parser)
    add_anchors(parser)
    add_prompts(parser)
    add_calibration(parser, "pictures that set INT8 ranges, for --data")
    parser.add_argument("--toolkit", metavar="VERSION", help="version of RKNN-Toolkit2")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.set_defaults(verb=main)


def main(args: argparse.Namespace) -> int:
    from rkzoo.cli.console import ProgressBars, print_json
    from rkzoo.cli.model_options import request
    from rkzoo.workflow.advice.advise import advise
    from rkzoo.workflow.performance.estimate import CALIBRATED, SYNTHETIC, basis

    bars = ProgressBars()
    advice = advise(
        args.model,
        args.soc,
        request(args),
        data=args.data,
        limit=args.limit,
        apply=args.apply,
        output=Path(args.output) if args.output else None,
        report=bars,
    )
    if args.json:
        document = advice.to_json() | {"label": f"{CALIBRATED} {SYNTHETIC}", "basis": basis()}
        for told, proposal in zip(document["proposals"], advice.proposals, strict=True):
            told["next"] = _next(args, proposal)
        print_json(document | bars.failures)
    elif advice.written:
        files = ", ".join(map(str, advice.written))
        recipe = advice.written[0].suffix == ".yaml"
        proof = "convert proves its head" if recipe else "equal to the original in ONNX Runtime"
        print(f"written, {proof}: {files}")
        print(f"Next: {_after(args, advice)}")
    else:
        _print_summary(args, advice)
    return bars.exit_code()


def _print_summary(args: argparse.Namespace, advice: Advice) -> None:
    from rkzoo.cli.console import table
    from rkzoo.workflow.advice.proposals import NUMBERS
    from rkzoo.workflow.performance.estimate import CALIBRATED, UNCALIBRATED

    base = advice.base
    print(f"{advice.model} on {advice.soc}, {base.dtype}: {_time(base)} [estimate]")
    if advice.metric is not None and advice.accuracy is not None:
        print(
            f"{advice.metric.name} on {advice.data}: float {advice.metric.value:.4f} [onnx], "
            f"{base.dtype} {advice.accuracy:.4f} [simulator]"
        )
    print("\nThe costliest layers:")
    rows = [
        (
            f"{layer.ms:.2f}",
            f"{layer.share:.0%}",
            layer.name,
            _shape(layer.output),
            layer.op,
            layer.dtype,
            layer.target,
            layer.why,
        )
        for layer in advice.layers
    ]
    print(table(("ms", "share", "layer", "output", "as", "type", "on", "why"), rows))
    print("\nWhat would change it, each built:")
    header = ("no.", "change", "ms now", "ms then", "time", "on CPU", "memory", "keeps the numbers")
    accuracy = advice.metric is not None
    lines = [
        (
            str(proposal.number),
            proposal.what,
            _time(base),
            _time(proposal.estimate),
            _gain(base, proposal),
            _processor(base, proposal.estimate),
            _memory(proposal.estimate),
            NUMBERS[proposal.numbers],
            *((_figure(proposal.accuracy),) if accuracy else ()),
        )
        for proposal in advice.proposals
    ]
    titles = (*header, advice.metric.name) if advice.metric is not None else header
    print(table(titles, lines) if lines else "Nothing was found to change.")
    for proposal in advice.proposals:
        for text in filter(None, (proposal.note, _next(args, proposal))):
            print(f"{proposal.number}: {text}")
    for text in advice.left_out:
        print(f"not tried: {text}")
    print()
    for text in advice.hints:
        print(text)
    print(f"{CALIBRATED} INT8 ranges come from noise, which decides no layer's cost.")
    estimates = (base, *(proposal.estimate for proposal in advice.proposals))
    if any(one.latency and one.latency.ms is None for one in estimates):
        print(f"A time that says at least is {UNCALIBRATED}.")


def _time(estimate: Estimate) -> str:
    time = estimate.latency
    if time is None:
        return "cannot"
    if time.ms is not None and time.low is not None and time.high is not None:
        return f"{time.ms:.1f} ({time.low:.1f} .. {time.high:.1f})"
    return f"at least {time.bound:.1f}" if time.bound is not None else f"{time.cycles:.1f} Mcycles"


def _is_timed(estimate: Estimate) -> bool:
    return estimate.latency is not None and estimate.latency.ms is not None


def _gain(base: Estimate, proposal: Proposal) -> str:
    if not proposal.estimate.table:
        return ""
    unit = "" if _is_timed(base) and _is_timed(proposal.estimate) else " of cycles"
    return f"{-proposal.gain:+.0%}{unit}"


def _processor(before: Estimate, after: Estimate) -> str:
    """Layers on the processor, and what they read."""
    from rkzoo.speed.latency import cpu_megabytes

    if before.table is None or after.table is None:
        return ""
    if not before.on_cpu and not after.on_cpu:
        return "none"
    was, then = (f"{cpu_megabytes(one):.1f}" for one in (before.table, after.table))
    return f"{len(before.on_cpu)} ({was} MB) -> {len(after.on_cpu)} ({then} MB)"


def _memory(estimate: Estimate) -> str:
    table = estimate.table
    if table is None or table.weights is None or table.internal is None:
        return ""
    return f"{(table.weights + table.internal) / 2**20:.1f} MiB"


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _next(args: argparse.Namespace, proposal: Proposal) -> str:
    """The whole command of a proposal; "" for none."""
    from shlex import join

    if not proposal.words:
        return ""
    words = [*proposal.words]
    if args.dtype and "--dtype" not in words:
        words += ["--dtype", args.dtype]
    if "advise" in words:
        words += ["--no-cut"] if args.no_cut else []
    else:
        words += _calibration(args, proposal.estimate.dtype)
    given = _repeated(args, without=("size",) if "--size" in words else ())
    return f"{join(words)} {given}".strip()


def _calibration(args: argparse.Namespace, dtype: str) -> list[str]:
    """What convert asks for beside a file's name, where it was not given here."""
    needed = dtype == "int8" and Path(args.model).suffix and not args.calib
    return ["--calib", "FOLDER"] if needed else []


def _repeated(args: argparse.Namespace, without: tuple[str, ...] = ()) -> str:
    from rkzoo.cli.compare import repeated

    return repeated(args, without=without)


def _after(args: argparse.Namespace, advice: Advice) -> str:
    """The command that builds what was written."""
    from shlex import join

    first = str(advice.written[0])
    recipe = first.endswith(".yaml")
    words = ["rkzoo", "convert", args.model if recipe else first, "--soc", advice.soc]
    words += ["--recipe", first] if recipe else []
    words += ["--dtype", args.dtype] if args.dtype else []
    words += _calibration(args, advice.base.dtype)
    return f"{join(words)} {_repeated(args)}".strip()
