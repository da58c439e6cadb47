"""Spells a graph the way the toolkit can build it. Nothing here changes a result."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx
from onnx import helper, numpy_helper

from rkzoo.errors import RkzooError
from rkzoo.graph.onnx.view import Array, View, attributes, declared, run, submodel


def scale_after_product(seen: View) -> None:
    """(q * s)^T k becomes (q^T k) * s, in place, in front of a softmax.

    Ultralytics 8.4 exports the attention of YOLO11 and YOLO12 in the first spelling, and
    RKNN-Toolkit2 2.5.0 ends with an IndexError in its attention fusion; 2.3.2 takes both.
    """
    graph = seen.model.graph
    for index, node in reversed(list(enumerate(graph.node))):
        if node.op_type != "MatMul" or not _feeds_softmax(seen, node):
            continue
        scaled = _scaled_factor(seen, node)
        if scaled is None:
            continue
        holder, position, factor, scale = scaled
        holder.input[position] = factor
        product, raw = node.output[0], f"{node.output[0]}_unscaled"
        node.output[0] = raw
        graph.node.insert(index + 1, helper.make_node("Mul", [raw, scale], [product]))


def _feeds_softmax(seen: View, node: onnx.NodeProto) -> bool:
    after = seen.consumers.get(node.output[0], [])
    return len(after) == 1 and after[0].op_type == "Softmax"


def _scaled_factor(
    seen: View, product: onnx.NodeProto
) -> tuple[onnx.NodeProto, int, str, str] | None:
    """The node and input where a scaled factor enters, the factor without its scale, and
    the scale; None when no factor of the product is scaled by a single number."""
    for start in (0, 1):
        holder, position = product, start
        maker = seen.producers.get(holder.input[position])
        if maker is not None and maker.op_type == "Transpose" and _once(seen, maker):
            holder, position = maker, 0
            maker = seen.producers.get(holder.input[0])
        if maker is None or maker.op_type != "Mul" or not _once(seen, maker):
            continue
        for factor, scale in (tuple(maker.input), tuple(maker.input)[::-1]):
            number = seen.constant(scale)
            if number is not None and number.size == 1:
                return holder, position, factor, scale
    return None


def _once(seen: View, node: onnx.NodeProto) -> bool:
    return len(seen.consumers.get(node.output[0], [])) == 1


# ---- focus --------------------------------------------------------------------------


def focus_to_convolution(seen: View) -> None:
    """Four slices of every other pixel, put together and convolved k x k, become one
    convolution 2k x 2k of stride 2, in place.

    The stem of YOLOX and of YOLOv5 before 6.0. The NPU has no such slices: they would run on
    the processor. The numbers are the same, for every pixel meets the same weight.
    """
    graph = seen.model.graph
    for node in graph.node:
        found = _focus(seen, node)
        weight = None if found is None else seen.constant(node.input[1])
        if found is None or weight is None:
            continue
        source, origins = found
        name = f"{node.input[1]}_focus"
        graph.initializer.append(numpy_helper.from_array(_spread(weight, origins), name))
        given = attributes(node)
        del node.attribute[:]
        node.attribute.extend(
            [
                helper.make_attribute("kernel_shape", [2 * size for size in weight.shape[2:]]),
                helper.make_attribute("strides", [2, 2]),
                helper.make_attribute("pads", [2 * pad for pad in given.get("pads", [0] * 4)]),
            ]
        )
        node.input[0], node.input[1] = source, name


Origin = tuple[int, int, int]


def _focus(seen: View, node: onnx.NodeProto) -> tuple[str, list[Origin]] | None:
    """The picture that a convolution sees through a focus, and for each of its input
    channels the picture's channel, row offset and column offset."""
    if node.op_type != "Conv" or not _is_plain(attributes(node)):
        return None
    weight = seen.constant(node.input[1])
    joined = seen.producers.get(node.input[0])
    if weight is None or joined is None or joined.op_type != "Concat" or not _once(seen, joined):
        return None
    nodes, sources = _slices(seen, joined.input)
    if len(sources) != 1 or len(joined.input) != 4:
        return None
    (source,) = sources
    shape = seen.shape(source)
    if shape is None or len(shape) != 4 or shape[2] % 2 or shape[3] % 2:
        return None
    # What the slices do is asked, not read: every pixel carries its own number.
    numbers = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    inside = {id(n) for n in (*nodes, joined)}
    part = [n for n in seen.model.graph.node if id(n) in inside]
    try:
        answer = run(submodel(seen, part, {source: numbers}, [joined.output[0]]), {source: numbers})
    except RkzooError:
        return None
    return _origins(answer[0], numbers, source)


def _is_plain(given: dict[str, object]) -> bool:
    return (
        given.get("group", 1) == 1
        and given.get("strides", [1, 1]) == [1, 1]
        and given.get("dilations", [1, 1]) == [1, 1]
        and given.get("auto_pad", b"NOTSET") == b"NOTSET"
    )


def _slices(seen: View, names: Iterable[str]) -> tuple[list[onnx.NodeProto], set[str]]:
    nodes: list[onnx.NodeProto] = []
    sources: set[str] = set()
    for name in names:
        maker = seen.producers.get(name)
        while maker is not None and maker.op_type == "Slice":
            nodes.append(maker)
            name = maker.input[0]
            maker = seen.producers.get(name)
        sources.add(name)
    return nodes, sources


def _origins(answer: Array, numbers: Array, source: str) -> tuple[str, list[Origin]] | None:
    found: list[Origin] = []
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
        found.append((channel, row, column))
    return source, found


