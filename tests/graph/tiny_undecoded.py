"""Small graphs whose head stops before its boxes are decoded, or decodes them from a cell's
corner, and what each must give, by loops in double precision after the publications.

Own code with random weights. NanoDet-Plus and RTMDet measure from the corner of a cell, PicoDet
and YOLOv8 from its centre; convolutions of stride 2 round up, so a side need not be a multiple.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto
from tiny_yolo import Builder


@dataclass(frozen=True)
class Raw:
    """`one`: a convolution makes box and classes. `tensors`: "rows" (a score and a box of each
    level, 1xNxC), "maps" (the same, 1xCxhxw), "fused" (one map a level) or "whole" (one tensor
    1xNxR). `box`: "raw", "pixels" or "exp pixels". `order` of a tensor that has several."""

    classes: int = 3
    bins: int = 8
    points: int = 0
    size: tuple[int, int] = (64, 96)
    strides: tuple[int, ...] = (8, 16, 32, 64)
    one: bool = True
    tensors: str = "rows"
    box: str = "raw"
    sigmoid: bool = True
    order: tuple[str, ...] = ("score", "box")

    def cells(self, stride: int) -> tuple[int, int]:
        return -(-self.size[0] // stride), -(-self.size[1] // stride)

    def widths(self) -> dict[str, int]:
        return {"score": self.classes, "box": 4 * self.bins, "points": 3 * self.points}


def features(b: Builder, net: Raw) -> list[str]:
    x, channels, stride, found = "images", 3, 1, []
    while stride < net.strides[-1]:
        weight = b.random.normal(0, 1 / np.sqrt(channels * 9), (8, channels, 3, 3))
        x = b.op(
            "Conv",
            [x, b.const(weight), b.const(b.random.normal(0, 0.5, 8))],
            kernel_shape=[3, 3],
            strides=[2, 2],
            pads=[1, 1, 1, 1],
        )
        x, channels, stride = b.op("Sigmoid", [x]), 8, 2 * stride
        if stride in net.strides:
            found.append(x)
    return found


def parts(b: Builder, net: Raw, x: str) -> dict[str, str]:
    """What a level's convolutions leave, by `order`."""
    widths = {name: net.widths()[name] for name in net.order}
    if not net.one:
        return {name: b.conv(x, 8, width) for name, width in widths.items()}
    whole = b.conv(x, 8, sum(widths.values()))
    names = b.ops("Split", [whole, b.ints(*widths.values())], len(widths), axis=1)
    return dict(zip(widths, names, strict=True))


def undecoded(net: Raw) -> onnx.ModelProto:
    b = Builder(17)
    levels = []
    for x, stride in zip(features(b, net), net.strides, strict=True):
        level = parts(b, net, x)
        if net.sigmoid:
            level["score"] = b.op("Sigmoid", [level["score"]])
        if net.box.startswith("exp"):
            level["box"] = b.op("Exp", [level["box"]])
        if net.box.endswith("pixels"):
            level["box"] = b.op("Mul", [level["box"], b.const(float(stride))])
        levels.append(level)
    if net.tensors in ("rows", "maps"):
        named = [level[part] for part in net.order for level in levels]
        outputs = [_rows(b, name) for name in named] if net.tensors == "rows" else named
    else:
        outputs = [b.op("Concat", [level[part] for part in net.order], axis=1) for level in levels]
        if net.tensors == "whole":
            rows = [_rows(b, name) for name in outputs]
            outputs = [b.op("Concat", rows, axis=1)]
    return b.model([("images", [1, 3, *net.size])], [(name, TensorProto.FLOAT) for name in outputs])


def _rows(b: Builder, name: str) -> str:
    """1xCxhxw to 1xNxC."""
    flat = b.op("Reshape", [name, b.ints(*(1, 0, -1))])
    return b.op("Transpose", [flat], perm=[0, 2, 1])


