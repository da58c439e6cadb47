"""Words that say what to look for."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rkzoo.errors import RkzooError

HOW = 'Name each thing, for example: --prompt "a red bus" --prompt dog'


@dataclass(frozen=True)
class Words:
    """What was said: `prompts`, and who makes embeddings of them, `text_model` (a card's name
    or an .onnx) or nobody where `embeddings` is an .npy of them."""

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
    """What was said, as one record. Raises RkzooError for an empty prompt, or where two
    sources of embeddings were named."""
    if isinstance(prompts, str):
        prompts = [prompts]
    said = tuple(" ".join(prompt.split()) for prompt in prompts or ())
    if not all(said):
        raise RkzooError("A prompt is empty.", "It names what to look for.", HOW)
    twice = sorted({prompt for prompt in said if said.count(prompt) > 1})
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
        said,
        None if text_model is None else os.fspath(text_model),
        None if embeddings is None else Path(embeddings),
    )
