"""Text-to-speech task specification."""

from __future__ import annotations

from rkzoo.tasks.spec import Task, TaskOptions, TaskParts, TaskSpec


def _open(parts: TaskParts, options: TaskOptions) -> Task:
    from rkzoo.tasks.voice.open import voice

    return voice(parts, options)


VOICE = TaskSpec(
    name="voice",
    open=_open,
    input_kind="text",
    output_kind="sound",
    options=frozenset({"language", "speed"}),
    languages=lambda head: (head.language,),
)