def read(net: Raw, outputs: Sequence[np.ndarray], offset: float) -> tuple[np.ndarray, ...]:
    """Boxes (N, 4) x1,y1,x2,y2, scores (N, C) and points (N, 3 * points) of a graph's answers."""
    tables = _tables(net, [np.asarray(o, np.float64) for o in outputs])
    boxes, scores, points = [], [], []
    for level, stride in zip(tables, net.strides, strict=True):
        _, columns = net.cells(stride)
        for cell, (box, score) in enumerate(zip(level["box"], level["score"], strict=True)):
            row, column = divmod(cell, columns)
            sides = _sides(net, box) * (1 if net.box.endswith("pixels") else stride)
            x, y = (column + offset) * stride, (row + offset) * stride
            boxes.append((x - sides[0], y - sides[1], x + sides[2], y + sides[3]))
            scores.append(score if net.sigmoid else 1 / (1 + np.exp(-score)))
            flat = level["points"][cell].reshape(-1, 3) if net.points else np.empty((0, 3))
            # https://docs.ultralytics.com/tasks/pose: (2 p + corner) * stride, and a sigmoid.
            xy = (2 * flat[:, :2] + (column, row)) * stride
            seen = 1 / (1 + np.exp(-flat[:, 2:]))
            points.append(np.concatenate((xy, seen), axis=1).ravel())
    return np.array(boxes), np.array(scores), np.array(points)


def _tables(net: Raw, outputs: list[np.ndarray]) -> list[dict[str, np.ndarray]]:
    """Of each level (cells, numbers) by part."""
    counts = [int(np.prod(net.cells(stride))) for stride in net.strides]
    flat = [o[0].reshape(o.shape[1], -1).T if o.ndim == 4 else o[0] for o in outputs]
    if net.tensors in ("rows", "maps"):
        levels = len(net.strides)
        return [
            {part: flat[number * levels + level] for number, part in enumerate(net.order)}
            for level in range(levels)
        ]
    if net.tensors == "whole":
        flat = np.split(flat[0], np.cumsum(counts)[:-1])
    ends = np.cumsum([net.widths()[part] for part in net.order])[:-1]
    return [dict(zip(net.order, np.split(rows, ends, axis=1), strict=True)) for rows in flat]


def _sides(net: Raw, box: np.ndarray) -> np.ndarray:
    if net.bins == 1:
        return box
    weight = np.exp(box.reshape(4, net.bins))
    return (weight / weight.sum(axis=1, keepdims=True)) @ np.arange(net.bins)


def decoded(net: Raw, offset: float = 0.0, *, logarithms: bool = False) -> onnx.ModelProto:
    """Corners 1xNx4 and scores 1xNxC, as an RTMDet whose boxes are decoded in the graph, or a
    PicoDet."""
    b = Builder(17)
    boxes, scores = [], []
    for x, stride in zip(features(b, net), net.strides, strict=True):
        level = parts(b, net, x)
        scores.append(_rows(b, b.op("Sigmoid", [level["score"]])))
        sides = _rows(b, level["box"])
        if net.bins > 1:
            shaped = b.op("Reshape", [sides, b.ints(1, -1, 4, net.bins)])
            weight = b.op("Softmax", [shaped], axis=3)
            bins = b.const(np.arange(net.bins)[:, None])
            sides = b.op("Reshape", [b.op("MatMul", [weight, bins]), b.ints(1, -1, 4)])
        sides = b.op("Exp", [sides]) if logarithms else sides
        rows, columns = net.cells(stride)
        y, x_ = np.divmod(np.arange(rows * columns), columns)
        centre = b.const((np.stack((x_, y), axis=1) + offset)[None] * stride)
        sides = b.op("Mul", [sides, b.const(float(stride))])
        low = b.op("Sub", [centre, b.slice(sides, 0, 2, 2)])
        high = b.op("Add", [centre, b.slice(sides, 2, 4, 2)])
        boxes.append(b.op("Concat", [low, high], axis=2))
    outputs = [b.op("Concat", boxes, axis=1), b.op("Concat", scores, axis=1)]
    return b.model([("images", [1, 3, *net.size])], [(name, TensorProto.FLOAT) for name in outputs])


