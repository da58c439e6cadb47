"""Labelled time segments of a sound, and their output formats."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rkzoo.files import atomic_output


@dataclass(frozen=True)
class LabeledSpan:
    """A labelled segment: `start` and `end` in seconds, `score` the highest in it, 0..1."""

    start: float
    end: float
    label: str
    score: float


def csv_text(stretches: Sequence[LabeledSpan]) -> list[dict[str, Any]]:
    """Convert to JSON records, times rounded to milliseconds."""
    return [
        {
            "start": round(float(stretch.start), 3),
            "end": round(float(stretch.end), 3),
            "label": stretch.label,
            "score": round(float(stretch.score), 4),
        }
        for stretch in stretches
    ]


def text_lines(stretches: Sequence[LabeledSpan]) -> list[str]:
    """Text output for a terminal, one line per segment."""
    return [f"{s.start:7.2f} – {s.end:7.2f} s  {s.label}  {s.score:.2f}" for s in stretches]


def save_csv(path: Path, stretches: Sequence[LabeledSpan]) -> None:
    """Write a CSV with the columns start, end, label, score. Raises RkzooError when the file cannot
    be written.
    """
    with atomic_output(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, ("start", "end", "label", "score"))
        table.writeheader()
        table.writerows(csv_text(stretches))
