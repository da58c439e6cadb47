"""Architectures of the published speed table, built with random weights.

The definitions are this project's own, written from the papers and the published
hyper-parameters; no code and no weights of others. What a layer costs does not depend on the
weights' values, so these graphs stand in for the trained ones when the latency model is fitted
(fit_latency.py). Heads end as the vendor's exports do: one tensor a meaning and level.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

Strings = Sequence[str]


class Net:
    """A graph under construction. Tensors go by name; `shape` has (channels, height, width)."""

    def __init__(self, size: tuple[int, int], act: str = "silu", seed: int = 0) -> None:
        self.act = act
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, np.ndarray] = {}
        self.shape: dict[str, tuple[int, ...]] = {"images": (3, *size)}
        self.outputs: list[str] = []
        self._random = np.random.default_rng(seed)

    # ---- pieces ----
    def constant(self, values: Any, dtype: Any = np.float32) -> str:
        name = f"w{len(self.weights)}"
        self.weights[name] = np.asarray(values, dtype)
        return name

    def node(self, op: str, inputs: Strings, shape: Sequence[int] = (), **attributes: Any) -> str:
        name = f"t{len(self.nodes)}"
        node = helper.make_node(op, list(inputs), [name], name=f"n{len(self.nodes)}", **attributes)
        self.nodes.append(node)
        self.shape[name] = tuple(shape) or self.shape[inputs[0]]
        return name

    def conv(
        self,
        x: str,
        out: int,
        k: int = 1,
        s: int = 1,
        *,
        p: int | None = None,
        groups: int = 1,
        act: str | None = None,
    ) -> str:
        """Convolution with its normalisation folded in, then the net's activation."""
        c, h, w = self.shape[x]
        p = k // 2 if p is None else p
        fan = c // groups * k * k
        kernel = self._random.standard_normal((out, c // groups, k, k), np.float32)
        kernel *= np.float32((2 / fan) ** 0.5)
        bias = self._random.standard_normal(out, np.float32) * np.float32(0.1)
        shape = (out, (h + 2 * p - k) // s + 1, (w + 2 * p - k) // s + 1)
        y = self.node(
            "Conv",
            [x, self.constant(kernel), self.constant(bias)],
            shape,
            kernel_shape=[k, k],
            strides=[s, s],
            pads=[p] * 4,
            group=groups,
        )
        return self.activate(y, self.act if act is None else act)

    def activate(self, x: str, act: str) -> str:
        if act == "none":
            return x
        if act == "silu":
            return self.node("Mul", [x, self.node("Sigmoid", [x])])
        if act == "leaky":
            return self.node("LeakyRelu", [x], alpha=0.1)
        if act == "relu6":
            return self.node("Clip", [x, self.constant(0.0), self.constant(6.0)])
        return self.node({"relu": "Relu", "sigmoid": "Sigmoid"}[act], [x])

    def up_conv(self, x: str, out: int) -> str:
        """Transposed convolution, 2x2, that doubles the size."""
        c, h, w = self.shape[x]
        kernel = self._random.standard_normal((c, out, 2, 2), np.float32) * (1 / c) ** 0.5
        weights = [self.constant(kernel), self.constant(np.zeros(out))]
        return self.node(
            "ConvTranspose", [x, *weights], (out, 2 * h, 2 * w), kernel_shape=[2, 2], strides=[2, 2]
        )

    def up(self, x: str) -> str:
        c, h, w = self.shape[x]
        scales = self.constant([1, 1, 2, 2])
        return self.node(
            "Resize",
            [x, self.constant(np.zeros(0)), scales],
            (c, 2 * h, 2 * w),
            mode="nearest",
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        )

    def pool(self, x: str, k: int, s: int = 1, p: int | None = None) -> str:
        c, h, w = self.shape[x]
        p = k // 2 if p is None else p
        shape = (c, (h + 2 * p - k) // s + 1, (w + 2 * p - k) // s + 1)
        return self.node("MaxPool", [x], shape, kernel_shape=[k, k], strides=[s, s], pads=[p] * 4)

    def cat(self, *xs: str) -> str:
        _, h, w = self.shape[xs[0]]
        return self.node("Concat", xs, (sum(self.shape[x][0] for x in xs), h, w), axis=1)

    def add(self, a: str, b: str) -> str:
        return self.node("Add", [a, b])

    def mul(self, a: str, b: str) -> str:
        return self.node("Mul", [a, b])

    def split(self, x: str, sizes: Sequence[int], axis: int = 1) -> list[str]:
        shape = self.shape[x]
        names = [f"t{len(self.nodes)}_{i}" for i in range(len(sizes))]
        self.nodes.append(
            helper.make_node("Split", [x], names, f"n{len(self.nodes)}", axis=axis, split=sizes)
        )
        for name, size in zip(names, sizes, strict=True):
            part = list(shape)
            part[axis - 1] = size
            self.shape[name] = tuple(part)
        return names

    def reshape(self, x: str, shape: Sequence[int]) -> str:
        return self.node("Reshape", [x, self.constant([1, *shape], np.int64)], shape)

    def transpose(self, x: str, order: Sequence[int]) -> str:
        shape = self.shape[x]
        return self.node("Transpose", [x], [shape[i - 1] for i in order[1:]], perm=order)

    def matmul(self, a: str, b: str) -> str:
        return self.node("MatMul", [a, b], (*self.shape[a][:-1], self.shape[b][-1]))

    def mean(self, x: str) -> str:
        return self.node("GlobalAveragePool", [x], (self.shape[x][0], 1, 1))

    def norm(self, x: str) -> str:
        c = self.shape[x][0]
        draw = self._random.uniform
        parts = [draw(0.8, 1.2, c), draw(-0.1, 0.1, c), draw(-0.1, 0.1, c), draw(0.8, 1.2, c)]
        return self.node("BatchNormalization", [x, *map(self.constant, parts)])

    def out(self, *xs: str) -> None:
        self.outputs += xs

    def model(self) -> onnx.ModelProto:
        def info(name: str) -> onnx.ValueInfoProto:
            return helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, *self.shape[name]])

        graph = helper.make_graph(
            self.nodes,
            "net",
            [info("images")],
            [info(name) for name in self.outputs],
            [onnx.numpy_helper.from_array(w, name) for name, w in self.weights.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 12)])
        model.ir_version = 7
        return model

    def parameters(self) -> int:
        return sum(w.size for w in self.weights.values() if w.dtype == np.float32)


# ---- blocks that families share -----------------------------------------------------


def _eight(x: float) -> int:
    return int(-(-x // 8) * 8)


def _bottleneck(n: Net, x: str, c: int, *, add: bool, e: float = 1.0, ks: Any = (3, 3)) -> str:
    y = n.conv(n.conv(x, int(c * e), ks[0]), c, ks[1])
    return n.add(x, y) if add and n.shape[x] == n.shape[y] else y


def _c3(n: Net, x: str, c: int, count: int, *, add: bool = True, k: int = 1) -> str:
    half = c // 2
    y = n.conv(x, half)
    for _ in range(count):
        y = _bottleneck(n, y, half, add=add, ks=(k, 3))
    return n.conv(n.cat(y, n.conv(x, half)), c)


def _c2(
    n: Net, x: str, c: int, count: int, inner: Callable[[str, int], str], e: float = 0.5
) -> str:
    """Two halves, one worked on again and again, all steps put together."""
    half = int(c * e)
    parts = n.split(n.conv(x, 2 * half), [half, half])
    for _ in range(count):
        parts.append(inner(parts[-1], half))
    return n.conv(n.cat(*parts), c)


def _c2f(n: Net, x: str, c: int, count: int, add: bool) -> str:
    return _c2(n, x, c, count, lambda y, half: _bottleneck(n, y, half, add=add))


def _sppf(n: Net, x: str, c: int) -> str:
    pools = [n.conv(x, n.shape[x][0] // 2)]
    for _ in range(3):
        pools.append(n.pool(pools[-1], 5))
    return n.conv(n.cat(*pools), c)


def _attention(n: Net, x: str) -> str:
    c, h, w = n.shape[x]
    heads, key, cells = max(c // 64, 1), 32, h * w
    width = c // heads
    qkv = n.conv(x, c + 2 * key * heads, act="none")
    q, k, v = n.split(n.reshape(qkv, (heads, 2 * key + width, cells)), [key, key, width], axis=2)
    scores = n.matmul(n.transpose(q, (0, 1, 3, 2)), k)
    scores = n.node("Softmax", [n.mul(scores, n.constant(key**-0.5))], axis=-1)
    y = n.reshape(n.matmul(v, n.transpose(scores, (0, 1, 3, 2))), (c, h, w))
    y = n.add(y, n.conv(n.reshape(v, (c, h, w)), c, 3, groups=c, act="none"))
    return n.conv(y, c, act="none")


def _psa(n: Net, x: str, count: int = 1) -> str:
    c = n.shape[x][0]
    a, b = n.split(n.conv(x, c), [c // 2, c // 2])
    for _ in range(count):
        b = n.add(b, _attention(n, b))
        b = n.add(b, n.conv(n.conv(b, c), c // 2, act="none"))
    return n.conv(n.cat(a, b), c)


def _pyramid(n: Net, p3: str, p4: str, p5: str, block: Any, down: Any) -> list[str]:
    """Up and down again. `block(x, level)` and `down(x, level)` make the family's layers."""
    t4 = block(n.cat(n.up(p5), p4), 0)
    t3 = block(n.cat(n.up(t4), p3), 1)
    o4 = block(n.cat(down(t3, 0), t4), 2)
    return [t3, o4, block(n.cat(down(o4, 1), p5), 3)]


def _scores(n: Net, logits: str) -> None:
    """The scores and their clipped sum, which the vendor's exports carry as a fast filter."""
    score = n.activate(logits, "sigmoid")
    _, h, w = n.shape[score]
    total = n.node("ReduceSum", [score], (1, h, w), axes=[1], keepdims=1)
    n.out(score, n.node("Clip", [total, n.constant(0.0), n.constant(1.0)]))


def _free_head(n: Net, levels: Strings, *, light: bool = False, classes: int = 80) -> None:
    """Boxes as distributions, scores, their sum. `light`: depthwise in the score branch."""
    first = n.shape[levels[0]][0]
    box, cls = max(16, first // 4, 64), max(first, min(classes, 100))
    for x in levels:
        n.out(n.conv(n.conv(n.conv(x, box, 3), box, 3), 64, act="none"))
        if light:
            c = n.shape[x][0]
            y = n.conv(n.conv(x, c, 3, groups=c), cls)
            y = n.conv(n.conv(y, cls, 3, groups=cls), cls)
        else:
            y = n.conv(n.conv(x, cls, 3), cls, 3)
        _scores(n, n.conv(y, classes, act="none"))


# ---- the families -------------------------------------------------------------------

_DEPTH = {"n": (0.33, 0.25), "s": (0.33, 0.5), "m": (0.67, 0.75)}


def yolov5(size: str, act: str = "silu", masks: bool = False) -> Net:
    depth, width = _DEPTH[size]
    n = Net((640, 640), act)
    c = [_eight(v * width) for v in (64, 128, 256, 512, 1024)]
    r = [max(round(v * depth), 1) for v in (3, 6, 9, 3)]
    x = n.conv("images", c[0], 6, 2, p=2)
    stages = []
    for channels, count in zip(c[1:], r, strict=True):
        x = _c3(n, n.conv(x, channels, 3, 2), channels, count)
        stages.append(x)
    _, p3, p4, x = stages
    x = _sppf(n, x, c[4])
    top = n.conv(x, c[3])
    t4 = n.conv(_c3(n, n.cat(n.up(top), p4), c[3], r[0], add=False), c[2])
    t3 = _c3(n, n.cat(n.up(t4), p3), c[2], r[0], add=False)
    o4 = _c3(n, n.cat(n.conv(t3, c[2], 3, 2), t4), c[3], r[0], add=False)
    o5 = _c3(n, n.cat(n.conv(o4, c[3], 3, 2), top), c[4], r[0], add=False)
    for x in (t3, o4, o5):
        n.out(n.conv(x, 255, act="sigmoid"))
        if masks:
            n.out(n.conv(x, 96, act="none"))
    if masks:
        middle = _eight(256 * width)
        n.out(n.conv(n.conv(n.up(n.conv(t3, middle, 3)), middle, 3), 32))
    return n


def yolov8(size: str, extra: str = "") -> Net:
    depth, width = _DEPTH[size]
    n = Net((640, 640))
    c = [_eight(min(v, 768 if size == "m" else 1024) * width) for v in (64, 128, 256, 512, 1024)]
    r = [max(round(v * depth), 1) for v in (3, 6, 6, 3)]
    x = n.conv("images", c[0], 3, 2)
    stages = []
    for channels, count in zip(c[1:], r, strict=True):
        x = _c2f(n, n.conv(x, channels, 3, 2), channels, count, True)
        stages.append(x)
    outs = (c[3], c[2], c[3], c[4])
    levels = _pyramid(
        n,
        stages[1],
        stages[2],
        _sppf(n, x, c[4]),
        lambda y, i: _c2f(n, y, outs[i], r[0], False),
        lambda y, i: n.conv(y, c[2 + i], 3, 2),
    )
    if extra == "obb":
        _free_head(n, levels, classes=15)
        for x in levels:
            middle = max(c[2] // 4, 1)
            n.out(n.conv(n.conv(n.conv(x, middle, 3), middle, 3), 1, act="none"))
        return n
    _free_head(n, levels)
    if extra == "seg":
        middle = max(c[2] // 4, 32)
        for x in levels:
            n.out(n.conv(n.conv(n.conv(x, middle, 3), middle, 3), 32, act="none"))
        wide = _eight(256 * width)
        y = n.up_conv(n.conv(levels[0], wide, 3), wide)
        n.out(n.conv(n.conv(y, wide, 3), 32))
    return n


def yolo11(size: str) -> Net:
    width = {"n": 0.25, "s": 0.5, "m": 1.0}[size]
    most = 512 if size == "m" else 1024
    heavy = size == "m"
    n = Net((640, 640))
    c = [_eight(min(v, most) * width) for v in (64, 128, 256, 512, 1024)]

    def block(x: str, channels: int, deep: bool, e: float = 0.5) -> str:
        def inner(y: str, half: int) -> str:
            if deep or heavy:
                return _c3(n, y, half, 2, k=3)
            return _bottleneck(n, y, half, add=True, e=0.5)

        return _c2(n, x, channels, 1, inner, e)

    x = n.conv(n.conv("images", c[0], 3, 2), c[1], 3, 2)
    x = block(x, c[2], False, 0.25)
    p3 = block(n.conv(x, c[2], 3, 2), c[3], False, 0.25)
    p4 = block(n.conv(p3, c[3], 3, 2), c[3], True)
    p5 = _sppf(n, block(n.conv(p4, c[4], 3, 2), c[4], True), c[4])
    outs = ((c[3], False), (c[2], False), (c[3], False), (c[4], True))
    levels = _pyramid(
        n,
        p3,
        p4,
        _psa(n, p5),
        lambda y, i: block(y, *outs[i]),
        lambda y, i: n.conv(y, c[2 + i], 3, 2),
    )
    _free_head(n, levels, light=True)
    return n


def yolov10(size: str) -> Net:
    depth, width = _DEPTH[size]
    n = Net((640, 640))
    c = [_eight(v * width) for v in (64, 128, 256, 512, 1024)]
    r = [max(round(v * depth), 1) for v in (3, 6, 6, 3)]

    def down(x: str, channels: int) -> str:
        return n.conv(n.conv(x, channels), channels, 3, 2, groups=channels, act="none")

    def large(x: str, half: int) -> str:
        y = n.conv(n.conv(x, half, 3, groups=half), 2 * half)
        y = n.conv(n.conv(y, 2 * half, 7, groups=2 * half), half)
        return n.add(x, n.conv(y, half, 3, groups=half))

    x = n.conv(n.conv("images", c[0], 3, 2), c[1], 3, 2)
    x = _c2f(n, x, c[1], r[0], True)
    p3 = _c2f(n, n.conv(x, c[2], 3, 2), c[2], r[1], True)
    p4 = _c2f(n, down(p3, c[3]), c[3], r[2], True)
    x = down(p4, c[4])
    x = _c2f(n, x, c[4], r[3], True) if size == "n" else _c2(n, x, c[4], r[3], large)
    outs = (c[3], c[2], c[3], c[4])
    levels = _pyramid(
        n,
        p3,
        p4,
        _psa(n, _sppf(n, x, c[4])),
        lambda y, i: (
            _c2(n, y, outs[i], r[0], large) if i == 3 else _c2f(n, y, outs[i], r[0], False)
        ),
        lambda y, i: down(y, c[3]) if i else n.conv(y, c[2], 3, 2),
    )
    _free_head(n, levels, light=True)
    return n


def yolov6(size: str) -> Net:
    depth, width = {"n": (0.33, 0.25), "s": (0.33, 0.5), "m": (0.6, 0.75)}[size]
    n = Net((640, 640), "relu")
    c = [int(v * width) for v in (64, 128, 256, 512, 1024)]
    k = [int(v * width) for v in (256, 128, 128, 256, 256, 512)]
    r = [max(round(v * depth), 1) for v in (6, 12, 18, 6)]

    def block(x: str, channels: int, count: int) -> str:
        if size != "m":
            for _ in range(count):
                x = n.conv(x, channels, 3)
            return x
        part = channels * 2 // 3
        y = n.conv(x, part)
        for _ in range(count // 2):
            y = _bottleneck(n, y, part, add=True)
        return n.conv(n.cat(y, n.conv(x, part)), channels)

    def fuse(top: str, side: str, low: str, channels: int) -> str:
        third = n.conv(n.conv(low, channels), channels, 3, 2)
        return n.conv(n.cat(n.up_conv(top, channels), n.conv(side, channels), third), channels)

    x = n.conv("images", c[0], 3, 2)
    stages = []
    for channels, count in zip(c[1:], r, strict=True):
        x = block(n.conv(x, channels, 3, 2), channels, count)
        stages.append(x)
    p2, p3, p4, x = stages
    if size == "m":
        p5 = _sppf(n, x, c[4])
    else:
        half = c[4] // 2
        y = n.conv(n.conv(n.conv(x, half), half, 3), half)
        pools = [y]
        for _ in range(3):
            pools.append(n.pool(pools[-1], 5))
        y = n.conv(n.conv(n.cat(*pools), half), half, 3)
        p5 = n.conv(n.cat(n.conv(x, half), y), c[4])
    times = max(round(12 * depth), 1)
    top = n.conv(p5, k[0])
    f4 = block(fuse(top, p4, p3, k[0]), k[0], times)
    mid = n.conv(f4, k[1])
    f3 = block(fuse(mid, p3, p2, k[1]), k[1], times)
    o4 = block(n.cat(n.conv(f3, k[2], 3, 2), mid), k[3], times)
    o5 = block(n.cat(n.conv(o4, k[4], 3, 2), top), k[5], times)
    for x in (f3, o4, o5):
        channels = n.shape[x][0]
        stem = n.conv(x, channels, act="silu")
        box = n.conv(stem, channels, 3, act="silu")
        n.out(n.conv(box, 68 if size == "m" else 4, act="none"))
        _scores(n, n.conv(n.conv(stem, channels, 3, act="silu"), 80, act="none"))
    return n


def yolov7_tiny() -> Net:
    n = Net((640, 640), "leaky")

    def block(x: str, c: int) -> str:
        a, b = n.conv(x, c), n.conv(x, c)
        d = n.conv(b, c, 3)
        return n.conv(n.cat(n.conv(d, c, 3), d, b, a), 2 * c)

    x = block(n.conv(n.conv("images", 32, 3, 2), 64, 3, 2), 32)
    p3 = block(n.pool(x, 2, 2, 0), 64)
    p4 = block(n.pool(p3, 2, 2, 0), 128)
    x = block(n.pool(p4, 2, 2, 0), 256)
    a, b = n.conv(x, 256), n.conv(x, 256)
    y = n.conv(n.cat(n.pool(b, 13), n.pool(b, 9), n.pool(b, 5), b), 256)
    p5 = n.conv(n.cat(y, a), 256)
    t4 = block(n.cat(n.conv(p4, 128), n.up(n.conv(p5, 128))), 64)
    t3 = block(n.cat(n.conv(p3, 64), n.up(n.conv(t4, 64))), 32)
    o4 = block(n.cat(n.conv(t3, 128, 3, 2), t4), 64)
    o5 = block(n.cat(n.conv(o4, 256, 3, 2), p5), 128)
    for x, c in ((t3, 128), (o4, 256), (o5, 512)):
        n.out(n.conv(n.conv(x, c, 3), 255, act="sigmoid"))
    return n


def yolov7() -> Net:
    n = Net((640, 640))

    def block(x: str, c: int, out: int) -> str:
        a, b = n.conv(x, c), n.conv(x, c)
        d = n.conv(n.conv(b, c, 3), c, 3)
        return n.conv(n.cat(n.conv(n.conv(d, c, 3), c, 3), d, b, a), out)

    def neck(x: str, c: int) -> str:
        parts = [n.conv(x, c), n.conv(x, c)]
        for _ in range(4):
            parts.append(n.conv(parts[-1], c // 2, 3))
        return n.conv(n.cat(*parts), c)

    def down(x: str, c: int, *more: str) -> str:
        return n.cat(n.conv(n.conv(x, c), c, 3, 2), n.conv(n.pool(x, 2, 2, 0), c), *more)

    x = n.conv(n.conv(n.conv("images", 32, 3), 64, 3, 2), 64, 3)
    x = block(n.conv(x, 128, 3, 2), 64, 256)
    p3 = block(down(x, 128), 128, 512)
    p4 = block(down(p3, 256), 256, 1024)
    x = block(down(p4, 512), 256, 1024)
    y = n.conv(n.conv(n.conv(x, 512), 512, 3), 512)
    y = n.conv(n.conv(n.cat(y, n.pool(y, 5), n.pool(y, 9), n.pool(y, 13)), 512), 512, 3)
    p5 = n.conv(n.cat(y, n.conv(x, 512)), 512)
    t4 = neck(n.cat(n.conv(p4, 256), n.up(n.conv(p5, 256))), 256)
    t3 = neck(n.cat(n.conv(p3, 128), n.up(n.conv(t4, 128))), 128)
    o4 = neck(down(t3, 128, t4), 256)
    o5 = neck(down(o4, 256, p5), 512)
    for x, c in ((t3, 256), (o4, 512), (o5, 1024)):
        n.out(n.conv(n.conv(x, c, 3), 255, act="sigmoid"))
    return n


def yolox(size: str) -> Net:
    depth, width = _DEPTH[size]
    n = Net((640, 640))
    c = [int(v * width) for v in (64, 128, 256, 512, 1024)]
    r = [max(round(v * depth), 1) for v in (3, 9, 9, 3)]
    x = n.conv("images", c[0], 6, 2, p=2)
    x = _c3(n, n.conv(x, c[1], 3, 2), c[1], r[0])
    p3 = _c3(n, n.conv(x, c[2], 3, 2), c[2], r[1])
    p4 = _c3(n, n.conv(p3, c[3], 3, 2), c[3], r[2])
    x = _sppf(n, n.conv(p4, c[4], 3, 2), c[4])
    top = n.conv(_c3(n, x, c[4], r[3], add=False), c[3])
    t4 = n.conv(_c3(n, n.cat(n.up(top), p4), c[3], r[0], add=False), c[2])
    t3 = _c3(n, n.cat(n.up(t4), p3), c[2], r[0], add=False)
    o4 = _c3(n, n.cat(n.conv(t3, c[2], 3, 2), t4), c[3], r[0], add=False)
    o5 = _c3(n, n.cat(n.conv(o4, c[3], 3, 2), top), c[4], r[0], add=False)
    for x in (t3, o4, o5):
        stem = n.conv(x, c[2])
        box = n.conv(n.conv(stem, c[2], 3), c[2], 3)
        cls = n.conv(n.conv(stem, c[2], 3), c[2], 3)
        regressed = n.conv(box, 4, act="none"), n.conv(box, 1, act="sigmoid")
        n.out(n.cat(*regressed, n.conv(cls, 80, act="sigmoid")))
    return n


def ppyoloe(size: str) -> Net:
    depth, width = {"s": (0.33, 0.5), "m": (0.67, 0.75)}[size]
    n = Net((640, 640))
    c = [round(v * width) for v in (64, 128, 256, 512, 1024)]
    r = [max(round(v * depth), 1) for v in (3, 6, 6, 3)]

    def gate(x: str) -> str:
        y = n.conv(n.mean(x), n.shape[x][0], act="none")
        return n.mul(x, n.node("HardSigmoid", [y], alpha=1 / 6, beta=0.5))

    x = n.conv(n.conv(n.conv("images", c[0] // 2, 3, 2), c[0] // 2, 3), c[0], 3)
    stages = []
    for before, after, count in zip(c, c[1:], r, strict=False):
        middle = (before + after) // 2
        x = n.conv(x, middle, 3, 2)
        y = n.conv(x, middle // 2)
        for _ in range(count):
            y = n.add(y, n.conv(n.conv(y, middle // 2, 3), middle // 2, 3))
        x = n.conv(gate(n.cat(n.conv(x, middle // 2), y)), after)
        stages.append(x)
    times = max(round(3 * depth), 1)

    def stage(x: str, out: int, pools: bool = False) -> str:
        half = out // 2
        y = n.conv(x, half)
        for i in range(times):
            y = n.conv(n.conv(y, half, 3), half, 3)
            if pools and i == (times - 1) // 2:
                y = n.conv(n.cat(y, n.pool(y, 5), n.pool(y, 9), n.pool(y, 13)), half)
        return n.conv(n.cat(n.conv(x, half), y), out)

    o = [round(v * width) for v in (768, 384, 192)]
    f5 = stage(stages[3], o[0], True)
    f4 = stage(n.cat(n.up(n.conv(f5, o[0] // 2)), stages[2]), o[1])
    f3 = stage(n.cat(n.up(n.conv(f4, o[1] // 2)), stages[1]), o[2])
    n4 = stage(n.cat(f4, n.conv(f3, o[2], 3, 2)), o[1])
    n5 = stage(n.cat(f5, n.conv(n4, o[1], 3, 2)), o[0])

    def attend(x: str) -> str:
        channels = n.shape[x][0]
        weight = n.conv(n.mean(x), channels, act="sigmoid")
        return n.conv(n.mul(x, weight), channels)

    for x in (f3, n4, n5):
        n.out(n.conv(attend(x), 68, 3, act="none"))
        _scores(n, n.conv(n.add(attend(x), x), 80, 3, act="none"))
    return n


def mobilenetv2() -> Net:
    n = Net((224, 224), "relu6")
    x = n.conv("images", 32, 3, 2)
    rows = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1)]
    for times, out, count, stride in [*rows, (6, 160, 3, 2), (6, 320, 1, 1)]:
        for i in range(count):
            wide = n.shape[x][0] * times
            y = n.conv(x, wide) if times > 1 else x
            y = n.conv(y, wide, 3, stride if i == 0 else 1, groups=wide)
            y = n.conv(y, out, act="none")
            x = n.add(x, y) if i else y
    _classify(n, n.conv(x, 1280))
    return n


def _classify(n: Net, x: str) -> None:
    c = n.shape[x][0]
    flat = n.node("Flatten", [n.mean(x)], (c,), axis=1)
    weights = n._random.standard_normal((1000, c), np.float32) * np.float32(c**-0.5)
    parts = [n.constant(weights), n.constant(np.zeros(1000))]
    n.out(n.node("Gemm", [flat, *parts], (1000,), transB=1))


def resnet50_v2() -> Net:
    """Normalisation and activation come before each convolution."""
    n = Net((224, 224), "none")
    x = n.conv(n.norm("images"), 64, 7, 2)
    x = n.pool(n.activate(n.norm(x), "relu"), 3, 2)
    for out, count, stride in ((256, 3, 1), (512, 4, 2), (1024, 6, 2), (2048, 3, 2)):
        for i in range(count):
            step = stride if i == 0 else 1
            y = n.activate(n.norm(x), "relu")
            side = n.conv(y, out, 1, step) if i == 0 else x
            y = n.activate(n.norm(n.conv(y, out // 4)), "relu")
            y = n.activate(n.norm(n.conv(y, out // 4, 3, step)), "relu")
            x = n.add(n.conv(y, out), side)
    _classify(n, n.activate(n.norm(x), "relu"))
    return n


def retinaface(backbone: str) -> Net:
    n = Net((320, 320), "leaky" if backbone == "mobile" else "relu")
    if backbone == "mobile":
        wide = 64
        x = n.conv("images", 8, 3, 2)
        taps = []
        rows = [(16, 1), (32, 2), (32, 1), (64, 2), (64, 1), (128, 2), *[(128, 1)] * 5]
        for out, stride in [*rows, (256, 2), (256, 1)]:
            if stride == 2:
                taps.append(x)
            c = n.shape[x][0]
            x = n.conv(n.conv(x, c, 3, stride, groups=c), out)
        taps = [*taps[2:], x]
    else:
        wide = 256
        x = n.pool(n.conv("images", 64, 7, 2), 3, 2)
        taps = []
        for out, count, stride in ((256, 3, 1), (512, 4, 2), (1024, 6, 2), (2048, 3, 2)):
            for i in range(count):
                step = stride if i == 0 else 1
                side = n.conv(x, out, 1, step, act="none") if i == 0 else x
                y = n.conv(n.conv(n.conv(x, out // 4), out // 4, 3, step), out, act="none")
                x = n.activate(n.add(y, side), "relu")
            taps.append(x)
        taps = taps[1:]
    act = "leaky" if wide <= 64 else "relu"
    o3, o4, o5 = (n.conv(x, wide, act=act) for x in taps)
    o4 = n.conv(n.add(o4, n.up(o5)), wide, 3, act=act)
    o3 = n.conv(n.add(o3, n.up(o4)), wide, 3, act=act)
    heads: list[list[str]] = [[], [], []]
    for x in (o3, o4, o5):
        y = n.conv(x, wide // 4, 3, act=act)
        z = n.conv(n.conv(y, wide // 4, 3, act=act), wide // 4, 3, act="none")
        parts = n.conv(x, wide // 2, 3, act="none"), n.conv(y, wide // 4, 3, act="none"), z
        x = n.activate(n.cat(*parts), "relu")
        _, h, w = n.shape[x]
        for place, values in enumerate((4, 2, 10)):
            y = n.transpose(n.conv(x, 2 * values, act="none"), (0, 2, 3, 1))
            heads[place].append(n.reshape(y, (h * w * 2, values)))
    for place, parts_of in enumerate(heads):
        rows_ = sum(n.shape[x][0] for x in parts_of)
        y = n.node("Concat", parts_of, (rows_, n.shape[parts_of[0]][1]), axis=1)
        n.out(n.node("Softmax", [y], axis=-1) if place == 1 else y)
    return n


NETWORKS: dict[str, Callable[[], Net]] = {
    "mobilenetv2-12": mobilenetv2,
    "resnet50-v2-7": resnet50_v2,
    "RetinaFace_mobile320": lambda: retinaface("mobile"),
    "yolov5n": lambda: yolov5("n"),
    "yolov8n": lambda: yolov8("n"),
    "yolo11n": lambda: yolo11("n"),
    "yolov10n": lambda: yolov10("n"),
    "yolov6n": lambda: yolov6("n"),
    "yolov7-tiny": yolov7_tiny,
    "yolov5s_relu": lambda: yolov5("s", "relu"),
    "yolov5s": lambda: yolov5("s"),
    "yolov8s": lambda: yolov8("s"),
    "yolo11s": lambda: yolo11("s"),
    "yolov10s": lambda: yolov10("s"),
    "yolox_s": lambda: yolox("s"),
    "ppyoloe_s": lambda: ppyoloe("s"),
    "yolov6s": lambda: yolov6("s"),
    "yolov8n-seg": lambda: yolov8("n", "seg"),
    "yolov5n-seg": lambda: yolov5("n", masks=True),
    "yolov8n-obb": lambda: yolov8("n", "obb"),
    "RetinaFace_resnet50_320": lambda: retinaface("resnet50"),
    "yolov8s-seg": lambda: yolov8("s", "seg"),
    "yolov5s-seg": lambda: yolov5("s", masks=True),
    "yolov5m": lambda: yolov5("m"),
    "yolov8m": lambda: yolov8("m"),
    "yolo11m": lambda: yolo11("m"),
    "yolox_m": lambda: yolox("m"),
    "ppyoloe_m": lambda: ppyoloe("m"),
    "yolov6m": lambda: yolov6("m"),
    "yolov7": yolov7,
    "yolov8m-seg": lambda: yolov8("m", "seg"),
    "yolov5m-seg": lambda: yolov5("m", masks=True),
}
"""File name in the published table -> its graph; the quick ones first."""
