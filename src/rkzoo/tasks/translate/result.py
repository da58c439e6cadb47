"""Translation result."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any, ClassVar

from rkzoo.errors import RkzooError
from rkzoo.files import write_text
from rkzoo.tasks.collection import Collection, Rows, pick
from rkzoo.tasks.translate.words import together


@dataclass(frozen=True)
class Sentence:
    """One translated sentence.

    Attributes:
        text, translation: source and target text.
        line: its line in the source text.
        parts: number of parts in which it was translated.
        unknown: words without a token in the vocabulary.
        unfinished: no end token was generated, so something may be missing.
    """

    text: str
    translation: str
    line: int = 0
    parts: int = 1
    unknown: tuple[str, ...] = ()
    unfinished: bool = False


@dataclass(frozen=True)
class Translation(Collection):
    """Translated sentences in order; `source` and `target` are language codes."""

    sentences: tuple[Sentence, ...]
    source: str
    target: str
    suffix: ClassVar[str] = ".txt"

    @property
    def text(self) -> str:
        """The whole translation, with the line breaks of the source."""
        lines: list[str] = []
        for number, of_line in groupby(self.sentences, lambda sentence: sentence.line):
            lines += [""] * (number - len(lines))
            lines.append(together([sentence.translation for sentence in of_line], self.target))
        return "\n".join(lines)

    @property
    def texts(self) -> tuple[str, ...]:
        """Translation of each sentence."""
        return tuple(sentence.translation for sentence in self.sentences)

    def __len__(self) -> int:
        return len(self.sentences)

    def _take(self, rows: Rows) -> Translation:
        return replace(self, sentences=pick(self.sentences, rows))

    def to_json(self) -> list[dict[str, Any]]:
        return [
            {
                "text": sentence.text,
                "translation": sentence.translation,
                "parts": sentence.parts,
                "unknown": list(sentence.unknown),
                "unfinished": sentence.unfinished,
            }
            for sentence in self.sentences
        ]

    def lines(self) -> list[str]:
        lines = []
        for sentence in self.sentences:
            lines.append(sentence.translation)
            if sentence.unknown:
                lines.append(f"  not known to the model: {', '.join(sentence.unknown)}")
            if sentence.unfinished:
                lines.append(
                    f"  the model came to no end here, something may be missing: {sentence.text}"
                )
        return lines

    def draw(self, image: Any) -> Any:
        raise RkzooError(
            "A translation cannot be drawn.", "It is text.", "Use text, lines() or save()."
        )

    def save(self, path: Path) -> None:
        """Write .txt or .json. Raises RkzooError when the file cannot be written."""
        if path.suffix.lower() == ".json":
            write_text(path, json.dumps(self.to_json(), ensure_ascii=False, indent=1) + "\n")
        else:
            write_text(path, self.text + "\n")
