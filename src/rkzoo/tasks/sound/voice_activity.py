"""Voice activity detection (VAD)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rkzoo.audio.sound import Sound
from rkzoo.contract.audio import VoiceActivityHead
from rkzoo.contract.model import Contract
from rkzoo.errors import RkzooError
from rkzoo.session import Session, run_named
from rkzoo.tasks.collection import Collection, Rows, pick, times_of
from rkzoo.tasks.sound.timeline import LabeledSpan, csv_text, save_csv, text_lines

# Difference of the thresholds for starting and for continuing speech; upstream's default.
_HYSTERESIS = 0.15


@dataclass(frozen=True)
class VoiceActivity(Collection):
    """Voice activity of a sound.

    Attributes:
        stretches: segments with speech.
        probabilities: float32 (N,), one per step.
        step: duration of a step in seconds.
        seconds: duration of the sound.
    """

    stretches: tuple[LabeledSpan, ...]
    probabilities: NDArray[np.float32]
    step: float
    seconds: float
    suffix: str = ".csv"

    @property
    def times(self) -> NDArray[np.float64]:
        """Start and end of each segment in seconds, (N, 2) float64."""
        return times_of(self.stretches)

    @property
    def scores(self) -> NDArray[np.float32]:
        """Highest probability in each segment, (N,) float32."""
        return np.array([stretch.score for stretch in self.stretches], np.float32)

    @property
    def names(self) -> list[str]:
        """Label of each segment."""
        return [stretch.label for stretch in self.stretches]

    def __len__(self) -> int:
        return len(self.stretches)

    def _take(self, rows: Rows) -> VoiceActivity:
        return replace(self, stretches=pick(self.stretches, rows))

    def to_json(self) -> list[dict[str, Any]]:
        return csv_text(self.stretches)

    def lines(self) -> list[str]:
        spoken = sum(stretch.end - stretch.start for stretch in self.stretches)
        share = f"speech in {spoken:.2f} of {self.seconds:.2f} s"
        return [*text_lines(self.stretches), share] if self.stretches else []

    def save(self, path: Path) -> None:
        save_csv(path, self.stretches)


class VoiceActivityDetector:
    """Voice activity detector for sounds of any length.

    Raises:
        RkzooError: the model does not fit the head.
    """

    def __init__(self, contract: Contract, session: Session) -> None:
        if not isinstance(contract.head, VoiceActivityHead) or len(session.inputs) != 2:
            raise RkzooError(f"{contract.family} does not find speech.", code=1)
        self.head, self.session = contract.head, session
        self._samples, self._state = session.inputs
        self._probability_output, self._state_output = (spec.name for spec in session.outputs)

    def probabilities(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Speech probability of each step, (N,) float32.

        Args:
            samples: (N,) float32 in -1..1 at the head's sample rate; the last step is padded with
                silence. The recurrent state is carried from step to step.
        """
        state = np.zeros(self._state.shape, np.float32)
        probabilities = []
        for piece in steps(samples, self.head.step, self.head.context):
            answer = run_named(
                self.session, {self._samples.name: piece[None], self._state.name: state}
            )
            probabilities.append(float(answer[self._probability_output].reshape(-1)[0]))
            state = answer[self._state_output].reshape(self._state.shape)
        return np.array(probabilities, np.float32)

    def __call__(self, sound: Sound) -> VoiceActivity:
        head = self.head
        probabilities = self.probabilities(sound.at(head.rate))
        step = head.step / head.rate
        stretches = []
        for first, last in spans(probabilities, head, sound.seconds):
            inside = probabilities[
                int(first / step) : max(int(np.ceil(last / step)), int(first / step) + 1)
            ]
            stretches.append(LabeledSpan(first, last, "speech", float(inside.max())))
        return VoiceActivity(tuple(stretches), probabilities, step, sound.seconds)


def steps(samples: NDArray[np.float32], step: int, context: int) -> Iterator[NDArray[np.float32]]:
    """Yield each step of the samples, (context + step,), preceded by `context` samples (zeros
    before the start).
    """
    count = -(-len(samples) // step)
    padded = np.zeros(context + count * step, np.float32)
    padded[context : context + len(samples)] = samples
    for start in range(0, count * step, step):
        yield padded[start : start + context + step]


def spans(
    probabilities: NDArray[np.float32], head: VoiceActivityHead, seconds: float
) -> list[tuple[float, float]]:
    """Convert step probabilities to speech segments.

    A segment starts with a step that reaches the threshold and continues until no step has reached
    the threshold minus the hysteresis for `silence` seconds. Segments shorter than `shortest` are
    dropped, the others padded by `pad` without overlapping.

    Args:
        probabilities: (N,) per step.
        head: thresholds and durations.
        seconds: duration of the sound.

    Returns:
        Start and end of each segment in seconds.
    """
    step = head.step / head.rate
    stay = max(head.threshold - _HYSTERESIS, 0.01)
    rough: list[list[int]] = []  # first step, last step + 1
    quiet = int(np.ceil(head.silence / step))
    for at, value in enumerate(probabilities):
        going = bool(rough) and at - rough[-1][1] < quiet
        if value >= head.threshold and not going:
            rough.append([at, at + 1])
        elif value >= stay and going:
            rough[-1][1] = at + 1
    ranges = [
        (first * step, min(last * step, seconds))
        for first, last in rough
        if (last - first) * step >= head.shortest
    ]
    wide = []
    for index, (first, last) in enumerate(ranges):
        before = (ranges[index - 1][1] + first) / 2 if index else 0.0
        after = (last + ranges[index + 1][0]) / 2 if index + 1 < len(ranges) else seconds
        wide.append((max(first - head.pad, before), min(last + head.pad, after)))
    return wide
