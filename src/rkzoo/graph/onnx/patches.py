"""Patches of vision transformers, in steps that the NPU can take."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import helper, numpy_helper

from rkzoo.graph.onnx.view import Array, GraphView, attributes

_WIDEST = 7  # stride of a convolution on the NPU


def patches_in_steps(view: GraphView) -> bool:
    """Rewrite a convolution whose stride is its kernel, of more than 7 pixels, as one that brings
    the pixels of a smaller block into channels and one that weighs these, in place.

    RKNN-Toolkit2 2.5.0 computes such a convolution at a smaller stride (4 for 16, 7 for 14) and
    throws the cells between away: of SigLIP's 14x14 patches it makes 53x53. The result is the same:
    every pixel meets the same weight. Returns whether there was one.
    """
    graph, found = view.model.graph, False
    for node in list(graph.node):
        weight = view.constant(node.input[1]) if node.op_type == "Conv" else None
        if weight is None or not _is_patches(weight, attributes(node)):
            continue
        step = max(a for a in range(2, _WIDEST + 1) if weight.shape[2] % a == 0)
        source, count = node.input[0], 0
        at = next(i for i, other in enumerate(graph.node) if other.output == node.output)
        while weight.shape[2] > _WIDEST and weight.shape[2] % step == 0:
            gathered, weight = _split(weight, step)
            name = f"{node.output[0]}/patches{count}"
            graph.initializer.append(numpy_helper.from_array(gathered, f"{name}/weight"))
            inner = helper.make_node(
                "Conv",
                [source, f"{name}/weight"],
                [name],
                kernel_shape=[step, step],
                strides=[step, step],
            )
            graph.node.insert(at + count, inner)
            source, count = name, count + 1
        rest = f"{node.output[0]}/patches/weight"
        graph.initializer.append(numpy_helper.from_array(weight, rest))
        node.input[0], node.input[1] = source, rest
        del node.attribute[:]
        for key in ("kernel_shape", "strides"):
            node.attribute.append(helper.make_attribute(key, list(weight.shape[2:])))
        found = True
    return found


def _is_patches(weight: Array, given: dict[str, Any]) -> bool:
    if weight.ndim != 4 or weight.shape[2] != weight.shape[3] or weight.shape[2] <= _WIDEST:
        return False
    side = weight.shape[2]
    plain = list(given.get("strides", [])) == [side, side] and given.get("group", 1) == 1
    plain = plain and set(given.get("dilations", [1])) == {1} and weight.dtype == np.float32
    unpadded = not any(given.get("pads", [])) and given.get("auto_pad", b"NOTSET") in (
        b"NOTSET",
        b"VALID",
    )
    return plain and unpadded and any(side % a == 0 for a in range(2, _WIDEST + 1))


def _split(weight: Array, step: int) -> tuple[Array, Array]:
    """Weights (O, C, k, k) as those that bring blocks of s x s pixels into channels,
    (C * s^2, C, s, s), and those of these channels, (O, C * s^2, k / s, k / s)."""
    out, channels, side, _ = weight.shape
    rest, inner = side // step, channels * step * step
    gathered = np.eye(inner, dtype=np.float32).reshape(inner, channels, step, step)
    blocks = weight.reshape(out, channels, rest, step, rest, step)
    return gathered, np.ascontiguousarray(
        blocks.transpose(0, 1, 3, 5, 2, 4).reshape(out, inner, rest, rest)
    )
