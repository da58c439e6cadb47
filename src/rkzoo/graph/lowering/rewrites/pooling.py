"""Poolings that the compiler crashes on, or leaves to the processor, by those that the NPU has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx

from rkzoo.graph.lowering.rewrites.rule import Writer
from rkzoo.graph.onnx.view import Array, attributes


def pool_in_space(node: onnx.NodeProto, new: Writer) -> bool:
    """A maximum over depth, rows and columns is one over rows and columns, then one over depth; so
    is an average, whose windows meet as many numbers as each axis of them does.

    In: N x C x D x H x W. The first pooling has the depth among its channels; the second one has
    rows and columns in one axis.
    """
    given, shape, out = attributes(node), new.shape(node.input[0]), new.shape(node.output[0])
    plain = given.get("auto_pad", b"NOTSET") == b"NOTSET" and not given.get("storage_order")
    if shape is None or out is None or len(shape) != 5 or len(node.output) > 1 or not plain:
        return False
    kernel = given["kernel_shape"]
    strides = given.get("strides", [1] * 3)
    pads, ceil = given.get("pads", [0] * 6), given.get("ceil_mode", 0)
    counted: dict[str, Any] = {
        name: given[name] for name in ("count_include_pad",) if name in given
    }
    if node.op_type == "AveragePool" and not any(pads) and not ceil:
        return False
    # AveragePool takes dilations in newer opsets only.
    flat, deep = dict(counted), dict(counted)
    if "dilations" in given:
        flat["dilations"], deep["dilations"] = given["dilations"][1:], [given["dilations"][0], 1]
    batch, channels, depth, height, width = shape
    at = new.reshape(node.input[0], [batch, channels * depth, height, width])
    alone = kernel[0] == 1 and not pads[0] and not pads[3]
    if alone and strides[0] > 1:
        kept = np.arange(channels * depth).reshape(channels, depth)[
            :, : out[2] * strides[0] : strides[0]
        ]
        at = new.add("Gather", at, new.whole(kept.ravel()), axis=1)
    at = new.add(
        node.op_type,
        at,
        kernel_shape=kernel[1:],
        strides=strides[1:],
        pads=[*pads[1:3], *pads[4:]],
        ceil_mode=ceil,
        **flat,
    )
    if not alone:
        at = new.reshape(at, [batch, channels, depth, out[3] * out[4]])
        at = new.add(
            node.op_type,
            at,
            kernel_shape=[kernel[0], 1],
            strides=[strides[0], 1],
            pads=[pads[0], 0, pads[3], 0],
            ceil_mode=ceil,
            **deep,
        )
    new.reshape(at, out, to=node.output[0])
    return True


def mean_of_what_is_there(node: onnx.NodeProto, new: Writer) -> bool:
    """An average that leaves out what lies beyond the edge is one with zeros there, times how many
    numbers a window has of those that it met."""
    given, shape, out = attributes(node), new.shape(node.input[0]), new.shape(node.output[0])
    if shape is None or out is None or len(shape) != 4:
        return False
    kernel = given["kernel_shape"]
    strides, dilations = given.get("strides", [1, 1]), given.get("dilations", [1, 1])
    pads = list(given.get("pads", [0] * 4))
    automatic = given.get("auto_pad", b"NOTSET").decode()
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    # What a window of the last row or column needs, whoever rounded the size up.
    missing = [
        max(0, (out[2 + i] - 1) * strides[i] + reach[i] - shape[2 + i] - pads[i]) for i in (0, 1)
    ]
    if automatic.startswith("SAME"):
        first = [m - m // 2 if automatic == "SAME_LOWER" else m // 2 for m in missing]
        pads = [*first, *(m - f for m, f in zip(missing, first, strict=True))]
    elif automatic != "NOTSET":
        return False
    counted = given.get("count_include_pad", 0)
    ends = [
        max(missing[i], pads[2 + i]) if not automatic.startswith("SAME") else pads[2 + i]
        for i in (0, 1)
    ]
    needed = (not counted and any(pads)) or ends != pads[2:]
    if not needed or list(dilations) != [1, 1]:
        return False
    # Averages as many numbers as the window has, whatever of it is there.
    every = new.add(
        "AveragePool",
        node.input[0],
        kernel_shape=kernel,
        strides=strides,
        pads=[*pads[:2], *ends],
        count_include_pad=1,
    )
    margin = pads if counted else [0] * 4
    rows, columns = (
        _met(shape[2 + i], kernel[i], strides[i], out[2 + i], pads[i], margin[i], margin[2 + i])
        for i in (0, 1)
    )
    if not rows.all() or not columns.all():
        return False
    times = kernel[0] * kernel[1] / np.outer(rows, columns)
    new.add("Mul", every, new.constant(times[None, None]), to=node.output[0])
    return True


def _met(
    side: int, kernel: int, stride: int, windows: int, begin: int, before: int, after: int
) -> Array:
    """How many numbers each window along an axis meets; `before` and `after` those of the margin
    that count as numbers."""
    starts = np.arange(windows) * stride - begin
    low, high = np.maximum(starts, -before), np.minimum(starts + kernel, side + after)
    return np.asarray(np.maximum(high - low, 0))


def every_other(node: onnx.NodeProto, new: Writer) -> bool:
    """A slice that takes every other row and column is a pooling of single numbers; one that does
    so along another axis is a choice of what it takes.

    Slices that are put together again stay: the compiler makes one operator of them all.
    """
    x, shape, axes = node.input[0], new.shape(node.input[0]), slice_of(node, new)
    if shape is None or axes is None or len(shape) != 4 or not new.is_float(x):
        return False
    long = {axis for axis, (_, _, step) in axes.items() if step > 1}
    if not long or 0 in axes or _joined(node, new):
        return False
    if any(step < 1 or end <= begin for begin, end, step in axes.values()):
        return False
    chosen = set() if long == {2, 3} else long
    cut = {a: ends for a, (*ends, _) in axes.items() if ends != [0, shape[a]] and a not in chosen}
    if cut:
        starts, ends = zip(*cut.values(), strict=True)
        x = new.add("Slice", x, new.whole(starts), new.whole(ends), new.whole(list(cut)))
    for axis in sorted(chosen):
        x = new.add("Gather", x, new.whole(range(*axes[axis])), axis=axis)
    if not chosen:
        strides = [axes[axis][2] for axis in (2, 3)]
        x = new.add("MaxPool", x, kernel_shape=[1, 1], strides=strides)
    new.call(x, node.output[0])
    return True


def _joined(node: onnx.NodeProto, new: Writer) -> bool:
    """Whether all that slices leave goes straight into a Concat."""
    todo, seen = [node], {node.output[0]}
    while todo:
        readers = new.view.consumers.get(todo.pop().output[0], [])
        if not readers or any(reader.op_type not in ("Slice", "Concat") for reader in readers):
            return False
        slices = [reader for reader in readers if reader.op_type == "Slice"]
        todo += [reader for reader in slices if reader.output[0] not in seen]
        seen |= {reader.output[0] for reader in slices}
    return True


def slice_of(node: onnx.NodeProto, new: Writer) -> dict[int, tuple[int, int, int]] | None:
    """Axis -> first, end and step of a Slice with stored bounds; None for others."""
    shape = new.shape(node.input[0])
    values = [new.value(name) for name in node.input[1:]]
    if shape is None or len(values) < 2 or any(value is None for value in values):
        return None
    given: list[Sequence[int]] = [value.ravel().tolist() for value in values if value is not None]
    starts, ends = given[:2]
    axes = given[2] if len(given) > 2 else range(len(starts))
    steps = given[3] if len(given) > 3 else [1] * len(starts)
    return {
        axis % len(shape): slice(start, end, step).indices(shape[axis])
        for start, end, axis, step in zip(starts, ends, axes, steps, strict=True)
    }
