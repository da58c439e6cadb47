"""Grouping of timed words into segments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rkzoo.tasks.speech.transcript import Segment

_PAUSE = 1.0  # seconds between words that separate segments


@dataclass(frozen=True)
class TimedToken:
    """A word or part of a word, with its leading space; `start` and `end` in seconds."""

    start: float
    end: float
    text: str


def segments_of(pieces: Sequence[TimedToken]) -> tuple[Segment, ...]:
    """Join pieces into segments, split at pauses."""
    segments: list[Segment] = []
    for piece in pieces:
        before = segments[-1] if segments else None
        if before is None or piece.start - before.end > _PAUSE:
            segments.append(Segment(piece.start, piece.end, piece.text))
        else:
            segments[-1] = Segment(before.start, piece.end, before.text + piece.text)
    return tuple(segments)
