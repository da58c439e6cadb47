"""How networks begin: the stems of YOLOX and of YOLOv5 before 6.0, and the patches of vision
transformers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import onnx

from rkzoo.graph.lowering.rewrites.rule import Writer
from rkzoo.graph.onnx.view import Array, GraphView, attributes, run, submodel
from rkzoo.ort import CannotRun

_WIDEST = 7  # stride of a convolution on the NPU


def focus(node: onnx.NodeProto, new: Writer) -> bool:
    """Four slices of every other pixel, put together, and the k x k convolution that reads them
    are one convolution, 2k x 2k with a stride of two: every pixel meets the same weight."""
    seen = _focus(new.view, node)
    weight = None if seen is None else new.value(node.input[1])
    if seen is None or weight is None:
        return False
    source, origins = seen
    given = attributes(node)
    new.add(
        "Conv",
        source,
        new.constant(_spread(weight, origins)),
        *node.input[2:],
        to=node.output[0],
        kernel_shape=[2 * size for size in weight.shape[2:]],
        strides=[2, 2],
        pads=[2 * pad for pad in given.get("pads", [0] * 4)],
    )
    return True


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
        or len(view.consumers.get(joined.output[0], [])) != 1
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


def patches(node: onnx.NodeProto, new: Writer) -> bool:
    """A convolution whose stride is its kernel, of more than 7 pixels, as one that brings the
    pixels of a smaller block into channels and one that weighs these: every pixel meets the same
    weight. RKNN-Toolkit2 2.5.0 computes it at a smaller stride (4 for 16, 7 for 14) and throws the
    cells between away: of SigLIP's 14x14 patches it makes 53x53."""
    weight = new.value(node.input[1])
    if weight is None or not _is_patches(weight, attributes(node)):
        return False
    step = max(a for a in range(2, _WIDEST + 1) if weight.shape[2] % a == 0)
    source = node.input[0]
    while weight.shape[2] > _WIDEST and weight.shape[2] % step == 0:
        gathered, weight = _split(weight, step)
        source = _by_blocks(new, source, gathered)
    _by_blocks(new, source, weight, *node.input[2:], to=node.output[0])
    return True


def _by_blocks(new: Writer, source: str, weight: Array, *bias: str, to: str = "") -> str:
    sides = list(weight.shape[2:])
    return new.add(
        "Conv", source, new.constant(weight), *bias, to=to, kernel_shape=sides, strides=sides
    )


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
