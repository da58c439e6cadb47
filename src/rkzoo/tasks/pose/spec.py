"""Pose estimation task specification."""

from __future__ import annotations

from dataclasses import replace

from rkzoo.tasks.detect.spec import DETECT
from rkzoo.tasks.spec import Task, TaskOptions, TaskParts


def _open(parts: TaskParts, options: TaskOptions) -> Task:
    from rkzoo.tasks.pose.task import PoseEstimator

    return PoseEstimator(*parts.parts["model"], options.detect)


POSE = replace(DETECT, name="pose", open=_open)
