"""The models that Rockchip's library is shown: heads of every kind that the zoo reads, and
tensors of every kind that a network may have. Real weights where there are any."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from rkzoo.toolkit.recipe import Dtype, InputPlan

sys.path.insert(0, str(Path(__file__).parents[1] / "graph"))
import tiny_anchor_heads
import tiny_heads
import tiny_plain
import tiny_whisper
import tiny_whole
from tiny_yolo import Builder, Spec

Array = NDArray[Any]

PICTURE = InputPlan(name="images", shape=(1, 3, 32, 32), mean=(0.0,) * 3, std=(255.0,) * 3)


@dataclass(frozen=True)
class Net:
    """A graph with what the toolkit is told of its inputs; random numbers calibrate it."""

    graph: onnx.ModelProto
    inputs: tuple[InputPlan, ...]


@dataclass(frozen=True)
class Entry:
    """One model: a file of the assets or a card's name (`source`), a graph that rkzoo
    recognises (`graph`), or one that it is told about (`net`). `photo`: a picture of the assets
    that it is shown whole, so that what is found can be compared; `fitted`: in the model's size,
    since two processors scale a picture a little differently."""

    name: str
    dtype: Dtype = "int8"
    source: str = ""
    graph: Callable[[], onnx.ModelProto] | None = None
    net: Callable[[], Net] | None = None
    photo: str = ""
    fitted: bool = False


def picture(channels: int, size: int = 32, name: str = "images") -> InputPlan:
    return InputPlan(
        name=name, shape=(1, channels, size, size), mean=(0.0,) * channels, std=(255.0,) * channels
    )


def convolutions(inside: int, outs: Sequence[int], plan: InputPlan, *, size: int = 8) -> Net:
    """One convolution for each of these counts of channels, on an 8x8 map."""
    b = Builder(seed=3)
    height = plan.shape[2]
    x = b.op("Relu", [b.conv("images", inside, 16, height // size, height // size)])
    made = [(b.op("Relu", [b.conv(x, 16, count)]), TensorProto.FLOAT) for count in outs]
    return Net(b.model([("images", plan.shape)], made), (plan,))


def fed(channels: int) -> Net:
    """A picture with so many channels in."""
    return convolutions(channels, (20,), picture(channels))


def map_in() -> Net:
    """A feature map in: four dimensions, and no picture."""
    plan = InputPlan(name="images", shape=(1, 24, 10, 10))
    b = Builder(seed=4)
    return Net(
        b.model([("images", plan.shape)], [(b.op("Relu", [b.conv("images", 24, 40)]), 1)]), (plan,)
    )


def two_channels() -> Net:
    plan = InputPlan(name="images", shape=(1, 2, 16, 16))
    b = Builder(seed=5)
    return Net(
        b.model([("images", plan.shape)], [(b.op("Relu", [b.conv("images", 2, 12)]), 1)]), (plan,)
    )


def several() -> Net:
    """A picture, a feature map and a vector in."""
    b = Builder(seed=6)
    x = b.op("Relu", [b.conv("images", 3, 16, 2, 2)])
    joined = b.op("Concat", [x, b.op("Relu", [b.conv("map", 8, 8)])], axis=1)
    weight = b.const(b.random.normal(0, 0.3, (12, 24)))
    gate = b.op("Reshape", [b.op("MatMul", ["vector", weight]), b.ints(1, 24, 1, 1)])
    y = b.op("Relu", [b.conv(b.op("Mul", [joined, gate]), 24, 18)])
    shapes = {"images": (1, 3, 32, 32), "map": (1, 8, 16, 16), "vector": (1, 12)}
    plans = (
        picture(3),
        InputPlan(name="map", shape=shapes["map"]),
        InputPlan(name="vector", shape=shapes["vector"]),
    )
    return Net(b.model(list(shapes.items()), [(y, 1)]), plans)


def flat() -> Net:
    """Numbers without a place."""
    b = Builder(seed=7)
    x = b.op("Relu", [b.conv("images", 3, 16, 4, 4)])
    x = b.op("Reshape", [b.op("GlobalAveragePool", [x]), b.ints(1, 16)])
    y = b.op("Gemm", [x, b.const(b.random.normal(0, 1, (16, 37))), b.const(np.zeros(37))])
    return Net(b.model([("images", (1, 3, 32, 32))], [(y, 1)]), (picture(3),))


def vector_in() -> Net:
    b = Builder(seed=8)
    y = b.op("Gemm", ["x", b.const(b.random.normal(0, 1, (48, 30))), b.const(np.zeros(30))])
    plan = InputPlan(name="x", shape=(1, 48))
    return Net(b.model([("x", plan.shape)], [(b.op("Relu", [y]), 1)]), (plan,))


def whole_numbers() -> Net:
    """int64 in, as tokens are."""
    b = Builder(seed=9)
    x = b.op("Gather", [b.const(b.random.normal(0, 1, (50, 32))), "tokens"], axis=0)
    y = b.op("MatMul", [x, b.const(b.random.normal(0, 0.3, (32, 20)))])
    plan = InputPlan(name="tokens", shape=(1, 12), dtype="int64")
    graph = helper.make_graph(
        b.nodes,
        "tiny",
        [helper.make_tensor_value_info("tokens", TensorProto.INT64, plan.shape)],
        [helper.make_tensor_value_info(y, TensorProto.FLOAT, [1, 12, 20])],
        b.weights,
    )
    opset = [helper.make_opsetid("", 13)]
    return Net(helper.make_model(graph, opset_imports=opset, ir_version=8), (plan,))


def batch() -> Net:
    b = Builder(seed=10)
    plan = InputPlan(name="images", shape=(3, 3, 16, 16), mean=(0.0,) * 3, std=(255.0,) * 3)
    y = b.op("Relu", [b.conv("images", 3, 20, 2, 2)])
    return Net(b.model([("images", plan.shape)], [(y, 1)]), (plan,))


def two_pictures() -> Net:
    """A tracker's: one picture as pixels, the other as the floats that rkzoo makes of it."""
    shapes = {"template": (1, 3, 32, 32), "search": (1, 3, 64, 64)}
    plans = (picture(3, name="template"), InputPlan(name="search", shape=shapes["search"]))
    return Net(tiny_plain.two_pictures(), plans)


