"""Operators that take or put numbers by their places, where the places are stored."""

from __future__ import annotations

import math

import numpy as np
import onnx

from rkzoo.graph.lowering.rewrites.reductions import sliced
from rkzoo.graph.lowering.rewrites.rule import Writer
from rkzoo.graph.onnx.view import Array, attributes
from rkzoo.ort import MOST_NUMBERS

# A row of tiles is a Concat of so many; a convolution that moves channels has so many outputs.
_TILES, _MOVED = 16, 1024
# Numbers of a matrix in place of a grid.
_MATRIX = 1 << 22


def space_to_depth(node: onnx.NodeProto, new: Writer) -> bool:
    """A convolution whose kernels hold a single one each: the stride takes a block at a time."""
    shape, block = new.shape(node.input[0]), attributes(node)["blocksize"]
    if shape is None or shape[1] * block**2 > _MOVED or not new.is_float(node.input[0]):
        return False
    channels = shape[1]
    kernels = np.eye(block * block * channels, dtype=np.float32)
    # ONNX puts the place in the block before the channel.
    kernels = kernels.reshape(-1, block, block, channels).transpose(0, 3, 1, 2)
    new.add(
        "Conv",
        node.input[0],
        new.constant(kernels),
        kernel_shape=[block, block],
        strides=[block, block],
        to=node.output[0],
    )
    return True


def tile(node: onnx.NodeProto, new: Writer) -> bool:
    """Repeated rows and columns side by side."""
    shape, repeats = new.shape(node.input[0]), new.value(node.input[1])
    if shape is None or repeats is None or len(shape) != 4:
        return False
    times = repeats.ravel().tolist()
    if max(times) > _TILES or min(times) < 1 or times[2:] == [1, 1] or times[0] > 1:
        return False
    at = node.input[0]
    several = [axis for axis in (1, 2, 3) if times[axis] > 1]
    for axis in several:
        to = node.output[0] if axis == several[-1] else ""
        at = new.add("Concat", *[at] * times[axis], axis=axis, to=to)
    return True


def triangle(node: onnx.NodeProto, new: Writer) -> bool:
    """A product with ones and zeros."""
    shape = new.shape(node.input[0])
    diagonal = new.value(node.input[1]) if len(node.input) > 1 and node.input[1] else np.array(0)
    if shape is None or diagonal is None or not new.is_float(node.input[0]):
        return False
    if math.prod(shape[-2:]) > _MATRIX:
        return False
    ones, k = np.ones(shape[-2:], np.float32), int(diagonal.ravel()[0])
    mask = np.triu(ones, k) if attributes(node).get("upper", 1) else np.tril(ones, k)
    mask = mask.reshape((1,) * (len(shape) - 2) + mask.shape)
    new.add("Mul", node.input[0], new.constant(mask), to=node.output[0])
    return True


def gather_by_places(node: onnx.NodeProto, new: Writer) -> bool:
    """A GatherND along one axis, the axes before it being one long."""
    x, places = node.input[0], new.value(node.input[1])
    shape, out = new.shape(x), new.shape(node.output[0])
    if shape is None or out is None or places is None or attributes(node).get("batch_dims", 0):
        return False
    axis = places.shape[-1] - 1
    if any(size != 1 for size in shape[:axis]) or places.ndim > 2:
        return False
    taken = new.add("Gather", x, new.whole(places[..., -1].ravel()), axis=axis)
    new.reshape(taken, out, to=node.output[0])
    return True


def fixed_grid(node: onnx.NodeProto, new: Writer) -> bool:
    """A GridSample whose grid is stored takes the same share of the same pixels every time: a
    product with a matrix, which ONNX Runtime makes of one plane for each pixel."""
    shape, grid = new.shape(node.input[0]), new.value(node.input[1])
    if shape is None or grid is None or len(shape) != 4 or any(np.any(g != grid[0]) for g in grid):
        return False
    pixels, places = math.prod(shape[2:]), math.prod(grid.shape[1:3])
    if pixels * max(pixels, places) > _MATRIX:
        return False
    planes = np.eye(pixels, dtype=np.float32).reshape(1, pixels, *shape[2:])
    matrix = new.alone(node, planes, grid[:1]).reshape(pixels, places)
    at = new.reshape(node.input[0], [*shape[:2], pixels])
    at = new.add("MatMul", at, new.constant(matrix))
    new.reshape(at, [*shape[:2], *grid.shape[1:3]], to=node.output[0])
    return True


def scatter_as_concat(node: onnx.NodeProto, new: Writer) -> bool:
    """What is put in place of some rows of one axis, one after the other, stands between the rows
    before and behind it."""
    x, places, updates = node.input[0], new.value(node.input[1]), node.input[2]
    shape, reduction = new.shape(x), attributes(node).get("reduction", b"none")
    if shape is None or places is None or reduction != b"none" or math.prod(shape) > MOST_NUMBERS:
        return False
    found = _rows(shape, places)
    if found is None:
        return False
    axis, begin, end = found
    block = [end - begin if at == axis else size for at, size in enumerate(shape)]
    middle = new.reshape(updates, block)
    before = [sliced(new, x, axis, 0, begin)] if begin else []
    behind = [sliced(new, x, axis, end, shape[axis])] if end < shape[axis] else []
    new.add("Concat", *before, middle, *behind, axis=axis, to=node.output[0])
    return True


def _rows(shape: tuple[int, ...], places: Array) -> tuple[int, int, int] | None:
    """The axis and the first and last row that places of a ScatterND fill in order; None for
    others. Asked by scattering numbers in order."""
    depth = places.shape[-1]
    if depth < 1:
        return None
    sides = np.array(shape[:depth])
    flat = places.reshape(-1, depth)
    if depth > len(shape) or np.any((flat < -sides) | (flat >= sides)):
        return None  # a graph that nobody can run
    written = np.full(shape[:depth], -1, np.int64)
    written[tuple(flat.T)] = np.arange(len(flat))
    if np.count_nonzero(written >= 0) < len(flat):
        return None  # places that are written twice
    there = np.argwhere(written >= 0)
    low, high = there.min(axis=0), there.max(axis=0) + 1
    partial = [axis for axis in range(depth) if (low[axis], high[axis]) != (0, shape[axis])]
    box = written[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    if len(partial) != 1 or not np.array_equal(box.ravel(), np.arange(len(flat))):
        return None
    return partial[0], int(low[partial[0]]), int(high[partial[0]])


def gather_rows(node: onnx.NodeProto, new: Writer) -> bool:
    """Where each row's places are one number, repeated, whole rows are taken.

    GatherElements of 1 x N x C by places 1 x K x C that were expanded from 1 x K x 1, as a
    detector takes its queries: Gather of K rows.
    """
    x, shape = node.input[0], new.shape(node.input[0])
    maker = new.view.producers.get(node.input[1])
    axis = attributes(node).get("axis", 0)
    if shape is None or maker is None or maker.op_type not in ("Expand", "Tile"):
        return False
    few, out = new.shape(maker.input[0]), new.shape(node.output[0])
    if few is None or out is None or len(few) != len(shape):
        return False
    axis %= len(shape)
    # One place a row of the axis, before and behind it all of one data.
    if any(size != 1 for at, size in enumerate(few) if at != axis):
        return False
    if (
        any(size != shape[at] for at, size in enumerate(out) if at != axis)
        or few[axis] != out[axis]
    ):
        return False
    places = new.reshape(maker.input[0], [few[axis]])
    new.add("Gather", x, places, axis=axis, to=node.output[0])
    return True
