"""Metric record, and the basic metric functions."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rkzoo.accuracy.resampling import Resampled, interval
from rkzoo.json_values import to_json_value


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric value with what is needed to judge it.

    Attributes:
        name: shown in reports.
        value: the value.
        unit: "" for a fraction in 0..1, else "%" or "characters".
        higher_is_better: direction.
        gate: drop from the float model, in the metric's unit, that counts as a failure.
        main: the metric to optimize; at most one per evaluation.
        resampled: the metric of other pictures like these, of the main one.
    """

    name: str
    value: float
    unit: str
    higher_is_better: bool
    gate: float
    main: bool = False
    resampled: Resampled | None = field(default=None, compare=False, repr=False)

    @property
    def interval(self) -> tuple[float, float] | None:
        """Ends of the value's 95 % bootstrap interval over the pictures; None where it is not
        resampled."""
        return interval(self.resampled.values) if self.resampled else None

    def part(self, kept: Sequence[int]) -> Metric:
        """The metric of some of the pictures, by their numbers. Raises ValueError where it is not
        resampled."""
        if self.resampled is None:
            raise ValueError(f"{self.name} is not resampled")
        some = self.resampled.part(kept)
        return replace(self, value=some.at([1] * len(kept)), resampled=some)

    def to_json(self) -> dict[str, Any]:
        """Metric as JSON types, with its interval."""
        names = ("name", "value", "unit", "higher_is_better", "gate", "main", "interval")
        document: dict[str, Any] = to_json_value({name: getattr(self, name) for name in names})
        return document


@dataclass(frozen=True)
class Drop:
    """How far a figure lies below the float model's, on the same pictures.

    Attributes:
        points: hundredths of a fraction, else the metric's own unit; negative: better.
        interval: ends of its 95 % paired bootstrap interval; None where it was not resampled.
        rows: number of pictures (or what else was drawn).
    """

    points: float
    interval: tuple[float, float] | None = None
    rows: int = 0

    @property
    def apart(self) -> bool:
        """Whether the two figures can be told apart."""
        return self.interval is not None and not self.interval[0] <= 0 <= self.interval[1]

    @property
    def highest(self) -> float:
        """The interval's upper end; the drop itself where there is no interval."""
        return self.points if self.interval is None else self.interval[1]

    def words(self, things: str = "pictures") -> str:
        """The drop with its interval, and whether it can be told from none."""
        text = f"drop {self.points:.2f} points"
        if self.interval is None:
            return text
        low, high = self.interval
        text += f" ({low:.2f} to {high:.2f}, 95 %, paired bootstrap over {self.rows} {things})"
        return text if self.apart else f"{text}: float and INT8 cannot be told apart"


def points(metric: Metric, value: Any) -> Any:
    """Drop of `value` (one or many) below the float `metric`, in points: hundredths of a fraction,
    else the metric's own unit.
    """
    return _below(metric, metric.value, value)


def drop_of(metric: Metric, other: Metric) -> Drop:
    """Drop of `other` below the float model's `metric`, both of the same pictures."""
    amount = float(points(metric, other.value))
    a, b = metric.resampled, other.resampled
    if a is None or b is None or a.rows != b.rows:
        return Drop(amount)
    return Drop(amount, interval(_below(metric, a.values, b.values)), a.rows)


def _below(metric: Metric, value: Any, other: Any) -> Any:
    drop = (value - other) * (100 if metric.unit == "" else 1)
    return drop if metric.higher_is_better else -drop


def cosine(a: NDArray[Any], b: NDArray[Any]) -> float | None:
    """Cosine similarity of two arrays of one size; 1 for two zero arrays, None where a value is not
    finite.
    """
    flat_a, flat_b = (np.asarray(x, np.float64).reshape(-1) for x in (a, b))
    lengths = float(np.linalg.norm(flat_a)), float(np.linalg.norm(flat_b))
    if not np.isfinite(lengths).all():
        return None
    if 0.0 in lengths:
        return float(lengths[0] == lengths[1])
    return float(np.clip(flat_a @ flat_b / (lengths[0] * lengths[1]), -1.0, 1.0))


def edit_distance(a: Sequence[Hashable], b: Sequence[Hashable]) -> int:
    """Levenshtein distance."""
    if len(a) < len(b):
        a, b = b, a
    row = list(range(len(b) + 1))
    for i, left in enumerate(a, 1):
        corner, row[0] = row[0], i
        for j, right in enumerate(b, 1):
            corner, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, corner + (left != right))
    return row[-1]


def similarity(a: str, b: str) -> float:
    """1 - edit distance / length of the longer text; 1 for two empty texts."""
    longest = max(len(a), len(b))
    return 1 - edit_distance(a, b) / longest if longest else 1.0


def word_error_rate(pairs: Iterable[tuple[str, str]]) -> float:
    """Word error rate (WER) over all pairs (truth, found); may exceed 1.

    Words are separated by white space and compared verbatim. Without any reference word: 0 where
    nothing was found either, else infinite.
    """
    errors = words = 0
    for truth, text in pairs:
        spoken = truth.split()
        errors += edit_distance(spoken, text.split())
        words += len(spoken)
    if words:
        return errors / words
    return float("inf") if errors else 0.0


def confusion_matrix(truth: NDArray[Any], actual: NDArray[Any], classes: int) -> NDArray[np.int64]:
    """Confusion matrix (classes, classes) of pixel counts, ground truth by rows.

    Args:
        truth, actual: class maps of the same shape. Pixels whose truth is no class (usually 255)
            are not counted.
        classes: number of classes.

    Raises:
        ValueError: shapes differ, or a found class is outside 0..classes-1.
    """
    if truth.shape != actual.shape:
        raise ValueError("truth and found must have one shape")
    counted = (truth >= 0) & (truth < classes)
    rows, columns = truth[counted].astype(np.int64), actual[counted].astype(np.int64)
    if columns.size and (columns.min() < 0 or columns.max() >= classes):
        raise ValueError("a found class lies outside the classes")
    counts = np.bincount(rows * classes + columns, minlength=classes * classes)
    return np.asarray(counts.reshape(classes, classes), np.int64)


def mean_iou(counts: NDArray[Any]) -> float:
    """Mean IoU over the classes, of a confusion matrix (C, C). Classes in neither ground truth nor
    prediction are left out; 0 when there is no other.
    """
    both = np.diag(counts).astype(np.float64)
    union = counts.sum(axis=0) + counts.sum(axis=1) - both
    seen = union > 0
    return float((both[seen] / union[seen]).mean()) if seen.any() else 0.0
