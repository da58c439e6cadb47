"""Factories of the speech recognition tasks."""

from __future__ import annotations

from rkzoo.contract.audio import TransducerHead
from rkzoo.errors import RkzooError
from rkzoo.tasks.spec import Task, TaskOptions, TaskParts
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
