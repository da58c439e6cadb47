"""How far a figure would move on other pictures like these: the bootstrap over pictures.

A resample is as many pictures as there are, drawn with repetition; of 1,000 resamples the middle
95 % are the interval (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13).
The draws depend on the number of pictures alone, so two figures of the same pictures are resampled
alike, and the difference of their values is that of the resample: a paired bootstrap.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

RESAMPLES = 1000
FEW = 20
"""Below so many pictures an interval says little: a few of them decide it."""
_AT_ONCE = 100  # resamples that are held in memory together


@dataclass(frozen=True)
class Resampled:
    """A metric as a function of how often each picture counts.

    Attributes:
        rows: number of what is drawn: pictures, or pairs of them.
        value: counts (R, rows) to the metric's value of each of R resamples, NaN for one that holds
            nothing to count.
    """

    rows: int
    value: Callable[[I64], F64]

    @cached_property
    def values(self) -> F64:
        """The metric's value of each resample, (RESAMPLES,), always of the same draws."""
        even = np.full(self.rows, 1 / self.rows)
        counts = np.random.default_rng(0).multinomial(self.rows, even, RESAMPLES)
        parts = range(0, RESAMPLES, _AT_ONCE)
        return np.concatenate([self.value(counts[at : at + _AT_ONCE]) for at in parts])

    def part(self, kept: Sequence[int]) -> Resampled:
        """The same of some of the rows, by their numbers."""

        def value(counts: I64) -> F64:
            whole = np.zeros((len(counts), self.rows), np.int64)
            whole[:, list(kept)] = counts
            return self.value(whole)

        return Resampled(len(kept), value)

    def at(self, counts: Sequence[int]) -> float:
        """The metric's value where row i counts counts[i] times."""
        return float(self.value(np.asarray(counts, np.int64)[None])[0])


def of_sums(rows: Any, value: Callable[[F64], F64]) -> Resampled:
    """A metric of sums over the pictures: `rows` (P, ...) what each adds, `value` from the sums
    (R, ...) to the metric (R,)."""
    table = np.asarray(rows, np.float64)
    flat = table.reshape(len(table), -1)

    def of_counts(counts: I64) -> F64:
        sums = (counts.astype(np.float64) @ flat).reshape(len(counts), *table.shape[1:])
        with np.errstate(divide="ignore", invalid="ignore"):
            return value(sums)

    return Resampled(len(table), of_counts)


def of_mean(values: Sequence[float] | NDArray[Any], scale: float = 1.0) -> Resampled:
    """A metric that is the mean of one value (P,) a picture, times `scale`."""
    rows = np.stack((np.asarray(values, np.float64), np.ones(len(values))), axis=1)
    return of_sums(rows, lambda sums: scale * sums[:, 0] / sums[:, 1])


def interval(values: F64) -> tuple[float, float] | None:
    """The ends of the middle 95 % of resampled values (R,); None where none is a number."""
    known = values[np.isfinite(values)]
    if not known.size:
        return None
    low, high = np.percentile(known, (2.5, 97.5))
    return float(low), float(high)
