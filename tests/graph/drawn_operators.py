"""Graphs around one operator that is rewritten, of drawn shapes, axes and attributes, by the name
of the rewrite: x -> operator -> y."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from hypothesis import strategies as st
from onnx import helper
from tiny_operators import model, stored, weights

Draw = Callable[[st.SearchStrategy[Any]], Any]
_few, _some = st.integers(1, 3), st.integers(2, 6)


def _plane(draw: Draw, least: int = 4) -> tuple[int, ...]:
    sides = st.integers(least, 9)
    return (draw(_few), draw(_some), draw(sides), draw(sides))


def graph(
    nodes: Sequence[onnx.NodeProto],
    shape: Sequence[int],
    initializers: Sequence[onnx.TensorProto] = (),
    opset: int = 18,
    **others: Sequence[int],
) -> onnx.ModelProto:
    return model(nodes, {"x": shape, **others}, ["y"], initializers, opset)


def of(operator: str, *inputs: str, **given: Any) -> onnx.NodeProto:
    return helper.make_node(operator, inputs or ["x"], ["y"], **given)


def layer_norm(draw: Draw) -> onnx.ModelProto:
    shape = (*_plane(draw)[:2], draw(_some))
    axis = draw(st.integers(1, 2))
    kept = [weights("s", *shape[axis:]), weights("b", *shape[axis:])]
    names = draw(st.sampled_from([("x", "s"), ("x", "s", "b")]))
    given = draw(st.sampled_from([{"axis": axis}, {"epsilon": 1e-3}, {}]))
    if "axis" not in given:
        kept = [weights("s", shape[2]), weights("b", shape[2])]
    return graph([of("LayerNormalization", *names, **given)], shape, kept[: len(names) - 1])


def minimum(draw: Draw) -> onnx.ModelProto:
    shape = _plane(draw)
    if draw(st.booleans()):
        return graph(
            [of("Min", *draw(st.permutations(["x", "k"])))], shape, [stored("k", 0.3, np.float32)]
        )
    other = [size if draw(st.booleans()) else 1 for size in shape]
    return graph([of("Min", "x", "a", "x")], shape, a=other)


def mean(draw: Draw) -> onnx.ModelProto:
    return graph([of("Mean", *["x", "a", "x"][: draw(st.integers(2, 3))])], _plane(draw), a=(1,))


def reduced(draw: Draw, operators: Sequence[str] = ("ReduceMax", "ReduceMin")) -> onnx.ModelProto:
    shape = tuple(size + 1 for size in _plane(draw))
    operator = draw(st.sampled_from(operators))
    if draw(st.booleans()):
        shape, axes = shape[1:], [draw(st.sampled_from([1, 2, -1, -2]))]
    else:
        axes = draw(st.lists(st.sampled_from([1, 2, 3]), min_size=1, unique=True))
        if operator == "ReduceMax" and axes == [1]:
            axes = [1, 3]
    keep = draw(st.integers(0, 1))
    if draw(st.booleans()):
        return graph([of(operator, axes=axes, keepdims=keep)], shape, opset=13)
    return graph([of(operator, "x", "a", keepdims=keep)], shape, [stored("a", axes)])


def channels(draw: Draw) -> onnx.ModelProto:
    return graph(
        [of("ReduceMax", "x", "a", keepdims=draw(st.integers(0, 1)))],
        _plane(draw),
        [stored("a", [1])],
    )


def pool_in_space(draw: Draw) -> onnx.ModelProto:
    shape = (*_plane(draw)[:2], *(draw(st.integers(4, 7)) for _ in range(3)))
    three = st.tuples(*[st.integers(1, 3)] * 3)
    kernel, pads = draw(three), draw(st.tuples(*[st.integers(0, 1)] * 6))
    pads = [min(pad, kernel[i % 3] - 1) for i, pad in enumerate(pads)]
    given = {"kernel_shape": kernel, "strides": draw(three), "pads": pads}
    # Windows that begin beyond the edge are read differently by whoever reads them.
    ceil = draw(st.integers(0, 1)) if all(map(int.__le__, given["strides"], kernel)) else 0
    return graph([of("MaxPool", **given, ceil_mode=ceil)], shape)


def mean_in_space(draw: Draw) -> onnx.ModelProto:
    shape = (*_plane(draw)[:2], *(draw(st.integers(4, 7)) for _ in range(3)))
    kernel, strides = (draw(st.tuples(*[st.integers(1, 3)] * 3)) for _ in range(2))
    kernel = (kernel[0], 3, kernel[2])
    pads = [draw(st.integers(0, kernel[i % 3] - 1)) for i in range(6)]
    pads[1] = 1
    given = {"strides": strides, "pads": pads, "count_include_pad": draw(st.integers(0, 1))}
    return graph([of("AveragePool", kernel_shape=kernel, **given)], shape)


def resized_in_space(draw: Draw) -> onnx.ModelProto:
    shape = (*_plane(draw)[:2], *(draw(st.integers(2, 6)) for _ in range(3)))
    way = draw(st.sampled_from(["align_corners", "half_pixel", "asymmetric"]))
    given = {"mode": draw(st.sampled_from(["linear", "nearest"]))}
    given["coordinate_transformation_mode"] = way
    if draw(st.booleans()):
        sizes = [*shape[:2], *(draw(st.integers(2, 9)) for _ in range(3))]
        return graph([of("Resize", "x", "", "", "n", **given)], shape, [stored("n", sizes)])
    by = [1, 1, *(draw(st.sampled_from([0.5, 1, 1.5, 2])) for _ in range(3))]
    return graph([of("Resize", "x", "", "n", **given)], shape, [stored("n", by, np.float32)])


def over_a_map(draw: Draw) -> onnx.ModelProto:
    shape = (draw(_few), draw(st.integers(8, 9)), draw(st.integers(32, 40)), 32)
    kept = [weights("s", *shape[1:]), weights("b", *shape[1:])]
    names = draw(st.sampled_from([("x", "s"), ("x", "s", "b")]))
    given = draw(st.sampled_from([{"axis": 1}, {"axis": -3, "epsilon": 1e-3}]))
    return graph([of("LayerNormalization", *names, **given)], shape, kept[: len(names) - 1])


def along_one_axis(draw: Draw) -> onnx.ModelProto:
    shape = [draw(st.integers(2, 3)) for _ in range(6)]
    axis = draw(st.integers(-6, 5))
    operator = draw(st.sampled_from(["Softmax", "ReduceSum"]))
    if operator == "Softmax":
        return graph([of(operator, axis=axis)], shape)
    first = axis % 6
    axes = [first, first + 1][: draw(st.integers(1, 2))] if first < 5 else [axis]
    keep = draw(st.integers(0, 1))
    if draw(st.booleans()):
        return graph([of(operator, axes=axes, keepdims=keep)], shape, opset=12)
    return graph([of(operator, "x", "a", keepdims=keep)], shape, [stored("a", axes)])


def each_number(draw: Draw) -> onnx.ModelProto:
    shape = [draw(st.integers(2, 3)) for _ in range(draw(st.integers(5, 6)))]
    operator = draw(st.sampled_from(["Relu", "Sigmoid", "Tanh", "Clip", "LeakyRelu"]))
    perm = draw(st.permutations(range(len(shape))))
    if draw(st.booleans()):
        nodes = [helper.make_node(operator, ["x"], ["a"]), of("Transpose", "a", perm=perm)]
    else:
        nodes = [helper.make_node("Transpose", ["x"], ["a"], perm=perm), of(operator, "a")]
    return graph(nodes, shape)


def long_short(draw: Draw) -> tuple[dict[str, Any], tuple[int, ...], list[Any], list[str]]:
    """Attributes, shape, weights and names of inputs of an LSTM."""
    direction = draw(st.sampled_from(["forward", "reverse", "bidirectional"]))
    ways, size = 1 + (direction == "bidirectional"), draw(_some)
    shape = (draw(_some), draw(_few), draw(_some))
    kept = [weights("W", ways, 4 * size, shape[2]), weights("R", ways, 4 * size, size)]
    kept += [weights("B", ways, 8 * size)]
    names = ["x", "W", "R", "B", "", "", ""]
    if draw(st.booleans()):
        kept += [weights("h", ways, shape[1], size), weights("cc", ways, shape[1], size)]
        names[5:] = ["h", "cc"]
    return {"direction": direction, "hidden_size": size}, shape, kept, names


def steps(draw: Draw) -> onnx.ModelProto:
    given, shape, kept, names = long_short(draw)
    form = draw(st.integers(0, 2))
    if form:
        kept.append(weights("P", kept[0].dims[0], 3 * given["hidden_size"]))
        names.append("P")
    if form != 1:
        given["input_forget"] = 1
    read = draw(st.sampled_from([["y"], ["", "y"], ["", "", "y"], ["a", "b", "y"]]))
    node = helper.make_node("LSTM", names, read, **given)
    return model([node], {"x": shape}, [name for name in read if name], kept)


def cell_beside_state(draw: Draw) -> onnx.ModelProto:
    given, shape, kept, names = long_short(draw)
    read = draw(st.sampled_from([["", "", "y"], ["a", "", "y"], ["a", "unread", "y"]]))
    node = helper.make_node("LSTM", names, read, **given)
    return model([node], {"x": shape}, [name for name in read if name in ("a", "y")], kept)


def average(draw: Draw) -> onnx.ModelProto:
    shape, kernel = _plane(draw), draw(st.tuples(st.integers(2, 3), st.integers(2, 3)))
    strides = draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
    if draw(st.booleans()):
        # Kernels above their strides meet the edge wherever it lies.
        shape = (*shape[:2], 2 * shape[2] + 1, 2 * shape[3] + 1)
        name = draw(st.sampled_from(["SAME_UPPER", "SAME_LOWER"]))
        return graph(
            [of("AveragePool", kernel_shape=[3, 3], strides=strides, auto_pad=name)], shape
        )
    pads = [draw(st.integers(0, kernel[i % 2] - 1)) for i in range(4)]
    pads[0] = 1
    return graph([of("AveragePool", kernel_shape=kernel, strides=strides, pads=pads)], shape)


def every_other(draw: Draw) -> onnx.ModelProto:
    shape = _plane(draw)
    axes = draw(st.lists(st.sampled_from([1, 2, 3, -1]), min_size=1, unique_by=lambda a: a % 4))
    starts = [draw(st.integers(-2, 1)) for _ in axes]
    ends = [draw(st.sampled_from([2**62, shape[axis]])) for axis in axes]
    steps = [2, *(draw(st.integers(1, 3)) for _ in axes[1:])]
    names = {"s": starts, "e": ends, "a": axes, "t": steps}
    return graph([of("Slice", "x", *names)], shape, [stored(n, v) for n, v in names.items()])


def tile(draw: Draw) -> onnx.ModelProto:
    times = [1, draw(_few), draw(_few), 2]
    return graph([of("Tile", "x", "t")], _plane(draw), [stored("t", times)])


def triangle(draw: Draw) -> onnx.ModelProto:
    inputs = draw(st.sampled_from([("x",), ("x", "k")]))
    kept = [stored("k", draw(st.integers(-3, 3)))][: len(inputs) - 1]
    return graph([of("Trilu", *inputs, upper=draw(st.integers(0, 1)))], _plane(draw), kept)


def space_to_depth(draw: Draw) -> onnx.ModelProto:
    block, shape = draw(st.integers(2, 3)), _plane(draw)
    shape = (*shape[:2], shape[2] * block, shape[3] * block)
    return graph([of("SpaceToDepth", blocksize=block)], shape)


def gather_nd(draw: Draw) -> onnx.ModelProto:
    shape = (1, *_plane(draw)[1:])
    rows = draw(st.lists(st.integers(0, shape[1] - 1), min_size=1, max_size=4))
    return graph([of("GatherND", "x", "p")], shape, [stored("p", [[0, row] for row in rows])])


def gather_rows(draw: Draw) -> onnx.ModelProto:
    shape, rows = (1, draw(st.integers(4, 9)), draw(_some)), draw(_some)
    places = draw(st.lists(st.integers(0, shape[1] - 1), min_size=rows, max_size=rows))
    # Computed, so that it is not folded.
    nodes = [
        helper.make_node("Cast", ["x"], ["i"], to=7),
        helper.make_node("ReduceSum", ["i", "all"], ["n"], keepdims=1),
        helper.make_node("Mul", ["n", "zero"], ["o"]),
        helper.make_node("Add", ["o", "p"], ["few"]),
        helper.make_node("Expand", ["few", "to"], ["places"]),
        of("GatherElements", "x", "places", axis=1),
    ]
    kept = [
        stored("all", [0, 1, 2]),
        stored("zero", 0),
        stored("p", np.reshape(places, (1, rows, 1))),
        stored("to", [1, rows, shape[2]]),
    ]
    return graph(nodes, shape, kept)


def scatter(draw: Draw) -> onnx.ModelProto:
    shape = _plane(draw)
    axis = draw(st.integers(0, 2))
    begin = draw(st.integers(0, shape[axis] - 1))
    end = draw(st.integers(begin + 1, shape[axis]))
    if (begin, end) == (0, shape[axis]):
        begin, axis, end = 1, 2, shape[2]
    box = [np.arange(n) for n in shape[:axis]] + [np.arange(begin, end)]
    places = np.stack(np.meshgrid(*box, indexing="ij"), axis=-1)
    return graph(
        [of("ScatterND", "x", "p", "u")],
        shape,
        [stored("p", places)],
        u=(*places.shape[:-1], *shape[axis + 1 :]),
    )


def log_sigmoid(draw: Draw) -> onnx.ModelProto:
    nodes = [helper.make_node("Sigmoid", ["x"], ["s"]), of("Log", "s")]
    return graph(nodes, _plane(draw))


def log_odds(draw: Draw) -> onnx.ModelProto:
    """As transformers and RT-DETR spell the inverse of a sigmoid."""
    names = ("one", "least")
    kept = [stored(name, value, np.float32) for name, value in zip(names, (1, 1e-5), strict=True)]
    nodes = [
        helper.make_node("Sigmoid", ["x"], ["s"]),
        helper.make_node("Sub", ["one", "s"], ["rest"]),
        helper.make_node("Clip", ["s", "least"], ["above"]),
        helper.make_node("Clip", ["rest", "least"], ["below"]),
        helper.make_node("Div", ["above", "below"], ["odds"]),
        of("Log", "odds"),
    ]
    return graph(nodes, _plane(draw), kept)


def linear(draw: Draw) -> onnx.ModelProto:
    shape = _plane(draw)
    if draw(st.booleans()):
        sizes = [*shape[:2], draw(st.integers(2, 20)), draw(st.integers(10, 20))]
        kept, inputs = [stored("n", sizes)], ("x", "", "", "n")
        ways = ("align_corners",)
    else:
        kept, inputs = [stored("n", [1, 1, 1.5, 2.5], np.float32)], ("x", "", "n")
        ways = ("align_corners", "half_pixel", "pytorch_half_pixel", "asymmetric")
        shape = (*shape[:2], 6, 6)
    way = draw(st.sampled_from(ways))
    return graph(
        [of("Resize", *inputs, mode="linear", coordinate_transformation_mode=way)], shape, kept
    )


def fewer_dimensions(draw: Draw) -> onnx.ModelProto:
    shape = [draw(st.integers(1, 3)) for _ in range(draw(st.integers(6, 7)))]
    split = draw(st.integers(0, len(shape)))
    other = [1 if index < split else size for index, size in enumerate(shape)]
    other = other[draw(st.integers(0, split)) :]
    operator = draw(st.sampled_from(["Add", "Sub", "Mul", "Div"]))
    if draw(st.booleans()):
        return graph([of(operator, "x", "k")], shape, [weights("k", *other)])
    return graph([of(operator, "x", "a")], shape, a=other)


def windows(draw: Draw) -> onnx.ModelProto:
    batch, tall, high, wide, broad, channels = (draw(_few) for _ in range(6))
    shape = (batch, channels, tall * high, wide * broad)
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[0, 2, 3, 1]),
        helper.make_node("Reshape", ["t", "six"], ["w"]),
        of("Transpose", "w", perm=[0, 1, 3, 2, 4, 5]),
    ]
    return graph(nodes, shape, [stored("six", (batch, tall, high, wide, broad, channels))])


def fixed_grid(draw: Draw) -> onnx.ModelProto:
    shape = _plane(draw)
    rows, columns = draw(_some), draw(_some)
    grid = np.random.default_rng(rows).uniform(-1.3, 1.3, (1, rows, columns, 2))
    grid = np.repeat(grid, shape[0], axis=0).astype(np.float32)
    given = {
        "padding_mode": draw(st.sampled_from(["zeros", "border", "reflection"])),
        "mode": draw(st.sampled_from(["bilinear", "nearest"])),
        "align_corners": draw(st.integers(0, 1)),
    }
    return graph([of("GridSample", "x", "g", **given)], shape, [stored("g", grid, np.float32)], 16)


def patches(draw: Draw) -> onnx.ModelProto:
    side, channels = draw(st.sampled_from([8, 9, 14, 16, 28])), draw(_few)
    shape = (1, channels, side * draw(_few), side * draw(_few))
    kept = [weights("w", draw(_some), channels, side, side)]
    bias = [weights("b", kept[0].dims[0])] if draw(st.booleans()) else []
    names = ["x", "w", *(["b"] if bias else [])]
    return graph([of("Conv", *names, strides=[side, side])], shape, [*kept, *bias])


DRAWN: dict[str, Callable[[Draw], onnx.ModelProto]] = {
    "given-defaults": layer_norm,
    "patches": patches,
    "minimum": minimum,
    "mean": mean,
    "extreme": reduced,
    "largest-channel": channels,
    "pool-in-space": pool_in_space,
    "pool-in-space of averages": mean_in_space,
    "in-space": resized_in_space,
    "over-a-map": over_a_map,
    "along-one-axis": along_one_axis,
    "each-number": each_number,
    "steps": steps,
    "cell-beside-state": cell_beside_state,
    "mean-of-what-is-there": average,
    "every-other": every_other,
    "tile": tile,
    "triangle": triangle,
    "space-to-depth": space_to_depth,
    "gather-by-places": gather_nd,
    "gather-rows": gather_rows,
    "scatter-as-concat": scatter,
    "log-odds": log_odds,
    "log-sigmoid": log_sigmoid,
    "linear": linear,
    "fewer-dimensions": fewer_dimensions,
    "windows": windows,
    "fixed-grid": fixed_grid,
}
