"""Audio event classification and voice activity task specifications."""

from __future__ import annotations

from rkzoo.contract.audio import SoundHead
from rkzoo.errors import RkzooError
from rkzoo.tasks.spec import Task, TaskOptions, TaskParts, TaskSpec

_CHAIN = ("spectrum", "network", "model")


def _open_activity(parts: TaskParts, options: TaskOptions) -> Task:
    from rkzoo.tasks.sound.voice_activity import VoiceActivityDetector

    return VoiceActivityDetector(*parts.parts["model"])


def _open_classes(task_parts: TaskParts, options: TaskOptions) -> Task:
    from rkzoo.tasks.sound.classification import SoundClassifier

    if not isinstance(task_parts.head, SoundHead):
        raise RkzooError("This is not a sound classification model.", code=1)
    parts = [task_parts.parts[role] for role in _CHAIN if role in task_parts.parts]
    return SoundClassifier(task_parts.head, parts[-1][0].labels, [session for _, session in parts])


ACTIVITY = TaskSpec(name="sound", open=_open_activity, input_kind="sound", output_kind="timeline")
CLASSES = TaskSpec(name="sound", open=_open_classes, input_kind="sound", output_kind="timeline")
