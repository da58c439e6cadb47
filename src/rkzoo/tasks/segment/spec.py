"""Instance segmentation task specification."""

from __future__ import annotations

from dataclasses import replace

from rkzoo.tasks.detect.spec import DETECT
from rkzoo.tasks.spec import Task, TaskOptions, TaskParts


def _open(parts: TaskParts, options: TaskOptions) -> Task:
    from rkzoo.tasks.segment.task import Segmenter

    return Segmenter(*parts.parts["model"], options.detect)


SEGMENT = replace(DETECT, name="segment", open=_open)
