"""Small graphs with the heads of YOLOv5, YOLOv7, YOLOX, YOLOv6 and PP-YOLOE.

Own code after the published formulas, with random weights: strided convolutions as a backbone,
then the head, in the spellings that exporters use.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto
from tiny_yolo import Builder

V5 = (
    ((10.0, 13.0), (16.0, 30.0), (33.0, 23.0)),
    ((30.0, 61.0), (62.0, 45.0), (59.0, 119.0)),
    ((116.0, 90.0), (156.0, 198.0), (373.0, 326.0)),
)
V7 = (
    ((12.0, 16.0), (19.0, 36.0), (40.0, 28.0)),
    ((36.0, 75.0), (76.0, 55.0), (72.0, 146.0)),
    ((142.0, 110.0), (192.0, 243.0), (459.0, 401.0)),
)


@dataclass(frozen=True)
class Net:
    """`spelling` of an anchor head: "v5" splits and concatenates, "v7" slices and folds the
    constants into one product. `tail`: "product" multiplies the classes by the objectness,
    "dropped" leaves the objectness out after that, "corners", "rows_last". `coarsest_first` is
    the order of the cells in a PP-YOLOE."""

    classes: int = 3
    size: tuple[int, int] = (64, 96)
    strides: tuple[int, ...] = (8, 16, 32)
    anchors: tuple[tuple[tuple[float, float], ...], ...] = V5
    masks: int = 0
    spelling: str = "v5"
    tail: str = ""
    bins: int = 1
    opset: int = 13
    inline: bool = False
    coarsest_first: bool = False


def features(b: Builder, net: Net, squash: str = "Relu") -> list[str]:
    x, channels, stride, found = "images", 3, 1, []
    for wanted in net.strides:
        step = wanted // stride
        x = b.op(squash, [b.conv(x, channels, 8, kernel=step, stride=step)])
        channels, stride = 8, wanted
        found.append(x)
    return found


def corner(net: Net, stride: int) -> np.ndarray:
    """(h, w, 2) x, y of the cells' corners, in cells."""
    y, x = np.mgrid[0 : net.size[0] // stride, 0 : net.size[1] // stride]
    return np.stack((x, y), axis=2).astype(np.float32)


def split(b: Builder, x: str, sizes: Sequence[int], axis: int) -> list[str]:
    if b.opset < 13:
        return b.ops("Split", [x], len(sizes), axis=axis, split=list(sizes))
    return b.ops("Split", [x, b.ints(*sizes)], len(sizes), axis=axis)


def finish(b: Builder, net: Net, outputs: Sequence[str], extra: Sequence = ()) -> onnx.ModelProto:
    inputs = [("images", [1, 3, *net.size]), *extra]
    return b.model(inputs, [(name, TensorProto.FLOAT) for name in outputs])


# ---- anchors ------------------------------------------------------------------------


def anchor_branches(b: Builder, net: Net) -> list[str]:
    each = len(net.anchors[0]) * (5 + net.classes + net.masks)
    return [b.conv(x, 8, each) for x in features(b, net)]


def parted(b: Builder, net: Net, level: int, branch: str) -> str:
    """1xA(5+C)xhxw to 1xAxhxwx(5+C)."""
    rows, columns = net.size[0] // net.strides[level], net.size[1] // net.strides[level]
    each = len(net.anchors[level])
    shaped = b.op("Reshape", [branch, b.ints(1, each, -1, rows, columns)])
    return b.op("Transpose", [shaped], perm=[0, 1, 3, 4, 2])


def anchored(net: Net = Net(), heads_too: bool = False) -> onnx.ModelProto:
    """The stock export, 1xNx(5+C+M), and its undecoded heads as further outputs."""
    b = Builder(net.opset, net.inline)
    branches = anchor_branches(b, net)
    spelled = {"v5": _v5, "v7": _v7}[net.spelling]
    flat, heads = [], []
    for level, branch in enumerate(branches):
        head = parted(b, net, level, branch)
        heads.append(head)
        flat.append(b.op("Reshape", [spelled(b, net, level, head), b.ints(1, -1, _width(net))]))
    whole = b.op("Concat", flat, axis=1)
    if net.tail == "rows_last":
        whole = b.op("Transpose", [whole], perm=[0, 2, 1])
    outputs = [whole]
    if net.masks:
        outputs.append(b.op("Relu", [b.conv("images", 3, net.masks, kernel=4, stride=4)]))
    return finish(b, net, outputs + (heads if heads_too else []))


def _width(net: Net) -> int:
    return 5 + net.classes + net.masks - (net.tail == "dropped")


def _v5(b: Builder, net: Net, level: int, head: str) -> str:
    """Sigmoid of all but the coefficients, split, decode, concatenate."""
    stride = net.strides[level]
    numbers = [2, 2, 1 + net.classes]
    if net.masks:
        xy, wh, rest, masks = split(b, head, [*numbers, net.masks], 4)
        xy, wh, rest = (b.op("Sigmoid", [x]) for x in (xy, wh, rest))
    else:
        xy, wh, rest = split(b, b.op("Sigmoid", [head]), numbers, 4)
    two = b.const(2.0)
    grid = b.const(corner(net, stride)[None, None] - 0.5)
    xy = b.op("Mul", [b.op("Add", [b.op("Mul", [xy, two]), grid]), b.const(float(stride))])
    sizes = b.const(np.array(net.anchors[level])[None, :, None, None])
    wh = b.op("Mul", [b.op("Pow", [b.op("Mul", [wh, two]), two]), sizes])
    if net.tail in ("product", "dropped"):
        objectness, classes = split(b, rest, [1, net.classes], 4)
        product = b.op("Mul", [classes, objectness])
        parts = [product] if net.tail == "dropped" else [objectness, product]
        rest = b.op("Concat", parts, axis=4)
    if net.tail == "corners":
        half = b.op("Mul", [wh, b.const(0.5)])
        xy, wh = b.op("Sub", [xy, half]), b.op("Add", [xy, half])
    return b.op("Concat", [xy, wh, rest, *([masks] if net.masks else [])], axis=4)


def _v7(b: Builder, net: Net, level: int, head: str) -> str:
    """xy * (2 * stride) + stride * (grid - 0.5); wh ** 2 * (4 * anchor), by slices."""
    stride = net.strides[level]
    active = b.op("Sigmoid", [head])
    xy, wh, rest = (b.slice(active, i, j, 4) for i, j in ((0, 2), (2, 4), (4, 5 + net.classes)))
    shift = b.const(stride * (corner(net, stride)[None, None] - 0.5))
    xy = b.op("Add", [b.op("Mul", [xy, b.const(2.0 * stride)]), shift])
    sizes = b.const(4 * np.array(net.anchors[level])[None, :, None, None])
    wh = b.op("Mul", [b.op("Mul", [wh, wh]), sizes])
    return b.op("Concat", [xy, wh, rest], axis=4)


def anchor_heads(net: Net = Net(), *, apart: bool, sigmoid: bool) -> onnx.ModelProto:
    """One output a level: 1xAxhxwx(5+C) or 1xA(5+C)xhxw, after the sigmoid or before."""
    b = Builder(net.opset, net.inline)
    outputs = []
    for level, x in enumerate(anchor_branches(b, net)):
        x = parted(b, net, level, x) if apart else x
        outputs.append(b.op("Sigmoid", [x]) if sigmoid else x)
    return finish(b, net, outputs)


def anchor_masks(net: Net = Net(masks=4)) -> onnx.ModelProto:
    """Rockchip's YOLOv5-seg."""
    b = Builder(net.opset, net.inline)
    outputs = []
    for x in features(b, net):
        outputs.append(b.op("Sigmoid", [b.conv(x, 8, 3 * (5 + net.classes))]))
        outputs.append(b.conv(x, 8, 3 * net.masks))
    outputs.append(b.op("Relu", [b.conv("images", 3, net.masks, kernel=4, stride=4)]))
    return finish(b, net, outputs)


# ---- YOLOX --------------------------------------------------------------------------


def yolox(net: Net = Net(), form: str = "raw") -> onnx.ModelProto:
    """`form`: "raw" and "decoded" give 1xNx(5+C), "vendor" 1x(5+C)xhxw a level."""
    b = Builder(net.opset, net.inline)
    levels = []
    # Pixels of 0..255 go in, and an exponential comes out: it must not overflow.
    for x in features(b, net, "Sigmoid"):
        score = b.op("Sigmoid", [b.conv(x, 8, net.classes)])
        box, objectness = b.conv(x, 8, 4), b.op("Sigmoid", [b.conv(x, 8, 1)])
        levels.append(b.op("Concat", [box, objectness, score], axis=1))
    if form == "vendor":
        return finish(b, net, levels)
    flat = [b.op("Reshape", [level, b.ints(1, 5 + net.classes, -1)]) for level in levels]
    whole = b.op("Transpose", [b.op("Concat", flat, axis=2)], perm=[0, 2, 1])
    if form == "decoded":
        grid = np.concatenate([corner(net, s).reshape(-1, 2) for s in net.strides])
        steps = np.concatenate(
            [np.full((corner(net, s).size // 2, 1), float(s)) for s in net.strides]
        )
        xy, wh, rest = split(b, whole, [2, 2, 1 + net.classes], 2)
        xy = b.op("Mul", [b.op("Add", [xy, b.const(grid[None])]), b.const(steps[None])])
        wh = b.op("Mul", [b.op("Exp", [wh]), b.const(steps[None])])
        whole = b.op("Concat", [xy, wh, rest], axis=2)
    return finish(b, net, [whole])


# ---- distances ----------------------------------------------------------------------


def _sides(b: Builder, net: Net, box: str) -> str:
    """1x(4*bins)xhxw to 1xcellsx4."""
    if net.bins == 1:
        return b.op("Transpose", [b.op("Reshape", [box, b.ints(1, 4, -1)])], perm=[0, 2, 1])
    bins = b.op("Reshape", [box, b.ints(1, 4, net.bins, -1)])
    # The bins stand last for the softmax, which before opset 13 took all axes from its own on.
    weight = b.op("Softmax", [b.op("Transpose", [bins], perm=[0, 1, 3, 2])], axis=3)
    weight = b.op("Transpose", [weight], perm=[0, 3, 2, 1])
    kernel = b.const(np.arange(net.bins).reshape(1, net.bins, 1, 1))
    summed = b.op("Conv", [weight, kernel], kernel_shape=[1, 1])
    return b.op("Reshape", [summed, b.ints(1, -1, 4)])


def _distances(b: Builder, net: Net, channels_first: bool) -> tuple[str, str, str, str]:
    """low and high corners in cells 1xNx2, strides, scores."""
    sides, scores = [], []
    turn = -1 if net.coarsest_first else 1
    strides = net.strides[::turn]
    for x in features(b, net)[::turn]:
        sides.append(_sides(b, net, b.conv(x, 8, 4 * net.bins)))
        active = b.op("Sigmoid", [b.conv(x, 8, net.classes)])
        scores.append(b.op("Reshape", [active, b.ints(1, net.classes, -1)]))
    joined = b.op("Concat", sides, axis=1)
    score = b.op("Concat", scores, axis=2)
    if not channels_first:
        score = b.op("Transpose", [score], perm=[0, 2, 1])
    grid = np.concatenate([corner(net, s).reshape(-1, 2) for s in strides]) + 0.5
    steps = np.concatenate([np.full((corner(net, s).size // 2, 1), float(s)) for s in strides])
    centre = b.const(grid[None])
    low = b.op("Sub", [centre, b.slice(joined, 0, 2, 2)])
    high = b.op("Add", [centre, b.slice(joined, 2, 4, 2)])
    return low, high, b.const(steps[None]), score


def yolov6(net: Net = Net()) -> onnx.ModelProto:
    """1xNx(5+C): centre, size, a 1, classes."""
    b = Builder(net.opset, net.inline)
    low, high, steps, score = _distances(b, net, False)
    centre = b.op("Div", [b.op("Add", [low, high]), b.const(2.0)])
    box = b.op("Concat", [centre, b.op("Sub", [high, low])], axis=2)
    box = b.op("Mul", [box, steps])
    total = sum(corner(net, s).size // 2 for s in net.strides)
    ones = b.op("Expand", [b.const(1.0), b.ints(1, total, 1)])
    return finish(b, net, [b.op("Concat", [box, ones, score], axis=2)])


def ppyoloe(net: Net = Net(bins=17), form: str = "scaled") -> onnx.ModelProto:
    """`form`: "scaled" gives corners 1xNx4 divided by an input scale_factor, and 1xCxN;
    "plain" without that input; "joined" one tensor 1xNx(4+C)."""
    b = Builder(net.opset, net.inline)
    low, high, steps, score = _distances(b, net, form != "joined")
    box = b.op("Mul", [b.op("Concat", [low, high], axis=2), steps])
    if form == "joined":
        return finish(b, net, [b.op("Concat", [box, score], axis=2)])
    if form == "plain":
        return finish(b, net, [box, score])
    y, x = split(b, "scale_factor", [1, 1], 1)
    four = b.op("Reshape", [b.op("Concat", [x, y, x, y], axis=1), b.ints(-1, 1, 4)])
    return finish(b, net, [b.op("Div", [box, four]), score], [("scale_factor", ["n", 2])])
