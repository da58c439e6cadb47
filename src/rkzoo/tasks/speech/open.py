"""Factories of the speech recognition tasks."""

from __future__ import annotations

from rkzoo.contract.audio import MoonshineHead, TransducerHead
from rkzoo.errors import RkzooError
from rkzoo.tasks.spec import Task, TaskOptions, TaskParts
from rkzoo.tasks.speech import moonshine
from rkzoo.tasks.speech.tokens import read_tokens
from rkzoo.tasks.speech.transducer import TransducerRecognizer, read_pieces
from rkzoo.tasks.speech.whisper import Whisper


def open_whisper(parts: TaskParts, options: TaskOptions) -> Task:
    tokens = read_tokens(parts.files["decoder.vocabulary"], parts.files["decoder.settings"])
    language = None if options.language is None else tokens.language(options.language)
    encoder, embedding, decoder = (
        parts.parts[role][1] for role in ("encoder", "embedding", "decoder")
    )
    return Whisper(encoder, embedding, decoder, tokens, language, options.translate)


def open_transducer(parts: TaskParts) -> Task:
    """Create a `TransducerRecognizer`. Raises RkzooError for another head or a damaged
    vocabulary."""
    if not isinstance(parts.head, TransducerHead):
        raise RkzooError("This is not a transducer.", code=1)
    encoder, decoder, joiner = (parts.parts[role][1] for role in ("encoder", "decoder", "joiner"))
    pieces = read_pieces(parts.files["decoder.vocabulary"])
    return TransducerRecognizer(encoder, decoder, joiner, parts.head, pieces)


def open_moonshine(parts: TaskParts) -> Task:
    """Create a `Moonshine`. Raises RkzooError for another head or a damaged vocabulary."""
    if not isinstance(parts.head, MoonshineHead):
        raise RkzooError("This is not a Moonshine.", code=1)
    encoder, embedding, decoder = (
        parts.parts[role][1] for role in ("encoder", "embedding", "decoder")
    )
    pieces = moonshine.read_pieces(parts.files["decoder.vocabulary"])
    return moonshine.Moonshine(encoder, embedding, decoder, parts.head, pieces)
