"""Statistics of measured times."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rkzoo.contract.schema_base import StrictStruct


class Times(StrictStruct, frozen=True):
    """Milliseconds of one stage: median, 90th and 99th percentile, mean, minimum, maximum."""

    p50: float
    p90: float
    p99: float
    mean: float
    least: float
    most: float


def percentile(ordered: Sequence[float], share: float) -> float:
    """Percentile `share` (0..1) of sorted, non-empty values, with linear interpolation."""
    place = share * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def times(seconds: Sequence[float]) -> Times:
    """Summarize measured seconds (at least one) in milliseconds."""
    ordered = sorted(1000 * value for value in seconds)
    return Times(
        p50=percentile(ordered, 0.5),
        p90=percentile(ordered, 0.9),
        p99=percentile(ordered, 0.99),
        mean=math.fsum(ordered) / len(ordered),
        least=ordered[0],
        most=ordered[-1],
    )


def growth(values: Sequence[float]) -> float:
    """Growth per sample: the median slope between the first and the second half, robust to a single
    jump; 0 for fewer than 4 values.
    """
    half = len(values) // 2
    if half < 2:
        return 0.0
    later = values[len(values) - half :]
    apart = len(values) - half
    slopes = sorted((b - a) / apart for a, b in zip(values, later, strict=False))
    return percentile(slopes, 0.5)
