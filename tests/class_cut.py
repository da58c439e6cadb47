"""A detector of a few classes, cut out of YOLOv8n of 80."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

_CLASSES, _BOX = 80, 64


def only(source: Path, classes: Sequence[int], target: Path) -> Path:
    """Writes the stock export `source` with these classes alone, without names for them."""
    model = onnx.load(source)
    graph, count = model.graph, len(classes)
    stored = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        weights = stored.get(node.input[1]) if node.op_type == "Conv" else None
        if weights is None or list(weights.dims[:1]) != [_CLASSES] or weights.dims[-1] != 1:
            continue
        for name in node.input[1:]:
            kept = np.ascontiguousarray(numpy_helper.to_array(stored[name])[list(classes)])
            stored[name].CopyFrom(numpy_helper.from_array(kept, name))
    sizes = {_BOX + _CLASSES: _BOX + count, _CLASSES: count}
    constants = [a.t for n in graph.node if n.op_type == "Constant" for a in n.attribute]
    for tensor in [*graph.initializer, *constants]:
        values = numpy_helper.to_array(tensor)
        sides = values.ravel().tolist() if values.dtype == np.int64 else []
        if _BOX + _CLASSES not in sides and sides != [_BOX, _CLASSES]:
            continue
        changed = np.vectorize(lambda size: sizes.get(size, size))(values).astype(np.int64)
        tensor.CopyFrom(numpy_helper.from_array(changed, tensor.name))
    del graph.value_info[:]
    for dim in graph.output[0].type.tensor_type.shape.dim:
        if dim.dim_value == 4 + _CLASSES:
            dim.dim_value = 4 + count
    named = [entry for entry in model.metadata_props if entry.key != "names"]
    del model.metadata_props[:]
    model.metadata_props.extend(named)
    onnx.checker.check_model(model)
    onnx.save(model, target)
    return target
