"""Rockchip chip database (chips.yaml): facts, each with its source."""

from __future__ import annotations

from collections.abc import Collection
from functools import cache
from importlib import resources
from typing import Any, Literal

import msgspec
import yaml

from rkzoo.contract.schema_base import StrictStruct
from rkzoo.errors import RkzooError
from rkzoo.spelling import unknown


class Cluster(StrictStruct, frozen=True):
    """CPU cores that share a clock. `policy` is the number of their cpufreq folder."""

    name: str
    cores: tuple[int, ...]
    policy: int
    max_khz: int
    big: bool = False


class Variant(StrictStruct, frozen=True):
    """A chip with some parts fused off. `cores` are those of its NPU, None where no source says;
    which CPU cores are missing differs from chip to chip.
    """

    sources: tuple[str, ...]
    cores: int | None = None


class Chip(StrictStruct, frozen=True):
    """A chip. Everything below `aliases` may be missing: no source says.

    Attributes:
        generation: NPU generation; RKNN-Toolkit2 supports 2.
        dtypes: Data types that models can be built for.
        container: .rknn container format.
        aliases: Other names.
        family: Chips of one family run the same .rknn files.
        cores: NPU cores.
        tops: NPU performance in TOPS.
        compatible: Device tree names of the NPU.
        clusters: CPU clusters.
        memory: Size of the memory, as text.
        npu_clock: Where the NPU clock may be found, the best first: a devfreq folder or a file of
            clock rates.
        npu_max_hz: Maximum NPU clock in Hz.
        ddr_max_hz: Maximum memory clock in Hz.
        idle_state: CPU idle state to disable for measurements.
        iommu: False where the NPU needs contiguous memory (CMA).
        runtime: File name of the runtime library.
        variants: Variants by name.
        driver: How the NPU driver is upgraded: `kernel` with the firmware, `module` as a .ko file,
            `system` with the SDK.
        note: A remark.
        sources: For each fact, an entry of sources.yaml.
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
    def takes_custom(self) -> bool:
        """Whether the runtime library takes custom operators: librknnmrt (2.3.2) does not."""
        return self.runtime == "librknnrt.so"

    @property
    def big_cores(self) -> tuple[int, ...]:
        """The fast CPU cores of a chip with fast and slow ones; empty otherwise."""
        return tuple(core for c in self.clusters if c.big for core in c.cores)


def _read(name: str) -> Any:
    text = resources.files("rkzoo.soc").joinpath(name).read_text("utf-8")
    return yaml.load(text, yaml.CSafeLoader)


@cache
def chips() -> dict[str, Chip]:
    """All chips by canonical name."""
    return msgspec.convert(_read("chips.yaml"), dict[str, Chip])


@cache
def sources() -> dict[str, str]:
    """Key -> document or URL of everything that chips and versions cite."""
    return msgspec.convert(_read("sources.yaml"), dict[str, str])


def supported() -> tuple[str, ...]:
    """Names of the chips that `convert` can build for."""
    return tuple(name for name, chip in chips().items() if chip.generation == 2)


def same_family(text: str, other: str) -> bool:
    """Whether a model built for `one` runs on `other` (canonical names)."""
    family = chips()[text].family if text in chips() else ""
    return text == other or (family != "" and family == chips()[other].family)


_REFUSED = {
    1: (
        "Its NPU is of the first generation, which RKNN-Toolkit2 does not support.",
        "Use Rockchip's older RKNN-Toolkit (1.7.5), which rkzoo does not support.",
    ),
    3: (
        "Its NPU is of the third generation, which needs RKNN3-Toolkit and files of its own.",
        "Use RKNN3-Toolkit for it, or build for the chip it is plugged into, such as rk3588.",
    ),
}


def resolve(name: str) -> str:
    """The canonical name of a chip that RKNN-Toolkit2 supports.

    Args:
        name: Name or alias, in any case.

    Raises:
        RkzooError: The chip is unknown (the message names the nearest), or of another generation
            (the message names the toolkit it needs).
    """
    try:
        canonical = find(name, supported())
    except RkzooError as error:
        near = find(error.typo[1]) if error.typo else ""
        if near in supported() or not near:
            raise
        # The nearest is no way out.
        why, fix = _REFUSED[chips()[near].generation]
        raise RkzooError(error.what, f"The nearest is {near}. {why}", fix) from error
    generation = chips()[canonical].generation
    if generation in _REFUSED:
        raise RkzooError(f"{canonical} cannot be built for.", *_REFUSED[generation])
    return canonical


def find(name: str, listed: Collection[str] = ()) -> str:
    """The canonical name of a known chip of any generation. Raises RkzooError when unknown, which
    lists all chips or those of `listed`."""
    requested = name.strip().lower()
    if requested == "rk182x":
        requested = "rk1820"
    for canonical, chip in chips().items():
        if requested == canonical or requested in chip.aliases:
            return canonical
    raise unknown(
        f"There is no chip called {name!r} here.",
        f"Known chips: {', '.join(listed or chips())}.",
        name,
        [*chips(), *(alias for chip in chips().values() for alias in chip.aliases)],
        "Look at the marking on the chip itself.",
    )
