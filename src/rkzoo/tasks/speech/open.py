"""Factories of the speech recognition tasks."""

from __future__ import annotations

from rkzoo.contract.audio import MoonshineHead, ParaformerHead, TransducerHead
from rkzoo.errors import RkzooError
from rkzoo.tasks.spec import Task, TaskOptions, TaskParts
from rkzoo.tasks.speech import moonshine
from rkzoo.tasks.speech.ctc import check_statistics
from rkzoo.tasks.speech.paraformer import Paraformer
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


def open_paraformer(parts: TaskParts) -> Task:
    """Create a `Paraformer`. Raises RkzooError for another head, and where the statistics of its
    features or its tokens are not known."""
    if not isinstance(parts.head, ParaformerHead):
        raise RkzooError("This is not a Paraformer.", code=1)
    check_statistics(parts.head.features, "paraformer")
    contract, decoder = parts.parts["decoder"]
    if not contract.labels:
        raise RkzooError(
            "The tokens of the model are not known.",
            "FunASR keeps them in tokens.json, sherpa-onnx in tokens.txt, beside the model.",
            "Put that file into the model's folder, or give it with --labels FILE.",
        )
    return Paraformer(parts.parts["encoder"][1], decoder, parts.head, contract.labels)
