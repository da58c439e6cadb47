"""Oriented object detection task specification."""

from __future__ import annotations

from dataclasses import replace

from rkzoo.tasks.detect.spec import DETECT
from rkzoo.tasks.spec import Opened, Task, TaskOptions


def _open(opened: Opened, options: TaskOptions) -> Task:
    from rkzoo.tasks.obb.task import OrientedDetector

    return OrientedDetector(*opened.parts["model"], options.detect)


OBB = replace(DETECT, name="obb", open=_open)
