"""Beam search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rkzoo.tasks.translate.bpe_tokenizer import FAIRSEQ, SpecialTokens


class AutoregressiveDecoder(Protocol):
    """Autoregressive decoder: emits one token per step. The types of the encoded source `read` and
    of the cache `past` are its own.
    """

    max_steps: int
    max_tokens: int

    def encode(self, pieces: Sequence[int]) -> Any: ...

    def empty_cache(self) -> Any: ...

    def step(self, read: Any, piece: int, past: Any) -> tuple[NDArray[np.float32], Any]: ...


@dataclass(frozen=True)
class _Hypothesis:
    tokens: tuple[int, ...]
    log_prob: float
    past: Any

    @property
    def mean(self) -> float:
        """Mean log probability, so that short texts are not favoured."""
        return self.log_prob / max(1, len(self.tokens))


def beam_search(
    network: AutoregressiveDecoder, read: Any, beams: int, special_tokens: SpecialTokens = FAIRSEQ
) -> tuple[tuple[int, ...], bool]:
    """Beam search.

    Args:
        network: the decoder.
        read: the encoded source.
        beams: beam width; 1 is greedy search.
        special_tokens: special tokens.

    Returns:
        The best tokens without the end token, and whether the end token was reached.
    """
    alive = [_Hypothesis((), 0.0, network.empty_cache())]
    ended: list[_Hypothesis] = []
    for step in range(network.max_steps):
        hypotheses = []
        for hypothesis in alive:
            last = hypothesis.tokens[-1] if hypothesis.tokens else special_tokens.start
            scores, past = network.step(read, last, hypothesis.past)
            # The first token is never the end token.
            logs = _log_softmax(
                scores,
                special_tokens.never if step else (*special_tokens.never, special_tokens.end),
            )
            # A finished hypothesis takes no beam, so one candidate more than there are beams.
            count = min(beams + 1, len(logs))
            for piece in np.argpartition(-logs, count - 1)[:count].tolist():
                hypotheses.append(
                    _Hypothesis(
                        (*hypothesis.tokens, piece), hypothesis.log_prob + float(logs[piece]), past
                    )
                )
        hypotheses.sort(
            key=lambda hypothesis: (-hypothesis.log_prob, hypothesis.tokens)
        )  # ties: lower token ids first
        best = hypotheses[:beams]
        ended += [hypothesis for hypothesis in best if hypothesis.tokens[-1] == special_tokens.end]
        alive = [
            hypothesis for hypothesis in hypotheses if hypothesis.tokens[-1] != special_tokens.end
        ][:beams]
        if len(ended) >= beams and _best_mean(ended).mean >= _best_mean(alive).mean:
            break
    # An unfinished hypothesis that is more probable: the network did not terminate.
    if not ended or max(hypothesis.log_prob for hypothesis in alive) > max(
        hypothesis.log_prob for hypothesis in ended
    ):
        return _best_mean(alive).tokens, False
    return _best_mean(ended).tokens[:-1], True


def _best_mean(hypotheses: Sequence[_Hypothesis]) -> _Hypothesis:
    return max(hypotheses, key=lambda hypothesis: hypothesis.mean)


def _log_softmax(scores: np.ndarray, never: Sequence[int]) -> np.ndarray:
    """Log probabilities, float64; -inf for the ids in `never`."""
    logs = scores.astype(np.float64)
    logs[list(never)] = -np.inf
    logs -= logs.max()
    return np.asarray(logs - np.log(np.exp(logs).sum()))
