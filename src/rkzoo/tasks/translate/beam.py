"""The likeliest text, piece by piece."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rkzoo.tasks.translate.network import Network, Past, Read
from rkzoo.tasks.translate.subwords import END, PAD, START, UNKNOWN

_NEVER = [START, PAD, UNKNOWN]


@dataclass(frozen=True)
class _Said:
    pieces: tuple[int, ...]
    log: float
    past: Past

    @property
    def mean(self) -> float:
        """Of the logarithms of the probabilities: else the shortest would win."""
        return self.log / max(1, len(self.pieces))


def say(network: Network, read: Read, beams: int) -> tuple[tuple[int, ...], bool]:
    """The pieces, without the end, and whether the end was reached. `beams` texts are followed
    at once; 1 takes the likeliest piece each time."""
    alive = [_Said((), 0.0, network.fresh())]
    ended: list[_Said] = []
    for step in range(network.steps):
        found = []
        for one in alive:
            last = one.pieces[-1] if one.pieces else END
            scores, past = network.step(read, last, one.past)
            logs = _log_softmax(scores, first=step == 0)
            # An end takes no place among those that go on, so one more than there are beams.
            for piece in np.argsort(-logs, kind="stable")[: beams + 1].tolist():
                found.append(_Said((*one.pieces, piece), one.log + float(logs[piece]), past))
        found.sort(key=lambda one: -one.log)
        best = found[:beams]
        ended += [one for one in best if one.pieces[-1] == END]
        alive = [one for one in found if one.pieces[-1] != END][:beams]
        if len(ended) >= beams:
            break
    if not ended:
        return max(alive, key=lambda one: one.mean).pieces, False
    return max(ended, key=lambda one: one.mean).pieces[:-1], True


def _log_softmax(scores: np.ndarray, first: bool) -> np.ndarray:
    """float64, minus infinity for what is never said; the end is never said first."""
    logs = scores.astype(np.float64)
    logs[_NEVER] = -np.inf
    if first:
        logs[END] = -np.inf
    logs -= logs.max()
    return np.asarray(logs - np.log(np.exp(logs).sum()))
