"""Audio event classification, per window and overall."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rkzoo.audio.sound import Sound
from rkzoo.contract.audio import SoundHead
from rkzoo.contract.model import Head
from rkzoo.errors import RkzooError
from rkzoo.session import Session, run_named
from rkzoo.tasks.collection import Collection, Rows, names_of
from rkzoo.tasks.sound.timeline import LabeledSpan, csv_text, save_csv, text_lines

_TOP = 5


@dataclass(frozen=True)
class AudioClassification(Collection):
    """Class scores of a sound.

    Attributes:
        scores: float32 (W, C) per window.
        times: float64 (W, 2) start and end of each window in seconds.
        labels: C class names.
    """

    scores: NDArray[np.float32]
    times: NDArray[np.float64]
    labels: tuple[str, ...]
    suffix: str = ".csv"

    @property
    def probs(self) -> NDArray[np.float32]:
        """Mean score of each class over all windows, (C,) float32."""
        return self.scores.mean(axis=0) if len(self) else np.zeros(len(self.labels), np.float32)

    @property
    def class_ids(self) -> NDArray[np.int32]:
        """Best class of each window, (W,) int32."""
        return np.asarray(self.scores.argmax(axis=1), np.int32)

    @property
    def names(self) -> list[str]:
        """Name of the best class of each window."""
        return names_of(self.class_ids, self.labels)

    def __len__(self) -> int:
        return len(self.scores)

    def _take(self, rows: Rows) -> AudioClassification:
        return replace(self, scores=self.scores[rows], times=self.times[rows])

    def top(self, count: int = _TOP) -> list[tuple[str, float]]:
        """The classes with the highest mean score, best first."""
        mean = self.probs
        order = np.argsort(-mean, kind="stable")[:count]
        return [(self.labels[index], float(mean[index])) for index in order]

    @property
    def timeline(self) -> tuple[LabeledSpan, ...]:
        """The best class over time; consecutive windows with the same class are merged."""
        if not len(self):
            return ()
        best = self.class_ids
        starts = [0, *(np.flatnonzero(np.diff(best)) + 1).tolist(), len(best)]
        return tuple(
            LabeledSpan(
                float(self.times[first, 0]),
                float(self.times[last - 1, 1]),
                self.labels[best[first]],
                float(self.scores[first:last, best[first]].max()),
            )
            for first, last in pairwise(starts)
        )

    def to_json(self) -> list[dict[str, Any]]:
        """One record: the overall top classes, and the timeline."""
        top = [{"label": label, "score": round(score, 4)} for label, score in self.top()]
        return [{"top": top, "timeline": csv_text(self.timeline)}]

    def lines(self) -> list[str]:
        over_all = ", ".join(f"{label} {score:.2f}" for label, score in self.top())
        return [f"over all: {over_all}", *text_lines(self.timeline)]

    def save(self, path: Path) -> None:
        save_csv(path, self.timeline)


class SoundClassifier:
    """Audio event classifier for sounds of any length.

    Args:
        head: sample rate, window hop and number of classes.
        labels: class names.
        parts: sessions run in sequence, from samples to scores.

    Raises:
        RkzooError: the head is of another kind, or the labels do not match the classes.
    """

    def __init__(self, head: Head, labels: tuple[str, ...], parts: Sequence[Session]) -> None:
        if not isinstance(head, SoundHead) or not parts:
            raise RkzooError("This is not a sound classification model.", code=1)
        if len(labels) != head.classes:
            raise RkzooError(
                f"The model has {head.classes} classes but {len(labels)} labels.",
                "Every class needs its name.",
                "Give them with --labels FILE, one a line.",
            )
        self.head, self.labels, self._parts = head, labels, parts
        self._size = int(np.prod(parts[0].inputs[0].shape))

    def window(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Class scores (C,) of at most one window of samples, padded with silence. Where the model
        gives several rows, the mean of those that cover samples.
        """
        values = np.zeros(self._size, np.float32)
        values[: len(samples)] = samples
        for part in self._parts:
            spec = part.inputs[0]
            outputs = run_named(part, {spec.name: values.reshape(spec.shape)})
            output = self.head.scores if part is self._parts[-1] else 0
            values = outputs[part.outputs[output].name]
        rows = values.reshape(-1, self.head.classes)
        filled = max(1, int(np.ceil(len(rows) * len(samples) / self._size)))
        return np.asarray(rows[:filled].mean(axis=0), np.float32)

    def __call__(self, sound: Sound) -> AudioClassification:
        samples = sound.at(self.head.rate)
        starts = window_starts(len(samples), self._size, self.head.hop)
        scores = [self.window(samples[start : start + self._size]) for start in starts]
        ends = [min(start + self._size, len(samples)) for start in starts]
        times = np.array(list(zip(starts, ends, strict=True)), np.float64) / self.head.rate
        return AudioClassification(np.array(scores), times, self.labels)


def window_starts(length: int, size: int, hop: int) -> list[int]:
    """Start samples of windows of `size`, every `hop` samples, that cover all `length` samples."""
    return [0, *range(hop, max(length - size + hop, 0), hop)]
