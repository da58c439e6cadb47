"""`rkzoo report`: measure the model zoo, and generate its pages."""

from __future__ import annotations

import argparse
import os
from pathlib import Path


def add(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = verbs.add_parser(
        "report",
        help="measure the model zoo, and generate its pages",
        description="Writes results as data, and generates pages from the data alone.",
    )
    kinds = parser.add_subparsers(metavar="WHAT", required=True, title="what")
    accuracy = kinds.add_parser(
        "accuracy",
        help="accuracy loss of INT8, by model",
        description="Measures every model of the list on its data, in plain INT8 and by the recipe "
        "of its card, and writes the table. Existing results are kept, and an interrupted run is "
        "resumed.",
    )
    accuracy.add_argument("names", metavar="MODEL", nargs="*", help="only these (default: all)")
    accuracy.add_argument(
        "--assets",
        metavar="FOLDER",
        default=os.environ.get("RKZOO_TEST_ASSETS"),
        help="folder of the list's files (default: RKZOO_TEST_ASSETS)",
    )
    accuracy.add_argument("--runs", metavar="YAML", default="results/runs.yaml", help="the list")
    accuracy.add_argument("--results", metavar="YAML", default="results/accuracy.yaml")
    accuracy.add_argument("--page", metavar="MD", default="docs/accuracy.md")
    accuracy.add_argument(
        "--search", action="store_true", help="look for a better recipe too, as rkzoo tune does"
    )
    accuracy.add_argument(
        "--max-drop", type=float, default=1.0, metavar="POINTS", help="where the search ends"
    )
    accuracy.add_argument("--stages", metavar="A,B", help="limits the search, as for rkzoo tune")
    accuracy.add_argument("--toolkit", metavar="VERSION")
    accuracy.add_argument("--fresh", action="store_true", help="repeat existing measurements")
    accuracy.add_argument(
        "--page-only", action="store_true", help="only generate the page from the results"
    )
    accuracy.set_defaults(verb=report_accuracy)
    _add_support(kinds)
    _add_zoo(kinds)
    _add_models(kinds)


def _add_models(kinds: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    models = kinds.add_parser(
        "models",
        help="what becomes of a folder of model files",
        description="Recognizes, builds, simulates and compares every model file of a folder, and "
        "writes the table.",
    )
    models.add_argument("folder", metavar="FOLDER", nargs="+", help="folders of model files")
    models.add_argument("--pictures", metavar="FOLDER", required=True, help="for calibration")
    models.add_argument("--size", metavar="HxW", default="256x256", help="where a file needs one")
    models.add_argument("--results", metavar="YAML", default="results/models.yaml")
    models.add_argument("--page", metavar="MD", default="docs/models.md")
    models.set_defaults(verb=report_models)


def _add_support(kinds: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    support = kinds.add_parser(
        "support",
        help="which model builds for which chip",
        description="Builds every model whose weights are available for every chip, sequentially, "
        "and writes the table. Existing results are kept, and an interrupted run is resumed.",
    )
    support.add_argument("names", metavar="MODEL", nargs="*", help="only these (default: all)")
    support.add_argument(
        "--soc", metavar="A,B", default="all", help="only these chips (default: all)"
    )
    support.add_argument(
        "--assets",
        metavar="FOLDER",
        default=os.environ.get("RKZOO_TEST_ASSETS"),
        help="folder of the files of --runs (default: RKZOO_TEST_ASSETS, or none)",
    )
    support.add_argument("--runs", metavar="YAML", default="results/runs.yaml")
    support.add_argument("--results", metavar="YAML", default="results/support.yaml")
    support.add_argument("--toolkit", metavar="VERSION")
    support.add_argument("--offline", action="store_true", help="fetch no weights")
    support.add_argument("--fresh", action="store_true", help="repeat existing builds")
    support.add_argument(
        "--structures",
        metavar="FOLDER",
        help="folder of networks without weights (NAME.onnx.xz), tried with random ones where the "
        "weights of a card cannot be reached",
    )
    support.add_argument(
        "--half", action="store_true", help="build in float16 what was built in INT8, too"
    )
    support.add_argument(
        "--w4a16", action="store_true", help="build with 4-bit weights, where a chip has them"
    )
    support.set_defaults(verb=report_support)


def _add_zoo(kinds: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    zoo = kinds.add_parser(
        "zoo",
        help="model zoo page",
        description="Writes one HTML file from the cards and the results: every model on every "
        "chip, with filters, memory, speed and accuracy as far as known.",
    )
    zoo.add_argument(
        "--results",
        metavar="FOLDER",
        default="results",
        help="with support.yaml, accuracy.yaml and published.yaml (default: results)",
    )
    zoo.add_argument("--page", metavar="HTML", default="docs/zoo.html")
    zoo.set_defaults(verb=report_zoo)


def report_accuracy(args: argparse.Namespace) -> int:
    from rkzoo.cli.console import ProgressBars
    from rkzoo.errors import RkzooError
    from rkzoo.files import write_text
    from rkzoo.toolkit.recipe import DEFAULT_VERSION
    from rkzoo.workflow.reporting import accuracy
    from rkzoo.workflow.reporting.results import read_rows, read_runs, titles_of, write_rows

    results, toolkit = Path(args.results), args.toolkit or DEFAULT_VERSION
    rows, runs = read_rows(results), read_runs(Path(args.runs))
    if not args.page_only:
        if not args.assets:
            raise RkzooError(
                "The folder of the models and data is not given.",
                "The list names files below one folder.",
                "Give it with --assets FOLDER, or set RKZOO_TEST_ASSETS.",
            )
        bars = ProgressBars()
        for run in accuracy.choose_runs(runs, args.names):
            if accuracy.is_measured(rows, run, toolkit) and not args.fresh:
                bars.note(f"{run.name}: measured already")
                continue
            bars.note(f"{run.name}:")
            row = accuracy.measure(
                run,
                Path(args.assets),
                search=args.search,
                max_drop=args.max_drop,
                stages=args.stages.split(",") if args.stages else None,
                toolkit=args.toolkit,
                report=bars,
            )
            rows = accuracy.with_row(rows, row)
            write_rows(results, rows)
    write_text(Path(args.page), accuracy.page(rows, titles_of(runs)))
    print(f"{len(rows)} models are in {results}, the page is {args.page}")
    print("Next: rkzoo report zoo")
    return 0


def report_support(args: argparse.Namespace) -> int:
    from rkzoo.cli.console import ProgressBars
    from rkzoo.soc.chips import resolve, supported
    from rkzoo.workflow.reporting import support
    from rkzoo.workflow.reporting.results import read_runs, read_support, write_support

    named = [name for name in args.soc.split(",") if name]
    socs = supported() if "all" in named else [resolve(name) for name in named]
    results, bars = Path(args.results), ProgressBars()
    candidates = support.candidates(
        read_runs(Path(args.runs)),
        Path(args.assets) if args.assets else None,
        args.names,
        structures=Path(args.structures) if args.structures else None,
        offline=args.offline,
        report=bars,
    )
    rows = support.try_all(
        candidates,
        read_support(results),
        socs,
        toolkit=args.toolkit,
        fresh=args.fresh,
        also="w4a16" if args.w4a16 else "fp16" if args.half else None,
        keep=lambda rows: write_support(results, rows),
        report=bars,
    )
    trials = [trial for row in rows for trial in row.chips.values()]
    built = sum(trial.converts for trial in trials)
    print(f"{len(rows)} models are in {results}: {built} of {len(trials)} builds succeeded")
    print("Next: rkzoo report zoo")
    return 0


def report_models(args: argparse.Namespace) -> int:
    from rkzoo.cli.console import ProgressBars, parse_size
    from rkzoo.files import write_text
    from rkzoo.workflow.reporting.models import page, try_models, write_models

    suffixes = (".onnx", ".tflite")
    files = [
        file
        for folder in args.folder
        for file in sorted(Path(folder).iterdir())
        if file.suffix in suffixes
    ]
    size = parse_size(args.size)
    rows = try_models(files, Path(args.pictures), size=size, report=ProgressBars())
    write_models(Path(args.results), rows)
    write_text(Path(args.page), page(rows))
    whole = sum(not row.problem for row in rows)
    print(f"{whole} of {len(rows)} models went the whole way: {args.results}, {args.page}")
    return 0


def report_zoo(args: argparse.Namespace) -> int:
    from rkzoo.files import write_text
    from rkzoo.workflow.reporting.zoo import gather, page

    zoo = gather(Path(args.results))
    write_text(Path(args.page), page(zoo))
    print(f"{len(zoo['models'])} models and {len(zoo['chips'])} chips are on {args.page}")
    return 0
