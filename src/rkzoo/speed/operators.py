"""Operators that the NPU of a chip does not support, known before a build.

operators.yaml is written by scripts/probe_operators.py, which builds a small model of each operator
with the real toolkit and reads its placement. An operator may run on the NPU in some shapes only;
the table of a real build decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Literal

import msgspec

from rkzoo.contract.schema_base import StrictStruct
from rkzoo.soc.chips import chips, same_family


class Places(StrictStruct, frozen=True):
    """`cpu`: operators that run on the CPU. `refused`: operators for which the build fails."""

    cpu: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()


class Operators(StrictStruct, frozen=True):
    """operators.yaml. `tried`: all operators that were built."""

    toolkit: str
    date: str
    tried: tuple[str, ...]
    chips: dict[str, Places]


@dataclass(frozen=True)
class CpuFallback:
    """An operator of a graph that the NPU of a chip does not run."""

    operator: str
    place: Literal["cpu", "refused"]

    def describe(self) -> str:
        """Describe it in one sentence, without the chip."""
        if self.place == "cpu":
            return f"{self.operator} ran on the processor instead of the NPU when it was tried."
        return f"A model with {self.operator} could not be built when it was tried."


@cache
def operators() -> Operators:
    """Load operators.yaml."""
    import yaml

    text = resources.files("rkzoo.speed").joinpath("operators.yaml").read_text("utf-8")
    return msgspec.convert(yaml.load(text, yaml.CSafeLoader), Operators)


def cpu_fallbacks(names: Sequence[str], soc: str, dtype: str) -> tuple[CpuFallback, ...]:
    """Return the operators that `soc` is known not to run on its NPU; none for a dtype that was not
    tried (only the first dtype of each chip was).
    """
    if dtype != chips()[soc].dtypes[0]:
        return ()
    places = [places for chip, places in operators().chips.items() if same_family(chip, soc)]
    fallbacks = []
    for name in names:
        if any(name in place.refused for place in places):
            fallbacks.append(CpuFallback(name, "refused"))
        elif any(name in place.cpu for place in places):
            fallbacks.append(CpuFallback(name, "cpu"))
    return tuple(fallbacks)
