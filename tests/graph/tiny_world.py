"""A small YOLO-World in Rockchip's form: picture and texts in, score and box a level out.

Own code with random weights: three strided convolutions, whose features the texts attend to as
in the paper's neck (the best of all texts), then box and score heads.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto
from tiny_yolo import Builder, Spec, _joined


@dataclass(frozen=True)
class World:
    """`order` is how a level's outputs follow each other; `spoil` breaks one promise."""

    slots: int = 8
    width: int = 16
    bins: int = 16
    size: tuple[int, int] = (64, 96)
    strides: tuple[int, ...] = (8, 16, 32)
    opset: int = 12
    einsum: bool = False
    order: str = "score-box"
    texts_first: bool = False
    dynamic: bool = False
    sigmoid: bool = True
    spoil: str = ""


def build(world: World = World(), seed: int = 0) -> onnx.ModelProto:
    b = Builder(world.opset, seed=seed)
    words = b.op("Transpose", ["texts"], perm=[0, 2, 1])
    outputs: list[str] = []
    x, channels, stride = "images", 3, 1
    for wanted in world.strides:
        step = wanted // stride
        x = b.op("Relu", [b.conv(x, channels, world.width, kernel=step, stride=step)])
        channels, stride = world.width, wanted
        x = _attended(b, world, x, words, wanted)
        pair = {"score": _score(b, world, x, words, wanted), "box": _box(b, world, x, wanted)}
        outputs += [pair[name] for name in world.order.split("-")]
    size: list[int | str] = ["h", "w"] if world.dynamic else list(world.size)
    inputs: list[tuple[str, list[int | str]]] = [
        ("images", [1, 3, *size]),
        ("texts", [1, world.slots, world.width]),
    ]
    if world.texts_first:
        inputs.reverse()
    return b.model(inputs, [(name, TensorProto.FLOAT) for name in outputs])


def _hw(world: World, stride: int) -> tuple[int, int]:
    return world.size[0] // stride, world.size[1] // stride


def _rows(b: Builder, world: World, x: str) -> str:
    """(1, cells, width)"""
    return b.op("Transpose", [b.op("Reshape", [x, b.ints(1, world.width, -1)])], perm=[0, 2, 1])


def _attended(b: Builder, world: World, x: str, words: str, stride: int) -> str:
    h, w = _hw(world, stride)
    likeness = b.op("MatMul", [_rows(b, world, x), words])
    best = b.op("ReduceMax", [likeness], axes=[2], keepdims=0)
    gate = b.op("Reshape", [b.op("Sigmoid", [best]), b.ints(1, 1, h, w)])
    return b.op("Mul", [x, gate])


def _score(b: Builder, world: World, x: str, words: str, stride: int) -> str:
    h, w = _hw(world, stride)
    mapped = b.conv(x, world.width, world.width)
    if world.spoil == "no texts":
        logits = b.conv(x, world.width, world.slots)
    elif world.einsum:
        logits = b.op("Einsum", [mapped, "texts"], equation="bchw,bkc->bkhw")
    else:
        product = b.op("MatMul", [_rows(b, world, mapped), words])
        turned = b.op("Transpose", [product], perm=[0, 2, 1])
        logits = b.op("Reshape", [turned, b.ints(1, world.slots, h, w)])
    logits = b.op("Add", [b.op("Mul", [logits, b.const(0.5)]), b.const(-1.0)])
    if world.spoil == "slots":
        logits = b.slice(logits, 0, world.slots - 1, 1)
    if world.spoil == "tanh":
        return b.op("Tanh", [logits])
    return b.op("Sigmoid", [logits]) if world.sigmoid else logits


def _box(b: Builder, world: World, x: str, stride: int) -> str:
    h, w = _hw(world, stride)
    raw = b.conv(x, world.width, 4 * world.bins)
    if world.bins == 1:
        return raw
    shaped = b.op("Reshape", [raw, b.ints(1, 4, world.bins, h * w)])
    weight = b.op("Softmax", [b.op("Transpose", [shaped], perm=[0, 3, 1, 2])], axis=3)
    steps = np.arange(world.bins) * (2 if world.spoil == "box" else 1)
    mean = b.op("MatMul", [weight, b.const(steps.reshape(-1, 1))])
    flat = b.op("Reshape", [mean, b.ints(1, h * w, 4)])
    return b.op("Reshape", [b.op("Transpose", [flat], perm=[0, 2, 1]), b.ints(1, 4, h, w)])


WORLDS = [
    World(),
    World(slots=80, width=512, order="box-score"),
    World(slots=4, width=4, bins=8),
    World(slots=3, bins=1),
    World(slots=1, strides=(16,)),
    World(einsum=True, opset=13, texts_first=True),
    World(sigmoid=False, strides=(8, 16)),
    World(strides=(8, 16, 32, 64), size=(128, 64)),
]


FOLDED = Spec(opset=13)


def folded(
    spec: Spec = FOLDED,
    width: int = 32,
    einsum: bool = False,
    crooked: bool = False,
    **notes: str,
) -> onnx.ModelProto:
    """A stock export that was told its words before: one output, and in front of its scores a
    product with the fixed embeddings. `crooked` puts something in between that is no product."""
    b = Builder(spec.opset)
    levels = []
    x, channels, stride = "images", 3, 1
    words = b.random.normal(0, 1, (1, spec.classes, width))
    words /= np.linalg.norm(words, axis=2, keepdims=True)
    for wanted in spec.strides:
        step, (h, w) = wanted // stride, (spec.size[0] // wanted, spec.size[1] // wanted)
        x = b.op("Relu", [b.conv(x, channels, 8, kernel=step, stride=step)])
        channels, stride = 8, wanted
        mapped = b.conv(x, 8, width)
        if einsum:
            logits = b.op("Einsum", [mapped, b.const(words)], equation="bchw,bkc->bkhw")
        else:
            flat = b.op("Reshape", [mapped, b.ints(1, width, -1)])
            product = b.op("MatMul", [b.const(words), flat])
            logits = b.op("Reshape", [product, b.ints(1, spec.classes, h, w)])
        scale = b.op("Exp", [b.const(1.5)])
        logits = b.op("Add", [b.op("Mul", [logits, scale]), b.const(-3.0)])
        if crooked:
            logits = b.op("Mul", [logits, b.op("Tanh", [logits])])
        levels.append((b.conv(x, 8, 4 * spec.bins), logits, wanted))
    rows = _joined(b, spec, levels)
    return b.model([("images", [1, 3, *spec.size])], [(rows, TensorProto.FLOAT)], **notes)
