"""CLIP's byte-pair encoding (BPE) tokenizer (https://arxiv.org/abs/2103.00020).

The vocabulary is the published list of merges, which comes with the card of the encoder. The
rules are those of the tokenizer that YOLO-World was trained with: NFC, white space as one blank,
lowercase, no repair of broken encodings.
"""

from __future__ import annotations

import gzip
import unicodedata
import zlib
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rkzoo.errors import RkzooError
from rkzoo.files import open_file
from rkzoo.tasks.bpe import apply_merges

START, END = 49406, 49407
_MERGES = 49152 - 256 - 2
_LAST = "</w>"
_CONTRACTIONS = ("'s", "'t", "'re", "'ve", "'m", "'ll", "'d")
# str.isspace() accepts four separators that Unicode does not count as white space.
_NO_SPACE = frozenset("\x1c\x1d\x1e\x1f")
_BIGGEST = 16 * 2**20


class ClipTokenizer:
    """CLIP tokenizer. `merges` are pairs, the most frequent first; `pad` is the token that fills a
    row."""

    usual_length = 77
    ends = 2

    def __init__(self, merges: Sequence[tuple[str, str]], pad: int = END) -> None:
        self._pad = pad
        letters = list(_letters().values())
        tokens = [*letters, *(letter + _LAST for letter in letters), *map("".join, merges)]
        self._numbers = {token: number for number, token in enumerate(tokens)}
        self._ranks = {pair: rank for rank, pair in enumerate(merges)}
        self._known = lru_cache(maxsize=4096)(self._merged)

    @classmethod
    def from_file(cls, path: Path, pad: int = END) -> ClipTokenizer:
        """Read `bpe_simple_vocab_16e6.txt.gz`. Raises RkzooError for any other file."""
        try:
            with open_file(path) as packed, gzip.open(packed) as file:
                text = file.read(_BIGGEST).decode("utf-8")
        except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
            raise RkzooError(
                f"The vocabulary {path} cannot be read.",
                f"{error}.",
                "Fetch it again with: rkzoo fetch clip-text",
            ) from error
        # The first line is a title; CLIP does not use what follows the merges.
        pairs = [tuple(line.split()) for line in text.split("\n")[1 : _MERGES + 1]]
        merges = [(pair[0], pair[1]) for pair in pairs if len(pair) == 2]
        if len(merges) != _MERGES:
            raise RkzooError(
                f"{path} is not the vocabulary of CLIP.",
                f"It has {len(merges)} usable merges where there are {_MERGES}.",
                "Fetch it again with: rkzoo fetch clip-text",
            )
        return cls(merges, pad)

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, without start and end tokens."""
        return [number for word in _words(_cleaned(text)) for number in self._known(word)]

    def rows(self, texts: Iterable[str], length: int) -> NDArray[np.int64]:
        """Encode texts to int64 (N, length): start, tokens, end, padding.

        Raises:
            RkzooError: a text is too long; truncating it would change its meaning.
        """
        rows = []
        for text in texts:
            tokens = self.encode(text)
            if len(tokens) > length - 2:
                raise too_long(text, len(tokens), length - 2)
            rows.append([START, *tokens, END] + [self._pad] * (length - 2 - len(tokens)))
        return np.array(rows, np.int64).reshape(-1, length)

    def attended(self, row: NDArray[np.int64]) -> NDArray[np.bool_]:
        """What of a row (L,) the model attends to: all up to and including the first end token; the
        rest is padding."""
        return np.arange(len(row)) <= int(np.argmax(row == END))

    def _merged(self, word: str) -> tuple[int, ...]:
        """Token ids of one word: merges are applied by rank."""
        letters = _letters()
        parts = [letters[byte] for byte in word.encode("utf-8")]
        parts[-1] += _LAST
        return tuple(self._numbers[part] for part in apply_merges(parts, self._ranks))


def too_long(text: str, count: int, most: int) -> RkzooError:
    """For a text of `count` tokens where the model takes `most`."""
    return RkzooError(
        f"The words {text!r} are too long.",
        f"They are {count} pieces, and the model takes {most}.",
        "Say it in fewer words.",
    )


@lru_cache(maxsize=1)
def _letters() -> dict[int, str]:
    """Byte to visible character, in vocabulary order: printable bytes map to themselves, all others
    to characters from U+0100.
    """
    own = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in set(own)]
    return {byte: chr(byte) for byte in own} | {byte: chr(256 + i) for i, byte in enumerate(rest)}


def _cleaned(text: str) -> str:
    text = unicodedata.normalize("NFC", text)
    text = "".join(" " if _is_space(character) else character for character in text)
    # Per character, so that a final sigma is lowercased like any other.
    return "".join(character.lower() for character in text)


def _is_space(character: str) -> bool:
    return character.isspace() and character not in _NO_SPACE


def _kind(character: str) -> str:
    """L for letters, N for numbers, a blank for white space, empty for everything else."""
    kind = unicodedata.category(character)[0]
    if kind in "LN":
        return kind
    return " " if _is_space(character) else ""


def _words(text: str) -> Iterator[str]:
    """Split into runs of letters, single digits and runs of other characters; an English
    contraction ('s, 't, ...) that begins a run is a word of its own.
    """
    index = 0
    runs = [(kind, len(list(run))) for kind, run in groupby(text, _kind)]
    ends, position = [], 0
    for kind, size in runs:
        position += size
        ends.append((kind, position))
    for kind, end in ends:
        while index < end:
            if kind == " ":
                index = end
                break
            ending = next((c for c in _CONTRACTIONS if text.startswith(c, index)), "")
            size = len(ending) or (1 if kind == "N" else end - index)
            yield text[index : index + size]
            index += size
