"""ONNX of a file that lies inside a Python source, as one literal of bytes."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path

from rkzoo.errors import RkzooError
from rkzoo.files import read_text
from rkzoo.progress import ProgressReporter


def from_literal(files: Mapping[str, Path], target: Path, report: ProgressReporter) -> None:
    """Writes what stands in the source `NAME = b'...'`, of which nothing is run. Raises
    RkzooError for any other source."""
    source = files["model"]
    try:
        _, _, literal = read_text(source).partition("=")
        value = ast.literal_eval(literal.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        value = None
    if not isinstance(value, bytes):
        raise RkzooError(
            f"{source.name} holds no model.",
            "It is no Python source that names one literal of bytes.",
            "Fetch it again with rkzoo fetch.",
        )
    target.write_bytes(value)
