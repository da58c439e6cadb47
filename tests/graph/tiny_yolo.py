"""Small graphs with the head of YOLOv8 in the spellings that exporters use, and near misses.

Own code with random weights: three strided convolutions as a backbone, then the head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


@dataclass
class Builder:
    """Collects nodes and weights; every method gives the name of a tensor."""

    opset: int = 13
    inline: bool = False
    seed: int = 0
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[TensorProto] = field(default_factory=list)
    count: int = 0

    def __post_init__(self) -> None:
        self.random = np.random.default_rng(self.seed)

    def name(self) -> str:
        self.count += 1
        return str(1000 + self.count)

    def op(self, kind: str, inputs: Sequence[str], outputs: int = 1, **attributes: object) -> str:
        names = [self.name() for _ in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, **attributes))
        return names[0]

    def ops(self, kind: str, inputs: Sequence[str], outputs: int, **attrs: object) -> list[str]:
        self.op(kind, inputs, outputs, **attrs)
        return list(self.nodes[-1].output)

    def const(self, value: object, dtype: object = np.float32) -> str:
        array, name = np.asarray(value, dtype), self.name()
        if self.inline:
            tensor = numpy_helper.from_array(array)
            self.nodes.append(helper.make_node("Constant", [], [name], value=tensor))
        else:
            self.weights.append(numpy_helper.from_array(array, name))
        return name

    def ints(self, *values: int) -> str:
        return self.const(values, np.int64)

    def conv(self, x: str, inside: int, out: int, kernel: int = 1, stride: int = 1) -> str:
        weight = self.random.normal(
            0, 2 / np.sqrt(inside * kernel**2), (out, inside, kernel, kernel)
        )
        return self.op(
            "Conv",
            [x, self.const(weight), self.const(self.random.normal(0, 1, out))],
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
        )

    def reduce_sum(self, x: str, axis: int, keep: int) -> str:
        if self.opset < 13:
            return self.op("ReduceSum", [x], axes=[axis], keepdims=keep)
        return self.op("ReduceSum", [x, self.ints(axis)], keepdims=keep)

    def slice(self, x: str, start: int, end: int, axis: int) -> str:
        return self.op("Slice", [x, self.ints(start), self.ints(end), self.ints(axis)])

    def model(
        self,
        inputs: Sequence[tuple[str, Sequence[int | str]]],
        outputs: Sequence[tuple[str, int]],
        **notes: str,
    ) -> onnx.ModelProto:
        # The types of outputs are declared, their shapes are not: nothing may rely on them.
        graph = helper.make_graph(
            self.nodes,
            "tiny",
            [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs],
            [helper.make_tensor_value_info(n, t, None) for n, t in outputs],
            self.weights,
        )
        opsets = [helper.make_opsetid("", self.opset)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
        for key, value in notes.items():
            model.metadata_props.append(onnx.StringStringEntryProto(key=key, value=value))
        return model


@dataclass(frozen=True)
class Spec:
    """What to build. `tail`: "joined" is Ultralytics' own (levels joined, then decoded),
    "separate" decodes level by level in double precision, "weighted" sums the bins with a
    product instead of a convolution."""

    classes: int = 3
    bins: int = 16
    strides: tuple[int, ...] = (8, 16, 32)
    size: tuple[int, int] = (64, 96)
    tail: str = "joined"
    opset: int = 13
    inline: bool = False
    dynamic: bool = False
    sigmoid: str = "Sigmoid"
    corners: bool = False


Level = tuple[str, str, int]


def branches(b: Builder, spec: Spec, extra: int = 0) -> tuple[list[Level], list[str]]:
    """(box, score, stride) a level, and a third branch of `extra` channels a level."""
    levels, others = [], []
    x, channels, stride = "images", 3, 1
    for wanted in spec.strides:
        step = wanted // stride
        x = b.op("Relu", [b.conv(x, channels, 8, kernel=step, stride=step)])
        channels, stride = 8, wanted
        levels.append((b.conv(x, 8, 4 * spec.bins), b.conv(x, 8, spec.classes), stride))
        if extra:
            others.append(b.conv(x, 8, extra))
    return levels, others


def stock(spec: Spec = Spec(), extra: int = 0, **notes: str) -> onnx.ModelProto:
    """The graph with one output 1x(4+C)xN; `extra` adds rows of a third branch."""
    b = Builder(spec.opset, spec.inline)
    levels, others = branches(b, spec, extra)
    tails = {"joined": _joined, "separate": _separate, "weighted": _weighted}
    rows = tails[spec.tail](b, spec, levels)
    if others:
        flat = [b.op("Reshape", [o, b.ints(1, extra, -1)]) for o in others]
        rows = b.op("Concat", [rows, b.op("Concat", flat, axis=2)], axis=1)
    kind = TensorProto.DOUBLE if spec.tail == "separate" else TensorProto.FLOAT
    shape = [1, 3, *spec.size]
    return b.model(
        [("images", ["batch", 3, "height", "width"] if spec.dynamic else shape)],
        [(rows, kind)],
        **notes,
    )


def _activate(b: Builder, spec: Spec, x: str) -> str:
    if spec.sigmoid == "Softmax":
        return b.op("Softmax", [x], axis=1)
    return b.op("Sigmoid", [x]) if spec.sigmoid else x


def _grid(spec: Spec, stride: int) -> np.ndarray:
    """(2, cells) centres x, y in cells."""
    y, x = np.mgrid[0 : spec.size[0] // stride, 0 : spec.size[1] // stride] + 0.5
    return np.stack((x.ravel(), y.ravel()))


def _joined(b: Builder, spec: Spec, levels: Sequence[Level]) -> str:
    channels = 4 * spec.bins + spec.classes
    flat = []
    for box, score, _ in levels:
        both = b.op("Concat", [box, score], axis=1)
        if spec.dynamic:
            # The batch is read off the tensor, as exports with free dimensions do.
            batch = b.slice(b.op("Shape", [both]), 0, 1, 0)
            shape = b.op("Concat", [batch, b.ints(channels, -1)], axis=0)
        else:
            shape = b.ints(1, channels, -1)
        flat.append(b.op("Reshape", [both, shape]))
    whole = b.op("Concat", flat, axis=2)
    box, score = b.ops("Split", [whole, b.ints(4 * spec.bins, spec.classes)], 2, axis=1)
    if spec.bins > 1:
        bins = b.op("Reshape", [box, b.ints(1, 4, spec.bins, -1)])
        weight = b.op("Softmax", [b.op("Transpose", [bins], perm=[0, 2, 1, 3])], axis=1)
        kernel = b.const(np.arange(spec.bins).reshape(1, spec.bins, 1, 1))
        box = b.op("Conv", [weight, kernel], kernel_shape=[1, 1])
    sides = b.op("Reshape", [box, b.ints(1, 4, -1)])
    grid = np.concatenate([_grid(spec, s) for _, _, s in levels], axis=1)
    steps = np.concatenate([np.full(_grid(spec, s).shape[1], s) for _, _, s in levels])
    boxes = _boxes(b, spec, sides, b.const(grid[None]))
    return b.op(
        "Concat", [b.op("Mul", [boxes, b.const(steps[None])]), _activate(b, spec, score)], axis=1
    )


def _boxes(b: Builder, spec: Spec, sides: str, grid: str) -> str:
    low = b.op("Sub", [grid, b.slice(sides, 0, 2, 1)])
    high = b.op("Add", [grid, b.slice(sides, 2, 4, 1)])
    if spec.corners:
        return b.op("Concat", [low, high], axis=1)
    centre = b.op("Div", [b.op("Add", [low, high]), b.const(2.0)])
    return b.op("Concat", [centre, b.op("Sub", [high, low])], axis=1)


def _separate(b: Builder, spec: Spec, levels: Sequence[Level]) -> str:
    parts = []
    for box, score, stride in levels:
        cells = _grid(spec, stride).shape[1]
        bins = b.op("Reshape", [box, b.ints(1, 4, spec.bins, cells)])
        turned = b.op("Transpose", [bins], perm=[0, 1, 3, 2])
        weight = b.op("Transpose", [b.op("Softmax", [turned], axis=3)], perm=[0, 1, 3, 2])
        index = b.const(np.arange(spec.bins).reshape(1, 1, spec.bins, 1))
        sides = b.reduce_sum(b.op("Mul", [weight, index]), 2, 0)
        sides = b.op("Cast", [sides], to=TensorProto.DOUBLE)
        grid = b.const(_grid(spec, stride)[None], np.float64)
        low = b.op("Sub", [grid, b.slice(sides, 0, 2, 1)])
        high = b.op("Add", [grid, b.slice(sides, 2, 4, 1)])
        step = b.const(float(stride), np.float64)
        half = b.op("Div", [b.op("Add", [low, high]), b.const(2.0, np.float64)])
        centre = b.op("Mul", [half, step])
        size = b.op("Mul", [b.op("Sub", [high, low]), step])
        # Here the shape comes from the graph, as in exports that were traced with sizes.
        batch = b.slice(b.op("Shape", [score]), 0, 2, 0)
        shape = b.op("Concat", [batch, b.ints(-1)], axis=0)
        scores = _activate(b, spec, b.op("Reshape", [score, shape]))
        double = b.op("Cast", [scores], to=TensorProto.DOUBLE)
        parts.append(b.op("Concat", [centre, size, double], axis=1))
    return b.op("Concat", parts, axis=2)


def _weighted(b: Builder, spec: Spec, levels: Sequence[Level]) -> str:
    boxes = [b.op("Reshape", [box, b.ints(1, 4, spec.bins, -1)]) for box, _, _ in levels]
    turned = b.op("Transpose", [b.op("Concat", boxes, axis=3)], perm=[0, 1, 3, 2])
    weight = b.op("Softmax", [turned], axis=-1)
    index = b.const(np.arange(spec.bins).reshape(spec.bins, 1))
    sides = b.op("Reshape", [b.op("MatMul", [weight, index]), b.ints(1, 4, -1)])
    grid = np.concatenate([_grid(spec, s) for _, _, s in levels], axis=1)
    steps = np.concatenate([np.full(_grid(spec, s).shape[1], s) for _, _, s in levels])
    scaled = b.op("Mul", [_boxes(b, spec, sides, b.const(grid[None])), b.const(steps[None])])
    # The sigmoid comes before the flattening here.
    active = [_activate(b, spec, score) for _, score, _ in levels]
    flat = [b.op("Reshape", [a, b.ints(1, spec.classes, -1)]) for a in active]
    return b.op("Concat", [scaled, b.op("Concat", flat, axis=2)], axis=1)


def vendor(
    spec: Spec = Spec(), sums: bool = True, order: Sequence[int] | None = None
) -> onnx.ModelProto:
    """Box, score and perhaps their clipped sum a level; `order` permutes the outputs."""
    b = Builder(spec.opset, spec.inline)
    levels, _ = branches(b, spec)
    names = []
    for box, score, _ in levels:
        active = _activate(b, spec, score)
        names += [box, active]
        if sums:
            total = b.reduce_sum(active, 1, 1)
            names.append(b.op("Clip", [total, b.const(0.0), b.const(1.0)]))
    picked = [names[i] for i in order] if order is not None else names
    return b.model([("images", [1, 3, *spec.size])], [(n, TensorProto.FLOAT) for n in picked])


def decode(
    outputs: Sequence[np.ndarray], strides: Sequence[int], activated: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Plain float64 reference of the head, cell by cell: boxes cx,cy,w,h and scores."""
    boxes, scores = [], []
    for level, stride in enumerate(strides):
        box, score = outputs[2 * level][0].astype(np.float64), outputs[2 * level + 1][0]
        for row in range(box.shape[1]):
            for column in range(box.shape[2]):
                bins = np.exp(box[:, row, column].reshape(4, -1))
                left, top, right, bottom = (
                    (bins / bins.sum(axis=1, keepdims=True)) @ np.arange(bins.shape[1]) * stride
                )
                x, y = (column + 0.5) * stride, (row + 0.5) * stride
                boxes.append(
                    (x + (right - left) / 2, y + (bottom - top) / 2, left + right, top + bottom)
                )
                raw = score[:, row, column].astype(np.float64)
                scores.append(raw if activated else 1 / (1 + np.exp(-raw)))
    return np.array(boxes), np.array(scores)


def read_cut(outputs: Sequence[np.ndarray], strides: Sequence[int]):
    """`decode` in the form that a proof wants: corners, scores, no extras."""
    boxes, scores = decode(outputs, strides)
    return corners(boxes), scores, np.empty((len(boxes), 0))


def read_whole(outputs: Sequence[np.ndarray], activated: bool = True):
    """The stock tensor 1x(4+C)xN in the same form."""
    table = outputs[0][0].T.astype(np.float64)
    scores = table[:, 4:] if activated else 1 / (1 + np.exp(-table[:, 4:]))
    return corners(table[:, :4]), scores, np.empty((len(table), 0))


def corners(boxes: np.ndarray) -> np.ndarray:
    half = boxes[:, 2:] / 2
    return np.concatenate((boxes[:, :2] - half, boxes[:, :2] + half), axis=1)
