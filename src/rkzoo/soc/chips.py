"""The chips, from chips.yaml: facts, each with the source it comes from."""

from __future__ import annotations

import difflib
from functools import cache
from importlib import resources
from typing import Any, Literal

import msgspec
import yaml

from rkzoo.contract.schema_base import Strict
from rkzoo.errors import RkzooError


class Cluster(Strict, frozen=True):
    """CPU cores that share a clock. `policy` is the number of their cpufreq folder."""

    name: str
    cores: tuple[int, ...]
    policy: int
    max_khz: int
    big: bool = False


class Variant(Strict, frozen=True):
    """A chip with parts switched off when it was made. `cores` are those of its NPU, None where
    no source tells; which CPU cores are missing differs from piece to piece."""

    sources: tuple[str, ...]
    cores: int | None = None


class Chip(Strict, frozen=True):
    """`generation` 2 is what RKNN-Toolkit2 serves; `dtypes` are those that build.

    Everything below `aliases` may be missing, which means that no source told it. `cores`
    and `tops` are of the NPU. `npu_clock` are the places where its clock may be found, the
    best first: a devfreq folder or a file of clock rates. `driver` is how the NPU's driver
    is upgraded: `kernel` with the firmware, `module` as a .ko file, `system` with the SDK.
    `variants` are by name. `iommu` is False where the NPU needs contiguous memory (CMA).
    `sources` names, for each fact, an entry of sources.yaml.
    """

    generation: Literal[1, 2, 3]
    dtypes: tuple[str, ...]
    container: int = 0
    aliases: tuple[str, ...] = ()
    family: str = ""
    cores: int | None = None
    tops: float | None = None
    compatible: tuple[str, ...] = ()
    clusters: tuple[Cluster, ...] = ()
    memory: str = ""
    npu_clock: tuple[str, ...] = ()
    npu_max_hz: int | None = None
    ddr_max_hz: int | None = None
    idle_state: int | None = None
    iommu: bool | None = None
    runtime: str = ""
    variants: dict[str, Variant] = msgspec.field(default_factory=dict)
    driver: Literal["", "kernel", "module", "system"] = ""
    note: str = ""
    sources: dict[str, str] = msgspec.field(default_factory=dict)

    @property
    def big_cores(self) -> tuple[int, ...]:
        """The fast CPU cores where a chip has fast and slow ones, else none."""
        return tuple(core for c in self.clusters if c.big for core in c.cores)


def _read(name: str) -> Any:
    text = resources.files("rkzoo.soc").joinpath(name).read_text("utf-8")
    return yaml.load(text, yaml.CSafeLoader)


@cache
def chips() -> dict[str, Chip]:
    return msgspec.convert(_read("chips.yaml"), dict[str, Chip])


@cache
def sources() -> dict[str, str]:
    """Key -> document or address of everything that chips and versions cite."""
    return msgspec.convert(_read("sources.yaml"), dict[str, str])


def supported() -> tuple[str, ...]:
    """Names of the chips that `convert` can build for."""
    return tuple(name for name, chip in chips().items() if chip.generation == 2)


def same_family(one: str, other: str) -> bool:
    """Whether a model built for `one` runs on `other` (canonical names)."""
    family = chips()[one].family if one in chips() else ""
    return one == other or (family != "" and family == chips()[other].family)


_REFUSED = {
    1: (
        "Its NPU is of the first generation, which RKNN-Toolkit2 does not serve.",
        "Use Rockchip's older RKNN-Toolkit (1.7.5) for it; rkzoo has no part in that.",
    ),
    3: (
        "Its NPU is of the third generation, which needs RKNN3-Toolkit and files of its own.",
        "Use RKNN3-Toolkit for it, or build for the chip it is plugged into, such as rk3588.",
    ),
}


def resolve(name: str) -> str:
    """The canonical name of a chip that RKNN-Toolkit2 serves.

    Raises RkzooError for a chip of another generation, naming the toolkit it needs, and for
    an unknown one, naming the nearest.
    """
    canonical = find(name)
    generation = chips()[canonical].generation
    if generation in _REFUSED:
        raise RkzooError(f"{canonical} cannot be built for.", *_REFUSED[generation])
    return canonical


def find(name: str) -> str:
    """The canonical name of a known chip of any generation; RkzooError when unknown."""
    wanted = name.strip().lower()
    if wanted == "rk182x":
        wanted = "rk1820"
    for canonical, chip in chips().items():
        if wanted == canonical or wanted in chip.aliases:
            return canonical
    near = difflib.get_close_matches(wanted, supported(), 1, 0.5)
    raise RkzooError(
        f"There is no chip called {name!r} here.",
        f"Known chips: {', '.join(supported())}.",
        f"Did you mean {near[0]}?" if near else "Look at the marking on the chip itself.",
    )
