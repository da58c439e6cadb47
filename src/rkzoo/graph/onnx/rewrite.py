"""Equivalent graph rewrites for operators that RKNN-Toolkit2 does not accept."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from rkzoo.graph.onnx.input_preprocessing import (
    TOOK_BYTES,
    InputPreprocessing,
    input_preprocessing,
)
from rkzoo.graph.onnx.view import Array, GraphView, attributes, captured_by, is_half, run, submodel
from rkzoo.ort import CannotRun


def scale_after_product(view: GraphView) -> None:
    """Rewrite (q * s)^T k as (q^T k) * s, in place, in front of a softmax.

    Ultralytics 8.4 exports the attention of YOLO11 and YOLO12 in the first form, where
    RKNN-Toolkit2 2.5.0 fails with an IndexError in its attention fusion; 2.3.2 accepts both.
    """
    graph = view.model.graph
    for index, node in reversed(list(enumerate(graph.node))):
        if node.op_type != "MatMul" or not _feeds_softmax(view, node):
            continue
        scaled = _scaled_factor(view, node)
        if scaled is None:
            continue
        holder, position, factor, scale = scaled
        holder.input[position] = factor
        product, raw = node.output[0], f"{node.output[0]}_unscaled"
        node.output[0] = raw
        graph.node.insert(index + 1, helper.make_node("Mul", [raw, scale], [product]))


def _feeds_softmax(view: GraphView, node: onnx.NodeProto) -> bool:
    after = view.consumers.get(node.output[0], [])
    return len(after) == 1 and after[0].op_type == "Softmax"


def _scaled_factor(
    view: GraphView, product: onnx.NodeProto
) -> tuple[onnx.NodeProto, int, str, str] | None:
    """The node and input index where a scaled factor enters, the factor without its scale, and the
    scale; None when no factor of the product is scaled by a single number.
    """
    for start in (0, 1):
        holder, position = product, start
        maker = view.producers.get(holder.input[position])
        if maker is not None and maker.op_type == "Transpose" and _has_single_consumer(view, maker):
            holder, position = maker, 0
            maker = view.producers.get(holder.input[0])
        if maker is None or maker.op_type != "Mul" or not _has_single_consumer(view, maker):
            continue
        for factor, scale in (tuple(maker.input), tuple(maker.input)[::-1]):
            number = view.constant(scale)
            if number is not None and number.size == 1:
                return holder, position, factor, scale
    return None


def _has_single_consumer(view: GraphView, node: onnx.NodeProto) -> bool:
    return len(view.consumers.get(node.output[0], [])) == 1


# ---- focus --------------------------------------------------------------------------


def focus_to_convolution(view: GraphView) -> None:
    """Merge a Focus (four slices of every other pixel, concatenated) and its k x k convolution into
    one 2k x 2k convolution of stride 2, in place.

    The stem of YOLOX and of YOLOv5 before 6.0. The NPU has no strided slices, they would run on the
    CPU. The result is the same: every pixel meets the same weight.
    """
    graph = view.model.graph
    for node in graph.node:
        focus = _focus(view, node)
        weight = None if focus is None else view.constant(node.input[1])
        if focus is None or weight is None:
            continue
        source, origins = focus
        name = f"{node.input[1]}_focus"
        graph.initializer.append(numpy_helper.from_array(_spread(weight, origins), name))
        inputs = attributes(node)
        del node.attribute[:]
        node.attribute.extend(
            [
                helper.make_attribute("kernel_shape", [2 * size for size in weight.shape[2:]]),
                helper.make_attribute("strides", [2, 2]),
                helper.make_attribute("pads", [2 * pad for pad in inputs.get("pads", [0] * 4)]),
            ]
        )
        node.input[0], node.input[1] = source, name


Origin = tuple[int, int, int]


def _focus(view: GraphView, node: onnx.NodeProto) -> tuple[str, list[Origin]] | None:
    """The image that a convolution reads through a Focus, and for each of its input channels the
    image's channel, row offset and column offset.
    """
    if node.op_type != "Conv" or not _is_plain(attributes(node)):
        return None
    weight = view.constant(node.input[1])
    joined = view.producers.get(node.input[0])
    if (
        weight is None
        or joined is None
        or joined.op_type != "Concat"
        or not _has_single_consumer(view, joined)
    ):
        return None
    nodes, sources = _slices(view, joined.input)
    if len(sources) != 1 or len(joined.input) != 4:
        return None
    (source,) = sources
    shape = view.shape(source)
    if shape is None or len(shape) != 4 or shape[2] % 2 or shape[3] % 2:
        return None
    # The slices are executed rather than parsed: every pixel holds its own index.
    numbers = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    inside = {id(n) for n in (*nodes, joined)}
    part = [n for n in view.model.graph.node if id(n) in inside]
    try:
        answer = run(submodel(view, part, {source: numbers}, [joined.output[0]]), {source: numbers})
    except CannotRun:
        return None
    return _origins(answer[0], numbers, source)


def _is_plain(inputs: dict[str, object]) -> bool:
    return (
        inputs.get("group", 1) == 1
        and inputs.get("strides", [1, 1]) == [1, 1]
        and inputs.get("dilations", [1, 1]) == [1, 1]
        and inputs.get("auto_pad", b"NOTSET") == b"NOTSET"
    )


def _slices(view: GraphView, names: Iterable[str]) -> tuple[list[onnx.NodeProto], set[str]]:
    nodes: list[onnx.NodeProto] = []
    sources: set[str] = set()
    for name in names:
        maker = view.producers.get(name)
        while maker is not None and maker.op_type == "Slice":
            nodes.append(maker)
            name = maker.input[0]
            maker = view.producers.get(name)
        sources.add(name)
    return nodes, sources


def _origins(answer: Array, numbers: Array, source: str) -> tuple[str, list[Origin]] | None:
    origins: list[Origin] = []
    rows, columns = numbers.shape[2:]
    if numbers.size >= 2**24 or answer.shape[2:] != (rows // 2, columns // 2):
        return None
    for plane in answer[0]:
        channel, rest = divmod(int(plane[0, 0]), rows * columns)
        row, column = divmod(rest, columns)
        if row > 1 or column > 1:
            return None
        if not np.array_equal(plane, numbers[0, channel, row::2, column::2]):
            return None
        origins.append((channel, row, column))
    return source, origins


def _spread(weight: Array, origins: list[Origin]) -> Array:
    """Spread weights (O, 4C, k, k) to (O, C, 2k, 2k)."""
    channels = 1 + max(channel for channel, _, _ in origins)
    outer, _, height, width = weight.shape
    spread = np.zeros((outer, channels, 2 * height, 2 * width), weight.dtype)
    for index, (channel, row, column) in enumerate(origins):
        spread[:, channel, row::2, column::2] += weight[:, index]
    return spread


# ---- the picture --------------------------------------------------------------------

_TO_FIRST, _TO_LAST = [0, 3, 1, 2], [0, 2, 3, 1]


def picture_as_floats(
    model: onnx.ModelProto, size: tuple[int, int] | None = None
) -> onnx.ModelProto:
    """Convert an image input to float32 NCHW, where it is 1xHxWxC, of integers, or has its channels
    swapped inside.

    A factor and an offset replace the graph's first operators, a 1x1 convolution reorders the
    channels, and transposes are removed.

    Args:
        model: The model; not modified.
        size: (height, width) in pixels, for a dynamic input size.

    Returns:
        A copy that takes float32 1xCxHxW; `model` itself for any other graph.
    """
    preprocessing = input_preprocessing(model, size)
    if preprocessing is None or not (preprocessing.moves or _is_unusual(model, preprocessing)):
        return model
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    kept = _without_front(graph, preprocessing.body)
    first, front = _scaled(graph, preprocessing)
    input_name = f"{preprocessing.name}_as_given"
    if any(preprocessing.name in node.input for node in kept):
        # Shape reads it, or the network begins with what is no preprocessing.
        _read_instead(kept, preprocessing.name, input_name)
        rank = len(preprocessing.shape)
        front += _as(
            preprocessing.name, preprocessing.layout, preprocessing.dtype, rank, input_name
        )
    if preprocessing.body_layout == "NHWC" and preprocessing.body_dtype == TensorProto.FLOAT:
        kept = _without_turning(
            kept,
            input_name if preprocessing.body == preprocessing.name else preprocessing.body,
            first,
        )
    if preprocessing.body != preprocessing.name:
        front += _as(
            first, preprocessing.body_layout, preprocessing.body_dtype, 4, preprocessing.body
        )
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in (*front, *kept)]
    del graph.node[:], graph.value_info[:]
    graph.node.extend(copies)
    _retyped(graph, preprocessing)
    return copy


def _is_unusual(model: onnx.ModelProto, input_preprocessing: InputPreprocessing) -> bool:
    """Whether the input is no float32 1xCxHxW. Half precision is widened with the whole graph."""
    widened = input_preprocessing.dtype == TensorProto.FLOAT16 and is_half(model)
    floats = input_preprocessing.dtype == TensorProto.FLOAT or widened
    return not floats or input_preprocessing.layout == "NHWC" or len(input_preprocessing.shape) != 4


def _without_front(graph: onnx.GraphProto, body: str) -> list[onnx.NodeProto]:
    """The nodes without those that lead to the tensor `body` alone."""
    requested = {output.name for output in graph.output}
    kept = []
    for node in reversed(graph.node):
        if body not in node.output and not requested.isdisjoint(node.output):
            kept.append(node)
            requested |= set(node.input) | captured_by(node)
    return kept[::-1]


def _scaled(
    graph: onnx.GraphProto, input_preprocessing: InputPreprocessing
) -> tuple[str, list[onnx.NodeProto]]:
    """What the network begins with as float32 1xCxHxW, and the nodes that make it."""
    order = np.zeros(
        (len(input_preprocessing.source), input_preprocessing.channels, 1, 1), np.float32
    )
    order[range(len(input_preprocessing.source)), input_preprocessing.source] = 1
    steps = [
        (
            "Mul",
            _column(input_preprocessing.gain),
            any(gain != 1 for gain in input_preprocessing.gain),
        ),
        ("Add", _column(input_preprocessing.shift), any(input_preprocessing.shift)),
        ("Conv", order, input_preprocessing.moves),
    ]
    if sorted(input_preprocessing.source) == list(range(input_preprocessing.channels)):
        # In the input's own order, where whoever reads the graph looks for it.
        back = np.argsort(input_preprocessing.source)
        steps[:2] = [(kind, value[:, back], needed) for kind, value, needed in steps[:2]]
    else:
        steps = [steps[2], *steps[:2]]
    at, nodes = input_preprocessing.name, []
    for operator, value, needed in steps:
        if needed:
            text = f"{input_preprocessing.name}_{operator.lower()}"
            graph.initializer.append(numpy_helper.from_array(value, f"{text}_by"))
            nodes.append(helper.make_node(operator, [at, f"{text}_by"], [text]))
            at = text
    return at, nodes


def _column(values: Sequence[float]) -> Array:
    return np.array(values, np.float32).reshape(1, -1, 1, 1)


def _as(source: str, layout: str, dtype: int, rank: int, target: str) -> list[onnx.NodeProto]:
    """Nodes from float32 1xCxHxW to another layout, type and number of dimensions."""
    steps: list[tuple[str, dict[str, Any]]] = []
    if layout == "NHWC":
        steps.append(("Transpose", {"perm": _TO_LAST}))
    if rank == 3:
        steps.append(("Squeeze", {}))
    if dtype != TensorProto.FLOAT or not steps:
        steps.append(("Cast", {"to": dtype}))
    names = [source, *(f"{target}_{number}" for number in range(len(steps) - 1)), target]
    return [
        helper.make_node(operator, [names[i]], [names[i + 1]], **options)
        for i, (operator, options) in enumerate(steps)
    ]


def _without_turning(
    nodes: Sequence[onnx.NodeProto], last: str, first: str
) -> list[onnx.NodeProto]:
    """`nodes` without those that put the channels of the tensor `last` first: who reads these
    reads `first`."""
    kept = list(nodes)
    for node in nodes:
        turns = node.op_type == "Transpose" and attributes(node).get("perm") == _TO_FIRST
        if turns and node.input[0] == last:
            kept.remove(node)
            _read_instead(kept, node.output[0], first)
    return kept


def _read_instead(nodes: Iterable[onnx.NodeProto], old: str, new: str) -> None:
    for node in nodes:
        for index, name in enumerate(node.input):
            if name == old:
                node.input[index] = new


def _retyped(graph: onnx.GraphProto, input_preprocessing: InputPreprocessing) -> None:
    """Declares the picture as float32 1xCxHxW; a batch or a side that was free stays so."""
    info = next(info for info in graph.input if info.name == input_preprocessing.name)
    kind = info.type.tensor_type
    kind.elem_type = TensorProto.FLOAT
    dims = [d.SerializeToString() for d in kind.shape.dim]
    batch = onnx.TensorShapeProto.Dimension(dim_value=1).SerializeToString()
    dims = dims if len(dims) == 4 else [batch, *dims]
    order = _TO_FIRST if input_preprocessing.layout == "NHWC" else range(4)
    del kind.shape.dim[:]
    kind.shape.dim.extend(onnx.TensorShapeProto.Dimension.FromString(dims[i]) for i in order)


# ---- pooling ------------------------------------------------------------------------


def depth_pool_to_plane(view: GraphView) -> None:
    """Rewrite a 3-D max pooling with a depth kernel of 1 as a slice of channels and a 2-D pooling,
    in place.

    LPRNet's MaxPool3d (1 x k x k) treats the channels as depth, and RKNN-Toolkit2 2.5.0 crashes on
    it (SIGABRT). The result is the same: no two planes are pooled together.
    """
    graph = view.model.graph
    for pool in [node for node in graph.node if node.op_type == "MaxPool"]:
        depth_pool = _depth_pool(view, pool)
        if depth_pool is None:
            continue
        before, after, step = depth_pool
        source, target = before.input[0], after.output[0]
        at = next(i for i, node in enumerate(graph.node) if node.output == pool.output)
        if step > 1:
            kept = f"{target}_planes"
            ends = {"starts": 0, "ends": np.iinfo(np.int64).max, "axes": 1, "steps": step}
            names = [f"{kept}_{word}" for word in ends]
            graph.initializer.extend(
                numpy_helper.from_array(np.array([value], np.int64), name)
                for name, value in zip(names, ends.values(), strict=True)
            )
            graph.node.insert(at, helper.make_node("Slice", [source, *names], [kept]))
            source = kept
        inputs = attributes(pool)
        pads = inputs.get("pads", [0] * 6)
        pool.input[0], pool.output[0] = source, target
        plane = {
            "kernel_shape": inputs["kernel_shape"][1:],
            "strides": inputs.get("strides", [1] * 3)[1:],
            "dilations": inputs.get("dilations", [1] * 3)[1:],
            "pads": [*pads[1:3], *pads[4:]],
            "ceil_mode": inputs.get("ceil_mode", 0),
        }
        del pool.attribute[:]
        pool.attribute.extend(helper.make_attribute(key, value) for key, value in plane.items())
        for gone in (before, after):
            graph.node.remove(gone)
    del graph.value_info[:]


def _depth_pool(
    view: GraphView, pool: onnx.NodeProto
) -> tuple[onnx.NodeProto, onnx.NodeProto, int] | None:
    """The nodes around a pooling of 1x1xCxHxW that add and remove a dimension, and the depth
    stride; None for any other pooling.
    """
    inputs = attributes(pool)
    before = view.producers.get(pool.input[0])
    readers = view.consumers.get(pool.output[0], [])
    if len(inputs["kernel_shape"]) != 3 or before is None or len(readers) != 1:
        return None
    after = readers[0]
    pads, dilations = inputs.get("pads", [0] * 6), inputs.get("dilations", [1] * 3)
    shapes = [
        view.shape(name)
        for name in (before.input[0], pool.input[0], pool.output[0], after.output[0])
    ]
    if (
        inputs["kernel_shape"][0] != 1
        or dilations[0] != 1
        or pads[0]
        or pads[3]
        or inputs.get("auto_pad", b"NOTSET") != b"NOTSET"
        or len(pool.output) > 1
        or not _has_single_consumer(view, before)
        or before.op_type not in ("Unsqueeze", "Reshape")
        or after.op_type not in ("Squeeze", "Reshape")
        or any(shape is None for shape in shapes)
    ):
        return None
    known = [shape for shape in shapes if shape is not None]
    flat = [(1, *known[0]), known[1], known[2], (1, *known[3])]
    if any(len(shape) != 5 or shape[:2] != (1, 1) for shape in flat):
        return None
    if flat[0] != flat[1] or flat[2] != flat[3]:
        return None
    return before, after, inputs.get("strides", [1] * 3)[0]


# ---- the end of a classifier --------------------------------------------------------

_SHAPING = ("Identity", "Reshape", "Flatten", "Squeeze")


def without_softmax(view: GraphView) -> None:
    """Remove the softmax at each output of a graph, in place, where there is one."""
    for output in view.model.graph.output:
        node = view.producers.get(output.name)
        while node is not None and node.op_type in _SHAPING:
            node = view.producers.get(node.input[0])
        if node is not None and node.op_type in ("Softmax", "LogSoftmax"):
            del node.attribute[:]
            node.op_type = "Identity"


_BYTES = {onnx.TensorProto.UINT8: 0.0, onnx.TensorProto.INT8: 128.0}


def bytes_as_floats(model: onnx.ModelProto) -> None:
    """Convert uint8 and int8 inputs to float32 inputs of 0..255, in place.

    The casts of a quantized model are removed; for an int8 input the offset of 128 is subtracted in
    the graph.
    """
    graph = model.graph
    for info in graph.input:
        offset = _BYTES.get(info.type.tensor_type.elem_type)
        if offset is None:
            continue
        readers = [node for node in graph.node if info.name in node.input]
        if any(node.op_type != "Cast" for node in readers):
            continue
        info.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
        model.metadata_props.add(key=TOOK_BYTES, value=info.name)
        for cast in readers:
            if offset:
                name = f"{cast.output[0]}_offset"
                graph.initializer.append(numpy_helper.from_array(np.float32(offset), name))
                new = helper.make_node("Sub", [info.name, name], cast.output, cast.name)
            else:
                new = helper.make_node("Identity", [info.name], cast.output, cast.name)
            cast.CopyFrom(new)
