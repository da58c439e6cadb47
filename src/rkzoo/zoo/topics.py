"""Topics outside of rkzoo's scope: which software covers them, on which chips."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import msgspec
import yaml

from rkzoo.contract.schema_base import StrictStruct

_FOLDER = Path(__file__).parent / "topics"


class SoftwareOption(StrictStruct, frozen=True):
    """A software that covers the topic, on these chips."""

    software: str
    chips: tuple[str, ...]
    how: str
    get: str = ""


class Figure(StrictStruct, frozen=True):
    """A published measurement: tokens per second, memory in MB."""

    chip: str
    model: str
    dtype: str
    tokens: float
    memory: int


class Figures(StrictStruct, frozen=True):
    """Published measurements, with their source."""

    source: str
    rows: tuple[Figure, ...]


class Topic(StrictStruct, frozen=True):
    title: str
    says: tuple[str, ...]
    ways: tuple[SoftwareOption, ...]
    figures: Figures


def topics() -> tuple[str, ...]:
    """Names of the topics, sorted."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.yaml")))


@cache
def topic(name: str) -> Topic:
    """A topic by name."""
    text = (_FOLDER / f"{name}.yaml").read_text("utf-8")
    return msgspec.convert(yaml.safe_load(text), Topic)
