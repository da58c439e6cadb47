"""Speech recognition task specifications."""

from __future__ import annotations

from rkzoo.tasks.spec import Opened, Task, TaskOptions, TaskSpec


def _open_whisper(opened: Opened, options: TaskOptions) -> Task:
    from rkzoo.tasks.speech.open import open_whisper

    return open_whisper(opened, options)


def _open_ctc(opened: Opened, options: TaskOptions) -> Task:
    from rkzoo.tasks.speech.ctc import CtcReader

    return CtcReader(*opened.parts["model"])


def _open_transducer(opened: Opened, options: TaskOptions) -> Task:
    from rkzoo.tasks.speech.open import open_transducer

    return open_transducer(opened)


WHISPER = TaskSpec(
    name="speech",
    open=_open_whisper,
    takes="sound",
    gives="transcript",
    options=frozenset({"language", "translate"}),
)
CTC = TaskSpec(name="speech", open=_open_ctc, takes="sound", gives="transcript")
TRANSDUCER = TaskSpec(name="speech", open=_open_transducer, takes="sound", gives="transcript")
