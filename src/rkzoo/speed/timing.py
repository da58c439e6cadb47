"""What many measured times say together."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rkzoo.contract.schema_base import Strict


class Times(Strict, frozen=True):
    """Milliseconds of one stage: the middle, what 9 of 10 and 99 of 100 frames stay below,
    the mean, the least and the most."""

    p50: float
    p90: float
    p99: float
    mean: float
    least: float
    most: float


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value below which `share` (0..1) of the sorted values lie, between two of them where
    needed. `ordered` must not be empty."""
    place = share * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def times(seconds: Sequence[float]) -> Times:
    """The summary of measured seconds, in milliseconds; there must be one at least."""
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
    """How much a value grows from one sample to the next: the middle one of the slopes between
    its first and its second half, which a single jump does not sway. 0 for fewer than 4."""
    half = len(values) // 2
    if half < 2:
        return 0.0
    later = values[len(values) - half :]
    apart = len(values) - half
    slopes = sorted((b - a) / apart for a, b in zip(values, later, strict=False))
    return percentile(slopes, 0.5)
