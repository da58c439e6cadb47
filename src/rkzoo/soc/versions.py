"""Version compatibility matrix: rules as data (versions.yaml), and their evaluation."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, total_ordering
from importlib import resources
from typing import Any, Literal, get_args

import msgspec
import yaml

from rkzoo.contract.schema_base import StrictStruct

Part = Literal["toolkit", "model", "runtime", "driver", "server"]
PARTS: tuple[Part, ...] = get_args(Part)

_VERSION = re.compile(r"v?(\d+)\.(\d+)(?:\.(\d+))?(?:[-.]?(a|b|beta|rc)(\d*))?")
_CONDITION = re.compile(r"(<=|>=|<|>)([\w.]+)")
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


@total_ordering
@dataclass(frozen=True)
class Version:
    """A version such as `2.3.2`, `0.9.8` or `2.0.0b0`; build and date are ignored.

    A beta sorts before its release.
    """

    numbers: tuple[int, int, int]
    beta: int | None = None

    def __lt__(self, other: Version) -> bool:
        return self._key() < other._key()

    def _key(self) -> tuple[tuple[int, int, int], float]:
        return self.numbers, float("inf") if self.beta is None else self.beta

    def __str__(self) -> str:
        return ".".join(map(str, self.numbers)) + ("" if self.beta is None else f"b{self.beta}")


def parse(text: str | None) -> Version | None:
    """The first version in a text such as `RKNPU driver: v0.9.8`; None when there is none."""
    match = _VERSION.search(text or "")
    if not match:
        return None
    major, minor, patch, beta, number = match.groups()
    return Version(
        (int(major[:6]), int(minor[:6]), int((patch or "0")[:6])),
        int(number or 0) if beta else None,
    )


class Component(StrictStruct, frozen=True):
    """A piece of software, and how to upgrade it."""

    title: str
    upgrade: str
    source: str


class Rule(StrictStruct, frozen=True):
    """A rule. `when` maps components to conditions; versions.yaml documents their syntax."""

    id: str
    when: dict[Part, str]
    level: Literal["warn", "fail"]
    why: str
    mend: Part
    source: tuple[str, ...]
    chips: tuple[str, ...] = ()
    library: str = ""
    cores: int | None = None

    def __post_init__(self) -> None:
        for text in self.when.values():
            for condition in text.split(","):
                match = _CONDITION.fullmatch(condition)
                if not match or (match[2] not in PARTS and parse(match[2]) is None):
                    raise ValueError(f"{condition!r} is not a condition")

    def holds(self, known: Mapping[Part, Version]) -> bool:
        """Whether known versions meet every condition."""
        return all(
            _met(known.get(part), condition, known)
            for part, text in self.when.items()
            for condition in text.split(",")
        )


def _met(have: Version | None, condition: str, known: Mapping[Part, Version]) -> bool:
    match = _CONDITION.fullmatch(condition)
    if match is None or have is None:
        return False
    named = next((part for part in PARTS if part == match[2]), None)
    other = known.get(named) if named else parse(match[2])
    return other is not None and _COMPARE[match[1]](have, other)


class Matrix(StrictStruct, frozen=True):
    components: dict[str, Component]
    rules: tuple[Rule, ...]


@cache
def matrix() -> Matrix:
    """The rules and components of versions.yaml."""
    text = resources.files("rkzoo.soc").joinpath("versions.yaml").read_text("utf-8")
    return msgspec.convert(yaml.load(text, yaml.CSafeLoader), Matrix)


def judge(
    known: Mapping[Part, Version | None], *, chip: str | None = None, library: str = ""
) -> tuple[Rule, ...]:
    """The rules that a combination of versions violates.

    Args:
        known: Versions by component; None and missing ones are not judged.
        chip: Canonical name of the chip.
        library: File name of the runtime library.

    Returns:
        The violated rules, failures first.
    """
    have = {part: version for part, version in known.items() if version is not None}
    rules = [
        rule
        for rule in matrix().rules
        if (not rule.chips or chip in rule.chips)
        and (not rule.library or library == rule.library)
        and rule.holds(have)
    ]
    return tuple(sorted(rules, key=lambda rule: rule.level != "fail"))


def upgrade(part: str, *, library: str = "librknnrt.so", place: str = "") -> str:
    """How to upgrade a component, as text for the user.

    Args:
        part: The component.
        library: File name of the runtime library.
        place: Path of the installed library; "" for the default.
    """
    return (
        matrix()
        .components[part]
        .upgrade.format(library=library, place=place or f"/usr/lib/{library}")
    )
