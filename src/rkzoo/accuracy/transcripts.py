"""Speech recognition ground truth and metrics: word and character error rates."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from rkzoo.accuracy import lines
from rkzoo.accuracy.answers import Record, texts_of
from rkzoo.accuracy.metric import Metric, edit_distance, word_error_rate
from rkzoo.accuracy.resampling import of_sums
from rkzoo.accuracy.tables import text_of
from rkzoo.audio.sound import SUFFIXES
from rkzoo.errors import RkzooError

# Han and kana: scripts without spaces between words.
_UNSPACED = re.compile(
    r"([\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f])"
)


class TranscriptTruth(lines.LineTruth):
    """Ground truth of speech recognition. `texts`: transcript of each sound."""

    def score(
        self, records: Sequence[Record], labels: tuple[str, ...], names: Sequence[str]
    ) -> tuple[Metric, ...]:
        """Word and character error rates over all sounds; may exceed 1. In Chinese and Japanese
        each character is a word. Case and punctuation are ignored.
        """
        pairs = [
            (normalize_text(truth), normalize_text("".join(texts_of(record))))
            for truth, record in zip(self.texts, records, strict=False)
        ]
        if not pairs:
            return ()
        # Errors and words of each sound.
        words = [(edit_distance(a.split(), b.split()), len(a.split())) for a, b in pairs]
        letters = [(a.replace(" ", ""), b.replace(" ", "")) for a, b in pairs]
        spoken = sum(len(truth) for truth, _ in letters)
        wrong = sum(edit_distance(truth, text) for truth, text in letters)
        return (
            Metric(
                "word error rate",
                word_error_rate(pairs),
                "",
                False,
                0.01,
                True,
                of_sums(words, lambda sums: sums[:, 0] / sums[:, 1]),
            ),
            Metric("character error rate", wrong / max(spoken, 1), "", False, 0.01),
        )


def normalize_text(text: str) -> str:
    """Normalize for comparison: lowercase, no punctuation but apostrophes inside words, single
    spaces, a space around each character of a script without spaces.
    """
    folded = unicodedata.normalize("NFKC", text).casefold().replace("’", "'")
    kept = "".join(
        letter if letter == "'" or unicodedata.category(letter)[0] in "LMN" else " "
        for letter in folded
    )
    words = (word.strip("'") for word in _UNSPACED.sub(r" \1 ", kept).split())
    return " ".join(word for word in words if word)


def read(path: Path, sounds: Path | None) -> tuple[tuple[Path, ...], TranscriptTruth]:
    """Read a list: file, comma or tab, text."""
    divider = "," if path.suffix.lower() == ".csv" else "\t"
    items, truth = lines.read(path, sounds, divider)
    return items, TranscriptTruth(truth.texts)


def paired_files(folder: Path) -> list[tuple[Path, Path]]:
    """Audio files of a folder that have a .txt of the same name, with it."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    pairs = [(path, path.with_suffix(".txt")) for path in paths]
    return [(sound, text) for sound, text in pairs if text.is_file()]


def read_paired_files(folder: Path) -> tuple[tuple[Path, ...], TranscriptTruth]:
    """Read a folder of audio files with a .txt each. Raises RkzooError where there is none."""
    pairs = paired_files(folder)
    if not pairs:
        raise RkzooError(
            f"{folder} has no sound with a text beside it.",
            "What is said in a.wav stands in a.txt.",
            "Put the texts beside the sounds, or give a list.",
        )
    texts = tuple(" ".join(text_of(text).split()) for _, text in pairs)
    return tuple(sound for sound, _ in pairs), TranscriptTruth(texts)
