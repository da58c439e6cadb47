"""Pose estimation task specifications: YOLO's, one person's, and all people of a picture."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from rkzoo.contract.pose import OneStagePoseHead, PeoplePoseHead, TopDownPoseHead
from rkzoo.errors import RkzooError
from rkzoo.tasks.detect.spec import DETECT
from rkzoo.tasks.spec import THRESHOLDS, Task, TaskOptions, TaskParts, TaskSpec, identity


def _open(parts: TaskParts, options: TaskOptions) -> Task:
    from rkzoo.tasks.pose.task import PoseEstimator

    return PoseEstimator(*parts.parts["model"], options.detect)


def _open_top_down(parts: TaskParts, options: TaskOptions) -> Task:
    from rkzoo.tasks.pose.top_down import TopDownPose

    return TopDownPose(*parts.parts["model"], options.boxes)


def _open_people(parts: TaskParts, options: TaskOptions) -> Task:
    from rkzoo.tasks.pose.top_down import PeoplePose, TopDownPose
    from rkzoo.tasks.registry import spec_of

    if not isinstance(parts.head, PeoplePoseHead):
        raise RkzooError("This pipeline is not one of a detector and a pose network.", code=1)
    contract, session = parts.parts["detector"]
    alone = TaskParts(contract.head, {"model": (contract, session)}, {})
    detector = spec_of(contract.head).open(alone, options)
    return PeoplePose(detector, TopDownPose(*parts.parts["pose"]), parts.head.person)


def _open_one_stage(parts: TaskParts, options: TaskOptions) -> Task:
    from rkzoo.tasks.pose.one_stage import OneStagePose

    _, classifier = parts.parts["classifier"]
    return OneStagePose(*parts.parts["network"], classifier, options.detect)


def _describe(head: TopDownPoseHead) -> list[tuple[str, str]]:
    made = "bins of x and y" if head.coding == "simcc" else "heat maps"
    return [("gives", f"{head.points} key points of one person, from {made}")]


def _describe_people(head: Any) -> list[tuple[str, str]]:
    return [("gives", f"the key points of each {head.person}")]


def _describe_one_stage(head: OneStagePoseHead) -> list[tuple[str, str]]:
    return [("gives", f"{head.points} key points of each person")]


POSE = replace(DETECT, name="pose", open=_open)
TOP_DOWN = TaskSpec(
    name="pose",
    open=_open_top_down,
    options=frozenset({"boxes"}),
    describe=_describe,
    legalize=True,
    to_matchable=identity,
    dataset_task="pose of one person",
    outputs="key points",
)
PEOPLE = TaskSpec(
    name="pose",
    open=_open_people,
    options=THRESHOLDS,
    describe=_describe_people,
    to_matchable=identity,
    thresholded=True,
)
ONE_STAGE = replace(PEOPLE, open=_open_one_stage, describe=_describe_one_stage)
