"""A text that was spoken."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rkzoo.audio.sound import Sound, write


@dataclass(frozen=True)
class SpokenSentence:
    """`start` and `end` in seconds. `unspoken` are the characters that nobody could say."""

    text: str
    start: float
    end: float
    unspoken: str = ""


@dataclass(frozen=True)
class Spoken:
    """The sound, and where in it each sentence is."""

    sound: Sound
    sentences: tuple[SpokenSentence, ...]
    suffix: str = ".wav"

    def __len__(self) -> int:
        return len(self.sentences)

    def to_json(self) -> list[dict[str, Any]]:
        """A record for each sentence, times in seconds."""
        return [
            {
                "text": one.text,
                "start": round(one.start, 3),
                "end": round(one.end, 3),
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
