"""Whisper's vocabulary and special tokens."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from rkzoo.errors import RkzooError
from rkzoo.files import os_errors_explained, read_text


@dataclass(frozen=True)
class WhisperTokens:
    """Whisper's vocabulary.

    Attributes:
        words: token strings by id, byte-level encoded.
        suppressed: ids that are never generated.
        start, end, transcribe, translate, silence, no_times: special tokens; ids from `end` on
            are not text.
        time: id of the timestamp 0.00; the following ids are 0.02 s apart.
        languages: language code to id.
    """

    words: tuple[str, ...]
    suppressed: tuple[int, ...]
    start: int
    end: int
    transcribe: int
    translate: int
    silence: int
    no_times: int
    time: int
    languages: dict[str, int]

    def text(self, tokens: Iterable[int]) -> str:
        """Decode ids to text; special tokens are skipped."""
        letters = _letters()
        text = "".join(self.words[token] for token in tokens if token < self.end)
        return bytes(letters[letter] for letter in text).decode("utf-8", "replace")

    def language(self, code: str) -> int:
        """Return the id of a language. Raises RkzooError for an unknown code."""
        if code.lower() not in self.languages:
            raise RkzooError(
                f"This model does not know the language {code!r}.",
                f"It knows {', '.join(sorted(self.languages))}.",
                "Give one of these codes, or leave --language out.",
            )
        return self.languages[code.lower()]


def read_tokens(vocabulary: Path, settings: Path) -> WhisperTokens:
    """Read the JSON list of all tokens, and a JSON object with `suppress_ids`.

    Raises:
        RkzooError: a file cannot be read, or is not of Whisper.
    """
    try:
        with os_errors_explained(f"The vocabulary {vocabulary} cannot be read."):
            words = tuple(json.loads(read_text(vocabulary)))
            suppressed = tuple(int(token) for token in _object(settings)["suppress_ids"])
        return _tokens(words, suppressed)
    except (ValueError, KeyError, TypeError) as error:
        raise RkzooError(
            f"{vocabulary} is not a vocabulary of Whisper.",
            f"Something is missing in it or in {settings.name}: {error}.",
            "Fetch the model again with rkzoo fetch.",
        ) from error


def _object(path: Path) -> dict[str, list[int]]:
    objects: dict[str, list[int]] = json.loads(read_text(path))
    return objects


def _tokens(words: tuple[str, ...], suppressed: tuple[int, ...]) -> WhisperTokens:
    index = {word: number for number, word in enumerate(words)}
    start, translate = index["<|startoftranscript|>"], index["<|translate|>"]
    end = index["<|endoftext|>"]
    letters = _letters()
    if any(letter not in letters for word in words[:end] for letter in word):
        raise ValueError("a token is not spelled in bytes")
    if any(not 0 <= token < len(words) for token in suppressed):
        raise ValueError("a suppressed token is not in the vocabulary")
    return WhisperTokens(
        words=words,
        suppressed=suppressed,
        start=start,
        end=end,
        transcribe=index["<|transcribe|>"],
        translate=translate,
        silence=index["<|nospeech|>"] if "<|nospeech|>" in index else index["<|nocaptions|>"],
        no_times=index["<|notimestamps|>"],
        time=index["<|0.00|>"],
        languages={words[token][2:-2]: token for token in range(start + 1, translate)},
    )


@cache
def _letters() -> dict[str, int]:
    """Byte-level BPE alphabet, character to byte: printable Latin-1 bytes map to themselves, all
    others to characters from U+0100.
    """
    visible = {*range(33, 127), *range(161, 173), *range(174, 256)}
    hidden = [byte for byte in range(256) if byte not in visible]
    return {chr(byte): byte for byte in visible} | {
        chr(256 + number): byte for number, byte in enumerate(hidden)
    }
