"""Text prompts of a request."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rkzoo.errors import RkzooError

HOW = 'Name each thing, for example: --prompt "a red bus" --prompt dog'


@dataclass(frozen=True)
class Words:
    """Text prompts, and the source of their embeddings.

    Attributes:
        prompts: the texts.
        text_model: text encoder, a card's name or an .onnx file; None for the default.
        embeddings: .npy file with ready-made embeddings, instead of a text encoder.
    """

    prompts: tuple[str, ...] = ()
    text_model: str | None = None
    embeddings: Path | None = None

    def __bool__(self) -> bool:
        return self != NOTHING


NOTHING = Words()


def words(
    prompts: Sequence[str] | None = None,
    text_model: str | os.PathLike[str] | None = None,
    embeddings: str | os.PathLike[str] | None = None,
) -> Words:
    """Validate text prompts.

    Raises:
        RkzooError: an empty or repeated prompt, or two sources of embeddings.
    """
    if isinstance(prompts, str):
        prompts = [prompts]
    cleaned = tuple(" ".join(prompt.split()) for prompt in prompts or ())
    if not all(cleaned):
        raise RkzooError("A prompt is empty.", "It names what to look for.", HOW)
    twice = sorted({prompt for prompt in cleaned if cleaned.count(prompt) > 1})
    if twice:
        raise RkzooError(
            f"The prompt {twice[0]!r} was given twice.", "Each is a class of its own.", HOW
        )
    if text_model is not None and embeddings is not None:
        raise RkzooError(
            "--text-model and --embeddings do not go together.",
            "The embeddings are what a text model would make.",
            "Leave one of them out.",
        )
    return Words(
        cleaned,
        None if text_model is None else os.fspath(text_model),
        None if embeddings is None else Path(embeddings),
    )
