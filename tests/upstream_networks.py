"""Networks of other projects, exported by their own code (scripts/export_upstream.py), with random
weights: what they compute is worth nothing, what they are made of is true."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import onnx

from rkzoo.graph.onnx.random_weights import with_random_weights

FOLDER = Path(__file__).parent / "upstream"


@cache
def _content(name: str) -> bytes:
    return (FOLDER / f"{name}.onnx.xz").read_bytes()


def network(name: str, seed: int = 0) -> onnx.ModelProto:
    """The network of a name, `tests/upstream/NAME.onnx.xz`."""
    return with_random_weights(_content(name), seed)
