"""Speech recognition with CTC models (wav2vec 2.0)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rkzoo.audio.sound import Sound
from rkzoo.contract.audio import CtcSpeechHead
from rkzoo.contract.model import Contract
from rkzoo.errors import RkzooError
from rkzoo.session import Session, run_named
from rkzoo.tasks.ctc import collapse_repeats
from rkzoo.tasks.speech.transcript import Transcript
from rkzoo.tasks.speech.words import TimedToken, segments_of

RATE = 16000
_MARGIN = 2.0  # seconds at a window's edge, where the network lacks context on one side

Floats = NDArray[np.float32]


class CtcRecognizer:
    """CTC speech recognizer for sounds of any length.

    The contract's labels must match the network's classes, else a call raises RkzooError.
    """

    def __init__(self, contract: Contract, session: Session) -> None:
        if not isinstance(contract.head, CtcSpeechHead):
            raise RkzooError(f"{contract.family} is not a CTC speech model.", code=1)
        self.session, self.head, self.labels = session, contract.head, contract.labels
        self._input = session.inputs[0]

    def __call__(self, sound: Sound) -> Transcript:
        samples = sound.at(RATE)
        if self.head.normalised:
            samples = normalised(samples)
        return Transcript(segments_of(self.pieces(self.best(samples))))

    def best(self, samples: Floats) -> NDArray[np.intp]:
        """Best class of each step of the whole sound, (T,).

        Processed in overlapping windows; each step is taken from the window where it is away from
        the edges.
        """
        hop, size = self.head.hop, self._input.shape[-1]
        total = -(-len(samples) // hop)
        margin = min(round(_MARGIN * RATE / hop), size // hop // 4)
        stride = size // hop - 2 * margin
        best_steps: list[NDArray[np.intp]] = []
        completed = 0
        while completed < total:
            first = max(completed - margin, 0)
            window = np.zeros((1, size), np.float32)
            part = samples[first * hop : first * hop + size]
            window[0, : len(part)] = part
            steps = self._steps(window)
            last = first * hop + size >= len(samples)
            end = min(total - first, len(steps)) if last else completed - first + stride
            best_steps.append(steps[completed - first : end])
            # The network has no scores for the last steps of a full window.
            completed = total if last else first + end
        return np.concatenate(best_steps) if best_steps else np.zeros(0, np.intp)

    def _steps(self, window: Floats) -> NDArray[np.intp]:
        scores = next(iter(run_named(self.session, {self._input.name: window}).values()))
        if scores.ndim != 3 or scores.shape[2] != len(self.labels):
            shape = "x".join(map(str, scores.shape))
            raise RkzooError(
                f"The network gave {shape} scores for {len(self.labels)} characters.",
                "The list of characters does not belong to this model.",
                "Give those of its training with --labels, the blank included.",
            )
        return np.asarray(scores[0].argmax(axis=1), np.intp)

    def pieces(self, steps: NDArray[np.intp]) -> list[TimedToken]:
        """Decode steps (T,) to words with start and end times."""
        second = self.head.hop / RATE
        timed_tokens: list[TimedToken] = []
        begins = True
        for at in collapse_repeats(steps, self.head.blank).tolist():
            letter = self.labels[steps[at]]
            if letter == self.head.divider:
                begins = True
            elif not (letter.startswith("<") and letter.endswith(">")):
                start, end = at * second, (at + 1) * second
                if begins or not timed_tokens:
                    timed_tokens.append(TimedToken(start, end, f" {letter}"))
                else:
                    timed_tokens[-1] = TimedToken(
                        timed_tokens[-1].start, end, timed_tokens[-1].text + letter
                    )
                begins = False
        return timed_tokens


def normalised(samples: Floats) -> Floats:
    """Normalize to mean 0 and variance 1 over the whole sound, as upstream's feature extractor."""
    middle = samples - samples.mean(dtype=np.float64)
    return np.asarray(middle / np.sqrt((middle**2).mean() + 1e-7), np.float32)
