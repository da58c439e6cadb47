"""`rkzoo bench`: benchmark a model, stage by stage."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rkzoo.cli.model_options import add_model_options, add_on, add_runtime

if TYPE_CHECKING:
    from rkzoo.workflow.performance.bench import AnswerReport, BenchReport

REPORT = "report.yml"


def add(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = verbs.add_parser(
        "bench",
        help="benchmark a model, stage by stage",
        description="Times a model on this machine: image decoding, preprocessing, inference and"
        " postprocessing, sequentially and with two frames in flight; for audio and text models,"
        " whole results.",
        epilog="Example: rkzoo bench yolov8n.onnx --image street.jpg --frames 100",
    )
    parser.add_argument("model", metavar="MODEL", help="a name of rkzoo list, an .onnx or a .rknn")
    add_runtime(parser)
    add_on(parser)
    parser.add_argument(
        "--image",
        "--input",
        dest="image",
        nargs="+",
        metavar="FILE",
        help="the input picture (default: a generated one), sound or text; for plain tensors "
        "an .npy, an .npz or NAME=FILE for each input",
    )
    parser.add_argument(
        "--frames",
        type=int,
        metavar="N",
        help="default 50; 10 on the simulator; 5 for audio and text",
    )
    parser.add_argument(
        "--warm-up", type=int, metavar="N", help="runs that are not measured (default 3 frames)"
    )
    parser.add_argument(
        "--affinity",
        choices=("big", "little", "all"),
        default="all",
        help="CPU cores to use: big, little or all (default)",
    )
    parser.add_argument(
        "--lock-clocks",
        action="store_true",
        help="lock the clocks of a board at their maximum meanwhile; needs root",
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help=f"the report (default: {REPORT}; none with --json)",
    )
    add_model_options(parser)
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.set_defaults(verb=main)


def main(args: argparse.Namespace) -> int:
    from rkzoo.cli.console import ProgressBars, print_json
    from rkzoo.cli.model_options import request
    from rkzoo.workflow.performance.bench import BenchReport, bench_any, write_report

    bars = ProgressBars()
    bench_report = bench_any(
        args.model,
        args.image,
        request=request(args),
        count=args.frames,
        warm_up=args.warm_up,
        affinity=args.affinity,
        lock_clocks=args.lock_clocks,
        report=bars,
    )
    if args.output or not args.json:
        target = Path(args.output or REPORT)
        write_report(target, bench_report)
        print(f"The report is {target}", file=sys.stderr)
    if args.json:
        print_json(bench_report.to_json() | bars.failures)
    elif isinstance(bench_report, BenchReport):
        _print_summary(bench_report)
    else:
        _print_answers(bench_report)
    return bars.exit_code()


WAYS = {
    "floats": "floats in and out, every cell decoded",
    "rkzoo": "rkzoo, one frame after another",
    "pool": "rkzoo, {workers} in flight over all cores",
}


def _compare(bench_report: BenchReport) -> None:
    from rkzoo.cli.console import table

    plain = bench_report.ways[0]
    rows = [
        (
            WAYS[way.name].format(workers=way.workers),
            f"{way.ms:.2f}",
            f"{way.fps:.1f}",
            f"{way.fps / plain.fps:.2f}x" if plain.fps else "",
            f"{way.cores_busy:.2f}",
        )
        for way in bench_report.ways
    ]
    print(table(("picture to result", "ms p50", "FPS", "", "cores busy"), rows))


def _stages(value: BenchReport | AnswerReport, of: str) -> None:
    from rkzoo.cli.console import table

    board = value.board_info
    print(value.label)
    if value.runtime == "board":
        where = " ".join(filter(None, (board.model or "this machine", board.on)))
        print(f"Measured on {where} ({board.chip or 'chip unknown'}), {value.date[:10]}.")
    rows = [
        (name, *(f"{getattr(times, field):.2f}" for field in ("p50", "p90", "p99", "mean")))
        for name, times in value.time_cost_ms.items()
    ]
    print(table((f"ms {of}", "p50", "p90", "p99", "mean"), rows))
    print(value.published)
    from rkzoo.cli.known_speeds import known_speeds

    for line in known_speeds(value.model_info.name, [board.chip] if board.chip else []):
        print(f"  {line}")


def _print_answers(answer_report: AnswerReport) -> None:
    _stages(answer_report, "an answer")
    if answer_report.real_time_factor is not None:
        print(
            f"real-time factor {answer_report.real_time_factor:.3f}, for"
            f" {answer_report.model_info.sound_seconds:.2f} s of sound"
        )
    if answer_report.memory_info.peak_mib is not None:
        print(f"{answer_report.memory_info.peak_mib:.0f} MiB of memory at most")


def _print_summary(bench_report: BenchReport) -> None:
    _stages(bench_report, "a frame")
    speed, memory, board = (
        bench_report.throughput_fps,
        bench_report.memory_info,
        bench_report.board_info,
    )
    print(
        f"{speed.inference:.1f} FPS in the model alone, {speed.sequential:.1f} one frame after"
        f" another, {speed.pipelined:.1f} with {speed.workers} in flight"
    )
    print(
        f"{speed.cores_busy_sequential:.1f} cores busy one after another, {speed.cores_busy:.1f}"
        f" in flight, of {len(board.cores) or '?'}"
    )
    if bench_report.ways:
        _compare(bench_report)
    if memory.peak_mib is not None and memory.growth_kib_per_frame is not None:
        print(
            f"{memory.peak_mib:.0f} MiB of memory at most, growing by"
            f" {memory.growth_kib_per_frame:.1f} KiB a frame"
        )
    for clock in board.clocks:
        if clock.kind != "other" and clock.before:
            after = f" -> {clock.after / 1e6:.0f}" if clock.after else ""
            print(f"{clock.kind} {clock.name}: {clock.before / 1e6:.0f}{after} MHz")
    for user in board.npu_users:
        print(f"warning: {user} uses the NPU too, which slows both down.")
