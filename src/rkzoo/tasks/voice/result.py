"""Text-to-speech result."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rkzoo.audio.sound import Sound, write
from rkzoo.tasks.collection import Collection, Rows, pick, times_of


@dataclass(frozen=True)
class SynthesizedSentence:
    """A spoken sentence: `start` and `end` in seconds; `unspoken` are characters that were
    skipped.
    """

    text: str
    start: float
    end: float
    unspoken: str = ""


@dataclass(frozen=True)
class SynthesizedSpeech(Collection):
    """The sound, and the position of each sentence in it."""

    sound: Sound
    sentences: tuple[SynthesizedSentence, ...]
    suffix: str = ".wav"

    @property
    def texts(self) -> tuple[str, ...]:
        """Text of each sentence."""
        return tuple(sentence.text for sentence in self.sentences)

    @property
    def times(self) -> NDArray[np.float64]:
        """Start and end of each sentence in seconds, (N, 2) float64."""
        return times_of(self.sentences)

    def __len__(self) -> int:
        return len(self.sentences)

    def _take(self, rows: Rows) -> SynthesizedSpeech:
        """The selected sentences with their sound, concatenated."""
        rate, at = self.sound.rate, 0.0
        parts, sentences = [np.zeros(0, np.float32)], []
        for synthesized_sentence in pick(self.sentences, rows):
            part = self.sound.samples[
                round(synthesized_sentence.start * rate) : round(synthesized_sentence.end * rate)
            ]
            parts.append(part)
            sentences.append(replace(synthesized_sentence, start=at, end=at + len(part) / rate))
            at = sentences[-1].end
        return replace(self, sound=Sound(np.concatenate(parts), rate), sentences=tuple(sentences))

    def to_json(self) -> list[dict[str, Any]]:
        """One record per sentence, times in seconds."""
        return [
            {
                "text": sentence.text,
                "start": round(float(sentence.start), 3),
                "end": round(float(sentence.end), 3),
                "unspoken": sentence.unspoken,
            }
            for sentence in self.sentences
        ]

    def lines(self) -> list[str]:
        lines = []
        for sentence in self.sentences:
            lines.append(f"{sentence.start:7.2f} – {sentence.end:7.2f} s  {sentence.text}")
            if sentence.unspoken:
                lines.append(f"not spoken, the voice has no sound for it: {sentence.unspoken}")
        return lines

    def save(self, path: Path) -> None:
        """Write a file in the suffix's format (`audio.sound.write`). Raises RkzooError when it
        cannot be written."""
        write(path, self.sound)
