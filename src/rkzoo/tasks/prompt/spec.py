"""Promptable segmentation task specification."""

from __future__ import annotations

from rkzoo.tasks.spec import Opened, Task, TaskOptions, TaskSpec


def _open(opened: Opened, options: TaskOptions) -> Task:
    from rkzoo.tasks.prompt.cut_out import CutOut

    parts = opened.parts
    return CutOut(parts["encoder"], parts["decoder"], options.points, options.boxes)


CUT_OUT = TaskSpec(
    name="prompt",
    open=_open,
    options=frozenset({"points", "boxes"}),
    scored="cut-out",
    usage=("PICTURE --point X,Y",),
)