def _spread(weight: Array, origins: list[Origin]) -> Array:
    """(O, 4C, k, k) to (O, C, 2k, 2k)."""
    channels = 1 + max(channel for channel, _, _ in origins)
    outer, _, height, width = weight.shape
    spread = np.zeros((outer, channels, 2 * height, 2 * width), weight.dtype)
    for index, (channel, row, column) in enumerate(origins):
        spread[:, channel, row::2, column::2] += weight[:, index]
    return spread


# ---- the picture --------------------------------------------------------------------

_TO_FIRST = [0, 3, 1, 2]


def channels_first(model: onnx.ModelProto) -> onnx.ModelProto:
    """A graph that takes 1xHxWx3 and turns it at once, as exports from TensorFlow do, takes
    1x3xHxW instead. Any other graph comes back as it is; `model` is left as it was."""
    weights = {tensor.name for tensor in model.graph.initializer}
    fed = [info for info in model.graph.input if info.name not in weights]
    shape = declared(fed[0]) if len(fed) == 1 else None
    if shape is None or len(shape) != 4 or shape[3] != 3 or shape[1] == 3:
        return model
    name = fed[0].name
    readers = [node for node in model.graph.node if name in node.input]
    made = {output for node in readers for output in node.output}
    if (
        not readers
        or any(n.op_type != "Transpose" or attributes(n).get("perm") != _TO_FIRST for n in readers)
        or any(output.name in made for output in model.graph.output)
    ):
        return model
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for node in [node for node in copy.graph.node if name in node.input]:
        copy.graph.node.remove(node)
    for node in copy.graph.node:
        for index, read in enumerate(node.input):
            if read in made:
                node.input[index] = name
    info = next(info for info in copy.graph.input if info.name == name)
    dims = list(info.type.tensor_type.shape.dim)
    turned = [onnx.TensorShapeProto.Dimension.FromString(dims[i].SerializeToString())
              for i in _TO_FIRST]  # fmt: skip
    del info.type.tensor_type.shape.dim[:]
    info.type.tensor_type.shape.dim.extend(turned)
    del copy.graph.value_info[:]
    return copy


# ---- pooling ------------------------------------------------------------------------


def depth_pool_to_plane(seen: View) -> None:
    """A pooling over 1xC planes at once that skips planes becomes a slice of the channels and a
    plain pooling of each, in place.

    LPRNet's MaxPool3d with a kernel of 1 x k x k sees the channels as depth, and RKNN-Toolkit2
    2.5.0 dies of it (SIGABRT). The numbers are the same, for no two planes ever meet.
    """
    graph = seen.model.graph
    for pool in [node for node in graph.node if node.op_type == "MaxPool"]:
        found = _depth_pool(seen, pool)
        if found is None:
            continue
        before, after, step = found
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
        given = attributes(pool)
        pads = given.get("pads", [0] * 6)
        pool.input[0], pool.output[0] = source, target
        plane = {
            "kernel_shape": given["kernel_shape"][1:],
            "strides": given.get("strides", [1] * 3)[1:],
            "dilations": given.get("dilations", [1] * 3)[1:],
            "pads": [*pads[1:3], *pads[4:]],
            "ceil_mode": given.get("ceil_mode", 0),
        }
        del pool.attribute[:]
        pool.attribute.extend(helper.make_attribute(key, value) for key, value in plane.items())
        for gone in (before, after):
            graph.node.remove(gone)
    del graph.value_info[:]


def _depth_pool(
    seen: View, pool: onnx.NodeProto
) -> tuple[onnx.NodeProto, onnx.NodeProto, int] | None:
    """The nodes around a pooling of 1x1xCxHxW that add and take away a dimension, and the step
    between its planes; None for any other pooling."""
    given = attributes(pool)
    before = seen.producers.get(pool.input[0])
    readers = seen.consumers.get(pool.output[0], [])
    if len(given["kernel_shape"]) != 3 or before is None or len(readers) != 1:
        return None
    after = readers[0]
    pads, dilations = given.get("pads", [0] * 6), given.get("dilations", [1] * 3)
    shapes = [
        seen.shape(name)
        for name in (before.input[0], pool.input[0], pool.output[0], after.output[0])
    ]
    if (
        given["kernel_shape"][0] != 1
        or dilations[0] != 1
        or pads[0]
        or pads[3]
        or given.get("auto_pad", b"NOTSET") != b"NOTSET"
        or len(pool.output) > 1
        or not _once(seen, before)
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
    return before, after, given.get("strides", [1] * 3)[0]


# ---- the end of a classifier --------------------------------------------------------

_SHAPING = ("Identity", "Reshape", "Flatten", "Squeeze")


def without_softmax(seen: View) -> None:
    """Takes the softmax off each output of a graph, in place, where there is one."""
    for output in seen.model.graph.output:
        node = seen.producers.get(output.name)
        while node is not None and node.op_type in _SHAPING:
            node = seen.producers.get(node.input[0])
        if node is not None and node.op_type in ("Softmax", "LogSoftmax"):
            del node.attribute[:]
            node.op_type = "Identity"


TOOK_BYTES = "rkzoo.bytes"
"""The key of a model's metadata that says so: pixels go in as they are, 0..255."""

_BYTES = {onnx.TensorProto.UINT8: 0.0, onnx.TensorProto.INT8: 128.0}


def bytes_as_floats(model: onnx.ModelProto) -> None:
    """Inputs of bytes become floats of 0..255, in place: what a quantised model did with them
    first, to cast them, goes, and signed ones get the 128 taken off that was taken off before."""
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
