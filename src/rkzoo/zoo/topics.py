"""What people ask for and rkzoo does not do: who does it, and where it runs."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import msgspec
import yaml

from rkzoo.contract.schema_base import Strict

_FOLDER = Path(__file__).parent / "topics"


class Way(Strict, frozen=True):
    """A software that does it, on these chips."""

    software: str
    chips: tuple[str, ...]
    how: str
    get: str = ""


class Figure(Strict, frozen=True):
    """One published measurement: tokens a second, memory in MB."""

    chip: str
    model: str
    dtype: str
    tokens: float
    memory: int


class Figures(Strict, frozen=True):
    source: str
    rows: tuple[Figure, ...]


class Topic(Strict, frozen=True):
    title: str
    says: tuple[str, ...]
    ways: tuple[Way, ...]
    figures: Figures


def topics() -> tuple[str, ...]:
    """Their names, sorted."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.yaml")))


@cache
def topic(name: str) -> Topic:
    text = (_FOLDER / f"{name}.yaml").read_text("utf-8")
    return msgspec.convert(yaml.safe_load(text), Topic)
