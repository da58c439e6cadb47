"""Factories of the embedding tasks."""

from __future__ import annotations

from rkzoo.contract.language import ClipHead, SentenceHead
from rkzoo.errors import RkzooError
from rkzoo.tasks.embed.clip import Clip
from rkzoo.tasks.embed.sentences import Sentences
from rkzoo.tasks.embed.wordpiece import WordPiece
from rkzoo.tasks.prompt.tokenizer import ClipTokenizer
from rkzoo.tasks.prompt.words import words
from rkzoo.tasks.spec import Opened, TaskOptions


def clip(opened: Opened, options: TaskOptions) -> Clip:
    if not isinstance(opened.head, ClipHead):
        raise RkzooError("This does not compare pictures with words.", code=1)
    tokenizer = ClipTokenizer.from_file(opened.files["text.vocabulary"])
    return Clip(opened.head, opened.parts, tokenizer, words(options.prompts).prompts)


def sentence(opened: Opened, options: TaskOptions) -> Sentences:
    if not isinstance(opened.head, SentenceHead):
        raise RkzooError("This does not compare texts.", code=1)
    tokenizer = WordPiece.from_file(opened.files["embedding.vocabulary"])
    return Sentences(opened.parts, tokenizer, words(options.prompts).prompts)
