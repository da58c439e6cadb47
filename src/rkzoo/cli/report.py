"""rkzoo report: measure the zoo, and write the pages that show it."""

from __future__ import annotations

import argparse
import os
from pathlib import Path


def add(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = verbs.add_parser(
        "report",
        help="measure the zoo, and write the pages that show it",
        description="Writes results as data, and pages from the data alone.",
    )
    kinds = parser.add_subparsers(metavar="WHAT", required=True, title="what")
    accuracy = kinds.add_parser(
        "accuracy",
        help="what INT8 costs, model by model",
        description="Tunes every model of the list on its data and writes the table. What is "
        "measured already is kept, and a run that was stopped goes on.",
    )
    accuracy.add_argument("names", metavar="NAME", nargs="*", help="only these (default: all)")
    accuracy.add_argument(
        "--assets",
        metavar="FOLDER",
        default=os.environ.get("RKZOO_TEST_ASSETS"),
        help="where the list's files lie (default: RKZOO_TEST_ASSETS)",
    )
    accuracy.add_argument("--runs", metavar="YAML", default="results/runs.yaml", help="the list")
    accuracy.add_argument("--results", metavar="YAML", default="results/accuracy.yaml")
    accuracy.add_argument("--page", metavar="MD", default="docs/accuracy.md")
    accuracy.add_argument("--max-drop", type=float, default=1.0, metavar="POINTS")
    accuracy.add_argument("--stages", metavar="A,B", help="as for rkzoo tune")
    accuracy.add_argument("--toolkit", metavar="VERSION")
    accuracy.add_argument("--fresh", action="store_true", help="measure again what is there")
    accuracy.add_argument(
        "--page-only", action="store_true", help="write the page from the results, measure nothing"
    )
    parser.set_defaults(verb=main)


def main(args: argparse.Namespace) -> int:
    from rkzoo.cli.console import Bars
    from rkzoo.errors import RkzooError
    from rkzoo.files import write_text
    from rkzoo.toolkit.recipe import DEFAULT_VERSION
    from rkzoo.workflow import report_accuracy as accuracy

    results, toolkit = Path(args.results), args.toolkit or DEFAULT_VERSION
    rows = accuracy.read_rows(results)
    if not args.page_only:
        if not args.assets:
            raise RkzooError(
                "It is not said where the models and data are.",
                "The list names files below one folder.",
                "Give it with --assets FOLDER, or set RKZOO_TEST_ASSETS.",
            )
        bars = Bars()
        for run in accuracy.choose_runs(accuracy.read_runs(Path(args.runs)), args.names):
            if accuracy.is_measured(rows, run, toolkit) and not args.fresh:
                bars.note(f"{run.name}: measured already")
                continue
            bars.note(f"{run.name}:")
            row = accuracy.measure(
                run,
                Path(args.assets),
                max_drop=args.max_drop,
                stages=args.stages.split(",") if args.stages else None,
                toolkit=args.toolkit,
                report=bars,
            )
            rows = accuracy.with_row(rows, row)
            accuracy.write_rows(results, rows)
    write_text(Path(args.page), accuracy.page(rows, args.max_drop))
    print(f"{len(rows)} models are in {results}, the page is {args.page}")
    return 0
