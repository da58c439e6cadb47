"""Waterfall chart of an accuracy breakdown."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rkzoo.errors import RkzooError
from rkzoo.files import atomic_output
from rkzoo.workflow.evaluation.explain import Explanation, Step

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FORMATS = (".png", ".svg", ".pdf")

_INK, _QUIET = "#222222", "#777777"
_LESS, _MORE, _WHOLE = "#c8553d", "#3d8c5a", "#35618f"
_HIGH = 0.62  # bar height, relative to a row


def check_name(path: Path) -> None:
    """Raise RkzooError for an unsupported chart format."""
    if path.suffix.lower() not in FORMATS:
        raise RkzooError(
            f"{path} cannot be written.",
            "A chart is written in the format of the name's suffix.",
            f"Use one of {', '.join(FORMATS)}.",
        )


def draw(explanation: Explanation, path: Path) -> None:
    """Write the waterfall chart as .png, .svg or .pdf.

    One row per step, from the top. The axis does not start at 0, so only the changes have bars;
    values are written beside them. Branches are hatched and pale.

    Raises:
        RkzooError: another suffix, matplotlib is missing, or the file cannot be written.
    """
    check_name(path)
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise RkzooError(
            "The chart cannot be drawn.",
            f"The package matplotlib is not installed ({error}).",
            "Install it with: pip install matplotlib",
        ) from error
    figure = Figure(figsize=(10.5, 1.6 + 0.42 * len(explanation.steps)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    _frame(axes, explanation)
    before: float | None = None
    square = next((step.value for step in explanation.steps if step.key == "square"), None)
    for row, step in enumerate(explanation.steps):
        if step.value is None:
            middle = sum(axes.get_xlim()) / 2
            axes.text(
                middle,
                row,
                "cannot be measured",
                ha="center",
                va="center",
                color=_QUIET,
                style="italic",
            )
            continue
        _bar(axes, row, step, step.value, square if step.branch else before)
        if not step.branch:
            if before is not None:
                axes.plot(
                    [before, before], [_left(explanation, row), row], color=_QUIET, lw=0.8, zorder=1
                )
            before = step.value
    with atomic_output(path) as temporary:
        # No date, so that the file is reproducible.
        extra: dict[str, Any] = {"metadata": {"Date": None}} if path.suffix == ".svg" else {}
        figure.savefig(temporary, format=path.suffix[1:].lower(), dpi=150, **extra)


def _left(explanation: Explanation, row: int) -> int:
    """Row of the previous measured step of the path."""
    return max(
        number
        for number, step in enumerate(explanation.steps[:row])
        if not step.branch and step.value is not None
    )


def _frame(axes: Axes, explanation: Explanation) -> None:
    values = [step.value for step in explanation.steps if step.value is not None]
    low, high = min(values), max(values)
    room = max((high - low) * 0.22, 0.004)
    axes.set_xlim(low - room, high + 1.6 * room)
    axes.set_ylim(len(explanation.steps) - 0.4, -0.6)
    axes.set_yticks(range(len(explanation.steps)), [step.title for step in explanation.steps])
    for label, step in zip(axes.get_yticklabels(), explanation.steps, strict=True):
        label.set_color(_QUIET if step.branch else _INK)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="#e6e6e6", lw=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    unit = f" ({explanation.unit})" if explanation.unit else ""
    axes.set_xlabel(
        f"{explanation.metric}{unit}. The axis does not begin at 0.\n"
        "Hatched: tried on the fixed input alone, not part of the sum."
    )
    axes.set_title(
        f"{explanation.model}: from the upstream figure to the deployed model\n"
        f"{explanation.images} pictures of {explanation.dataset}",
        loc="left",
        fontsize=11,
    )


def _bar(axes: Axes, row: int, step: Step, value: float, before: float | None) -> None:
    color = _WHOLE if before is None else _LESS if value < before else _MORE
    start = value if before is None else before
    if step.branch:
        axes.barh(
            row,
            value - start,
            _HIGH,
            left=start,
            color="white",
            edgecolor=color,
            hatch="////",
            lw=0.8,
            alpha=0.7,
        )
    else:
        axes.barh(row, value - start, _HIGH, left=start, color=color)
    # Mark the value: a change of zero has no visible bar.
    axes.plot(
        [value, value],
        [row - _HIGH / 2, row + _HIGH / 2],
        color=_QUIET if step.branch else _INK,
        lw=1.6,
    )
    change = "" if step.change is None else f"  ({step.change:+.4f})" if step.change else "  (0)"
    axes.annotate(
        f"{value:.4f}{change}",
        (max(value, start), row),
        xytext=(5, 0),
        textcoords="offset points",
        va="center",
        fontsize=9,
        color=_QUIET if step.branch else _INK,
    )
