"""Byte-pair encoding (BPE) tokenizer in the format of subword-nmt
(https://arxiv.org/abs/1508.07909).

A token that continues its word ends with @@.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from rkzoo.errors import RkzooError
from rkzoo.files import open_file, os_errors_explained
from rkzoo.tasks.bpe import apply_merges
from rkzoo.tasks.translate.words import text_of, words_of

START, PAD, END, UNKNOWN = range(4)  # fairseq's special token ids; the dictionary starts at 4


@dataclass(frozen=True)
class SpecialTokens:
    """Special token ids. `start` is the first decoder input; `never` are never generated."""

    start: int
    end: int
    unknown: int
    pad: int
    never: tuple[int, ...]


@dataclass(frozen=True)
class BpeWord:
    """A word of the text, and its token ids."""

    text: str
    numbers: tuple[int, ...]


FAIRSEQ = SpecialTokens(start=END, end=END, unknown=UNKNOWN, pad=PAD, never=(START, PAD, UNKNOWN))
GOES_ON = "@@"
_LAST = "</w>"
_VERSION = "#version: 0.2"
_BIGGEST = 16 * 2**20


class BpeTokenizer:
    """BPE tokenizer. `merges` are pairs, the most frequent first; `pieces` the dictionary in
    order.
    """

    special_tokens = FAIRSEQ

    def __init__(self, merges: Sequence[tuple[str, str]], pieces: Sequence[str]) -> None:
        self._ranks = {pair: rank for rank, pair in reversed(list(enumerate(merges)))}
        self._parts = {"".join(pair): pair for pair in reversed(merges)}
        self._pieces = ("", "", "", "", *pieces)
        self._numbers = {piece: number for number, piece in enumerate(self._pieces) if piece}
        self.pieces = lru_cache(maxsize=8192)(self._split)

    def __len__(self) -> int:
        return len(self._pieces)

    @classmethod
    def from_files(cls, merges: Path, dictionary: Path) -> BpeTokenizer:
        """Read merges and dictionary. Raises RkzooError for files of another format."""
        first, *lines = _lines(merges)
        pairs = [tuple(line.split(" ")) for line in lines]
        if first.strip() != _VERSION or not all(len(pair) == 2 for pair in pairs):
            raise _other(merges, f"It has no merges of two, below the line {_VERSION}.")
        # A piece may be followed by its count.
        pieces = [line.split(" ")[0] for line in _lines(dictionary)]
        if not all(pieces):
            raise _other(dictionary, "It has a line without a piece.")
        return cls([(pair[0], pair[1]) for pair in pairs], pieces)

    def numbers(self, pieces: Iterable[str]) -> list[int]:
        """Token ids; UNKNOWN for pieces not in the dictionary."""
        return [self._numbers.get(piece, UNKNOWN) for piece in pieces]

    def words(self, numbers: Iterable[int]) -> list[str]:
        """Join token ids to words; special tokens are skipped."""
        text, words = "", []
        for number in numbers:
            piece = self._pieces[number]
            text += piece.removesuffix(GOES_ON)
            if text and not piece.endswith(GOES_ON):
                words.append(text)
                text = ""
        return [*words, text] if text else words

    def encode(self, sentence: str) -> list[BpeWord]:
        """Tokenize a sentence into words and punctuation marks."""
        bpe_words = []
        for index, word in enumerate(words_of(sentence)):
            pieces = self.pieces(word)
            small = self.pieces(word.lower())
            # The first word is capitalized in any case: use the more frequent form.
            if index == 0 and self._rank(small) < self._rank(pieces):
                pieces = small
            bpe_words.append(BpeWord(word, tuple(self.numbers(pieces))))
        return bpe_words

    def decode(self, numbers: Iterable[int], language: str) -> str:
        """Detokenize."""
        return text_of(self.words(numbers), language)

    def _rank(self, pieces: Sequence[str]) -> tuple[int, int, int]:
        """Sort key, more frequent words first: unknown tokens, number of tokens, dictionary
        order.
        """
        numbers = self.numbers(pieces)
        return numbers.count(UNKNOWN), len(numbers), sum(numbers)

    def _split(self, word: str) -> tuple[str, ...]:
        """BPE of one word: merges by rank; a piece not in the dictionary is split again."""
        parts = apply_merges([*word[:-1], word[-1:] + _LAST], self._ranks)
        parts[-1] = parts[-1].removesuffix(_LAST)
        pieces = [
            piece
            for index, part in enumerate(parts)
            for piece in self._known(part, index == len(parts) - 1)
        ]
        return tuple(pieces)

    def _known(self, part: str, final: bool) -> Iterator[str]:
        piece = part if final else part + GOES_ON
        halves = self._parts.get(part + _LAST if final else part)
        if piece in self._numbers or halves is None:
            yield piece
            return
        yield from self._known(halves[0], False)
        yield from self._known(halves[1].removesuffix(_LAST), final)


def _lines(path: Path) -> list[str]:
    # Not splitlines(): pieces may contain other line separators.
    try:
        with os_errors_explained(f"{path} cannot be read."), open_file(path) as file:
            text = file.read(_BIGGEST).decode("utf-8")
    except UnicodeDecodeError as error:
        raise _other(path, f"It is not UTF-8 text: {error}.") from error
    lines = [line.rstrip("\r") for line in text.split("\n")]
    if lines and not lines[-1]:
        lines.pop()
    if not lines:
        raise _other(path, "It is empty.")
    return lines


def _other(path: Path, why: str) -> RkzooError:
    return RkzooError(
        f"{path} does not belong to a model that translates.", why, "Fetch it with rkzoo fetch."
    )
