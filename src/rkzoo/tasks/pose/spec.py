"""Pose estimation task specification."""

from __future__ import annotations

from dataclasses import replace

from rkzoo.tasks.detect.spec import DETECT
from rkzoo.tasks.spec import Opened, Task, TaskOptions


def _open(opened: Opened, options: TaskOptions) -> Task:
    from rkzoo.tasks.pose.task import PoseEstimator

    return PoseEstimator(*opened.parts["model"], options.detect)


POSE = replace(DETECT, name="pose", open=_open)
