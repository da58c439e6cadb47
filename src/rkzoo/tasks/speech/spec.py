"""Speech recognition task specifications."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rkzoo.tasks.spec import Task, TaskOptions, TaskParts, TaskSpec

# As the multilingual vocabularies name them, most heard in training first.
_CODES = (
    "en zh de es ru ko fr ja pt tr pl ca nl ar sv it id hi fi vi he uk el ms cs ro da hu ta no th"
    " ur hr bg lt la mi ml cy sk te fa lv bn sr az sl kn et mk br eu is hy ne mn bs kk sq sw gl mr"
    " pa si km sn yo so af oc ka be tg sd gu am yi lo uz fo ht ps tk nn mt sa lb my bo tl mg as tt"
    " haw ln ha ba jw su"
)
WHISPER_LANGUAGES = tuple(_CODES.split())
"""Languages that Whisper hears."""
_NONE = ("auto", "nospeech")  # what SenseVoice's table of languages holds beside languages


def without_numbers(labels: Sequence[str]) -> tuple[str, ...]:
    """Pieces of text of lines that hold a piece and its number, as in sherpa-onnx's tokens.txt;
    other labels as they are."""
    split = [label.rpartition(" ") for label in labels]
    numbered = all(number == str(place) for place, (_, _, number) in enumerate(split))
    return tuple(piece for piece, _, _ in split) if numbered else tuple(labels)


def _open_whisper(parts: TaskParts, options: TaskOptions) -> Task:
    from rkzoo.tasks.speech.open import open_whisper

    return open_whisper(parts, options)


def _open_ctc(parts: TaskParts, options: TaskOptions) -> Task:
    from rkzoo.tasks.speech.ctc import CtcRecognizer

    return CtcRecognizer(*parts.parts["model"], language=options.language)


def _open_transducer(parts: TaskParts, options: TaskOptions) -> Task:
    from rkzoo.tasks.speech.open import open_transducer

    return open_transducer(parts)


def _open_moonshine(parts: TaskParts, options: TaskOptions) -> Task:
    from rkzoo.tasks.speech.open import open_moonshine

    return open_moonshine(parts)


def _open_paraformer(parts: TaskParts, options: TaskOptions) -> Task:
    from rkzoo.tasks.speech.open import open_paraformer

    return open_paraformer(parts)


WHISPER = TaskSpec(
    name="speech",
    open=_open_whisper,
    input_kind="sound",
    output_kind="transcript",
    options=frozenset({"language", "translate"}),
    languages=lambda head: WHISPER_LANGUAGES,
)
CTC = TaskSpec(name="speech", open=_open_ctc, input_kind="sound", output_kind="transcript")
CTC_LANGUAGES = replace(
    CTC,
    options=frozenset({"language"}),
    languages=lambda head: tuple(code for code in head.languages if code not in _NONE),
    name_classes=lambda head, labels: without_numbers(labels),
)
MOONSHINE = TaskSpec(
    name="speech", open=_open_moonshine, input_kind="sound", output_kind="transcript"
)
TRANSDUCER = TaskSpec(
    name="speech", open=_open_transducer, input_kind="sound", output_kind="transcript"
)
PARAFORMER = TaskSpec(
    name="speech",
    open=_open_paraformer,
    input_kind="sound",
    output_kind="transcript",
    name_classes=lambda head, labels: without_numbers(labels),
)
