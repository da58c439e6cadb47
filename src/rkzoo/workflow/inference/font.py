"""A font to draw results with."""

from __future__ import annotations

from pathlib import Path

from rkzoo.errors import RkzooError
from rkzoo.progress import SILENT, ProgressReporter
from rkzoo.zoo.fetch import asset


def font(report: ProgressReporter = SILENT) -> Path | None:
    """A font with Chinese characters; None, with a note, when it cannot be had."""
    try:
        return asset("font-cjk", report)
    except RkzooError as error:
        report.note(f"Only ASCII can be drawn, for the font is missing. {error}")
        return None
