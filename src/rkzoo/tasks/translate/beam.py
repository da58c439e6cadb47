"""Beam search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rkzoo.tasks.translate.subwords import FAIRSEQ, Marks


class Sayer(Protocol):
    """Autoregressive decoder: emits one token per step. The types of the encoded source `read` and
    of the cache `past` are its own.
    """

    steps: int
    room: int

    def read(self, pieces: Sequence[int]) -> Any: ...

    def fresh(self) -> Any: ...

    def step(self, read: Any, piece: int, past: Any) -> tuple[NDArray[np.float32], Any]: ...


@dataclass(frozen=True)
class _Said:
    pieces: tuple[int, ...]
    log: float
    past: Any

    @property
    def mean(self) -> float:
        """Mean log probability, so that short texts are not favoured."""
        return self.log / max(1, len(self.pieces))


def say(
    network: Sayer, read: Any, beams: int, marks: Marks = FAIRSEQ
) -> tuple[tuple[int, ...], bool]:
    """Beam search.

    Args:
        network: the decoder.
        read: the encoded source.
        beams: beam width; 1 is greedy search.
        marks: special tokens.

    Returns:
        The best tokens without the end token, and whether the end token was reached.
    """
    alive = [_Said((), 0.0, network.fresh())]
    ended: list[_Said] = []
    for step in range(network.steps):
        found = []
        for one in alive:
            last = one.pieces[-1] if one.pieces else marks.start
            scores, past = network.step(read, last, one.past)
            # The first token is never the end token.
            logs = _log_softmax(scores, marks.never if step else (*marks.never, marks.end))
            # A finished hypothesis takes no beam, so one candidate more than there are beams.
            count = min(beams + 1, len(logs))
            for piece in np.argpartition(-logs, count - 1)[:count].tolist():
                found.append(_Said((*one.pieces, piece), one.log + float(logs[piece]), past))
        found.sort(key=lambda one: (-one.log, one.pieces))  # ties: lower token ids first
        best = found[:beams]
        ended += [one for one in best if one.pieces[-1] == marks.end]
        alive = [one for one in found if one.pieces[-1] != marks.end][:beams]
        if len(ended) >= beams and _mean(ended).mean >= _mean(alive).mean:
            break
    # An unfinished hypothesis that is more probable: the network did not terminate.
    if not ended or max(one.log for one in alive) > max(one.log for one in ended):
        return _mean(alive).pieces, False
    return _mean(ended).pieces[:-1], True


def _mean(said: Sequence[_Said]) -> _Said:
    return max(said, key=lambda one: one.mean)


def _log_softmax(scores: np.ndarray, never: Sequence[int]) -> np.ndarray:
    """Log probabilities, float64; -inf for the ids in `never`."""
    logs = scores.astype(np.float64)
    logs[list(never)] = -np.inf
    logs -= logs.max()
    return np.asarray(logs - np.log(np.exp(logs).sum()))
