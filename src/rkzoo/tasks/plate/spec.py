"""License plate task specifications: detection and recognition."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rkzoo.contract.text import CHINESE_PLATES, PlateHead
from rkzoo.errors import RkzooError
from rkzoo.tasks.face.spec import FACE
from rkzoo.tasks.spec import DefaultLabels, Task, TaskOptions, TaskParts, TaskSpec, identity


def _open_reader(parts: TaskParts, options: TaskOptions) -> Task:
    from rkzoo.tasks.plate.task import PlateReader

    return PlateReader(*parts.parts["model"])


def _open_detector(parts: TaskParts, options: TaskOptions) -> Task:
    from rkzoo.tasks.plate.detect import PlateDetector

    return PlateDetector(*parts.parts["model"], options.detect)


def _assumed_labels(head: PlateHead) -> DefaultLabels | None:
    if head.blank + 1 != CHINESE_PLATES:
        return None
    why = "its 68 characters: those of Chinese plates are"
    return DefaultLabels(label_set="plates-cn", why=why)


def _check_labels(head: PlateHead, labels: Sequence[str], model: str) -> None:
    if not labels:
        raise RkzooError(
            f"{model} reads plates, but what its characters are is not known.",
            f"It has {head.blank + 1} of them, and only those of Chinese plates (68) are known.",
            "Give them with --labels FILE, one a line, the blank included.",
        )
    if len(labels) <= head.blank:
        raise RkzooError(
            f"{model} has at least {head.blank + 1} characters but {len(labels)} labels were "
            "given.",
            "Every character needs its name, the blank too.",
            "Give the labels of this very model with --labels.",
        )


PLATE = TaskSpec(
    name="plate",
    open=_open_reader,
    describe=lambda head: [("gives", f"the text of a plate; class {head.blank} is the blank")],
    default_labels=_assumed_labels,
    check_labels=_check_labels,
    legalize=True,
    to_matchable=identity,
    outputs="characters",
)
PLATE_DETECT = replace(FACE, open=_open_detector)
