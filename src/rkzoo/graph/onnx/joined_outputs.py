"""Detections in another arrangement, brought into the usual one by operators at the end."""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper

from rkzoo.graph.onnx.view import declared

_NAME = "rkzoo_joined"


def joined_outputs(model: onnx.ModelProto) -> onnx.ModelProto | None:
    """One output 1xKxN of one 1xNxK, or of boxes and scores that leave a graph apart, in either
    order of their dimensions. What follows the last weights is known by running it, so a Transpose
    or Concat more changes nothing but the arrangement.

    Args:
        model: A graph; it is left as it was.

    Returns:
        A copy with one output; None where the outputs are neither.
    """
    outputs = [(info.name, declared(info) or ()) for info in model.graph.output]
    if any(len(shape) != 3 or shape[0] not in (1, None) for _, shape in outputs):
        return None
    sides = [(shape[1], shape[2]) for _, shape in outputs]
    if any(not isinstance(side, int) for pair in sides for side in pair):
        return None
    cells = max(int(side or 0) for pair in sides for side in pair)
    if any(cells not in pair for pair in sides):
        return None
    ordered = sorted(zip(outputs, sides, strict=True), key=lambda pair: 4 not in pair[1])
    if len(ordered) == 1 and sides[0][0] != cells:
        return None  # it is arranged so already
    if len(ordered) > 2 or (len(ordered) == 2 and 4 not in ordered[0][1]):
        return None
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    parts = []
    for (name, _), pair in ordered:
        turned = f"{_NAME}_{name}" if pair[0] == cells else name
        if turned != name:
            node = helper.make_node("Transpose", [name], [turned], perm=[0, 2, 1])
            copy.graph.node.append(node)
        parts.append(turned)
    if len(parts) == 2:
        copy.graph.node.append(helper.make_node("Concat", parts, [_NAME], axis=1))
    else:
        copy.graph.node[-1].output[0] = _NAME
    rows = sum(int(side or 0) for pair in sides for side in pair) - cells * len(sides)
    kind = model.graph.output[0].type.tensor_type.elem_type or TensorProto.FLOAT
    del copy.graph.output[:]
    copy.graph.output.append(helper.make_tensor_value_info(_NAME, kind, [1, rows, cells]))
    return copy
