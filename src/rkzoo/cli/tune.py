"""`rkzoo tune`: recover the accuracy lost in INT8."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rkzoo.cli.model_options import add_model_options, add_on

if TYPE_CHECKING:
    from rkzoo.workflow.tuning.tune import TuningResult, TuningTrial


def add(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = verbs.add_parser(
        "tune",
        help="recover the accuracy lost in INT8",
        description="Tries quantization settings on the simulator, or on a board with --on, "
        "cheapest first, until the drop is small enough, up to the end of its 95 % interval: form "
        "of the score outputs, calibration algorithm, weight scales, choice of calibration "
        "pictures, layers in float16. Half of the pictures are held back, and what was found is "
        "measured on them. Writes the best one as a recipe for rkzoo convert --recipe.",
        epilog="Example: rkzoo tune yolov8n.onnx --soc rk3588 --data instances.json --limit 200",
    )
    parser.add_argument("model", metavar="MODEL", help="a name of rkzoo list, or an .onnx file")
    parser.add_argument("--soc", required=True, metavar="CHIP", help="rk3588, rk3568, rv1106 ...")
    parser.add_argument(
        "--data",
        required=True,
        metavar="SPEC",
        help="dataset as for rkzoo eval; or a folder of pictures without ground truth, for which "
        "the float model's results serve as reference",
    )
    parser.add_argument(
        "--max-drop",
        type=float,
        default=1.0,
        metavar="POINTS",
        help="allowed drop below float (default 1.0: 0.01 mAP, or 1 %%)",
    )
    parser.add_argument("--limit", type=int, metavar="N", help="use only the first N pictures")
    parser.add_argument(
        "--workers",
        type=int,
        default=1,
        metavar="N",
        help="processes, one build each",
    )
    parser.add_argument("--stages", metavar="A,B", help="run only these stages of the search")
    parser.add_argument("-o", "--output", metavar="DIR", help="default: rkzoo-tune")
    add_on(parser)
    add_model_options(parser)
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.set_defaults(verb=main)


def main(args: argparse.Namespace) -> int:
    import json

    from rkzoo.cli.console import ProgressBars, print_json
    from rkzoo.cli.model_options import request
    from rkzoo.files import check_folder, write_text
    from rkzoo.workflow.evaluation.evaluate import check_limit, check_workers
    from rkzoo.workflow.request.quantization import write_recipe
    from rkzoo.workflow.tuning.tune import tune
    from rkzoo.workflow.tuning.tune_chart import draw

    check_limit(args.limit)
    check_workers(args.workers)
    folder = Path(args.output or "rkzoo-tune")
    check_folder(folder)
    bars = ProgressBars()
    tuning = tune(
        args.model,
        args.data,
        args.soc,
        request=request(args),
        max_drop=args.max_drop,
        limit=args.limit,
        workers=args.workers,
        stages=args.stages.split(",") if args.stages else None,
        tell=_print_trial,
        report=bars,
    )
    recipe = folder / f"{tuning.model}-{tuning.soc}.yaml"
    write_recipe(recipe, tuning.recipe)
    write_text(folder / f"{tuning.model}-{tuning.soc}.json", json.dumps(tuning.to_json(), indent=1))
    draw(tuning, folder / f"{tuning.model}-{tuning.soc}.png")
    if args.json:
        print_json(tuning.to_json() | bars.failures)
    else:
        _print_summary(tuning, _next(args, tuning.soc, recipe))
    return bars.exit_code()


def _print_trial(trial: TuningTrial) -> None:
    print(
        f"  {trial.stage}: {trial.change}: {trial.value:.4f}, drop {trial.drop:.2f}"
        + _ends(trial)
        + (" (best so far)" if trial.kept else ""),
        file=sys.stderr,
        flush=True,
    )


def _ends(trial: TuningTrial) -> str:
    """The interval of a trial's drop."""
    return f" ({trial.interval[0]:.2f} to {trial.interval[1]:.2f})" if trial.interval else ""


def _next(args: argparse.Namespace, soc: str, recipe: Path) -> str:
    """The convert command: the recipe contains the images, the other options are repeated."""
    from shlex import join

    from rkzoo.cli.compare import repeated

    text = repeated(args, without=("calib",))
    command = join(["rkzoo", "convert", args.model, "--soc", soc, "--recipe", str(recipe)])
    return f"{command} {text}".rstrip()


def _print_summary(tuning: TuningResult, following: str) -> None:
    from rkzoo.cli.console import table

    rows = [
        (
            "*" if trial is tuning.best else "",
            trial.stage,
            trial.change,
            f"{trial.value:.4f}",
            f"{trial.drop:.2f}{_ends(trial)}",
            f"{trial.cost:.2f}" if trial.cost else "",
        )
        for trial in tuning.trials
    ]
    print(table(("", "stage", "change", tuning.metric.name, "drop", "cost"), rows))
    print(
        f"float {tuning.metric.value:.4f} [onnx], best INT8 {tuning.best.value:.4f} "
        f"[{tuning.runtime}], {tuning.images} pictures of {tuning.dataset}"
    )
    if held := tuning.held:
        print(f"on {held.images} other pictures, float {held.metric.value:.4f}:")
        print(f"  as convert does it: {held.plain_drop.words()}")
        if held.worse:
            print(
                "  what was best is worse there, so it is left: the search had fitted its pictures"
            )
        elif held.best is not held.plain:
            sure = "" if held.gain.apart else ": which is better cannot be told"
            print(f"  best: {held.best_drop.words()}; {held.gain.points:.2f} better{sure}")
    if not tuning.reached:
        drop = tuning.drop
        if drop.points > tuning.max_drop:
            print(f"The drop of {drop.points:.2f} is above {tuning.max_drop}.")
        else:
            print(f"The drop may be above {tuning.max_drop}: up to {drop.highest:.2f}.")
        print("This is the best that was found. More pictures may help, or --dtype fp16.")
    print(f"Next: {following}")