YOLOV5_FACE = (
    ((4.0, 5.0), (8.0, 10.0), (13.0, 16.0)),
    ((23.0, 29.0), (43.0, 55.0), (73.0, 105.0)),
    ((146.0, 217.0), (231.0, 300.0), (335.0, 433.0)),
)


def yolov5_face(size: tuple[int, int] = (64, 96), classes: int = 1) -> onnx.ModelProto:
    """1xNx(15+C): centre, size, objectness, five points, classes, as
    https://github.com/deepcam-cn/yolov5-face exports it with its boxes decoded."""
    net = Raw(size=size, strides=(8, 16, 32))
    b, numbers = Builder(17), 15 + classes
    flat = []
    for x, stride, anchors in zip(features(b, net), net.strides, YOLOV5_FACE, strict=True):
        rows, columns = net.cells(stride)
        whole = b.op("Reshape", [b.conv(x, 8, 3 * numbers), b.ints(1, 3, numbers, rows, columns)])
        head = b.op("Transpose", [whole], perm=[0, 1, 3, 4, 2])
        xy, wh, seen, points, score = b.ops(
            "Split", [head, b.ints(2, 2, 1, 10, classes)], 5, axis=4
        )
        xy, wh, seen, score = (b.op("Sigmoid", [part]) for part in (xy, wh, seen, score))
        y, x_ = np.mgrid[0:rows, 0:columns]
        corner = np.stack((x_, y), axis=2)[None, None]
        size_ = b.const(np.array(anchors)[None, :, None, None])
        doubled = b.op("Add", [b.op("Mul", [xy, b.const(2.0)]), b.const(corner - 0.5)])
        xy = b.op("Mul", [doubled, b.const(float(stride))])
        twice = b.op("Mul", [wh, b.const(2.0)])
        wh = b.op("Mul", [b.op("Mul", [twice, twice]), size_])
        tiled = b.const(np.tile(np.array(anchors), 5)[None, :, None, None])
        places = b.op(
            "Add",
            [b.op("Mul", [points, tiled]), b.const(np.tile(corner * stride, 5))],
        )
        rows_of = b.op("Concat", [xy, wh, seen, places, score], axis=4)
        flat.append(b.op("Reshape", [rows_of, b.ints(1, -1, numbers)]))
    outputs = [b.op("Concat", flat, axis=1)]
    return b.model([("images", [1, 3, *size])], [(name, TensorProto.FLOAT) for name in outputs])


def yunet(size: tuple[int, int] = (64, 96), *, maps: bool = False) -> onnx.ModelProto:
    """Class, objectness, box and points of each level in outputs of their own, 1xNxC or 1xCxhxw, in
    the order of OpenCV's file: all classes first."""
    net = Raw(size=size, strides=(8, 16, 32))
    b = Builder(17)
    levels = [[b.conv(x, 8, width) for width in (1, 1, 4, 10)] for x in features(b, net)]
    outputs = []
    for part in range(4):
        for level in levels:
            name = level[part] if maps else _cells_last(b, level[part])
            outputs.append(b.op("Sigmoid", [name]) if part < 2 else name)
    return b.model([("images", [1, 3, *size])], [(name, TensorProto.FLOAT) for name in outputs])


def _cells_last(b: Builder, name: str) -> str:
    """1xCxhxw to 1xNxC, as PyTorch writes permute and view."""
    turned = b.op("Transpose", [name], perm=[0, 2, 3, 1])
    channels = b.op("Shape", [name])
    last = b.op("Gather", [channels, b.ints(1)], axis=0)
    return b.op("Reshape", [turned, b.op("Concat", [b.ints(1, -1), last], axis=0)])
