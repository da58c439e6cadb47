"""Audio event classification and voice activity task specifications."""

from __future__ import annotations

from rkzoo.contract.audio import SoundHead
from rkzoo.errors import RkzooError
from rkzoo.tasks.spec import Opened, Task, TaskOptions, TaskSpec

_CHAIN = ("spectrum", "network", "model")


def _open_activity(opened: Opened, options: TaskOptions) -> Task:
    from rkzoo.tasks.sound.activity import ActivityFinder

    return ActivityFinder(*opened.parts["model"])


def _open_classes(opened: Opened, options: TaskOptions) -> Task:
    from rkzoo.tasks.sound.classes import SoundClassifier

    if not isinstance(opened.head, SoundHead):
        raise RkzooError("This is not a sound classification model.", code=1)
    parts = [opened.parts[role] for role in _CHAIN if role in opened.parts]
    return SoundClassifier(opened.head, parts[-1][0].labels, [session for _, session in parts])


ACTIVITY = TaskSpec(name="sound", open=_open_activity, takes="sound", gives="timeline")
CLASSES = TaskSpec(name="sound", open=_open_classes, takes="sound", gives="timeline")
