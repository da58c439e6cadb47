"""Factories of the speech recognition tasks."""

from __future__ import annotations

from rkzoo.contract.audio import TransducerHead
from rkzoo.errors import RkzooError
from rkzoo.tasks.spec import Opened, Task, TaskOptions
from rkzoo.tasks.speech.tokens import read_tokens
from rkzoo.tasks.speech.transducer import Transducer, read_pieces
from rkzoo.tasks.speech.whisper import Whisper


def open_whisper(opened: Opened, options: TaskOptions) -> Task:
    tokens = read_tokens(opened.files["decoder.vocabulary"], opened.files["decoder.settings"])
    language = None if options.language is None else tokens.language(options.language)
    encoder, embedding, decoder = (
        opened.parts[role][1] for role in ("encoder", "embedding", "decoder")
    )
    return Whisper(encoder, embedding, decoder, tokens, language, options.translate)


def open_transducer(opened: Opened) -> Task:
    """Create a `Transducer`. Raises RkzooError for another head or a damaged vocabulary."""
    if not isinstance(opened.head, TransducerHead):
        raise RkzooError("This is not a transducer.", code=1)
    encoder, decoder, joiner = (opened.parts[role][1] for role in ("encoder", "decoder", "joiner"))
    pieces = read_pieces(opened.files["decoder.vocabulary"])
    return Transducer(encoder, decoder, joiner, opened.head, pieces)
