"""Throughput and latency of the stages of a stream, over a sliding window."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

# In processing order. `work` is a model whose stages cannot be measured separately.
STAGES = ("read", "prepare", "infer", "decode", "work", "track", "draw", "encode")
# Size of the sliding window.
_FRAMES, _SECONDS = 200, 3.0


@dataclass
class _Window:
    seconds: deque[float] = field(default_factory=lambda: deque(maxlen=_FRAMES))
    count: int = 0
    total: float = 0.0


class StreamMeter:
    """Thread-safe counters with bounded memory."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stages: dict[str, _Window] = {}
        self._moments: dict[str, deque[float]] = {}
        self._counts: dict[str, int] = {}
        self._latency: deque[float] = deque(maxlen=_FRAMES)
        self._began = perf_counter()

    def stages(self, seconds: Mapping[str, float]) -> None:
        """Record the seconds of a frame in each stage."""
        with self._lock:
            for stage, value in seconds.items():
                window = self._stages.setdefault(stage, _Window())
                window.seconds.append(value)
                window.count += 1
                window.total += value

    def event(self, name: str) -> None:
        """Count a frame that was `read`, `answered` or `written`."""
        now = perf_counter()
        with self._lock:
            self._counts[name] = self._counts.get(name, 0) + 1
            moments = self._moments.setdefault(name, deque(maxlen=4 * _FRAMES))
            moments.append(now)
            _forget(moments, now)

    def latency(self, seconds: float) -> None:
        """Record the time from capture to result of a frame."""
        with self._lock:
            self._latency.append(seconds)

    def figures(self) -> dict[str, Any]:
        """Statistics as JSON types: counts, frames per second (recent and mean), and milliseconds
        (p50, p90) of each stage and of the latency.
        """
        now = perf_counter()
        with self._lock:
            for moments in self._moments.values():
                _forget(moments, now)
            elapsed = now - self._began
            return {
                "seconds": round(elapsed, 2),
                "counts": dict(self._counts),
                "fps": {name: _rate(moments, now) for name, moments in self._moments.items()},
                "mean_fps": {
                    name: round(count / elapsed, 2) for name, count in self._counts.items()
                },
                "stages_ms": {
                    stage: _milliseconds(self._stages[stage].seconds)
                    for stage in STAGES
                    if stage in self._stages
                },
                "latency_ms": _milliseconds(self._latency),
            }


def _forget(moments: deque[float], now: float) -> None:
    while moments and now - moments[0] > _SECONDS:
        moments.popleft()


def _rate(moments: deque[float], now: float) -> float:
    if len(moments) < 2:
        return 0.0
    # Up to now, not up to the last event, so that a stalled source drops to 0.
    return round((len(moments) - 1) / max(now - moments[0], 1e-6), 1)


def _milliseconds(seconds: deque[float]) -> dict[str, float] | None:
    if not seconds:
        return None
    ordered = sorted(seconds)
    return {
        "p50": round(1000 * ordered[len(ordered) // 2], 2),
        "p90": round(1000 * ordered[min(len(ordered) - 1, len(ordered) * 9 // 10)], 2),
    }
