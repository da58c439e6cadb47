"""Accuracy report: cost of INT8, measured by `tune`, stored as data, rendered as a page."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from statistics import median

from rkzoo.progress import SILENT, ProgressReporter
from rkzoo.spelling import unknown
from rkzoo.workflow.reporting.results import AccuracyRow, AccuracyRun
from rkzoo.workflow.request.request import Request
from rkzoo.workflow.tuning.tune import TuningResult, TuningTrial, tune


def measure(
    run: AccuracyRun,
    assets: Path,
    *,
    max_drop: float = 1.0,
    stages: Sequence[str] | None = None,
    toolkit: str | None = None,
    report: ProgressReporter = SILENT,
) -> AccuracyRow:
    """Tune one model, and record plain INT8 and the best setting. Raises RkzooError."""
    tuning = tune(
        run.card or str(assets / run.model),
        str(assets / run.data),
        "rk3588",
        request=Request(toolkit=toolkit),
        max_drop=max_drop,
        limit=run.limit,
        stages=stages,
        tell=lambda trial: report.note(f"  {trial.change}: {trial.value:.4f}"),
        report=report,
    )
    return row_of(run.name, tuning)


def row_of(name: str, tuning: TuningResult) -> AccuracyRow:
    """Convert a tuning result to a row."""
    plain, best = tuning.trials[0], tuning.best
    return AccuracyRow(
        model=name,
        sha256=tuning.recipe.sha256,
        dataset=tuning.dataset,
        truth=tuning.truth,
        images=tuning.images,
        protocol=_protocol(tuning),
        metric=tuning.metric.name,
        unit=tuning.metric.unit,
        original=_short(tuning.metric.value),
        int8=_short(plain.value),
        int8_drop=_short(plain.drop),
        tuned=_short(best.value),
        tuned_drop=_short(best.drop),
        how=best.setting.quantise,
        change="none needed" if best is plain else _way(tuning.trials),
        calibration=best.setting.picking,
        runtime="simulator",
        toolkit=tuning.toolkit,
        rkzoo=version("rkzoo"),
        date=datetime.now(timezone.utc).date().isoformat(),
        stages=tuning.stages,
    )


def _way(trials: Sequence[TuningTrial]) -> str:
    """The changes that were kept, in order."""
    return "; ".join(trial.change for trial in trials[1:] if trial.kept)


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
    """Whether a row of this run exists, with this toolkit and rkzoo version."""
    return any(
        row.model == run.name and row.toolkit == toolkit and row.rkzoo == version("rkzoo")
        for row in rows
    )


_NOTE = """# Accuracy

<!-- Written by `rkzoo report accuracy` from results/accuracy.yaml; not by hand. -->

Float is ONNX Runtime, INT8 the simulator of RKNN-Toolkit2, which gives the same numbers for every
chip. **Nothing here was measured on a board.** "plain" is what `rkzoo convert` does without
further ado, "tuned" what `rkzoo tune` found when told to come within {max_drop} point of float. A
drop is in points: hundredths of mAP, or per cent; a negative one means that INT8 scored higher,
which is chance. Few pictures make the figures rough: with 128 pictures a difference below about
one point says little.

To measure again: `rkzoo report accuracy --assets FOLDER` (models and data: see results/runs.yaml).

"""


def page(rows: Sequence[AccuracyRow], max_drop: float = 1.0) -> str:
    """Render the Markdown page."""
    header = ("model", "data", "pictures", "metric", "float", "plain INT8", "drop", "tuned INT8")
    lines = [_line((*header, "drop", "what tune changed")), _line(["---"] * 10)]
    lines += [_line(_cells(row)) for row in rows]
    return _NOTE.format(max_drop=max_drop) + "\n".join(lines) + "\n" + _foot(rows) + _summary(rows)


def _foot(rows: Sequence[AccuracyRow]) -> str:
    if not rows:
        return ""
    toolkits = ", ".join(sorted({row.toolkit for row in rows}))
    first, last = min(row.date for row in rows), max(row.date for row in rows)
    when = first if first == last else f"{first} to {last}"
    limits = sorted({", ".join(row.stages) for row in rows if row.stages})
    search = "".join(f" The search was limited to: {limit}." for limit in limits)
    return f"\nToolkit {toolkits}; measured {when}.{search}"


def _cells(row: AccuracyRow) -> list[str]:
    data = row.dataset if row.truth == "known" else f"{row.dataset} (agreement, not accuracy)"
    return [
        row.model,
        data,
        str(row.images),
        row.metric + (f" ({row.unit})" if row.unit else ""),
        f"{row.original:.4g}",
        f"{row.int8:.4g}",
        f"{row.int8_drop:.2f}",
        f"{row.tuned:.4g}",
        f"{row.tuned_drop:.2f}",
        row.change,
    ]


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
        f"\n\nOver the {len(known)} COCO models the median drop is {plain:.2f} points plain and "
        f"{tuned:.2f} tuned; the largest after tuning is {worst.tuned_drop:.2f} ({worst.model}).\n"
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
