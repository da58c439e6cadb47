"""Promptable segmentation task specification."""

from __future__ import annotations

from rkzoo.tasks.spec import Task, TaskOptions, TaskParts, TaskSpec


def _open(task_parts: TaskParts, options: TaskOptions) -> Task:
    from rkzoo.tasks.prompt.segmenter import PromptableSegmenter

    parts = task_parts.parts
    return PromptableSegmenter(parts["encoder"], parts["decoder"], options.points, options.boxes)


CUT_OUT = TaskSpec(
    name="prompt",
    open=_open,
    options=frozenset({"points", "boxes"}),
    dataset_task="cut-out",
    usage=("PICTURE --point X,Y",),
)
