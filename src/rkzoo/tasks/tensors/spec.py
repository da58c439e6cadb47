"""Plain tensors: outputs without postprocessing, of any model."""

from __future__ import annotations

from rkzoo.contract.model import TensorsHead
from rkzoo.tasks.spec import Opened, Task, TaskOptions, TaskSpec


def _open(opened: Opened, options: TaskOptions) -> Task:
    from rkzoo.tasks.tensors.task import TensorTask

    return TensorTask(*opened.parts["model"])


def _describe(head: TensorsHead) -> list[tuple[str, str]]:
    return [("gives", "its outputs as they are, without postprocessing")]


TENSORS = TaskSpec(
    name="tensors",
    open=_open,
    takes="tensors",
    gives="tensors",
    usage=("INPUT",),
    describe=_describe,
)
