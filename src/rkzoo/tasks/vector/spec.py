"""Numbers that answer a picture."""

from __future__ import annotations

from collections.abc import Sequence

from rkzoo.contract.vector import VectorHead
from rkzoo.errors import RkzooError
from rkzoo.tasks.spec import Task, TaskOptions, TaskParts, TaskSpec


def _open(parts: TaskParts, options: TaskOptions) -> Task:
    from rkzoo.tasks.vector.task import Measurer

    return Measurer(*parts.parts["model"], options.against)


def _describe(head: VectorHead) -> list[tuple[str, str]]:
    kind = "an embedding" if head.embedding else "measured"
    return [("gives", f"{head.size} numbers, {kind}")]


def _refuse_labels(head: VectorHead, labels: Sequence[str], model: str) -> None:
    """Labels make a classifier of a graph, where there is one for each number."""
    if labels:
        raise RkzooError(
            f"{model} gives {head.size} numbers that are no scores of classes, but "
            f"{len(labels)} labels were given.",
            "As many labels as numbers would make it a classifier, when it is converted.",
            f"Give {head.size} names, or none at all.",
        )


VECTOR = TaskSpec(
    name="vector",
    open=_open,
    output_kind="vector",
    options=frozenset({"against"}),
    usage=("PICTURE", "PICTURE --against OTHER ..."),
    describe=_describe,
    check_labels=_refuse_labels,
    legalize=True,
    outputs="numbers",
)
