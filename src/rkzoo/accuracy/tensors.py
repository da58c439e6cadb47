"""Plain tensors: scored against the float model's own outputs, or by a function of the user's."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rkzoo.accuracy.answers import Record
from rkzoo.accuracy.folders import digest_of
from rkzoo.accuracy.metric import Metric, cosine
from rkzoo.accuracy.resampling import of_mean
from rkzoo.errors import RkzooError
from rkzoo.tasks.tensors.result import Tensors

UserMetric = Callable[[Mapping[str, NDArray[Any]], str], float]
"""Outputs by name and the path of the sample to a number, higher is better."""

_RESAMPLES = 1000


@dataclass(frozen=True)
class Outputs:
    """The outputs of the float model, one per sample."""

    wanted: tuple[Tensors, ...]

    def check(self, labels: tuple[str, ...]) -> None:
        """Accept any labels: tensors have none."""

    def take(self, kept: Sequence[int]) -> Outputs:
        """The ground truth of some of the items, in their order."""
        return replace(self, wanted=tuple(self.wanted[i] for i in kept))

    def digest(self) -> bytes:
        """Hash of all outputs."""
        digest = hashlib.sha256()
        for tensors in self.wanted:
            for name, array in tensors.arrays.items():
                digest.update(f"{name} {array.dtype} {array.shape}".encode() + array.tobytes())
        return digest.digest()

    def score(
        self, records: Sequence[Record], labels: tuple[str, ...], names: Sequence[str]
    ) -> tuple[Metric, ...]:
        """Mean over samples and outputs of the cosine similarity with float, and the lowest one; an
        output that is not finite, or of another size, counts as 0."""
        rows = [
            _cosines(Tensors.of_record(record), tensors)
            for record, tensors in zip(records, self.wanted, strict=False)
        ]
        if not rows:
            return ()
        means = [float(np.mean(row)) for row in rows]
        mean = float(np.mean(means))
        lowest = min(min(row) for row in rows)
        return (
            Metric("mean cosine with float", mean, "", True, 0.01, True, of_mean(means)),
            Metric("lowest cosine with float", lowest, "", True, 0.01),
        )


def _cosines(tensors: Tensors, requested: Tensors) -> list[float]:
    """Output by output in the graph's order, since the toolkit may rename them."""
    pairs = zip(tensors.arrays.values(), requested.arrays.values(), strict=True)
    return [(cosine(a, b) or 0.0) if a.size == b.size else 0.0 for a, b in pairs]


@dataclass(frozen=True)
class Measured:
    """Samples that a function of the user's judges."""

    name: str
    function: UserMetric
    items: tuple[Path, ...]

    def check(self, labels: tuple[str, ...]) -> None:
        """Accept any labels: tensors have none."""

    def take(self, kept: Sequence[int]) -> Measured:
        """The ground truth of some of the items, in their order."""
        return replace(self, items=tuple(self.items[i] for i in kept))

    def digest(self) -> bytes:
        """Hash of the samples."""
        return digest_of(self.items)

    def score(
        self, records: Sequence[Record], labels: tuple[str, ...], names: Sequence[str]
    ) -> tuple[Metric, ...]:
        """Mean over the samples, with the ends of its 95 % bootstrap interval.

        Raises:
            RkzooError: The function fails, or gives no number.
        """
        values = [
            self._value(Tensors.of_record(record), item)
            for record, item in zip(records, self.items, strict=False)
        ]
        if not values:
            return ()
        low, high = interval(values)
        return (
            Metric(self.name, float(np.mean(values)), "", True, 0.01, True, of_mean(values)),
            Metric(f"{self.name}, 2.5 % bound", low, "", True, 0.01),
            Metric(f"{self.name}, 97.5 % bound", high, "", True, 0.01),
        )

    def _value(self, tensors: Tensors, item: Path) -> float:
        try:
            value = float(self.function(dict(tensors.arrays), str(item)))
        except Exception as error:  # it is the user's own code, which may raise anything
            raise RkzooError(
                f"The metric {self.name} failed on {item.name}.",
                f"{type(error).__name__}: {' '.join(str(error).split())[:200]}.",
                "It gets the outputs by name and the path of the sample, and gives a number.",
            ) from error
        if not math.isfinite(value):
            raise RkzooError(
                f"The metric {self.name} gives {value} for {item.name}.",
                "Its mean would say nothing.",
                "Give a finite number for every sample.",
            )
        return value


def interval(values: Sequence[float]) -> tuple[float, float]:
    """The 95 % bootstrap interval of the mean (percentiles of 1000 resamples, always the same)."""
    array = np.asarray(values, np.float64)
    chosen = np.random.default_rng(0).integers(0, len(array), (_RESAMPLES, len(array)))
    low, high = np.percentile(array[chosen].mean(axis=1), (2.5, 97.5))
    return float(low), float(high)
