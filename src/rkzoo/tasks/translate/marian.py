"""Marian translation models: decoder without cache, SentencePiece tokenizer."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rkzoo.errors import RkzooError
from rkzoo.files import os_errors_explained, read_bytes
from rkzoo.session import Array, Session, run_named
from rkzoo.tasks.sentencepiece_model import read_sentencepiece
from rkzoo.tasks.translate.bpe_tokenizer import BpeWord, SpecialTokens
from rkzoo.tasks.translate.task import MARKS
from rkzoo.tasks.translate.words import NO_SPACES, spaced

Floats = NDArray[np.float32]
Ids = NDArray[np.int64]
_BLANK = "▁"  # SentencePiece's mark of a word start
_END, _UNKNOWN, _PAD = "</s>", "<unk>", "<pad>"
_KIND = "a model that translates"


@dataclass(frozen=True)
class EncoderState:
    """Encoded source: `seen` 1xSxW hidden states, `mask` 1xS attention mask."""

    seen: Floats
    mask: Ids


class MarianNetwork:
    """Marian encoder and decoder. The decoder has no cache: each step reruns it on all tokens so
    far.

    `room` is the maximum number of source tokens, without the end token and `lead`; `steps` the
    maximum number of target tokens, with the end token.

    Raises:
        RkzooError: encoder, decoder and vocabulary `size` do not match.
    """

    def __init__(
        self,
        encoder: Session,
        decoder: Session,
        special_tokens: SpecialTokens,
        size: int,
        lead: tuple[int, ...] = (),
    ) -> None:
        self._encoder, self._decoder, self._marks, self._lead = (
            encoder,
            decoder,
            special_tokens,
            lead,
        )
        shapes = {spec.name: spec.shape for spec in decoder.inputs}
        needed = {"input_ids", "encoder_hidden_states", "encoder_attention_mask"}
        slots = {spec.shape[-1] for spec in encoder.inputs}
        if (
            {spec.name for spec in encoder.inputs} != {"input_ids", "attention_mask"}
            or set(shapes) != needed
            or slots != {shapes["encoder_attention_mask"][-1]}
            or prod(encoder.outputs[0].shape) != prod(shapes["encoder_hidden_states"])
            or decoder.outputs[0].shape[-1] != size
        ):
            raise RkzooError(
                "The parts of this translation do not belong together.",
                "The encoder's output does not fit the decoder's input, or the decoder does not "
                f"have the vocabulary's {size} pieces.",
                "Fix the card.",
            )
        self._slots, self._wide = slots.pop(), shapes["encoder_hidden_states"]
        self.max_steps = shapes["input_ids"][-1]
        self.max_tokens = self._slots - 1 - len(lead)

    def encode(self, pieces: Sequence[int]) -> EncoderState:
        """Encode at most `room` tokens."""
        ids, mask = self._filled([*self._lead, *pieces, self._marks.end], self._slots)
        (seen,) = run_named(self._encoder, {"input_ids": ids, "attention_mask": mask}).values()
        return EncoderState(seen, mask)

    def empty_cache(self) -> tuple[int, ...]:
        """The empty prefix."""
        return ()

    def step(
        self, read: EncoderState, piece: int, past: tuple[int, ...]
    ) -> tuple[Floats, tuple[int, ...]]:
        """Decode one step: scores (V,) of the next token, and the new prefix."""
        prefix = (*past, piece)
        # The decoder is causal, so padding after the last token has no effect.
        ids, _ = self._filled(prefix, self.max_steps)
        inputs: dict[str, Array] = {
            "input_ids": ids,
            "encoder_hidden_states": read.seen.reshape(self._wide),
            "encoder_attention_mask": read.mask,
        }
        (scores,) = run_named(self._decoder, inputs).values()
        return scores.reshape(self.max_steps, -1)[len(prefix) - 1], prefix

    def _filled(self, pieces: Sequence[int], slots: int) -> tuple[Ids, Ids]:
        ids = np.full((1, slots), self._marks.pad, np.int64)
        ids[0, : len(pieces)] = pieces
        return ids, (np.arange(slots)[None] < len(pieces)).astype(np.int64)


class SentencePieceTokenizer:
    """SentencePiece tokenizer; `numbers` maps its pieces to the network's token ids."""

    def __init__(self, numbers: dict[str, int], source: Any, target: Any) -> None:
        self._numbers, self._source, self._target = numbers, source, target
        self._pieces = {number: piece for piece, number in numbers.items()}
        end, unknown, pad = (numbers[piece] for piece in (_END, _UNKNOWN, _PAD))
        self.special_tokens = SpecialTokens(
            start=pad, end=end, unknown=unknown, pad=pad, never=(pad,)
        )

    def __len__(self) -> int:
        return max(self._pieces) + 1

    @classmethod
    def from_files(cls, vocabulary: Path, source: Path, target: Path) -> SentencePieceTokenizer:
        """Read the vocabulary and both SentencePiece models. Raises RkzooError for other files, or
        when sentencepiece is not installed.
        """
        return cls(
            _vocabulary(vocabulary), *(read_sentencepiece(path, _KIND) for path in (source, target))
        )

    def number(self, piece: str) -> int:
        """Token id of a piece. Raises RkzooError when the vocabulary lacks it."""
        if piece not in self._numbers:
            raise RkzooError(
                f"The vocabulary of this translation has no piece {piece}.", "", "Fix the card."
            )
        return self._numbers[piece]

    def encode(self, sentence: str) -> list[BpeWord]:
        """Tokenize a sentence into words; each punctuation mark of `MARKS` is a word."""
        groups: list[list[str]] = []
        for piece in self._source.encode(sentence, out_type=str):
            if not groups or piece.startswith(_BLANK) or piece in MARKS or groups[-1][-1] in MARKS:
                groups.append([])
            groups[-1].append(piece)
        unknown = self.special_tokens.unknown
        return [
            BpeWord(
                "".join(group).replace(_BLANK, ""),
                tuple(self._numbers.get(piece, unknown) for piece in group),
            )
            for group in groups
        ]

    def decode(self, numbers: Iterable[int], language: str) -> str:
        """Detokenize."""
        text: str = self._target.decode([self._pieces.get(number, "") for number in numbers])
        # The first piece of a part adds a blank, also in languages without spaces.
        return spaced(text.split(), language) if language in NO_SPACES else text.strip()


def _vocabulary(path: Path) -> dict[str, int]:
    with os_errors_explained(f"{path} cannot be read."):
        data = read_bytes(path)
    try:
        vocabulary = json.loads(data)
    except ValueError as error:
        raise _other(path, f"It is not JSON: {error}.") from error
    numbers = vocabulary.values() if isinstance(vocabulary, dict) else [None]
    if any(type(number) is not int or number < 0 for number in numbers):
        raise _other(path, "It is not a table from pieces to numbers.")
    if not {_END, _UNKNOWN, _PAD} <= set(vocabulary):
        raise _other(path, f"It lacks one of {_END}, {_UNKNOWN} and {_PAD}.")
    return dict(vocabulary)


def _other(path: Path, why: str) -> RkzooError:
    return RkzooError(f"{path} does not belong to {_KIND}.", why, "Fetch it with rkzoo fetch.")
