"""What a task is opened with: the parts of a model, and what the user wants of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rkzoo.contract.model import Contract, Head
from rkzoo.session import Session


@dataclass(frozen=True)
class Wishes:
    """What the user wants of an answer, thresholds apart.

    `language` of a speech or a page (a code such as en), None for the model's own guess or its
    usual one. `translate`: speech into English text. `speed` of a voice, 1 as trained.
    `points` x, y, label (1 the object, 0 not it) and `boxes` x1, y1, x2, y2 in source pixels
    say what to cut out. `words` are classes named by the user.
    """

    language: str | None = None
    translate: bool = False
    speed: float = 1.0
    points: tuple[tuple[float, float, int], ...] = ()
    boxes: tuple[tuple[float, float, float, float], ...] = ()
    words: tuple[str, ...] = ()


NOTHING = Wishes()


@dataclass(frozen=True)
class Opened:
    """The parts of a model by role ("model" where there is one), and its further files by
    role: `decoder.vocabulary` is the file `vocabulary` of the part `decoder`."""

    head: Head
    parts: Mapping[str, tuple[Contract, Session]]
    files: Mapping[str, Path]


Task = Callable[[Any], Any]
"""What a medium reads in, what was found out."""
