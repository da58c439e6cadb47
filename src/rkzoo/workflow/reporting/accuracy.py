"""Accuracy report: what INT8 costs, plain and by the recipe of the card, stored as data and
rendered as a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from statistics import median

import msgspec

from rkzoo.accuracy.metric import Drop
from rkzoo.progress import SILENT, ProgressReporter
from rkzoo.spelling import unknown
from rkzoo.workflow.reporting.results import AccuracyPart, AccuracyRow, AccuracyRun, Ends
from rkzoo.workflow.request.request import Request
from rkzoo.workflow.tuning.tune import (
    SHIPPED,
    WITHOUT_LAYERS,
    Held,
    TuningResult,
    TuningTrial,
    tune,
)

_NEVER = -1e6  # a drop that no setting reaches, so that all are measured


def measure(
    run: AccuracyRun,
    assets: Path,
    *,
    search: bool = False,
    max_drop: float = 1.0,
    stages: Sequence[str] | None = None,
    toolkit: str | None = None,
    report: ProgressReporter = SILENT,
) -> AccuracyRow:
    """Measure one model in plain INT8 and by the recipe of its card; or, with `search`, by the best
    setting that `tune` finds within `stages`. Raises RkzooError.
    """
    tuning = tune(
        run.card or str(assets / run.model),
        str(assets / run.data),
        "rk3588",
        request=Request(toolkit=toolkit, plain=True),
        max_drop=max_drop if search else _NEVER,
        limit=run.limit,
        stages=stages if search else (SHIPPED,),
        hold_back=search,
        others=[str(assets / run.more)] if run.more else [],
        tell=lambda trial: report.note(f"  {trial.change}: {trial.value:.4f}"),
        report=report,
    )
    return row_of(run, tuning)


def row_of(run: AccuracyRun, tuning: TuningResult) -> AccuracyRow:
    """Convert a tuning result to a row. Of a search it is the best trial, by the pictures that were
    held back; else the last, that of the card's whole recipe, be it better or not.
    """
    known = tuning.stages == (SHIPPED,)
    plain, best = tuning.trials[0], tuning.trials[-1] if known else tuning.best
    bare = next((trial for trial in tuning.trials if trial.change == WITHOUT_LAYERS), None)
    plain_command = command(run, tuning, plain=True)
    shown = _shown(tuning, plain, best)
    whole, gain = _part(shown), shown.gain
    return AccuracyRow(
        model=run.name,
        sha256=tuning.recipe.sha256,
        dataset=tuning.dataset,
        truth=tuning.truth,
        images=shown.images,
        protocol=_protocol(tuning),
        metric=tuning.metric.name,
        unit=tuning.metric.unit,
        original=whole.original,
        int8=whole.int8,
        int8_drop=whole.int8_drop,
        tuned=whole.tuned,
        tuned_drop=whole.tuned_drop,
        how=best.setting.quantise,
        change=_change(tuning, best, plain),
        calibration=best.setting.picking,
        runtime="simulator",
        toolkit=tuning.toolkit,
        rkzoo=version("rkzoo"),
        date=datetime.now(timezone.utc).date().isoformat(),
        stages=() if known else tuning.stages,
        portable=_short(bare.value) if bare else None,
        portable_drop=_short(bare.drop) if bare else None,
        cost=_short(best.cost) if best.cost else None,
        plain_command=plain_command,
        command=plain_command if best is plain else command(run, tuning),
        int8_interval=whole.int8_interval,
        tuned_interval=whole.tuned_interval,
        gain=_short(gain.points),
        gain_interval=_ends(gain),
        parts=tuple(_named(_part(held), run) for held in tuning.others),
    )


def _shown(tuning: TuningResult, plain: TuningTrial, best: TuningTrial) -> Held:
    """The figures that count: those of the pictures that a search has not seen, else all."""
    if tuning.held is not None:
        held = tuning.held
        return replace(held, best=held.plain) if held.worse else held
    metrics = (t.metric or replace(tuning.metric, value=t.value) for t in (plain, best))
    return Held("", tuning.images, tuning.metric, *metrics)


def _named(part: AccuracyPart, run: AccuracyRun) -> AccuracyPart:
    """The further pictures called by their folder: data sets name their files alike."""
    more = Path(run.more)
    known = run.more and part.name == more.name
    return msgspec.structs.replace(part, name=more.parent.name) if known else part


def _part(held: Held) -> AccuracyPart:
    plain, best = held.plain_drop, held.best_drop
    return AccuracyPart(
        name=held.dataset,
        images=held.images,
        original=_short(held.metric.value),
        int8=_short(held.plain.value),
        int8_drop=_short(plain.points),
        tuned=_short(held.best.value),
        tuned_drop=_short(best.points),
        int8_interval=_ends(plain),
        tuned_interval=_ends(best),
    )


def _ends(drop: Drop) -> Ends:
    return drop.interval and (_short(drop.interval[0]), _short(drop.interval[1]))


def _change(tuning: TuningResult, best: TuningTrial, plain: TuningTrial) -> str:
    if best is plain:
        return "nothing"
    if best.stage == SHIPPED:
        return best.change
    return "; ".join(trial.change for trial in tuning.trials[1:] if trial.kept)


def command(run: AccuracyRun, tuning: TuningResult, plain: bool = False) -> str:
    """The command that gives a figure, in the folder of the assets. `eval` does not measure
    agreement with float, nor on half of the pictures, so there it is that of the report."""
    if tuning.held is not None:
        return f"rkzoo report accuracy {run.name} --search --fresh"
    if tuning.truth == "float model":
        return f"rkzoo report accuracy {run.name} --fresh"
    words = ["rkzoo eval", run.card or run.model, "--runtime simulator --data", run.data]
    words += [f"--limit {run.limit}"] if run.limit else []
    return " ".join(words + (["--plain"] if plain else []))


def _protocol(tuning: TuningResult) -> str:
    if "mAP" in tuning.metric.name:
        return "conf 0.001, IoU 0.65, 300 boxes, multi-label, fixed input"
    return "as run"


def _short(value: float) -> float:
    return round(value, 4)


def with_row(rows: Sequence[AccuracyRow], row: AccuracyRow) -> list[AccuracyRow]:
    """Replace the row of the same model, or append it."""
    if not any(accuracy_row.model == row.model for accuracy_row in rows):
        return [*rows, row]
    return [row if accuracy_row.model == row.model else accuracy_row for accuracy_row in rows]


def is_measured(rows: Sequence[AccuracyRow], run: AccuracyRun, toolkit: str) -> bool:
    """Whether a row of this run exists, with this toolkit and rkzoo version, the commands that give
    it and the interval of its drop."""
    return any(
        (row.model, row.toolkit, row.rkzoo) == (run.name, toolkit, version("rkzoo"))
        and row.command
        and row.int8_interval
        for row in rows
    )


_NOTE = """# Accuracy

