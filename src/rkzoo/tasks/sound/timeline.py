"""What was found in a sound, along its time."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rkzoo.files import atomic_output


@dataclass(frozen=True)
class Stretch:
    """`label` from `start` to `end`, in seconds; `score` is the highest in it, 0..1."""

    start: float
    end: float
    label: str
    score: float


def written(stretches: Sequence[Stretch]) -> list[dict[str, Any]]:
    """As plain data, times to the millisecond."""
    return [
        {
            "start": round(float(one.start), 3),
            "end": round(float(one.end), 3),
            "label": one.label,
            "score": round(float(one.score), 4),
        }
        for one in stretches
    ]


def said(stretches: Sequence[Stretch]) -> list[str]:
    return [f"{s.start:7.2f} – {s.end:7.2f} s  {s.label}  {s.score:.2f}" for s in stretches]


def save_csv(path: Path, stretches: Sequence[Stretch]) -> None:
    """Writes start, end, label, score, one stretch a row. Raises RkzooError."""
    with atomic_output(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, ("start", "end", "label", "score"))
        table.writeheader()
        table.writerows(written(stretches))
