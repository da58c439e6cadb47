"""Memory fit on chips with in-package memory."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from rkzoo.soc.chips import chips

if TYPE_CHECKING:
    from rkzoo.speed.table import CostTable

_INSIDE = re.compile(r"^(\d+) MB inside the chip")
SHARE = 0.5
"""Share of the memory that a model may use, besides system, camera and program. A rule of thumb of
rkzoo, not a vendor figure."""


@dataclass(frozen=True)
class MemoryFit:
    """Memory verdict; `need` and `memory` in bytes. "no": exceeds the memory. "tight": exceeds
    SHARE of it.
    """

    verdict: Literal["yes", "tight", "no"]
    need: int
    memory: int


def inside(soc: str) -> int | None:
    """Bytes of in-package memory of a chip; None where the memory is external."""
    chip = chips().get(soc)
    match = _INSIDE.match(chip.memory) if chip else None
    return int(match[1]) * 2**20 if match else None


def fit(table: CostTable, soc: str) -> MemoryFit | None:
    """Compare weights and working memory with the in-package memory; None where there is none, or
    the compiler did not report them.
    """
    memory = inside(soc)
    if memory is None or table.weights is None or table.internal is None:
        return None
    need = table.weights + table.internal
    if need > memory:
        return MemoryFit("no", need, memory)
    return MemoryFit("tight" if need > SHARE * memory else "yes", need, memory)
