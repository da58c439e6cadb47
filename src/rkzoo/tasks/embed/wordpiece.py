"""WordPiece tokenizer of BERT models (https://arxiv.org/abs/1810.04805).

Follows uncased BERT: control characters are removed, each Chinese character is a word, text is
lowercased and accents are stripped, and each punctuation mark is a word.
"""

from __future__ import annotations

import json
import unicodedata
import zipfile
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from rkzoo.errors import RkzooError
from rkzoo.files import open_file

_LONGEST = 100  # characters of a word; a longer one is unknown
_BIGGEST = 16 * 2**20
# CJK ranges as fixed by BERT, without later additions to Unicode.
_CHINESE = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B920, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)


class WordPiece:
    """WordPiece tokenizer. `vocabulary` maps token to id; continuation tokens begin with ##."""

    def __init__(self, vocabulary: Mapping[str, int]) -> None:
        self._numbers = vocabulary
        self.start, self.end = vocabulary["[CLS]"], vocabulary["[SEP]"]
        self.pad, self._unknown = vocabulary["[PAD]"], vocabulary["[UNK]"]
        self._known = lru_cache(maxsize=4096)(self._pieces)

    @classmethod
    def from_file(cls, path: Path) -> WordPiece:
        """Read a tokenizer.json, or a zip that holds one. Raises RkzooError for any other file."""
        try:
            model = json.loads(_read(path))["model"]
            vocabulary = {str(piece): int(number) for piece, number in model["vocab"].items()}
            if model["type"] != "WordPiece" or model["continuing_subword_prefix"] != "##":
                raise ValueError("it is of another kind")
            return cls(vocabulary)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, zipfile.error) as error:
            raise RkzooError(
                f"The vocabulary {path} cannot be read.",
                f"It is not a WordPiece tokenizer.json: {error}.",
                "Fetch the model again with rkzoo fetch.",
            ) from error

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, without start and end tokens."""
        return [number for word in _words(text) for number in self._known(word)]

    def _pieces(self, word: str) -> tuple[int, ...]:
        """Greedy longest match; a word that cannot be split is unknown."""
        ids: list[int] = []
        at = 0
        while at < len(word):
            ends = range(len(word), at, -1)
            tries = (("##" if at else "") + word[at:end] for end in ends)
            hit = next((piece for piece in tries if piece in self._numbers), None)
            if hit is None or len(word) > _LONGEST:
                return (self._unknown,)
            ids.append(self._numbers[hit])
            at += len(hit) - (2 if at else 0)
        return tuple(ids)


def _read(path: Path) -> Any:
    with open_file(path) as whole:
        if not zipfile.is_zipfile(whole):
            whole.seek(0)
            return whole.read(_BIGGEST)
    with zipfile.ZipFile(path) as archive, archive.open("tokenizer.json") as file:
        return file.read(_BIGGEST)


def _words(text: str) -> Iterator[str]:
    word = ""
    for character in _plain(text):
        alone = _is_chinese(character) or _is_punctuation(character)
        if alone or character.isspace():
            if word:
                yield word
            word = ""
            if alone:
                yield character
        else:
            word += character
    if word:
        yield word


def _plain(text: str) -> Iterator[str]:
    """Lowercase without accents, white space as blanks, no control characters."""
    for character in text:
        if character in "\t\n\r":
            yield " "
        elif character in "\0\ufffd" or unicodedata.category(character) in ("Cc", "Cf", "Co", "Cs"):
            continue
        else:
            for part in unicodedata.normalize("NFD", character):
                if unicodedata.category(part) != "Mn":
                    yield from part.lower()


def _is_chinese(character: str) -> bool:
    return any(low <= ord(character) <= high for low, high in _CHINESE)


def _is_punctuation(character: str) -> bool:
    """All ASCII signs count, also those that Unicode classes as symbols."""
    sign = character.isascii() and character.isprintable() and not character.isalnum()
    return (sign and character != " ") or unicodedata.category(character).startswith("P")
