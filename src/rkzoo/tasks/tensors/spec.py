"""Plain tensors: outputs without postprocessing, of any model."""

from __future__ import annotations

from rkzoo.contract.model import TensorsHead
from rkzoo.tasks.spec import Task, TaskOptions, TaskParts, TaskSpec


def _open(parts: TaskParts, options: TaskOptions) -> Task:
    from rkzoo.tasks.tensors.task import TensorTask

    return TensorTask(*parts.parts["model"])


def _describe(head: TensorsHead) -> list[tuple[str, str]]:
    return [("gives", "its outputs as they are, without postprocessing")]


TENSORS = TaskSpec(
    name="tensors",
    open=_open,
    input_kind="tensors",
    output_kind="tensors",
    usage=("INPUT",),
    describe=_describe,
)
