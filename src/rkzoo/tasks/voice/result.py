"""A text that was spoken."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rkzoo.audio.sound import Sound, write
from rkzoo.tasks.collection import Collection, Rows, pick, times_of


@dataclass(frozen=True)
class SpokenSentence:
    """`start` and `end` in seconds. `unspoken` are the characters that nobody could say."""

    text: str
    start: float
    end: float
    unspoken: str = ""


@dataclass(frozen=True)
class Spoken(Collection):
    """The sound, and where in it each sentence is."""

    sound: Sound
    sentences: tuple[SpokenSentence, ...]
    suffix: str = ".wav"

    @property
    def texts(self) -> tuple[str, ...]:
        """What each sentence says."""
        return tuple(one.text for one in self.sentences)

    @property
    def times(self) -> NDArray[np.float64]:
        """(N, 2) start and end of each sentence in seconds."""
        return times_of(self.sentences)

    def __len__(self) -> int:
        return len(self.sentences)

    def _take(self, rows: Rows) -> Spoken:
        """The sentences and their sound alone, one after another."""
        rate, at = self.sound.rate, 0.0
        parts, sentences = [np.zeros(0, np.float32)], []
        for one in pick(self.sentences, rows):
            part = self.sound.samples[round(one.start * rate) : round(one.end * rate)]
            parts.append(part)
            sentences.append(replace(one, start=at, end=at + len(part) / rate))
            at = sentences[-1].end
        return replace(self, sound=Sound(np.concatenate(parts), rate), sentences=tuple(sentences))

    def to_json(self) -> list[dict[str, Any]]:
        """A record for each sentence, times in seconds."""
        return [
            {
                "text": one.text,
                "start": round(float(one.start), 3),
                "end": round(float(one.end), 3),
                "unspoken": one.unspoken,
            }
            for one in self.sentences
        ]

    def lines(self) -> list[str]:
        said = []
        for one in self.sentences:
            said.append(f"{one.start:7.2f} – {one.end:7.2f} s  {one.text}")
            if one.unspoken:
                said.append(f"not spoken, the voice has no sound for it: {one.unspoken}")
        return said

    def save(self, path: Path) -> None:
        """Writes 16-bit WAV (or FLAC, OGG by the suffix). Raises RkzooError."""
        write(path, self.sound)
