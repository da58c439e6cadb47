"""Factories of the embedding tasks."""

from __future__ import annotations

from rkzoo.contract.language import ClipHead, SentenceHead
from rkzoo.errors import RkzooError
from rkzoo.tasks.embed.clip import ClipEmbedder
from rkzoo.tasks.embed.sentence import SentenceEmbedder
from rkzoo.tasks.embed.wordpiece import WordPiece
from rkzoo.tasks.prompt.encode import TextTokenizer
from rkzoo.tasks.prompt.siglip_tokenizer import SiglipTokenizer
from rkzoo.tasks.prompt.tokenizer import END, ClipTokenizer
from rkzoo.tasks.prompt.words import words
from rkzoo.tasks.spec import TaskOptions, TaskParts


def clip(parts: TaskParts, options: TaskOptions) -> ClipEmbedder:
    if not isinstance(parts.head, ClipHead):
        raise RkzooError("This does not compare pictures with words.", code=1)
    vocabulary, kind = parts.files["text.vocabulary"], parts.head.tokenizer
    tokenizer: TextTokenizer
    if kind == "siglip":
        tokenizer = SiglipTokenizer.from_file(vocabulary)
    else:
        tokenizer = ClipTokenizer.from_file(vocabulary, 0 if kind == "open_clip" else END)
    return ClipEmbedder(parts.head, parts.parts, tokenizer, words(options.prompts).prompts)


def sentence(parts: TaskParts, options: TaskOptions) -> SentenceEmbedder:
    if not isinstance(parts.head, SentenceHead):
        raise RkzooError("This does not compare texts.", code=1)
    tokenizer = WordPiece.from_file(parts.files["embedding.vocabulary"])
    return SentenceEmbedder(parts.parts, tokenizer, words(options.prompts).prompts)
