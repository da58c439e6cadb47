"""Ground floor: levels of what is found, and a line of a checklist."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warn", "fail"]
LEVELS: tuple[Level, ...] = ("ok", "warn", "fail")


@dataclass(frozen=True)
class Check:
    """`ok`: fine. `warn`: works, but know this. `fail`: will not convert or not be right."""

    level: Level
    text: str
