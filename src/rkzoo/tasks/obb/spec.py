"""Oriented object detection task specification."""

from __future__ import annotations

from dataclasses import replace

from rkzoo.tasks.detect.spec import DETECT
from rkzoo.tasks.spec import Task, TaskOptions, TaskParts


def _open(parts: TaskParts, options: TaskOptions) -> Task:
    from rkzoo.tasks.obb.task import OrientedDetector

    return OrientedDetector(*parts.parts["model"], options.detect)


OBB = replace(DETECT, name="obb", open=_open)
