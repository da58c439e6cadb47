"""Speech recognition task specifications."""

from __future__ import annotations

from rkzoo.tasks.spec import Task, TaskOptions, TaskParts, TaskSpec


def _open_whisper(parts: TaskParts, options: TaskOptions) -> Task:
    from rkzoo.tasks.speech.open import open_whisper

    return open_whisper(parts, options)


def _open_ctc(parts: TaskParts, options: TaskOptions) -> Task:
    from rkzoo.tasks.speech.ctc import CtcRecognizer

    return CtcRecognizer(*parts.parts["model"])


def _open_transducer(parts: TaskParts, options: TaskOptions) -> Task:
    from rkzoo.tasks.speech.open import open_transducer

    return open_transducer(parts)


WHISPER = TaskSpec(
    name="speech",
    open=_open_whisper,
    input_kind="sound",
    output_kind="transcript",
    options=frozenset({"language", "translate"}),
)
CTC = TaskSpec(name="speech", open=_open_ctc, input_kind="sound", output_kind="transcript")
TRANSDUCER = TaskSpec(
    name="speech", open=_open_transducer, input_kind="sound", output_kind="transcript"
)
