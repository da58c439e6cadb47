"""`rkzoo eval`: evaluate a model on a dataset."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from rkzoo.cli.model_options import add_model_options, add_on, add_runtime
from rkzoo.errors import RkzooError

if TYPE_CHECKING:
    from rkzoo.workflow.evaluation.evaluate import Evaluation
    from rkzoo.workflow.evaluation.explain import Explanation, Step


def add(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = verbs.add_parser(
        "eval",
        help="evaluate a model on a dataset",
        description="Runs a model over a dataset and evaluates it as the upstream projects do: "
        "confidence 0.001, IoU 0.65, 300 boxes per picture, every class of a cell.",
        epilog="Example: rkzoo eval yolov8n.onnx --data coco/instances_val2017.json "
        "--runtime simulator --limit 500",
    )
    parser.add_argument("model", metavar="MODEL", help="a name of rkzoo list, an .onnx or a .rknn")
    parser.add_argument(
        "--data",
        required=True,
        metavar="SPEC",
        help="COCO json (JSON@PICTURES_FOLDER where they are elsewhere), YOLO data.yaml, a folder "
        "of class folders, a csv, a list of texts; for speech a csv or tsv (file, text), or a "
        "folder of sounds with a .txt beside each; for plain tensors a folder of pictures, .npy or "
        ".npz",
    )
    add_runtime(parser)
    add_on(parser)
    parser.add_argument(
        "--send",
        choices=("tensors", "files"),
        default="tensors",
        help="with --on: what goes to the board, prepared tensors (default) or the files as they"
        " are, which is less on a slow network and more work for the board",
    )
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N pictures")
    parser.add_argument("--conf", type=float, help="confidence threshold (standard 0.001)")
    parser.add_argument("--iou", type=float, help="IoU threshold for NMS (standard 0.65)")
    parser.add_argument(
        "--max-boxes", type=int, metavar="N", help="boxes per picture (standard 300)"
    )
    parser.add_argument(
        "--one-label", action="store_true", help="one class per box, as in rkzoo run (not standard)"
    )
    parser.add_argument(
        "--workers", type=int, metavar="N", help="processes (default: one per core)"
    )
    parser.add_argument(
        "--scheduler", metavar="tcp://HOST:PORT", help="scheduler of a Dask cluster to run on"
    )
    parser.add_argument("--fresh", action="store_true", help="do not resume an earlier run")
    parser.add_argument(
        "--explain",
        action="store_true",
        help="break down the gap between the upstream figure and the deployed model, step by "
        "step; --conf, --iou and --max-boxes are then those of the deployed model, and "
        "--runtime onnx skips the simulator",
    )
    parser.add_argument(
        "-o", "--output", metavar="FILE", help="the chart of --explain, .png or .svg"
    )
    parser.add_argument(
        "--metric",
        metavar="FILE.py:FUNCTION",
        help="of plain tensors: your own metric; the function gets the outputs by name (numpy "
        "arrays) and the path of the sample, and returns a number, higher is better (default: "
        "the cosine similarity with the float model)",
    )
    add_model_options(parser)
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.set_defaults(verb=main)


def main(args: argparse.Namespace) -> int:
    from rkzoo.cli.console import ProgressBars, print_json
    from rkzoo.cli.model_options import request
    from rkzoo.workflow.evaluation.evaluate import (
        check_limit,
        check_workers,
        evaluate,
        is_source,
    )

    check_limit(args.limit)
    check_workers(args.workers)
    if args.explain:
        if args.metric:
            raise RkzooError(
                "--metric does not go with --explain.",
                "Plain tensors have no upstream figure to start from.",
                "Leave one of them out.",
            )
        return _explain(args)
    if args.output:
        raise RkzooError(
            "-o does not go with this.", "Only --explain draws a chart.", "Leave it out."
        )
    bars = ProgressBars()
    evaluation = evaluate(
        args.model,
        args.data,
        request=request(args),
        limit=args.limit,
        workers=args.workers,
        scheduler=args.scheduler,
        fresh=args.fresh,
        metric=args.metric,
        send=args.send,
        report=bars,
    )
    if args.json:
        print_json(evaluation.to_json() | bars.failures)
    else:
        _print_summary(evaluation)
        if evaluation.drop is None and evaluation.runtime != "onnx" and is_source(args.model):
            print("drop: once float is measured, too, by this command with --runtime onnx")
    return bars.exit_code()


def _explain(args: argparse.Namespace) -> int:
    from pathlib import Path

    from rkzoo.cli.console import ProgressBars, print_json
    from rkzoo.cli.model_options import request
    from rkzoo.workflow.evaluation.explain import explain
    from rkzoo.workflow.evaluation.explain_chart import check_name, draw

    chart = Path(args.output) if args.output else None
    if chart is not None:
        check_name(chart)  # fail before an hour of measuring
    bars = ProgressBars()
    explanation = explain(
        args.model,
        args.data,
        request=request(args),
        limit=args.limit,
        workers=args.workers,
        scheduler=args.scheduler,
        fresh=args.fresh,
        report=bars,
    )
    if chart is None and not args.json:
        chart = Path(f"{explanation.model}-explain.png")
    if chart is not None:
        draw(explanation, chart)
    if args.json:
        print_json(explanation.to_json() | bars.failures)
    else:
        _print_steps(explanation)
        print(f"The chart is in {chart}")
    return bars.exit_code()


def _print_summary(evaluation: Evaluation) -> None:
    from rkzoo.accuracy.resampling import FEW
    from rkzoo.cli.console import table

    rows = [(metric.name, f"{metric.value:.4f}", metric.unit) for metric in evaluation.metrics]
    print(table(("metric", "value", "unit"), rows))
    main = evaluation.main
    if main.interval:
        low, high = main.interval
        print(
            f"{main.name} {main.value:.4f} ({low:.4f} to {high:.4f}, 95 %, bootstrap over "
            f"{evaluation.images} {evaluation.items})"
        )
    if evaluation.drop:
        print(evaluation.drop.words(evaluation.items))
    if evaluation.images < FEW:
        print(f"{evaluation.images} {evaluation.items} are few: a few of them decide the figures")
    again = f", {evaluation.reused} of them answered by an earlier run" if evaluation.reused else ""
    print(
        f"{evaluation.model} [{evaluation.runtime}] on {evaluation.images} {evaluation.items} of "
        f"{evaluation.dataset}{again}"
    )
    if evaluation.hardware:
        print(f"measured on {evaluation.hardware}")
    if evaluation.failed:
        print(f"left out: {len(evaluation.failed)} that could not be used")
    for departure in evaluation.departures:
        print(f"not the standard protocol: {departure}")


def _print_steps(explanation: Explanation) -> None:
    from rkzoo.cli.console import table

    print(
        table(
            ("step", explanation.metric, "change", "what it means"),
            [_row(s) for s in explanation.steps],
        )
    )
    first, last = explanation.path[0], explanation.path[-1]
    whole = (last.value or 0) - (first.value or 0)
    print(
        f"{explanation.model} on {explanation.images} pictures of {explanation.dataset}: from "
        f"{first.value:.4f} "
        f"[{first.runtime}] to {last.value:.4f} [{last.runtime}], {whole:+.4f}"
    )
    print(
        "The changes add up to that, each on top of the steps above it. Those marked "
        "instead\nare tried on the one input size alone and taken back."
    )
    for departure in explanation.departures:
        print(f"note: {departure}")


def _row(step: Step) -> tuple[str, str, str, str]:
    name = ("  " if step.branch else "") + step.title
    if step.value is None:
        return name, "", "", f"Cannot be measured: {step.reason}"
    return name, f"{step.value:.4f}", _change(step.change), step.means


def _change(change: float | None) -> str:
    return "" if change is None else f"{change:+.4f}" if change else "0"
