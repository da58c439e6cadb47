"""Task specification of super-resolution and restoration."""

from __future__ import annotations

from rkzoo.contract.restore import RestoreHead
from rkzoo.tasks.spec import Task, TaskOptions, TaskParts, TaskSpec


def _open(parts: TaskParts, options: TaskOptions) -> Task:
    from rkzoo.tasks.restore.task import Restorer

    return Restorer(*parts.parts["model"])


def _describe(head: RestoreHead) -> list[tuple[str, str]]:
    made = "a picture" if head.scale == 1 else f"a picture {head.scale} times larger"
    return [
        ("gives", made),
        ("tiles", f"larger pictures go in as tiles, with {head.margin} pixels beyond each side"),
    ]


RESTORE = TaskSpec(
    name="restore", open=_open, describe=_describe, legalize=True, outputs="picture that is made"
)
