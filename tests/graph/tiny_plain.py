"""Graphs whose heads no recogniser knows: several inputs, whole numbers, five dimensions, one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper
from tiny_whole import Net

KINDS = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64, "uint8": TensorProto.UINT8}
Shapes = Mapping[str, Sequence[int | str]]


def built(net: Net, inputs: Shapes, outputs: Shapes, dtype: str = "float32") -> onnx.ModelProto:
    """The graph of a net with these inputs, all of one type, and float outputs."""
    kind = KINDS[dtype]
    graph = helper.make_graph(
        net.nodes,
        "plain",
        [helper.make_tensor_value_info(name, kind, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in outputs.items()],
        net.weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def tokens() -> onnx.ModelProto:
    """Three inputs of int64 (1, 12), as sentence encoders take; (1, 12, 16) out."""
    net = Net()
    ids = net.op("Gather", net.weight(50, 16), "input_ids")
    kinds = net.op("Gather", net.weight(8, 16), "token_type_ids")
    mask = net.op("Cast", "attention_mask", to=TensorProto.FLOAT)
    mask = net.op("Unsqueeze", mask, net.ints(2))
    x = net.op("Mul", net.op("Add", ids, kinds), mask)
    y = net.op("MatMul", x, net.weight(16, 16))
    names = ("input_ids", "attention_mask", "token_type_ids")
    return built(net, dict.fromkeys(names, (1, 12)), {y: (1, 12, 16)}, "int64")


def two_pictures(template: Sequence[int | str] = (1, 3, 32, 32)) -> onnx.ModelProto:
    """A template and where it is searched for; two outputs of different shape."""
    net = Net()
    a = net.op("Relu", net.conv("template", 3, 8))
    b = net.op("Relu", net.conv("search", 3, 8))
    kernel = net.op("GlobalAveragePool", a)
    joined = net.op("Relu", net.conv(net.op("Mul", b, kernel), 8, 8))
    score = net.op("Sigmoid", net.conv(joined, 8, 1, 1))
    place = net.conv(joined, 8, 2, 1, strides=[2, 2])
    inputs: Shapes = {"template": template, "search": (1, 3, 64, 64)}
    return built(net, inputs, {score: (1, 1, 64, 64), place: (1, 2, 32, 32)})


def video() -> onnx.ModelProto:
    """Seven frames (1, 7, 3, 16, 24), five dimensions; (1, 7, 8) out."""
    net = Net()
    x = net.op("Reshape", "frames", net.ints(7, 3, 16, 24))
    x = net.op("Relu", net.conv(x, 3, 8))
    y = net.op("Reshape", net.op("GlobalAveragePool", x), net.ints(1, 7, 8))
    return built(net, {"frames": (1, 7, 3, 16, 24)}, {y: (1, 7, 8)})


def signal(length: int | str = 64) -> onnx.ModelProto:
    """One dimension, (64,) in and (8,) out."""
    net = Net()
    x = net.op("Reshape", "signal", net.ints(1, 64))
    y = net.op("Relu", net.op("MatMul", x, net.weight(64, 8)))
    return built(net, {"signal": (length,)}, {net.op("Reshape", y, net.ints(8)): (8,)})


def best() -> onnx.ModelProto:
    """Scores and the place of the highest, a whole number, never 0."""
    net = Net()
    scores = net.op("Softmax", net.op("MatMul", "x", net.weight(16, 9)), axis=1)
    place = net.op("Add", net.op("ArgMax", scores, axis=1, keepdims=0), net.ints(1))
    model = built(net, {"x": (1, 16)}, {scores: (1, 9), place: (1,)})
    model.graph.output[1].type.tensor_type.elem_type = TensorProto.INT64
    return model


def sequence_batch() -> onnx.ModelProto:
    """A batch of four (4, 10, 16), which calibration must keep whole."""
    net = Net()
    y = net.op("Relu", net.op("MatMul", "x", net.weight(16, 8)))
    return built(net, {"x": (4, 10, 16)}, {y: (4, 10, 8)})


def one_picture(sides: tuple[int | str, int | str] = (32, 32)) -> onnx.ModelProto:
    """Five maps, twice as large as the picture."""
    net = Net()
    x = net.op("Relu", net.conv("picture", 3, 12))
    y = net.op("DepthToSpace", net.conv(x, 12, 20), blocksize=2)
    return built(net, {"picture": (1, 3, *sides)}, {y: (1, 5, "h", "w")})


def sample(model: onnx.ModelProto, seed: int = 0) -> dict[str, np.ndarray]:
    """Random numbers for each input in its own shape and type; pixels for one that looks like a
    picture, uint8 (H, W, 3)."""
    random = np.random.default_rng(seed)

    def one(info: onnx.ValueInfoProto) -> np.ndarray:
        shape = [d.dim_value for d in info.type.tensor_type.shape.dim]
        if info.type.tensor_type.elem_type == TensorProto.INT64:
            return random.integers(0, 2, shape)
        if len(shape) == 4 and shape[1] == 3:
            return random.integers(0, 256, (*shape[2:], 3), np.uint8)
        return random.standard_normal(shape).astype(np.float32)

    return {info.name: one(info) for info in model.graph.input}


def as_the_graph_takes(given: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The sample for ONNX Runtime itself: a BGR picture as RGB / 255, (1, 3, H, W)."""
    return {
        name: (array[None, ..., ::-1].transpose(0, 3, 1, 2) / np.float32(255)).astype(np.float32)
        if array.dtype == np.uint8
        else array
        for name, array in given.items()
    }
