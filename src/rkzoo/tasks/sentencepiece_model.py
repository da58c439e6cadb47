"""SentencePiece models, for the tasks whose texts are cut by one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rkzoo.errors import RkzooError
from rkzoo.files import os_errors_explained, read_bytes


def read_sentencepiece(path: Path, kind: str) -> Any:
    """A SentencePieceProcessor. Raises RkzooError where sentencepiece is not installed, or the file
    is none that belongs to `kind` (such as "a model that translates")."""
    try:
        from sentencepiece import SentencePieceProcessor
    except ImportError as error:
        raise RkzooError(
            "This model's text cannot be tokenized here.",
            f"The package sentencepiece is not installed ({error}).",
            'Install it with: pip install "rkzoo[translate]"',
        ) from error
    with os_errors_explained(f"{path} cannot be read."):
        data = read_bytes(path)
    model = SentencePieceProcessor()
    try:
        model.load_from_serialized_proto(data)
    except RuntimeError as error:
        raise RkzooError(
            f"{path} does not belong to {kind}.",
            "It is not a SentencePiece model.",
            "Fetch it with rkzoo fetch.",
        ) from error
    return model
