"""Translation task specifications."""

from __future__ import annotations

from rkzoo.tasks.spec import Opened, Task, TaskOptions, TaskSpec

_LANGUAGE = frozenset({"language"})


def _open_fairseq(opened: Opened, options: TaskOptions) -> Task:
    from rkzoo.tasks.translate.open import translate

    return translate(opened, options)


def _open_marian(opened: Opened, options: TaskOptions) -> Task:
    from rkzoo.tasks.translate.open import marian

    return marian(opened, options)


FAIRSEQ = TaskSpec(
    name="translate", open=_open_fairseq, takes="text", gives="output", options=_LANGUAGE
)
MARIAN = TaskSpec(
    name="translate", open=_open_marian, takes="text", gives="output", options=_LANGUAGE
)
