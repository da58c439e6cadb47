"""Minima, maxima and means in operators that the NPU has."""

from __future__ import annotations

from collections.abc import Sequence

import onnx

from rkzoo.graph.lowering.rewrites.rule import Writer
from rkzoo.graph.onnx.view import attributes

# Longer axes would take a long row of slices, or a kernel that is no longer one.
_LONGEST = 1024


def minimum(node: onnx.NodeProto, new: Writer) -> bool:
    """min(a, b) = -max(-a, -b); a clip where one is a single number"""
    if len(node.input) < 2 or not new.is_float(node.output[0]):
        return False
    values = [new.value(name) for name in node.input]
    numbers = [value.ravel() for value in values if value is not None and value.size == 1]
    if len(node.input) == 2 and len(numbers) == 1:
        x = node.input[0] if values[0] is None or values[0].size > 1 else node.input[1]
        if new.shape(x) == new.shape(node.output[0]):
            new.add("Clip", x, "", new.constant(numbers[0][0]), to=node.output[0])
            return True
    largest = new.add("Max", *(new.add("Neg", name) for name in node.input))
    new.add("Neg", largest, to=node.output[0])
    return True


def mean(node: onnx.NodeProto, new: Writer) -> bool:
    """The sum of several tensors, divided by how many they are."""
    if len(node.input) < 2 or not new.is_float(node.output[0]):
        return False
    total = node.input[0]
    for other in node.input[1:]:
        total = new.add("Add", total, other)
    new.add("Mul", total, new.constant(1 / len(node.input)), to=node.output[0])
    return True


def extreme(node: onnx.NodeProto, new: Writer) -> bool:
    """ReduceMax as a pooling over rows and columns, and as halves of channels of which the larger
    numbers are kept, again and again; ReduceMin as the same of what is negated."""
    x, given = node.input[0], attributes(node)
    shape, axes = new.shape(x), reduced_axes(node, new)
    if shape is None or axes is None or not new.is_float(x):
        return False
    if not axes or any(not 1 < shape[axis] <= _LONGEST for axis in axes) or 0 in axes:
        return False
    planes = len(shape) == 4 and max(axes) > 1
    if not 3 <= len(shape) <= 4:
        return False
    least = node.op_type == "ReduceMin"
    at = new.add("Neg", x) if least else x
    if planes and {2, 3} <= set(axes):
        at = new.add("GlobalMaxPool", at)
    elif planes:
        kernel = [shape[axis] if axis in axes else 1 for axis in (2, 3)]
        at = new.add("MaxPool", at, kernel_shape=kernel)
    for axis in axes:
        if not planes or axis < 2:
            at = _largest(new, at, axis, shape[axis])
    kept = [1 if axis in axes else size for axis, size in enumerate(shape)]
    if not given.get("keepdims", 1):
        kept = [size for axis, size in enumerate(shape) if axis not in axes]
        at = new.add("Reshape", at, new.whole(kept))
    new.call(new.add("Neg", at) if least else at, node.output[0])
    return True


def _largest(new: Writer, x: str, axis: int, size: int) -> str:
    """The largest along an axis, which stays; halves may overlap, since that changes no maximum."""
    while size > 1:
        half = -(-size // 2)
        ends = ((0, half), (size - half, size))
        parts = [sliced(new, x, axis, begin, end) for begin, end in ends]
        x, size = new.add("Max", *parts), half
    return x


def sliced(new: Writer, x: str, axis: int, begin: int, end: int) -> str:
    """x[begin:end] along an axis."""
    return new.add("Slice", x, new.whole([begin]), new.whole([end]), new.whole([axis]))


def reduced_axes(node: onnx.NodeProto, new: Writer) -> tuple[int, ...] | None:
    """The axes of a reduction, rising and not negative; None where they are not known."""
    shape, given = new.shape(node.input[0]), attributes(node)
    axes: Sequence[int] | None = given.get("axes")
    if len(node.input) > 1 and node.input[1]:
        stored = new.value(node.input[1])
        if stored is None:
            return None
        axes = stored.ravel().tolist()
    if shape is None:
        return None
    if not axes:
        return () if given.get("noop_with_empty_axes") else tuple(range(len(shape)))
    return tuple(sorted({axis % len(shape) for axis in axes}))
