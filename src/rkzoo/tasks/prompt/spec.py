"""Promptable segmentation task specification."""

from __future__ import annotations

from rkzoo.contract.segmentation import PromptableSegmentHead
from rkzoo.tasks.spec import Task, TaskOptions, TaskParts, TaskSpec


def _open(task_parts: TaskParts, options: TaskOptions) -> Task:
    from rkzoo.tasks.prompt.segmenter import PromptableSegmenter

    parts, head = task_parts.parts, task_parts.head
    return PromptableSegmenter(
        parts["encoder"],
        parts["decoder"],
        options.points,
        options.boxes,
        head if isinstance(head, PromptableSegmentHead) else None,
    )


CUT_OUT = TaskSpec(
    name="prompt",
    open=_open,
    options=frozenset({"points", "boxes"}),
    dataset_task="cut-out",
    usage=("PICTURE --point X,Y",),
)
