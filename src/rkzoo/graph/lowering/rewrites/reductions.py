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
    if len(shape) == 4 and axes == (1,) and node.op_type == "ReduceMax":
        return False  # a row of its own, for chips that have no such operator
    if not axes or any(not 1 < shape[axis] <= _LONGEST for axis in axes) or 0 in axes:
        return False
    if len(shape) == 4:
        ending = _of_planes
    elif len(shape) == 3 and len(axes) == 1:
        ending = _of_rows
    else:
        return False
    least = node.op_type == "ReduceMin"
    at = ending(new, new.add("Neg", x) if least else x, shape, axes)
    kept = [1 if axis in axes else size for axis, size in enumerate(shape)]
    if not given.get("keepdims", 1):
        kept = [size for axis, size in enumerate(shape) if axis not in axes]
    if len(kept) < 4:
        at = new.reshape(at, kept)
    new.call(new.add("Neg", at) if least else at, node.output[0])
    return True


def largest_channel(node: onnx.NodeProto, new: Writer) -> bool:
    """Halves of channels of which the larger numbers are kept, again and again."""
    x, shape = node.input[0], new.shape(node.input[0])
    if shape is None or len(shape) != 4 or reduced_axes(node, new) != (1,) or not new.is_float(x):
        return False
    if not 1 < shape[1] <= _LONGEST:
        return False
    at = _largest(new, x, 1, shape[1])
    if not attributes(node).get("keepdims", 1):
        at = new.reshape(at, [shape[0], *shape[2:]])
    new.call(at, node.output[0])
    return True


def _of_planes(new: Writer, x: str, shape: Sequence[int], axes: Sequence[int]) -> str:
    """The largest of N x C x H x W along some axes, which stay."""
    if {2, 3} <= set(axes):
        x = new.add("GlobalMaxPool", x)
    elif max(axes) > 1:
        x = new.add("MaxPool", x, kernel_shape=[shape[i] if i in axes else 1 for i in (2, 3)])
    return _largest(new, x, 1, shape[1]) if 1 in axes else x


def _of_rows(new: Writer, x: str, shape: Sequence[int], axes: Sequence[int]) -> str:
    """The largest of N x L x C along one axis, which is laid out in a plane."""
    batch, rows, columns = shape
    if axes[0] == 1:
        at = new.reshape(x, [batch, 1, rows, columns])
        return new.add("MaxPool", at, kernel_shape=[rows, 1])
    # As square as it can be, since a kernel takes few numbers a side.
    side = next(n for n in range(int(columns**0.5), 0, -1) if columns % n == 0)
    at = new.reshape(x, [batch, rows, side, columns // side])
    return new.add("GlobalMaxPool", at)


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
