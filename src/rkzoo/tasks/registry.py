"""Tasks that are more than one picture to one decoder, by what their head is called: a table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rkzoo.contract.audio import (
    ActivityHead,
    CtcSpeechHead,
    SoundHead,
    TransducerHead,
    VoiceHead,
    WhisperHead,
)
from rkzoo.contract.language import ClipHead, MarianHead, SentenceHead, TranslateHead
from rkzoo.contract.model import Head
from rkzoo.contract.segmentation import CutOutHead, SemanticHead
from rkzoo.errors import RkzooError
from rkzoo.tasks.spec import NOTHING, Opened, Task, Wishes


def _voice(opened: Opened, wishes: Wishes) -> Task:
    from rkzoo.tasks.voice.open import voice

    return voice(opened, wishes)


def _activity(opened: Opened, wishes: Wishes) -> Task:
    from rkzoo.tasks.sound.activity import ActivityFinder

    return ActivityFinder(*opened.parts["model"])


def _sound(opened: Opened, wishes: Wishes) -> Task:
    from rkzoo.tasks.sound.classes import SoundClassifier

    chain = ("spectrum", "network", "model")
    parts = [opened.parts[role] for role in chain if role in opened.parts]
    return SoundClassifier(opened.head, parts[-1][0].labels, [session for _, session in parts])


def _clip(opened: Opened, wishes: Wishes) -> Task:
    from rkzoo.tasks.embed.open import clip

    return clip(opened, wishes)


def _translate(opened: Opened, wishes: Wishes) -> Task:
    from rkzoo.tasks.translate.open import translate

    return translate(opened, wishes)


def _marian(opened: Opened, wishes: Wishes) -> Task:
    from rkzoo.tasks.translate.open import marian

    return marian(opened, wishes)


def _sentence(opened: Opened, wishes: Wishes) -> Task:
    from rkzoo.tasks.embed.open import sentence

    return sentence(opened, wishes)


def _whisper(opened: Opened, wishes: Wishes) -> Task:
    from rkzoo.tasks.speech.open import open_whisper

    return open_whisper(opened, wishes)


def _ctc_speech(opened: Opened, wishes: Wishes) -> Task:
    from rkzoo.tasks.speech.ctc import CtcReader

    return CtcReader(*opened.parts["model"])


def _transducer(opened: Opened, wishes: Wishes) -> Task:
    from rkzoo.tasks.speech.open import open_transducer

    return open_transducer(opened)


def _cut_out(opened: Opened, wishes: Wishes) -> Task:
    from rkzoo.tasks.prompt.cut_out import CutOut

    return CutOut(opened.parts["encoder"], opened.parts["decoder"], wishes.points, wishes.boxes)


def _semantic(opened: Opened, wishes: Wishes) -> Task:
    from rkzoo.tasks.semantic.task import SemanticSegmenter

    return SemanticSegmenter(*opened.parts["model"])


OPENERS: dict[type[Any], Callable[[Opened, Wishes], Task]] = {
    SemanticHead: _semantic,
    CutOutHead: _cut_out,
    VoiceHead: _voice,
    ActivityHead: _activity,
    SoundHead: _sound,
    WhisperHead: _whisper,
    CtcSpeechHead: _ctc_speech,
    TransducerHead: _transducer,
    ClipHead: _clip,
    SentenceHead: _sentence,
    TranslateHead: _translate,
    MarianHead: _marian,
}

# Wishes that are options of their own: what they are called, and whose they are.
_OPTIONS: dict[str, tuple[str, type[Any]]] = {
    "translate": ("--translate", WhisperHead),
    "speed": ("--speed", VoiceHead),
    "points": ("--point", CutOutHead),
    "boxes": ("--box", CutOutHead),
}


def refuse_unheard(head: Head | None, wishes: Wishes) -> None:
    """Raises RkzooError for a wish that a model with this head would not hear."""
    for name, (option, wanted) in _OPTIONS.items():
        if getattr(wishes, name) != getattr(NOTHING, name) and not isinstance(head, wanted):
            raise RkzooError(
                f"{option} does not go with this model.",
                "It would change nothing.",
                "Leave it out.",
            )
