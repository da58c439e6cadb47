"""Sentence embeddings (https://arxiv.org/abs/1908.10084)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from rkzoo.contract.model import Contract
from rkzoo.errors import RkzooError
from rkzoo.session import Session, run_named
from rkzoo.tasks.embed.result import Passage, SimilarityScores
from rkzoo.tasks.embed.wordpiece import WordPiece
from rkzoo.tasks.prompt.encode import l2_normalize

Embeddings = NDArray[np.float32]

_HIDDEN = -1e4  # attention mask value: practically minus infinity, and representable in float16


class SentenceEmbedder:
    """Ranks `words` by similarity to a text; also embeds texts for search."""

    near = 0.15
    """Cosine from which a passage has to do with the words: 89 % of the pairs that share a topic
    reach it, and 4.5 % of those that do not (benchmarks/search_threshold.py, onnx)."""

    def __init__(
        self,
        parts: Mapping[str, tuple[Contract, Session]],
        tokenizer: WordPiece,
        words: Sequence[str] = (),
    ) -> None:
        self._embedding, self._encoder = parts["embedding"][1], parts["encoder"][1]
        self._tokenizer, self._words = tokenizer, tuple(words)
        self._length = self._embedding.inputs[0].shape[1]
        self._meant = self.embed_text(self._words) if self._words else None

    def __call__(self, text: str) -> SimilarityScores:
        """Rank the words by similarity to `text`. Raises RkzooError where no words were given."""
        if self._meant is None:
            raise RkzooError(
                "There is nothing to compare the text with.",
                "No prompt was given.",
                'Give for example --prompt "a walk in the park"; or search text files with '
                '--search "a walk in the park".',
            )
        return SimilarityScores.ranked(self._words, self._meant @ self.embed_text([text])[0])

    def embed(self, text: str) -> Embeddings:
        """Embed each passage of a text: (N, W) float32, L2-normalized rows."""
        return self.embed_text([passage.text for passage in self.passages(text)])

    def passages(self, text: str) -> tuple[Passage, ...]:
        """Searchable units of a text: its non-empty lines, as editors count them."""
        lines = enumerate(re.split(r"\r\n|\r|\n", text), 1)
        return tuple(Passage(line.strip(), number) for number, line in lines if line.strip())

    def embed_text(self, texts: Sequence[str]) -> Embeddings:
        """Embed texts: (N, W) float32, L2-normalized rows, mean-pooled. A text longer than the
        model's input is split into chunks, and all its tokens weigh equally.
        """
        sums = [self._sum(self._tokenizer.encode(text)) for text in texts]
        return l2_normalize(np.array(sums, np.float32), "What the model says of the text")

    def count_tokens(self, text: str) -> int:
        """How many tokens the model reads for a text, start and end of each chunk included."""
        count = len(self._tokenizer.encode(text))
        return count + 2 * max(1, -(-count // (self._length - 2)))

    def _sum(self, tokens: Sequence[int]) -> NDArray[np.float64]:
        room = self._length - 2
        pieces = [tokens[at : at + room] for at in range(0, max(1, len(tokens)), room)]
        return np.asarray(sum(self._summed(piece) for piece in pieces), np.float64)

    def _summed(self, piece: Sequence[int]) -> NDArray[np.float64]:
        """Sum of the token embeddings (W,), with start and end tokens, as in training."""
        known = self._tokenizer
        ids = np.full((1, self._length), known.pad, np.int64)
        count = len(piece) + 2
        ids[0, :count] = [known.start, *piece, known.end]
        mask = np.where(np.arange(self._length) < count, 0, _HIDDEN).astype(np.float32)
        (x,) = run_named(self._embedding, {self._embedding.inputs[0].name: ids}).values()
        wide, hidden = (spec.name for spec in self._encoder.inputs)
        inputs = {wide: x, hidden: mask.reshape(self._encoder.inputs[1].shape)}
        (answer,) = run_named(self._encoder, inputs).values()
        rows = answer.reshape(self._length, -1)[:count]
        return np.asarray(rows.sum(axis=0, dtype=np.float64))
