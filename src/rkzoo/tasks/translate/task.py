"""Machine translation of texts of any length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from rkzoo.contract.language import MarianHead, TranslateHead
from rkzoo.errors import RkzooError
from rkzoo.tasks.translate.beam_search import AutoregressiveDecoder, beam_search
from rkzoo.tasks.translate.bpe_tokenizer import BpeWord, SpecialTokens
from rkzoo.tasks.translate.result import Sentence, Translation
from rkzoo.tasks.translate.words import sentences

# Preferred places to split a long sentence: after these marks, before these words.
MARKS = frozenset({";", ":", ",", "-", "...", "&quot;", ")"})
_JOINTS = frozenset(
    """
    and or but because although while when where which who that if as so than after before
    with without from for in on at by to of
    """.split()  # noqa: SIM905
)


class Tokenizer(Protocol):
    """Tokenizer: splits sentences into tokens, and joins tokens to text in a language."""

    special_tokens: SpecialTokens

    def encode(self, sentence: str) -> list[BpeWord]: ...

    def decode(self, numbers: Sequence[int], language: str) -> str: ...


class Translator:
    """Translates sentence by sentence. A sentence with more tokens than the model takes, or for
    which it generates no end token, is split.
    """

    def __init__(
        self, head: TranslateHead | MarianHead, network: AutoregressiveDecoder, tokenizer: Tokenizer
    ) -> None:
        self._head, self._network, self._spelling = head, network, tokenizer

    def __call__(self, text: str) -> Translation:
        translated = [
            self._sentence(sentence, number)
            for number, line in enumerate(text.splitlines())
            for sentence in sentences(line)
        ]
        if not translated:
            raise RkzooError("There is nothing to translate.", "", "Give some words.")
        return Translation(tuple(translated), self._head.source, self._head.target)

    def _sentence(self, text: str, line: int) -> Sentence:
        words = self._spelling.encode(text)
        special_tokens = self._spelling.special_tokens
        pieces: list[int] = []
        parts, finished = 0, True
        waiting = [words]
        while waiting:
            part = waiting.pop(0)
            numbers = [number for word in part for number in word.numbers]
            answer: tuple[int, ...] = ()
            ended = False
            if len(numbers) <= self._network.max_tokens:
                read = self._network.encode(numbers)
                answer, ended = beam_search(self._network, read, self._head.beams, special_tokens)
            if ended or len(numbers) == 1:
                pieces += answer
                parts += 1
                finished = finished and ended
            else:
                waiting[:0] = _halves(part)
        unknown = tuple(word.text for word in words if special_tokens.unknown in word.numbers)
        translation = self._spelling.decode(pieces, self._head.target)
        return Sentence(text, translation, line, parts, unknown, not finished)


def _halves(words: list[BpeWord]) -> list[list[BpeWord]]:
    """Split in two (a single word: its tokens), preferably after a punctuation mark, else before a
    conjunction or preposition, as close to the middle as possible.
    """
    if len(words) == 1:
        numbers = words[0].numbers
        half = len(numbers) // 2
        return [[BpeWord(words[0].text, part)] for part in (numbers[:half], numbers[half:])]
    lengths = [len(word.numbers) for word in words]
    middle = sum(lengths) / 2

    def cost(cut: int) -> tuple[bool, int, float]:
        off = abs(sum(lengths[:cut]) - middle)
        kind = 0 if words[cut - 1].text in MARKS else 1 if words[cut].text in _JOINTS else 2
        # Too close to an end, even a good place is rejected.
        return off > 0.6 * middle, kind, off

    cut = min(range(1, len(words)), key=cost)
    return [words[:cut], words[cut:]]
