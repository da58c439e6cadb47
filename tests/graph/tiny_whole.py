"""Graphs that are no detection heads of YOLO's kind: classifiers, LPRNet, RetinaFace."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT = TensorProto.FLOAT
RANDOM = np.random.default_rng(7)


class Net:
    """A graph under construction, each method one node."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self._next = 0

    def name(self) -> str:
        self._next += 1
        return f"t{self._next}"

    def weight(self, *shape: int, like: np.ndarray | None = None) -> str:
        value = RANDOM.normal(size=shape).astype(np.float32) / 4 if like is None else like
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(value, name))
        return name

    def ints(self, *values: int) -> str:
        return self.weight(like=np.array(values, np.int64))

    def op(self, kind: str, *inputs: str, **attributes: object) -> str:
        made = self.name()
        self.nodes.append(helper.make_node(kind, list(inputs), [made], **attributes))
        return made

    def conv(self, x: str, before: int, after: int, kernel: int = 3, **attributes: object) -> str:
        if kernel == 3 and "pads" not in attributes:
            attributes["pads"] = [1] * 4
        return self.op(
            "Conv", x, self.weight(after, before, kernel, kernel), self.weight(after), **attributes
        )

    def model(self, shape: list[int | str], *outputs: str, opset: int = 13) -> onnx.ModelProto:
        infos = [onnx.ValueInfoProto(name=name) for name in outputs]
        for info in infos:
            info.type.tensor_type.elem_type = FLOAT
        graph = helper.make_graph(
            self.nodes,
            "g",
            [helper.make_tensor_value_info("images", FLOAT, shape)],
            infos,
            self.weights,
        )
        return helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8
        )


def features(net: Net, x: str = "images") -> str:
    """1x3xHxW to 1x8xH/2xW/2."""
    return net.op("Relu", net.conv(x, 3, 8, strides=[2, 2]))


def classifier(end: str = "gemm", classes: int = 12, size: int | str = 32) -> onnx.ModelProto:
    net = Net()
    x = features(net)
    shape: list[int | str] = [1, 3, size, size]
    if end == "squeezenet":
        x = net.op("Relu", net.conv(x, 8, classes, 1))
        x = net.op("Flatten", net.op("GlobalAveragePool", x))
        return net.model(shape, net.op("Softmax", x, axis=1))
    if end == "conv":
        x = net.conv(net.op("GlobalAveragePool", x), 8, classes, 1)
        return net.model(shape, x)
    pooled = net.op("ReduceMean", x, axes=[2, 3], keepdims=0)
    if end == "matmul":
        x = net.op("MatMul", pooled, net.weight(8, classes))
        return net.model(shape, net.op("Add", x, net.weight(classes)))
    if end == "bare":
        return net.model(shape, net.op("MatMul", pooled, net.weight(8, classes)))
    if end == "pooled":
        return net.model(shape, pooled)
    x = net.op("Gemm", pooled, net.weight(classes, 8), net.weight(classes), transB=1)
    if end == "softmax":
        x = net.op("Softmax", x, axis=1)
    if end == "unit":
        length = net.op("ReduceL2", x, axes=[1], keepdims=1)
        x = net.op("Div", x, length)
    if end == "norm":
        vectors = [net.weight(like=np.abs(RANDOM.normal(size=classes)).astype(np.float32))
                   for _ in range(4)]  # fmt: skip
        x = net.op("BatchNormalization", x, *vectors)
    return net.model(shape, x)


def channels_last(classes: int = 12) -> onnx.ModelProto:
    """As tf2onnx writes a classifier of TensorFlow: 1xHxWx3, turned at once."""
    net = Net()
    x = features(net, net.op("Transpose", "images", perm=[0, 3, 1, 2]))
    pooled = net.op("Squeeze", net.op("GlobalAveragePool", x), net.ints(2, 3))
    x = net.op("Add", net.op("MatMul", pooled, net.weight(8, classes)), net.weight(classes))
    return net.model(["N", 32, 32, 3], net.op("Softmax", x))


def lprnet(classes: int = 68, *, deep: bool = True) -> onnx.ModelProto:
    """Pools over the channels as depth, as PyTorch exports MaxPool3d of four dimensions."""
    net = Net()
    x = features(net)
    for step in (1, 2):
        kernel: dict[str, list[int]] = {"kernel_shape": [1, 3, 3], "strides": [step, 1, 2]}
        if deep:
            x = net.op("Unsqueeze", x, net.ints(0))
            x = net.op("Squeeze", net.op("MaxPool", x, **kernel), net.ints(0))
    channels = 4 if deep else 8
    x = net.conv(x, channels, classes, 1)
    return net.model([1, 3, 24, 94], net.op("ReduceMean", x, axes=[2], keepdims=0))


def retinaface(size: int = 64, *, softmax: bool = True, each: int = 2) -> onnx.ModelProto:
    net = Net()
    x = net.op("Relu", net.conv("images", 3, 8, kernel=4, strides=[4, 4], pads=[0] * 4))
    found: dict[int, list[str]] = {4: [], 2: [], 10: []}
    for _ in range(3):
        x = net.op("Relu", net.conv(x, 8, 8, kernel=2, strides=[2, 2], pads=[0] * 4))
        for width, parts in found.items():
            rows = net.op("Transpose", net.conv(x, 8, each * width, 1), perm=[0, 2, 3, 1])
            parts.append(net.op("Reshape", rows, net.ints(1, -1, width)))
    box, score, points = (net.op("Concat", *parts, axis=1) for parts in found.values())
    score = net.op("Softmax", score, axis=2) if softmax else score
    return net.model([1, 3, size, size], box, score, points)
