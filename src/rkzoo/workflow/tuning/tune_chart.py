"""Bar chart of all trials of a search."""

from __future__ import annotations

from pathlib import Path

from rkzoo.files import atomic_output
from rkzoo.workflow.tuning.tune import TuningResult

_WIDEST = 25.0  # points: clips a collapse, so that the others stay visible


def draw(tuning: TuningResult, path: Path) -> None:
    """Write a chart with one bar per trial, its drop below float, to `path` (.png, .svg). Raises
    RkzooError when it cannot be written.
    """
    from matplotlib.figure import Figure

    trials = tuning.trials
    figure = Figure(figsize=(9, 1.2 + 0.34 * len(trials)), layout="constrained")
    axes = figure.add_subplot()
    shown = [min(trial.drop, _WIDEST) for trial in trials]
    colours = [
        "#2a9d8f" if trial is tuning.best else "#8ab6d6" if trial.kept else "#c9c9c9"
        for trial in trials
    ]
    places = range(len(trials))
    axes.barh(places, shown, color=colours)
    for place, trial in zip(places, trials, strict=True):
        if trial.interval:
            ends = [min(end, _WIDEST) for end in trial.interval]
            axes.plot(ends, (place + 0.3, place + 0.3), color="#555555", linewidth=1)
    for place, trial, width in zip(places, trials, shown, strict=True):
        cost = f", cost x{trial.cost:.2f}" if trial.cost else ""
        axes.annotate(f" {trial.drop:.2f}{cost}", (max(width, 0.0), place), va="center", fontsize=8)
    axes.set_yticks(places, [f"{trial.stage}: {trial.change}" for trial in trials], fontsize=8)
    axes.invert_yaxis()
    axes.axvline(tuning.max_drop, color="#d1495b", linewidth=1, linestyle="--")
    axes.axvline(0, color="black", linewidth=0.8)
    axes.margins(x=0.15)
    axes.set_xlabel(
        f"points of {tuning.metric.name} below float ({tuning.metric.value:.4f}); "
        f"simulator, {tuning.images} pictures"
    )
    axes.set_title(f"{tuning.model}: ways to INT8 (dashed: the drop allowed)", fontsize=10)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    with atomic_output(path) as temporary:
        figure.savefig(temporary, dpi=110)