<!-- Written by `rkzoo report accuracy` from results/accuracy.yaml; not by hand. -->

Float is ONNX Runtime, INT8 the simulator of RKNN-Toolkit2, which gives the same numbers for every
chip. **Nothing here was measured on a board.** "INT8" is what `rkzoo convert` builds by default:
detectors and classifiers with ranges that rkzoo finds, and by the recipe of the model's card where
`rkzoo tune` found one. "INT8 with --plain" leaves that out: it is what the toolkit does by itself.
A drop is in points: hundredths of mAP, or per cent; a negative one means that INT8 scored higher.
Behind it stands its 95 % interval, by a paired bootstrap over the pictures: how far the drop would
move on other pictures like these. Where it holds 0, float and INT8 cannot be told apart by these
pictures, and two drops whose intervals lie over each other seldom can. "Cost" is how many times the
compiler's cycles of plain INT8 it takes, where layers are in float16.

To measure again: `rkzoo report accuracy --assets FOLDER` (models and data: see results/runs.yaml);
with `--search` it looks for a better recipe too.

"""
_HEADER = (
    "model",
    "data",
    "pictures",
    "metric",
    "float",
    "INT8 with --plain",
    "drop",
    "INT8",
    "drop",
    "what the recipe changes",
    "cost",
    "measured",
)


def page(rows: Sequence[AccuracyRow], titles: Mapping[str, str] | None = None) -> str:
    """Render the Markdown page; `titles` say in words what the data of a model is."""
    titles = titles or {}
    lines = [_line(_HEADER), _line(["---"] * len(_HEADER))]
    lines += [_line(_cells(row, titles.get(row.model) or row.dataset)) for row in rows]
    table = "\n".join(lines)
    sections = (_gains, _parts, _commands, _foot, _summary)
    return f"{_NOTE}{table}\n" + "".join(section(rows) for section in sections)


def _commands(rows: Sequence[AccuracyRow]) -> str:
    """The commands of those rows that have some."""
    told = [command for row in rows for command in (row.plain_command, row.command) if command]
    if not told:
        return ""
    lines = "\n".join(dict.fromkeys(told))
    return (
        f"\nThe commands that give these figures, in the folder of the data:\n```\n{lines}\n```\n"
    )


def _foot(rows: Sequence[AccuracyRow]) -> str:
    if not rows:
        return ""
    toolkits = ", ".join(sorted({row.toolkit for row in rows}))
    limits: dict[str, list[str]] = {}
    for row in rows:
        if row.stages:
            limits.setdefault(", ".join(row.stages), []).append(row.model)
    search = "".join(
        f" The search for {', '.join(names)} was limited to: {limit}."
        for limit, names in limits.items()
    )
    return f"\nToolkit {toolkits}.{search}"


def _cells(row: AccuracyRow, data: str) -> list[str]:
    return [
        row.model,
        data if row.truth == "known" else f"{data} (agreement with float, not accuracy)",
        str(row.images),
        row.metric + (f" ({row.unit})" if row.unit else ""),
        f"{row.original:.4g}",
        f"{row.int8:.4g}",
        _drop(row.int8_drop, row.int8_interval),
        f"{row.tuned:.4g}",
        _drop(row.tuned_drop, row.tuned_interval),
        row.change,
        f"{row.cost:.2f}" if row.cost else "",
        row.date,
    ]


def _drop(drop: float, ends: Ends) -> str:
    if ends is None:
        return f"{drop:.2f}"
    apart = "" if _apart(ends) else ", not told apart"
    return f"{drop:.2f} ({ends[0]:.2f} to {ends[1]:.2f}{apart})"


def _apart(ends: Ends) -> bool:
    """Whether a difference can be told from none."""
    return ends is None or not ends[0] <= 0 <= ends[1]


_PARTS = """
The same on each half of the pictures, and on further ones that no recipe was searched with. Of two
halves of a set, one's drop lies in the other's 95 % interval in about 83 % of splits, since both
move.

