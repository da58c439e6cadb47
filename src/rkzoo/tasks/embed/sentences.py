"""Texts compared by what they mean (https://arxiv.org/abs/1908.10084)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from rkzoo.contract.model import Contract
from rkzoo.errors import RkzooError
from rkzoo.session import Session, run_named
from rkzoo.tasks.embed.result import Alike
from rkzoo.tasks.embed.wordpiece import WordPiece
from rkzoo.tasks.prompt.encode import unit

Embeddings = NDArray[np.float32]

_HIDDEN = -1e4  # as good as minus infinity, and there is such a number in half precision


class Sentences:
    """Says how alike a text is to each of `words`; and makes embeddings of texts, which a search
    compares."""

    def __init__(
        self,
        parts: Mapping[str, tuple[Contract, Session]],
        tokenizer: WordPiece,
        words: Sequence[str] = (),
    ) -> None:
        self._embedding, self._encoder = parts["embedding"][1], parts["encoder"][1]
        self._tokenizer, self._words = tokenizer, tuple(words)
        self._length = self._embedding.inputs[0].shape[1]
        self._meant = self.meant(self._words) if self._words else None

    def __call__(self, text: str) -> Alike:
        """Raises RkzooError where there is nothing to compare with."""
        if self._meant is None:
            raise RkzooError(
                "There is nothing to compare the text with.",
                "What it is alike to has to be said.",
                'Give for example --prompt "a walk in the park"; or search text files with '
                '--search "a walk in the park".',
            )
        return Alike.ranked(self._words, self._meant @ self.meant([text])[0])

    def embed(self, text: str) -> Embeddings:
        """(N, W): a row for each of `passages`, of length 1."""
        return self.meant(self.passages(text))

    def passages(self, text: str) -> tuple[str, ...]:
        """What of a text can be found: its lines."""
        return tuple(line.strip() for line in text.splitlines() if line.strip())

    def meant(self, texts: Sequence[str]) -> Embeddings:
        """(N, W), each row of length 1. A text that the model cannot take at once is read in
        pieces, and all its tokens count alike."""
        sums = [self._sum(self._tokenizer.encode(text)) for text in texts]
        return unit(np.array(sums, np.float32), "What the model says of the text")

    def _sum(self, tokens: Sequence[int]) -> NDArray[np.float64]:
        room = self._length - 2
        pieces = [tokens[at : at + room] for at in range(0, max(1, len(tokens)), room)]
        return np.asarray(sum(self._summed(piece) for piece in pieces), np.float64)

    def _summed(self, piece: Sequence[int]) -> NDArray[np.float64]:
        """(W,): the sum over the tokens, start and end among them, as it was trained."""
        known = self._tokenizer
        ids = np.full((1, self._length), known.pad, np.int64)
        count = len(piece) + 2
        ids[0, :count] = [known.start, *piece, known.end]
        mask = np.where(np.arange(self._length) < count, 0, _HIDDEN).astype(np.float32)
        (x,) = run_named(self._embedding, {self._embedding.inputs[0].name: ids}).values()
        wide, hidden = (spec.name for spec in self._encoder.inputs)
        given = {wide: x, hidden: mask.reshape(self._encoder.inputs[1].shape)}
        (answer,) = run_named(self._encoder, given).values()
        rows = answer.reshape(self._length, -1)[:count]
        return np.asarray(rows.sum(axis=0, dtype=np.float64))
