"""Text-to-speech task specification."""

from __future__ import annotations

from rkzoo.tasks.spec import Opened, Task, TaskOptions, TaskSpec


def _open(opened: Opened, options: TaskOptions) -> Task:
    from rkzoo.tasks.voice.open import voice

    return voice(opened, options)


VOICE = TaskSpec(
    name="voice",
    open=_open,
    takes="text",
    gives="sound",
    options=frozenset({"language", "speed"}),
)
