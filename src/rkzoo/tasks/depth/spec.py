"""Depth estimation task specification."""

from __future__ import annotations

from rkzoo.contract.depth import DepthHead
from rkzoo.tasks.spec import Task, TaskOptions, TaskParts, TaskSpec


def _open(parts: TaskParts, options: TaskOptions) -> Task:
    from rkzoo.tasks.depth.task import DepthEstimator

    return DepthEstimator(*parts.parts["model"])


def _describe(head: DepthHead) -> list[tuple[str, str]]:
    if head.metric:
        return [("gives", "depth of each pixel in metres")]
    return [("gives", f"relative depth of each pixel, larger is {head.larger}")]


DEPTH = TaskSpec(name="depth", open=_open, describe=_describe, legalize=True, outputs="depth map")
