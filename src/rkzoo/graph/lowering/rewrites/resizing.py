"""Resizes that the toolkit does not survive."""

from __future__ import annotations

import numpy as np
import onnx

from rkzoo.graph.lowering.rewrites.rule import Writer
from rkzoo.graph.onnx.view import Array, attributes

# The matrix of an axis holds its length times the one that is wanted.
_LONGEST = 2048


def cubic(node: onnx.NodeProto, new: Writer) -> bool:
    """A bicubic resize is linear in the rows and in the columns of a plane: two products with the
    matrices that ONNX Runtime makes of it. The toolkit ends in a SIGSEGV on the operator."""
    inputs = attributes(node)
    if inputs.get("mode") != b"cubic" or "axes" in inputs:
        return False
    return _by_products(node, new)


def linear(node: onnx.NodeProto, new: Writer) -> bool:
    """A linear resize with its corners aligned, or by no whole number, likewise."""
    inputs = attributes(node)
    shape, out = new.shape(node.input[0]), new.shape(node.output[0])
    if inputs.get("mode") != b"linear" or "axes" in inputs or shape is None or out is None:
        return False
    if len(shape) != 4 or max(*shape[2:], *out[2:]) > _LONGEST or shape[2:] == out[2:]:
        return False
    if inputs.get("coordinate_transformation_mode") == b"tf_crop_and_resize":
        return False
    aligned = inputs.get("coordinate_transformation_mode") == b"align_corners"
    whole = all(max(a, b) % min(a, b) == 0 for a, b in zip(shape[2:], out[2:], strict=True))
    return (aligned or not whole) and _by_products(node, new)


def in_space(node: onnx.NodeProto, new: Writer) -> bool:
    """A resize of depth, rows and columns is one of rows and columns, then one of the depth.

    In: N x C x D x H x W. The first has the depth among its channels; the second has rows and
    columns in one axis.
    """
    given, shape, out = attributes(node), new.shape(node.input[0]), new.shape(node.output[0])
    names = [*node.input, "", "", ""][2:4]
    scales, sizes = (new.value(name) for name in names)
    if shape is None or out is None or len(shape) != 5 or "axes" in given:
        return False
    if given.get("mode", b"nearest") not in (b"nearest", b"linear") or shape[:2] != out[:2]:
        return False
    way = given.get("coordinate_transformation_mode", b"half_pixel")
    policy = given.get("keep_aspect_ratio_policy", b"stretch")
    if way == b"tf_crop_and_resize" or policy != b"stretch":
        return False
    batch, channels, depth, height, width = shape

    def resized(at: str, before: list[int], after: list[int], by: list[float]) -> str:
        if before == after:
            return at
        at = new.reshape(at, before)
        wanted = new.whole(after) if not by else new.constant(np.array(by))
        return new.add("Resize", at, "", *([""] if not by else []), wanted, **given)

    by: list[float] = [] if scales is None or not scales.size else scales.tolist()
    if not by and (sizes is None or not sizes.size):
        return False
    folded = batch, channels * depth
    at = resized(
        node.input[0], [*folded, height, width], [*folded, *out[3:]], by and [1, 1, *by[3:]]
    )
    plane = out[3] * out[4]
    at = resized(
        at, [batch, channels, depth, plane], [*shape[:2], out[2], plane], by and [1, 1, by[2], 1]
    )
    new.reshape(at, out, to=node.output[0])
    return True


def _by_products(node: onnx.NodeProto, new: Writer) -> bool:
    """Two products with the matrices that ONNX Runtime makes of a resize of each axis."""
    shape = new.shape(node.input[0])
    given = [(name, new.value(name)) for name in node.input[2:]]
    by, expected = next(
        ((name, value) for name, value in given if value is not None and value.size), ("", None)
    )
    if shape is None or len(shape) != 4 or expected is None or max(shape[2:]) > 2 * _LONGEST:
        return False
    by_size = len(node.input) > 3 and by == node.input[3]
    if any(expected[:2] != (shape[:2] if by_size else (1, 1))):
        return False
    rows, columns = (
        _resized(new, node, expected[axis], shape[axis], vertical=axis == 2, by_size=by_size)
        for axis in (2, 3)
    )
    wide = new.add("MatMul", node.input[0], new.constant(columns))
    new.add("MatMul", new.constant(rows), wide, to=node.output[0])
    return True


def _resized(
    new: Writer,
    node: onnx.NodeProto,
    requested: float,
    side: int,
    *,
    vertical: bool,
    by_size: bool,
) -> Array:
    """What the resize of one axis makes of the unit vectors, (wanted, side) or transposed."""
    plane = np.eye(side, dtype=np.float32)[None, None]
    still = side if by_size else 1
    by = np.array(
        [1, 1, *((requested, still) if vertical else (still, requested))],
        np.int64 if by_size else np.float32,
    )
    left_out = np.empty(0, np.float32)
    inputs = (left_out, left_out, by) if by_size else (left_out, by)
    return np.asarray(new.alone(node, plane, *inputs)[0, 0])
