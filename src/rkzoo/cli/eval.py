"""rkzoo eval: how good a model is, on data with known answers."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from rkzoo.cli.asked import add_asked

if TYPE_CHECKING:
    from rkzoo.tasks.detect.task import DetectOptions
    from rkzoo.workflow.evaluate import Evaluation


def add(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = verbs.add_parser(
        "eval",
        help="how good a model is, on data with known answers",
        description="Runs a model over a data set and scores it as the upstream projects do: "
        "confidence 0.001, IoU 0.65, 300 boxes a picture, every class of a cell.",
        epilog="Example: rkzoo eval yolov8n.onnx --data coco/instances_val2017.json "
        "--runtime simulator --limit 500",
    )
    parser.add_argument("model", metavar="MODEL", help="a name of rkzoo list, an .onnx or a .rknn")
    parser.add_argument(
        "--data",
        required=True,
        metavar="SPEC",
        help="COCO json (JSON@PICTURES_FOLDER where they are elsewhere), YOLO data.yaml, a folder "
        "of class folders, a csv, a list of texts",
    )
    parser.add_argument(
        "--runtime",
        choices=("onnx", "simulator"),
        help="onnx: float, on this PC; simulator: what the NPU will compute, emulated",
    )
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N pictures")
    parser.add_argument("--conf", type=float, help="least score (standard 0.001)")
    parser.add_argument("--iou", type=float, help="overlap above which a box goes (standard 0.65)")
    parser.add_argument("--max-boxes", type=int, metavar="N", help="boxes a picture (standard 300)")
    parser.add_argument(
        "--one-label", action="store_true", help="one class a box, as when running (not standard)"
    )
    parser.add_argument("--workers", type=int, metavar="N", help="processes (default: one a core)")
    parser.add_argument(
        "--scheduler", metavar="tcp://HOST:PORT", help="a Dask cluster that does the work"
    )
    parser.add_argument("--fresh", action="store_true", help="do not go on from an earlier run")
    add_asked(parser)
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.set_defaults(verb=main)


def main(args: argparse.Namespace) -> int:
    from rkzoo.cli.asked import asked
    from rkzoo.cli.console import Bars, print_json
    from rkzoo.workflow.evaluate import check_limit, evaluate

    check_limit(args.limit)
    found = evaluate(
        args.model,
        args.data,
        asked=asked(args),
        limit=args.limit,
        options=protocol(args),
        workers=args.workers,
        scheduler=args.scheduler,
        fresh=args.fresh,
        report=Bars(),
    )
    if args.json:
        print_json(found.to_json())
    else:
        _tell(found)
    return 0


def protocol(args: argparse.Namespace) -> DetectOptions:
    """The standard protocol with what the user wants otherwise."""
    from dataclasses import replace

    from rkzoo.workflow.evaluate import STANDARD

    given = {"confidence": args.conf, "iou": args.iou, "limit": args.max_boxes}
    said: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    return replace(STANDARD, multi_label=not args.one_label, **said)


def _tell(found: Evaluation) -> None:
    from rkzoo.cli.console import table

    rows = [(metric.name, f"{metric.value:.4f}", metric.unit) for metric in found.metrics]
    print(table(("metric", "value", "unit"), rows))
    again = f", {found.reused} of them answered by an earlier run" if found.reused else ""
    print(f"{found.model} [{found.runtime}] on {found.images} pictures of {found.dataset}{again}")
    for departure in found.departures:
        print(f"not the standard protocol: {departure}")
