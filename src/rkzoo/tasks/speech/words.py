"""Words with their times put together to segments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rkzoo.tasks.speech.transcript import Segment

_PAUSE = 1.0  # seconds without a word that part segments


@dataclass(frozen=True)
class Piece:
    """A word or a part of one, the space before it included; `start` and `end` in seconds."""

    start: float
    end: float
    text: str


def segments_of(pieces: Sequence[Piece]) -> tuple[Segment, ...]:
    """The pieces in their order; a pause before one that begins a word parts them."""
    found: list[Segment] = []
    for piece in pieces:
        before = found[-1] if found else None
        if before is None or piece.start - before.end > _PAUSE:
            found.append(Segment(piece.start, piece.end, piece.text))
        else:
            found[-1] = Segment(before.start, piece.end, before.text + piece.text)
    return tuple(found)
