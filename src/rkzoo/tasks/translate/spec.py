"""Translation task specifications."""

from __future__ import annotations

from rkzoo.tasks.spec import Task, TaskOptions, TaskParts, TaskSpec

_LANGUAGE = frozenset({"language"})


def _open_fairseq(parts: TaskParts, options: TaskOptions) -> Task:
    from rkzoo.tasks.translate.open import translate

    return translate(parts, options)


def _open_marian(parts: TaskParts, options: TaskOptions) -> Task:
    from rkzoo.tasks.translate.open import marian

    return marian(parts, options)


FAIRSEQ = TaskSpec(
    name="translate", open=_open_fairseq, input_kind="text", output_kind="output", options=_LANGUAGE
)
MARIAN = TaskSpec(
    name="translate", open=_open_marian, input_kind="text", output_kind="output", options=_LANGUAGE
)
