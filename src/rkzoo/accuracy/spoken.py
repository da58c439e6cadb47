"""What is said in sounds: word and character error rates."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from rkzoo.accuracy import lines
from rkzoo.accuracy.answers import Record, texts_of
from rkzoo.accuracy.metric import Metric, edit_distance, word_error_rate
from rkzoo.accuracy.tables import text_of
from rkzoo.audio.sound import SUFFIXES
from rkzoo.errors import RkzooError

# Han, kana, and what is written among them: scripts without spaces between words.
_UNSPACED = re.compile(
    r"([\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f])"
)


class Spoken(lines.Lines):
    """`texts`: what is said in each sound."""

    def score(
        self, records: Sequence[Record], labels: tuple[str, ...], names: Sequence[str]
    ) -> tuple[Metric, ...]:
        """Errors over all words (characters) that were spoken, as shares that may exceed 1; in
        Chinese and Japanese a character is a word. Case and punctuation do not count."""
        pairs = [
            (plain(truth), plain("".join(texts_of(record))))
            for truth, record in zip(self.texts, records, strict=False)
        ]
        if not pairs:
            return ()
        letters = [(a.replace(" ", ""), b.replace(" ", "")) for a, b in pairs]
        spoken = sum(len(truth) for truth, _ in letters)
        wrong = sum(edit_distance(truth, found) for truth, found in letters)
        return (
            Metric("word error rate", word_error_rate(pairs), "", False, 0.01, main=True),
            Metric("character error rate", wrong / max(spoken, 1), "", False, 0.01),
        )


def plain(text: str) -> str:
    """Words with single spaces between: small letters, no punctuation but apostrophes inside
    words, each character of a script without spaces a word."""
    folded = unicodedata.normalize("NFKC", text).casefold().replace("’", "'")
    kept = "".join(
        letter if letter == "'" or unicodedata.category(letter)[0] in "LMN" else " "
        for letter in folded
    )
    words = (word.strip("'") for word in _UNSPACED.sub(r" \1 ", kept).split())
    return " ".join(word for word in words if word)


def read(path: Path, sounds: Path | None) -> tuple[tuple[Path, ...], Spoken]:
    """A list: file, comma or tab, text. Sounds that are not on disk are left out."""
    divider = "," if path.suffix.lower() == ".csv" else "\t"
    items, truth = lines.read(path, sounds, divider)
    return items, Spoken(truth.texts)


def beside(folder: Path) -> list[tuple[Path, Path]]:
    """The sounds of a folder that have a .txt of the same name beside them, with it."""
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    pairs = [(path, path.with_suffix(".txt")) for path in found]
    return [(sound, text) for sound, text in pairs if text.is_file()]


def read_beside(folder: Path) -> tuple[tuple[Path, ...], Spoken]:
    """A folder of sounds, each with its text beside it. Raises RkzooError."""
    pairs = beside(folder)
    if not pairs:
        raise RkzooError(
            f"{folder} has no sound with a text beside it.",
            "What is said in a.wav stands in a.txt.",
            "Put the texts beside the sounds, or give a list.",
        )
    texts = tuple(" ".join(text_of(text).split()) for _, text in pairs)
    return tuple(sound for sound, _ in pairs), Spoken(texts)
