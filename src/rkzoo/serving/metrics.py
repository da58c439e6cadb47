"""GET /metrics: what Prometheus scrapes, in its text format."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from rkzoo.serving.engine import Engine, Event, ModelStatus
from rkzoo.soc.machine import npu_load, thermal_zones
from rkzoo.soc.tree import Tree

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Bounds of the buckets: from a small network on one core to the longest sound."""
STATES = ("ready", "loading", "unloaded", "failed")
SESSION = "(session)"
"""Whom requests count for that reached a session opened from afar: those have no end of names."""


def routes(engine: Engine, root: Path = Path("/")) -> list[BaseRoute]:
    """The route.

    Args:
        engine: What is measured.
        root: Of the machine's files, for load and temperature.
    """
    registry = _registry(engine, root)

    async def metrics(request: Request) -> Response:
        # It reads files of the kernel.
        text = await asyncio.to_thread(generate_latest, registry)
        return Response(text, headers={"content-type": CONTENT_TYPE_PLAIN_0_0_4})

    return [Route("/metrics", metrics, methods=["GET"])]


def _registry(engine: Engine, root: Path) -> CollectorRegistry:
    """What is measured, and has the engine tell of its requests."""
    # A series of its own for each counter, of use to nobody.
    disable_created_metrics()  # type: ignore[no-untyped-call]
    served = tuple(engine.names())  # those of the command line; sessions come later
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(_Now(engine, served, root))
    who = ("model", "call")
    requests = Counter(
        "rkzoo_requests",
        "Requests that were answered. outcome: ok, wrong (the request), refused (no room), late,"
        " failed (the server); model is empty for those that reached none.",
        (*who, "outcome"),
        registry=registry,
    )
    sizes = Counter("rkzoo_request_bytes", "Bytes of requests.", who, registry=registry)
    waited = Histogram(
        "rkzoo_request_waiting_seconds",
        "From a request's arrival to its slot.",
        who,
        buckets=SECONDS,
        registry=registry,
    )
    worked = Histogram(
        "rkzoo_request_working_seconds",
        "In the slot, the NPU and all around it.",
        who,
        buckets=SECONDS,
        registry=registry,
    )

    def observe(event: Event) -> None:
        labels = (event.model if event.model in ("", *served) else SESSION, event.call)
        requests.labels(*labels, event.outcome).inc()
        if event.model:
            sizes.labels(*labels).inc(event.size)
            waited.labels(*labels).observe(event.waited)
        if event.worked:
            worked.labels(*labels).observe(event.worked)

    engine.observers.append(observe)
    return registry


class _Now(Collector):
    """What is so at the moment: of the models, their processes and the machine."""

    def __init__(self, engine: Engine, served: Sequence[str], root: Path) -> None:
        self._engine, self._served, self._root = engine, served, root

    def collect(self) -> Iterator[Metric]:
        yield from _of_models([self._engine.status(name) for name in self._served])
        yield from _of_machine(Tree(self._root))


def _of_models(models: list[ModelStatus]) -> Iterator[Metric]:
    waiting = GaugeMetricFamily("rkzoo_model_waiting", "Requests that wait.", labels=["model"])
    working = GaugeMetricFamily("rkzoo_model_working", "Requests in slots.", labels=["model"])
    slots = GaugeMetricFamily("rkzoo_model_slots", "Requests worked on at once.", labels=["model"])
    restarts = CounterMetricFamily(
        "rkzoo_worker_restarts", "Worker processes that died.", labels=["model"]
    )
    memory = GaugeMetricFamily(
        "rkzoo_worker_resident_memory_bytes", "Memory of a worker process.", labels=["model"]
    )
    state = GaugeMetricFamily(
        "rkzoo_model_state", "1 for the state that it is in.", labels=["model", "state"]
    )
    for model in models:
        label = [model.name]
        waiting.add_metric(label, model.waiting)
        working.add_metric(label, model.working)
        slots.add_metric(label, model.opened.slots if model.opened and model.pid else 0)
        restarts.add_metric(label, model.restarts)
        for name in STATES:
            state.add_metric([model.name, name], model.state == name)
        if model.pid and (size := _resident(model.pid)) is not None:
            memory.add_metric(label, size)
    yield from (waiting, working, slots, restarts, memory, state)


def _of_machine(tree: Tree) -> Iterator[Metric]:
    load = GaugeMetricFamily("rkzoo_npu_load_ratio", "Load of an NPU core, 0..1.", labels=["core"])
    for core, percent in enumerate(npu_load(tree)):
        if percent is not None:
            load.add_metric([str(core)], percent / 100)
    heat = GaugeMetricFamily("rkzoo_temperature_celsius", "Of a thermal zone.", labels=["zone"])
    # Zones of one name are told apart by no kernel; the hottest counts.
    zones: dict[str, float] = {}
    for zone in thermal_zones(tree):
        zones[zone.name] = max(zone.celsius, zones.get(zone.name, zone.celsius))
    for name, celsius in zones.items():
        heat.add_metric([name], celsius)
    yield from (load, heat)


def _resident(pid: int) -> int | None:
    """Bytes of a process in memory, None where the system does not tell."""
    with suppress(OSError, ValueError, IndexError):
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    return None
