"""The likeliest text, piece by piece."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rkzoo.tasks.translate.subwords import FAIRSEQ, Marks


class Sayer(Protocol):
    """A network that says piece after piece; what it has read, and its past, are its own."""

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
        """Of the logarithms of the probabilities: else the shortest would win."""
        return self.log / max(1, len(self.pieces))


def say(
    network: Sayer, read: Any, beams: int, marks: Marks = FAIRSEQ
) -> tuple[tuple[int, ...], bool]:
    """The pieces, without the end, and whether the end was reached. `beams` texts are followed
    at once; 1 takes the likeliest piece each time."""
    alive = [_Said((), 0.0, network.fresh())]
    ended: list[_Said] = []
    for step in range(network.steps):
        found = []
        for one in alive:
            last = one.pieces[-1] if one.pieces else marks.start
            scores, past = network.step(read, last, one.past)
            # The end is never said first.
            logs = _log_softmax(scores, marks.never if step else (*marks.never, marks.end))
            # An end takes no place among those that go on, so one more than there are beams.
            count = min(beams + 1, len(logs))
            for piece in np.argpartition(-logs, count - 1)[:count].tolist():
                found.append(_Said((*one.pieces, piece), one.log + float(logs[piece]), past))
        found.sort(key=lambda one: (-one.log, one.pieces))  # of equals the lower number
        best = found[:beams]
        ended += [one for one in best if one.pieces[-1] == marks.end]
        alive = [one for one in found if one.pieces[-1] != marks.end][:beams]
        if len(ended) >= beams and _mean(ended).mean >= _mean(alive).mean:
            break
    # A text that goes on and is likelier all the same: the network has not come to an end.
    if not ended or max(one.log for one in alive) > max(one.log for one in ended):
        return _mean(alive).pieces, False
    return _mean(ended).pieces[:-1], True


def _mean(said: Sequence[_Said]) -> _Said:
    return max(said, key=lambda one: one.mean)


def _log_softmax(scores: np.ndarray, never: Sequence[int]) -> np.ndarray:
    """float64, minus infinity for what is not said here."""
    logs = scores.astype(np.float64)
    logs[list(never)] = -np.inf
    logs -= logs.max()
    return np.asarray(logs - np.log(np.exp(logs).sum()))
