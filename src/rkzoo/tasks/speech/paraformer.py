"""Paraformer speech recognition, for sounds of any length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rkzoo.audio.fbank import stacked_fbank
from rkzoo.audio.sound import Sound
from rkzoo.contract.audio import ParaformerHead, StackedFeatures
from rkzoo.errors import RkzooError
from rkzoo.session import Array, Session, run_named
from rkzoo.tasks.speech.transcript import Transcript
from rkzoo.tasks.speech.windows import Floats, loud_seconds, window_at
from rkzoo.tasks.speech.words import TimedToken, segments_of

RATE = 16000
_HOP = 160
_SHORTEST = 1.0  # seconds: shorter windows are not halved
_SPECIAL = 3  # ids 0, 1 and 2: blank, beginning and end
_GOES_ON = "@@"

Places = NDArray[np.intp]


@dataclass(frozen=True)
class Paraformer:
    """Paraformer speech recognizer. `labels` are its tokens by id."""

    encoder: Session
    decoder: Session
    head: ParaformerHead
    labels: Sequence[str]

    def __call__(self, sound: Sound) -> Transcript:
        samples = sound.at(RATE)
        step = self.head.features.stride * _HOP
        whole = self.encoder.inputs[0].shape[1] * step
        pieces: list[TimedToken] = []
        at, size = 0, whole
        while at < len(samples):
            window = window_at(samples, at, size, RATE)
            if loud_seconds(window, RATE)[-1]:
                heard = self.scores(self.rows(window))
                if heard is None and len(window) > _SHORTEST * RATE:
                    size = len(window) // 2
                    continue
                if heard is not None:
                    scores, ends = heard
                    times = (at + np.stack([ends, ends + 1], axis=1) * step) / RATE
                    pieces += self.pieces(self._best(scores), times.tolist())
            at, size = at + len(window), whole
        return Transcript(segments_of(pieces))

    def scores(self, rows: Floats) -> tuple[Array, Places] | None:
        """Scores of the tokens of a window (N, C), and in which rows of its features (T, F) they
        end, (N,); None where there are more than the decoder has room for."""
        encoder = self.encoder.inputs[0].shape[1]
        mask = _mask(len(rows), encoder)
        made = run_named(self.encoder, {"speech": _padded(rows, encoder), "mask": mask})
        memory, shares = (np.asarray(value, np.float32) for value in made.values())
        embeddings, ends = integrate_and_fire(
            memory[0, : len(rows)], shares[0, : len(rows), 0], self.head.tail
        )
        room = next(i.shape[1] for i in self.decoder.inputs if i.name == "embeddings")
        if len(ends) > room:
            return None
        if not len(ends):
            return np.zeros((0, len(self.labels)), np.float32), ends
        given = {
            "embeddings": _padded(embeddings, room),
            "token_mask": _mask(len(ends), room),
            "memory": memory,
            "mask": mask,
        }
        scores = next(iter(run_named(self.decoder, given).values()))
        return scores[0, : len(ends)], ends

    def _best(self, scores: Array) -> Places:
        if scores.shape[-1] != len(self.labels):
            raise RkzooError(
                f"The network gave scores for {scores.shape[-1]} tokens, and "
                f"{len(self.labels)} are known.",
                "The list of tokens does not belong to this model.",
                "Put its tokens.json into the model's folder, as FunASR does.",
            )
        return np.asarray(scores.argmax(axis=1), np.intp)

    def rows(self, samples: Floats) -> Floats:
        """The features of a window (N, F), with its statistics."""
        of: StackedFeatures = self.head.features
        rows = stacked_fbank(samples, of.bins, of.stack, of.stride)
        return (rows + np.array(of.shift, np.float32)) * np.array(of.scale, np.float32)

    def pieces(self, tokens: Places, times: Sequence[Sequence[float]]) -> list[TimedToken]:
        """Words and characters with their times: between words of letters is a space, as FunASR
        writes them."""
        pieces: list[TimedToken] = []
        after_word = inside = False
        for token, (start, end) in zip(tokens.tolist(), times, strict=True):
            text = self.labels[token]
            if token < _SPECIAL or (text.startswith("<") and text.endswith(">")):
                continue
            goes_on = text.endswith(_GOES_ON)
            text = text.removesuffix(_GOES_ON)
            word = text.isascii() and not text.isdigit()
            space = " " if word and after_word and not inside else ""
            pieces.append(TimedToken(start, end, space + text))
            after_word, inside = word, goes_on
        return pieces


def integrate_and_fire(memory: Floats, shares: Floats, tail: float) -> tuple[Floats, Places]:
    """Continuous integrate-and-fire: frames as tokens (https://arxiv.org/abs/1905.11235).

    Each frame has a share of a token. Where their sum passes a whole number a token ends, and the
    frame there belongs in part to it and in part to the next.

    Args:
        memory: What the encoder made of each frame, float32 (T, D).
        shares: float32 (T,) in 0..1.
        tail: Share of one more frame of zeros, behind the last.

    Returns:
        The tokens as sums of frames, float32 (N, D), and in which frame each ends, (N,).
    """
    shares = np.append(shares, np.float32(tail))
    memory = np.pad(memory, ((0, 1), (0, 0)))
    total = np.cumsum(shares, dtype=np.float64).astype(np.float32)
    whole = np.floor(total)
    ends = np.flatnonzero(np.diff(whole, prepend=np.float32(0)) > 0)
    sums = np.cumsum(shares[:, None] * memory, axis=0, dtype=np.float64)[ends]
    beyond = (total - whole)[ends, None] * memory[ends]
    tokens = np.diff(sums - beyond, axis=0, prepend=np.zeros((1, memory.shape[1])))
    return tokens.astype(np.float32), ends


def _padded(rows: Floats, count: int) -> Array:
    return np.pad(rows, ((0, count - len(rows)), (0, 0))).astype(np.float32)[None]


def _mask(count: int, size: int) -> Array:
    return (np.arange(size) < count).astype(np.float32)[None]
