"""Factories of the translation tasks."""

from __future__ import annotations

from rkzoo.contract.language import MarianHead, TranslateHead
from rkzoo.errors import RkzooError
from rkzoo.tasks.spec import TaskOptions, TaskParts
from rkzoo.tasks.translate.bpe_tokenizer import BpeTokenizer
from rkzoo.tasks.translate.fairseq import FairseqNetwork, read_table
from rkzoo.tasks.translate.marian import MarianNetwork, SentencePieceTokenizer
from rkzoo.tasks.translate.task import Translator


def translate(parts: TaskParts, options: TaskOptions) -> Translator:
    """Raises RkzooError."""
    head, files = parts.head, parts.files
    if not isinstance(head, TranslateHead):
        raise RkzooError("This does not translate.", code=1)
    _refuse_others(head, options)
    subwords = BpeTokenizer.from_files(files["encoder.merges"], files["encoder.dictionary"])
    table = read_table(files["encoder.embedding"], len(subwords))
    encoder, decoder = (parts.parts[role][1] for role in ("encoder", "decoder"))
    return Translator(head, FairseqNetwork(encoder, decoder, table), subwords)


def marian(parts: TaskParts, options: TaskOptions) -> Translator:
    """Raises RkzooError."""
    head, files = parts.head, parts.files
    if not isinstance(head, MarianHead):
        raise RkzooError("This does not translate as Marian does.", code=1)
    _refuse_others(head, options)
    roles = ("encoder.vocabulary", "encoder.source", "encoder.target")
    pieces = SentencePieceTokenizer.from_files(*(files[role] for role in roles))
    lead = (pieces.number(head.lead),) if head.lead else ()
    encoder, decoder = (parts.parts[role][1] for role in ("encoder", "decoder"))
    network = MarianNetwork(encoder, decoder, pieces.special_tokens, len(pieces), lead)
    return Translator(head, network, pieces)


def _refuse_others(head: TranslateHead | MarianHead, options: TaskOptions) -> None:
    if options.language not in (None, head.source):
        raise RkzooError(
            f"This model does not translate from the language {options.language}.",
            f"It translates from {head.source} to {head.target}.",
            "Leave --language out, or use another model.",
        )
