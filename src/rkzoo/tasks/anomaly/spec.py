"""Task specification of anomaly detection."""

from __future__ import annotations

from rkzoo.contract.anomaly import AnomalyHead
from rkzoo.tasks.spec import Task, TaskOptions, TaskParts, TaskSpec


def _open(parts: TaskParts, options: TaskOptions) -> Task:
    from rkzoo.tasks.anomaly.task import AnomalyDetector

    return AnomalyDetector(*parts.parts["model"])


def _describe(head: AnomalyHead) -> list[tuple[str, str]]:
    return [("gives", f"how unusual each pixel is, an anomaly above {head.threshold:g}")]


ANOMALY = TaskSpec(
    name="anomaly", open=_open, describe=_describe, legalize=True, outputs="anomaly map"
)
