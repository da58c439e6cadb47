"""Tokenizer of SigLIP (https://arxiv.org/abs/2303.15343) and SigLIP 2 (https://arxiv.org/abs/
2502.14786): SentencePiece, an end token, padded to the length of training."""

from __future__ import annotations

import string
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rkzoo.errors import RkzooError
from rkzoo.tasks.prompt.tokenizer import too_long
from rkzoo.tasks.sentencepiece_model import read_sentencepiece

_END = 1
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


class SiglipTokenizer:
    """SigLIP's tokenizer, or SigLIP 2's: which, the model's end token tells. The first removes
    punctuation and pads with end tokens; the second keeps it and pads with 0. Both take lower
    case."""

    usual_length = 64
    ends = 1

    def __init__(self, model: Any) -> None:
        self._model = model
        self._second = model.id_to_piece(_END) == "<eos>"
        self._pad = 0 if self._second else _END

    @classmethod
    def from_file(cls, path: Path) -> SiglipTokenizer:
        """Read a SentencePiece model. Raises RkzooError for any other file, and where sentencepiece
        is not installed."""
        model = read_sentencepiece(path, "a SigLIP")
        if model.get_piece_size() <= _END or model.id_to_piece(_END) not in ("</s>", "<eos>"):
            raise RkzooError(
                f"{path} is not the vocabulary of a SigLIP.",
                "Its token 1 does not end a text.",
                "Take spiece.model (SigLIP) or tokenizer.model (SigLIP 2) of the model's page.",
            )
        return cls(model)

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, without the end token."""
        text = text.lower()
        if not self._second:
            text = text.translate(_NO_PUNCTUATION)
        numbers: list[int] = self._model.encode(" ".join(text.split()))
        return numbers

    def rows(self, texts: Iterable[str], length: int) -> NDArray[np.int64]:
        """Encode texts to int64 (N, length): tokens, end, padding.

        Raises:
            RkzooError: a text is too long; truncating it would change its meaning.
        """
        rows = []
        for text in texts:
            tokens = self.encode(text)
            if len(tokens) > length - 1:
                raise too_long(text, len(tokens), length - 1)
            rows.append([*tokens, _END] + [self._pad] * (length - 1 - len(tokens)))
        return np.array(rows, np.int64).reshape(-1, length)

    def attended(self, row: NDArray[np.int64]) -> NDArray[np.bool_]:
        """All of a row (L,): SigLIP is trained without a mask."""
        return np.ones(len(row), bool)
