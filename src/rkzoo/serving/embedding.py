"""Texts and pictures to embeddings, in a worker."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from rkzoo.errors import RkzooError
from rkzoo.serving.calls import Embedded, Item
from rkzoo.serving.worker import Answer
from rkzoo.tasks.embed.clip import ClipEmbedder
from rkzoo.vision.image import from_bytes

MOST_TOKENS = 300_000
"""Of all texts of a request, as OpenAI has it."""

Row = NDArray[np.float32]


@runtime_checkable
class TextEmbedder(Protocol):
    """A task that embeds texts."""

    def embed_text(self, words: Sequence[str]) -> NDArray[np.float32]: ...

    def count_tokens(self, text: str) -> int: ...


def embed(task: Any, items: Sequence[Item]) -> Answer:
    """Embeds texts and the files of pictures.

    Args:
        task: An open task.
        items: At least one.

    Returns:
        Embedded, and rows of length 1 as bytes.

    Raises:
        RkzooError: The model embeds nothing or not this, or it is too much.
    """
    if not isinstance(task, TextEmbedder):
        raise RkzooError(
            "This model makes no embeddings.",
            "It answers with something else.",
            "Ask minilm for texts, or clip for texts and pictures.",
        )
    tokens = sum(task.count_tokens(item) for item in items if isinstance(item, str))
    if tokens > MOST_TOKENS:
        raise RkzooError(
            "The texts are too long.",
            f"They have {tokens} tokens, of {MOST_TOKENS} allowed in a request.",
            "Send fewer at once.",
        )
    readers: dict[type, Callable[[Any], Row]] = {
        str: lambda text: task.embed_text([text])[0],
        bytes: lambda data: _picture(task, data),
    }
    rows = np.stack([readers[type(item)](item) for item in items])
    return Answer(Embedded(rows.shape[1], tokens), [rows.astype("<f4").tobytes()])


def _picture(task: TextEmbedder, data: bytes) -> Row:
    if not isinstance(task, ClipEmbedder):
        raise RkzooError(
            "This model embeds texts only.",
            "A picture was sent (a data: URL).",
            "Send a text, or ask a model that takes both, as clip does.",
        )
    row: Row = task.embed(from_bytes(data, Path("picture")))[0]
    return row
