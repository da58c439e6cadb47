"""How fast each stage of a stream is, over the last moments."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

# In the order of a frame's way. `work` stands for a model whose parts cannot be told apart.
STAGES = ("read", "prepare", "infer", "decode", "work", "track", "draw", "encode")
# Figures are of so many frames and seconds.
_FRAMES, _SECONDS = 200, 3.0


@dataclass
class _Window:
    seconds: deque[float] = field(default_factory=lambda: deque(maxlen=_FRAMES))
    count: int = 0
    total: float = 0.0


class Meter:
    """Counts from any thread. Memory does not grow with the stream."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stages: dict[str, _Window] = {}
        self._moments: dict[str, deque[float]] = {}
        self._counts: dict[str, int] = {}
        self._latency: deque[float] = deque(maxlen=_FRAMES)
        self._began = perf_counter()

    def stages(self, seconds: Mapping[str, float]) -> None:
        """What a frame took in each stage."""
        with self._lock:
            for stage, value in seconds.items():
                window = self._stages.setdefault(stage, _Window())
                window.seconds.append(value)
                window.count += 1
                window.total += value

    def event(self, name: str) -> None:
        """A frame was `read`, `answered`, `written`."""
        now = perf_counter()
        with self._lock:
            self._counts[name] = self._counts.get(name, 0) + 1
            moments = self._moments.setdefault(name, deque(maxlen=4 * _FRAMES))
            moments.append(now)
            _forget(moments, now)

    def latency(self, seconds: float) -> None:
        """From the moment that a frame was there to that at which its answer was out."""
        with self._lock:
            self._latency.append(seconds)

    def figures(self) -> dict[str, Any]:
        """Plain data: counts, frames a second of the last moments and of the whole, and for each
        stage and the latency milliseconds (median, and what one in ten exceeds)."""
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
    # To now and not to the last one: a source that stands still falls to 0.
    return round((len(moments) - 1) / max(now - moments[0], 1e-6), 1)


def _milliseconds(seconds: deque[float]) -> dict[str, float] | None:
    if not seconds:
        return None
    ordered = sorted(seconds)
    return {
        "p50": round(1000 * ordered[len(ordered) // 2], 2),
        "p90": round(1000 * ordered[min(len(ordered) - 1, len(ordered) * 9 // 10)], 2),
    }
