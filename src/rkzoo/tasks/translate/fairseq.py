"""Encoder and decoder of fairseq translation models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rkzoo.errors import RkzooError
from rkzoo.files import os_errors_explained
from rkzoo.session import Array, Session, run_named
from rkzoo.tasks.translate.bpe_tokenizer import END, PAD

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class EncoderState:
    """Encoded source: `seen` 1xSxW hidden states, `hidden` 1xS padding mask."""

    seen: Floats
    hidden: Floats


@dataclass(frozen=True)
class KvCache:
    """Key/value cache of the `count` tokens so far."""

    kept: tuple[Floats, ...]
    count: int = 0


class FairseqNetwork:
    """fairseq encoder and decoder with a key/value cache.

    `room` is the maximum number of source tokens, without the end token; `steps` the maximum number
    of target tokens, with it.

    Args:
        encoder, decoder: the sessions.
        table: token embeddings (V, W).

    Raises:
        RkzooError: encoder, decoder and table do not match.
    """

    def __init__(self, encoder: Session, decoder: Session, table: Floats) -> None:
        self._encoder, self._decoder, self._table = encoder, decoder, table
        slots, width = encoder.inputs[0].shape[1:]
        self._caches = [spec.shape for spec in decoder.inputs[4:]]
        self.max_steps = decoder.inputs[3].shape[-1]
        if width != table.shape[1] or any(
            shape[-2] != self.max_steps - 1 for shape in self._caches
        ):
            raise RkzooError(
                "The parts of this translation do not belong together.",
                f"The table has rows of {table.shape[1]} numbers where the encoder takes {width}, "
                f"or the decoder's caches are not one shorter than its mask of {self.max_steps}.",
                "Fix the card.",
            )
        self._slots, self.max_tokens = slots, slots - 1
        self._places = sinusoids(max(slots, self.max_steps) + PAD + 1, width)

    def encode(self, pieces: Sequence[int]) -> EncoderState:
        """Encode at most `room` tokens, left-padded as in training."""
        numbers = np.full(self._slots, PAD)
        numbers[self._slots - len(pieces) - 1 :] = [*pieces, END]
        pads = numbers == PAD
        # Padding has position 1, whose encoding is zero; tokens start at position 2.
        places = np.where(pads, PAD, PAD + np.cumsum(~pads))
        hidden = pads.astype(np.float32)[None]
        wide = self._encoder.inputs[1]
        inputs = (self._rows(numbers, places), np.broadcast_to(hidden, wide.shape))
        (seen,) = _run(self._encoder, *inputs)
        return EncoderState(seen, hidden)

    def empty_cache(self) -> KvCache:
        """The empty cache."""
        return KvCache(tuple(np.zeros(shape, np.float32) for shape in self._caches))

    def step(self, read: EncoderState, piece: int, past: KvCache) -> tuple[Floats, KvCache]:
        """Decode one step: scores (V,) of the next token, and the new cache."""
        x = self._rows(np.array([piece]), np.array([past.count + PAD + 1]))
        mask = np.arange(self.max_steps) < self.max_steps - 1 - past.count
        spec = self._decoder.inputs[2]
        hidden = np.broadcast_to(read.hidden, spec.shape)
        seen = read.seen.reshape(self._decoder.inputs[1].shape)
        inputs = (x, seen, hidden, mask.astype(np.float32)[None], *past.kept)
        scores, *saved = _run(self._decoder, *inputs)
        kept = tuple(np.ascontiguousarray(array[..., 1:, :]) for array in saved)
        return scores.reshape(-1), KvCache(kept, past.count + 1)

    def _rows(self, numbers: Array, places: Array) -> Floats:
        width = self._table.shape[1]
        rows = self._table[numbers] * np.float32(width**0.5) + self._places[places]
        return np.asarray(rows[None], np.float32)


def sinusoids(count: int, width: int) -> Floats:
    """Sinusoidal position encodings (count, width), sines then cosines; the padding position 1 is
    zero (fairseq's order of https://arxiv.org/abs/1706.03762).
    """
    half = width // 2
    pace = np.exp(-np.log(10000) / (half - 1) * np.arange(half))
    angles = np.arange(count)[:, None] * pace
    table = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
    table[PAD] = 0
    return np.asarray(table, np.float32)


def read_table(path: Path, rows: int) -> Floats:
    """Memory-map a raw little-endian float32 file as (rows, W). Raises RkzooError where its size
    does not fit.
    """
    with os_errors_explained(f"{path} cannot be read."):
        size = path.stat().st_size
    if not size or size % (4 * rows):
        raise RkzooError(
            f"{path} does not belong to this dictionary.",
            f"It has {size} bytes, which are no {rows} rows of numbers.",
            "Fetch it again with rkzoo fetch.",
        )
    with os_errors_explained(f"{path} cannot be read."):
        return np.memmap(path, "<f4", "r").reshape(rows, -1)


def _run(session: Session, *arrays: Array) -> list[Floats]:
    """Run with tensors in the model's order."""
    inputs = {spec.name: array for spec, array in zip(session.inputs, arrays, strict=True)}
    return list(run_named(session, inputs).values())
