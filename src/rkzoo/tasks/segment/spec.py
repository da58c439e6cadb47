"""Instance segmentation task specification."""

from __future__ import annotations

from dataclasses import replace

from rkzoo.tasks.detect.spec import DETECT
from rkzoo.tasks.spec import Opened, Task, TaskOptions


def _open(opened: Opened, options: TaskOptions) -> Task:
    from rkzoo.tasks.segment.task import Segmenter

    return Segmenter(*opened.parts["model"], options.detect)


SEGMENT = replace(DETECT, name="segment", open=_open)
