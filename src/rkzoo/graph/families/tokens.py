"""Vision transformers: pictures cut into patches, a row of numbers for each (https://arxiv.org/abs/
2010.11929)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx

from rkzoo.graph.families.flat_output import FlatOutput, flat_output
from rkzoo.graph.onnx.view import GraphView, attributes

_SMALLEST = 8  # pixels of a patch; smaller ones are the stem of a convolutional network


@dataclass(frozen=True)
class PatchTokens:
    """The rows of a vision transformer, 1 x `count` x `width`: one for each patch of `patch`
    pixels, after `extra` others (a class token, registers)."""

    patch: int
    count: int
    extra: int
    width: int


@dataclass(frozen=True)
class EmbeddingOutput:
    """What of a graph's outputs is the embedding of its picture.

    Attributes:
        name: The output.
        pooled: It is a row for each token, 1xTxD; taken is the class token's (`first`), or the
            mean of all where there is none. Empty: it is one row already.
        flat: What is known of an output of one row.
        tokens: The tokens of a vision transformer; None for any other network.
    """

    name: str
    pooled: Literal["", "first", "mean"]
    flat: FlatOutput | None
    tokens: PatchTokens | None


def patch_tokens(view: GraphView) -> PatchTokens | None:
    """The tokens of a vision transformer; None for any other graph."""
    for node in view.model.graph.node:
        if node.op_type != "Conv":
            continue
        side, shape = _side(view, node), view.shape(node.output[0])
        if side is None or shape is None:
            return None  # the first convolution decides
        width, cells = shape[1], int(np.prod(shape[2:]))
        rows = Counter(
            dims[1]
            for dims in view.shapes.values()
            if len(dims) == 3 and dims[0] == 1 and dims[2] == width and dims[1] is not None
        )
        known = [(seen, count) for count, seen in rows.items() if count is not None]
        usual = max(known, default=(0, 0))[1]
        attends = any(dims[-2:] == (usual, usual) for dims in view.shapes.values())
        if usual < cells or not attends:
            return None
        return PatchTokens(side, usual, usual - cells, width)
    return None


def _side(view: GraphView, node: onnx.NodeProto) -> int | None:
    """Side of the square patches of a convolution that does not overlap."""
    weight, strides = view.shape(node.input[1]), attributes(node).get("strides")
    if weight is None or len(weight) != 4 or not strides:
        return None
    sides = {*weight[2:], *strides}
    return min(sides) if len(sides) == 1 and min(sides) >= _SMALLEST else None


def embedding_output(view: GraphView) -> EmbeddingOutput | None:
    """The output that describes the whole picture: the only one of one row, or the only one of a
    row for each token; None where the graph has others, or none."""
    outputs = [output.name for output in view.model.graph.output]
    rows = {name: flat for name in outputs if (flat := flat_output(view, name)) is not None}
    if len(outputs) == 1 and rows:
        return EmbeddingOutput(outputs[0], "", rows[outputs[0]], patch_tokens(view))
    tokens = patch_tokens(view)
    if tokens is None:
        return None
    shape = (1, tokens.count, tokens.width)
    each = [name for name in outputs if name not in rows and view.shape(name) == shape]
    if len(rows) + len(each) != len(outputs) or len(rows) > 1:
        return None
    for name, flat in rows.items():
        return EmbeddingOutput(name, "", flat, tokens)
    if len(each) != 1:
        return None
    return EmbeddingOutput(each[0], "first" if tokens.extra else "mean", None, tokens)
