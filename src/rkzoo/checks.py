"""Checklist entries and their severity levels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warn", "fail"]
LEVELS: tuple[Level, ...] = ("ok", "warn", "fail")


@dataclass(frozen=True)
class Check:
    """One checklist entry.

    `ok`: fine. `warn`: works, with a caveat. `fail`: will not convert, or gives wrong results.
    """

    level: Level
    text: str