def frames() -> Net:
    """Five dimensions in, three out."""
    return Net(tiny_plain.video(), (InputPlan(name="frames", shape=(1, 7, 3, 16, 24)),))


def three_tokens() -> Net:
    """Three inputs of int64, as sentence encoders take."""
    graph = tiny_plain.tokens()
    plans = [InputPlan(name=one.name, shape=(1, 12), dtype="int64") for one in graph.graph.input]
    return Net(graph, tuple(plans))


def yolo(classes: int, task: str = "") -> onnx.ModelProto:
    return tiny_heads.build(
        tiny_heads.Head(spec=Spec(classes=classes, size=(64, 96), opset=17), task=task)
    )


def decoder() -> Net:
    """Whisper's decoder with small dimensions, made by what makes the real one."""
    graph = tiny_whisper.decoder()
    kinds = {TensorProto.INT64: "int64", TensorProto.INT32: "int32"}
    return Net(
        graph,
        tuple(
            InputPlan(
                name=one.name,
                shape=tuple(d.dim_value for d in one.type.tensor_type.shape.dim),
                dtype=kinds.get(one.type.tensor_type.elem_type, "float32"),  # type: ignore[arg-type]
            )
            for one in graph.graph.input
        ),
    )


CHANNELS = (1, 8, 16, 17, 33, 64, 80, 85, 255)

MODELS = (
    Entry("yolov8n", source="models/yolov8n.onnx", photo="bus_640.jpg"),
    Entry("yolov8n-fp16", "fp16", source="models/yolov8n.onnx", photo="zidane.jpg", fitted=True),
    Entry("yolov8n-seg", source="models/yolov8n-seg.onnx", photo="bus_640.jpg"),
    Entry("yolov8n-pose", source="models/yolov8n-pose.onnx", photo="zidane.jpg", fitted=True),
    Entry("yolox-nano", source="models/yolox_nano.onnx", photo="dog_224.jpg"),
    Entry(
        "retinaface", source="models/retinaface_mobile0.25_320.onnx", photo="face.jpg", fitted=True
    ),
    Entry("lprnet", source="models/lprnet.onnx"),
    Entry("mobilenetv2", source="models/mobilenetv2.onnx", photo="bell.jpg"),
    Entry("ppocr-v4-det", source="ppocr-v4-det", photo="ocr_page.jpg"),
    Entry("ppocr-v4-rec-fp16", "fp16", source="ppocr-v4-rec", photo="ocr_line.png"),
    Entry("one-class", graph=lambda: yolo(1), photo="bus_640.jpg"),
    Entry("33-classes", graph=lambda: yolo(33)),
    Entry("rotated", graph=lambda: yolo(5, "obb"), photo="aerial_obb.jpg"),
    Entry("masks-fp16", "fp16", graph=lambda: yolo(7, "seg")),
    Entry(
        "yolov5",
        graph=lambda: tiny_anchor_heads.anchored(tiny_anchor_heads.Net(classes=80)),
        photo="bus_640.jpg",
    ),
    Entry("yolov6", graph=tiny_anchor_heads.yolov6),
    Entry("ppyoloe", graph=tiny_anchor_heads.ppyoloe),
    Entry("classifier", graph=lambda: tiny_whole.classifier(classes=12)),
    Entry("channels", net=lambda: convolutions(3, CHANNELS, PICTURE)),
    Entry("channels-fp16", "fp16", net=lambda: convolutions(3, CHANNELS, PICTURE)),
    Entry("grey", net=lambda: fed(1)),
    Entry("four-channels", net=lambda: fed(4)),
    Entry("two-channels", net=two_channels),
    Entry("two-channels-fp16", "fp16", net=two_channels),
    Entry("map", net=map_in),
    Entry("map-fp16", "fp16", net=map_in),
    Entry("several", net=several),
    Entry("several-fp16", "fp16", net=several),
    Entry("vector", net=vector_in),
    Entry("vector-fp16", "fp16", net=vector_in),
    Entry("flat", net=flat),
    Entry("tokens-fp16", "fp16", net=whole_numbers),
    Entry("batch-fp16", "fp16", net=batch),
    Entry("two-pictures-fp16", "fp16", net=two_pictures),
    Entry("frames", net=frames),
    Entry("frames-fp16", "fp16", net=frames),
    Entry("tokens-three-fp16", "fp16", net=three_tokens),
    Entry("whisper-decoder-fp16", "fp16", net=decoder),
)


def named(name: str) -> Entry:
    return next(entry for entry in MODELS if entry.name == name)


def samples(plan: InputPlan, count: int, seed: int) -> Array:
    """Random numbers for an input: uint8 NHWC for a picture, else in the graph's order."""
    random = np.random.default_rng(seed)
    batch_size, *rest = plan.shape
    if plan.mean:
        channels, height, width = rest
        return random.integers(0, 256, (count * batch_size, height, width, channels), np.uint8)
    if plan.dtype != "float32":
        return random.integers(0, 8, (count * batch_size, *rest)).astype(plan.dtype)
    return random.normal(0, 1, (count * batch_size, *rest)).astype(np.float32)
