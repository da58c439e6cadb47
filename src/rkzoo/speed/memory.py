"""Whether a model fits chips whose memory is inside them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from rkzoo.soc.chips import chips

if TYPE_CHECKING:
    from rkzoo.speed.table import CostTable

_INSIDE = re.compile(r"^(\d+) MB inside the chip")
SHARE = 0.5
"""Of the memory, which the system, the camera and the program have to share with the model. A
rule of thumb of rkzoo, not a figure of the vendor's."""


@dataclass(frozen=True)
class Fit:
    """`need` and `memory` in bytes. "no": it needs more than there is. "tight": more than
    SHARE of it."""

    verdict: Literal["yes", "tight", "no"]
    need: int
    memory: int


def inside(soc: str) -> int | None:
    """Bytes of memory inside a chip, or None where it has its memory beside it."""
    chip = chips().get(soc)
    found = _INSIDE.match(chip.memory) if chip else None
    return int(found[1]) * 2**20 if found else None


def fit(table: CostTable, soc: str) -> Fit | None:
    """Weights and working memory against the memory inside the chip; None where there is none,
    or the compiler did not tell."""
    memory = inside(soc)
    if memory is None or table.weights is None or table.internal is None:
        return None
    need = table.weights + table.internal
    if need > memory:
        return Fit("no", need, memory)
    return Fit("tight" if need > SHARE * memory else "yes", need, memory)
