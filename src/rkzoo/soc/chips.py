"""The chips, from chips.yaml."""

from __future__ import annotations

import difflib
from functools import cache
from importlib import resources

import msgspec
import yaml

from rkzoo.contract import Strict
from rkzoo.errors import RkzooError


class Chip(Strict, frozen=True):
    """`generation` 2 is what RKNN-Toolkit2 serves; `dtypes` are those that build."""

    generation: int
    dtypes: tuple[str, ...]
    container: int = 0
    aliases: tuple[str, ...] = ()


@cache
def chips() -> dict[str, Chip]:
    text = resources.files("rkzoo.soc").joinpath("chips.yaml").read_text("utf-8")
    return msgspec.convert(yaml.load(text, yaml.CSafeLoader), dict[str, Chip])


def supported() -> tuple[str, ...]:
    """Names of the chips that `convert` can build for."""
    return tuple(name for name, chip in chips().items() if chip.generation == 2)


def resolve(name: str) -> str:
    """The canonical name of a chip that RKNN-Toolkit2 serves.

    Raises RkzooError for a first-generation chip, naming the toolkit it needs, and for
    an unknown one, naming the nearest.
    """
    wanted = name.strip().lower()
    for canonical, chip in chips().items():
        if wanted == canonical or wanted in chip.aliases:
            if chip.generation == 1:
                raise RkzooError(
                    f"{canonical} cannot be built for.",
                    "Its NPU is of the first generation, which RKNN-Toolkit2 does not serve.",
                    "Use Rockchip's older RKNN-Toolkit (1.7.5) for it; rkzoo has no part in that.",
                )
            return canonical
    near = difflib.get_close_matches(wanted, supported(), 1, 0.5)
    raise RkzooError(
        f"There is no chip called {name!r} here.",
        f"Known chips: {', '.join(supported())}.",
        f"Did you mean {near[0]}?" if near else "Look at the marking on the chip itself.",
    )
