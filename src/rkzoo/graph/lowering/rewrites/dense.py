"""Dense layers over a flattened map, which need no flattening."""

from __future__ import annotations

import numpy as np
import onnx

from rkzoo.graph.lowering.rewrites.rule import Writer
from rkzoo.graph.onnx.view import attributes

_FLATTENING = frozenset({"Flatten", "Reshape"})

_LARGEST = 7
"""Rows or columns of a map; what is larger was not tried."""


def dense(node: onnx.NodeProto, new: Writer) -> bool:
    """A Gemm over a flattened 1xCxhxw is a convolution with a kernel as large as the map: no tensor
    of 1x(C h w) is made, which the compiler has the processor reshape."""
    given = attributes(node)
    before = new.view.producers.get(node.input[0])
    if before is None or before.op_type not in _FLATTENING or given.get("transA", 0):
        return False
    if (given.get("alpha", 1.0), given.get("beta", 1.0)) != (1.0, 1.0):
        return False
    shape, flat = new.shape(before.input[0]), new.shape(node.input[0])
    weights = new.value(node.input[1])
    bias = new.value(node.input[2]) if len(node.input) > 2 and node.input[2] else None
    if shape is None or len(shape) != 4 or shape[0] != 1 or not _fits(shape):
        return False
    if (
        flat != (1, int(np.prod(shape)))
        or weights is None
        or (bias is None and len(node.input) > 2)
    ):
        return False
    rows = weights if given.get("transB", 0) else weights.T
    count = len(rows)
    kernel = new.constant(rows.reshape(count, *shape[1:]))
    added = [] if bias is None else [new.constant(np.broadcast_to(bias.ravel(), (count,)))]
    level = new.add("Conv", before.input[0], kernel, *added, kernel_shape=shape[2:])
    new.add("Reshape", level, new.whole([1, count]), to=node.output[0])
    return True


def _fits(shape: tuple[int, ...]) -> bool:
    return 1 < max(shape[2:]) <= _LARGEST