"""
_PARTS_HEADER = ("model", "pictures", "number", "float", "INT8 with --plain: drop", "INT8: drop")


def _parts(rows: Sequence[AccuracyRow]) -> str:
    """The table of parts, of those rows that have some."""
    told = [(row.model, part) for row in rows for part in row.parts]
    if not told:
        return ""
    lines = [_line(_PARTS_HEADER), _line(["---"] * len(_PARTS_HEADER))]
    for model, part in told:
        plain = _drop(part.int8_drop, part.int8_interval)
        tuned = _drop(part.tuned_drop, part.tuned_interval)
        figures = (str(part.images), f"{part.original:.4g}", plain, tuned)
        lines.append(_line((model, part.name, *figures)))
    return _PARTS + "\n".join(lines) + "\n"


def _gains(rows: Sequence[AccuracyRow]) -> str:
    """Recipes that cannot be told from none."""
    equal = [
        f"{row.model} ({row.gain:.2f} points, {row.gain_interval[0]:.2f} to "
        f"{row.gain_interval[1]:.2f})"
        for row in rows
        if row.gain is not None and row.gain_interval and row.change != "nothing"
        if not _apart(row.gain_interval)
    ]
    if not equal:
        return ""
    return f"\nRecipe and --plain cannot be told apart by these pictures: {', '.join(equal)}.\n"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _summary(rows: Sequence[AccuracyRow]) -> str:
    known = [row for row in rows if "mAP" in row.metric and row.truth == "known"]
    if not known:
        return "\n"
    plain, tuned = (
        median(getattr(row, name) for row in known) for name in ("int8_drop", "tuned_drop")
    )
    worst = max(known, key=lambda row: row.tuned_drop)
    return (
        f"\n\nOver the {len(known)} COCO models the median drop is {plain:.2f} points with "
        f"--plain and {tuned:.2f} by default; the largest by default is {worst.tuned_drop:.2f} "
        f"({worst.model}).\n"
    )


def choose_runs(runs: Sequence[AccuracyRun], names: Sequence[str]) -> list[AccuracyRun]:
    """Select runs by name, all where none is given. Raises RkzooError for an unknown name."""
    known = {run.name for run in runs}
    if strange := [name for name in names if name not in known]:
        raise unknown(
            f"There is no run {strange[0]!r}.",
            f"The list has {', '.join(sorted(known))}.",
            strange[0],
            known,
            "Name some of them, or none for all.",
        )
    return [run for run in runs if not names or run.name in names]
