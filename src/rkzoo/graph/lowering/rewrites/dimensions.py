"""More dimensions than an NPU has, folded into four."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import onnx

from rkzoo.graph.lowering.rewrites.reductions import reduced_axes
from rkzoo.graph.lowering.rewrites.rule import Writer
from rkzoo.graph.onnx.view import attributes

_MOST, _MANY = 4, 6


def fewer_dimensions(node: onnx.NodeProto, new: Writer) -> bool:
    """An elementwise operator of six dimensions and more, with those in one that both sides have
    alike, or one side alone. The compiler does so itself with five."""
    out = new.shape(node.output[0])
    shapes = [shape for name in node.input if (shape := new.shape(name)) is not None]
    if out is None or len(out) < _MANY or not all(out) or not new.is_float(node.output[0]):
        return False
    if len(shapes) != len(node.input):
        return False
    targets = _folded(shapes, out)
    if len(targets[0]) > _MOST:
        return False
    folded = []
    for name, target in zip(node.input, targets, strict=True):
        stored = new.value(name)
        if stored is not None:
            folded.append(new.constant(stored.reshape(target)))
        else:
            folded.append(new.reshape(name, target))
    result = new.add(node.op_type, *folded)
    new.reshape(result, out, to=node.output[0])
    return True


def _folded(shapes: Sequence[tuple[int, ...]], out: tuple[int, ...]) -> list[list[int]]:
    """The shapes of operands that are broadcast to `out`, with neighbours in one wherever the same
    operands have them; each begins with a one."""
    sides = [(1,) * (len(out) - len(shape)) + shape for shape in shapes]
    groups: list[tuple[tuple[bool, ...], int]] = []
    for axis, size in enumerate(out):
        has = tuple(side[axis] == size for side in sides)
        if size > 1 and groups and groups[-1][0] == has:
            groups[-1] = (has, groups[-1][1] * size)
        elif size > 1:
            groups.append((has, size))
    return [[1, *(n if has[side] else 1 for has, n in groups)] for side in range(len(shapes))]


def windows(node: onnx.NodeProto, new: Writer) -> bool:
    """A picture N x H x W x C taken apart into windows, by a transpose of four dimensions.

    The toolkit knows N x H/h x h x W/w x w x C with the third and fourth axis exchanged as an
    operator of its own. Straight behind the transpose from N x C x H x W its numbers come out in
    another order, in FP16 and INT8; with any operator between the two they are right.
    """
    shape, perm = new.shape(node.input[0]), attributes(node).get("perm")
    if shape is None or len(shape) != 6 or perm != [0, 1, 3, 2, 4, 5]:
        return False
    maker = new.view.producers.get(new.unshaped(node.input[0]))
    if maker is None or attributes(maker).get("perm") != [0, 2, 3, 1]:
        return False
    batch, tall, high, wide, broad, channels = shape
    folded = [batch * tall, high, wide, broad * channels]
    at = new.reshape(node.input[0], folded)
    at = new.add("Transpose", at, perm=[0, 2, 1, 3])
    new.reshape(at, [shape[axis] for axis in perm], to=node.output[0])
    return True


def along_one_axis(node: onnx.NodeProto, new: Writer) -> bool:
    """A softmax or a sum of six dimensions and more, with those before and behind its axes
    in one each."""
    x, given = node.input[0], attributes(node)
    shape, out = new.shape(x), new.shape(node.output[0])
    if shape is None or out is None or len(shape) < _MANY or not all(shape) or not new.is_float(x):
        return False
    reduces = node.op_type == "ReduceSum"
    axes = reduced_axes(node, new) if reduces else (given.get("axis", -1) % len(shape),)
    if not axes or list(axes) != list(range(axes[0], axes[-1] + 1)):
        return False
    folded = [
        prod(shape[: axes[0]]),
        prod(shape[axes[0] : axes[-1] + 1]),
        prod(shape[axes[-1] + 1 :]),
    ]
    if folded[1] == 1:
        return False
    # The last axis is where the NPU looks for it.
    folded, axis = ([1, *folded], 2) if folded[2] > 1 else ([1, 1, *folded[:2]], 3)
    at = new.reshape(x, folded)
    if not reduces:
        at = new.add("Softmax", at, axis=axis)
    elif new.opset >= 13:
        at = new.add("ReduceSum", at, new.whole([axis]), keepdims=1)
    else:
        at = new.add("ReduceSum", at, axes=[axis], keepdims=1)
    new.reshape(at, out, to=node.output[0])
    return True


def each_number(node: onnx.NodeProto, new: Writer) -> bool:
    """An activation of five dimensions and more next to a transpose, over two: the toolkit moves
    the one past the other without end. It does not with five, of which the first is one."""
    x, result = node.input[0], node.output[0]
    shape = new.shape(x)
    if shape is None or len(shape) <= _MOST or not all(shape) or not new.is_float(x):
        return False
    if len(shape) < _MANY and shape[0] == 1:
        return False
    beside = [*new.view.consumers.get(result, []), new.view.producers.get(x)]
    if all(other is None or other.op_type != "Transpose" for other in beside):
        return False
    at = new.reshape(x, [1, 1, prod(shape[:-1]), shape[-1]])
    copy = new.copy(node)
    copy.input[0], copy.output[0] = at, f"{result}_folded"
    new.add("Reshape", copy.output[0], new.whole(shape), to=result)
    return True
