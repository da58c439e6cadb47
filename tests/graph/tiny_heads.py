"""Small graphs with the tails of YOLOv8 to YOLO26 for every task, stock and Rockchip's.

Own code with random weights, as in `tiny_yolo`, which has the plain detectors.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import onnx
from onnx import TensorProto
from tiny_yolo import Builder, Spec, _activate, _grid, branches

_WIDE = Spec(size=(64, 96), opset=17)
_PLAIN = replace(_WIDE, bins=1)


@dataclass(frozen=True)
class Head:
    """`best` results are chosen inside the graph (0: none are). `modern` writes key points and
    angles as YOLO26 does. `points` counts them, `values` are the numbers of each."""

    spec: Spec = _WIDE
    task: str = ""
    best: int = 0
    modern: bool = False
    masks: int = 32
    points: int = 17
    values: int = 3
    # Spoils one formula, for graphs that only look like the family.
    spoil: str = ""

    @property
    def extra(self) -> int:
        return {"": 0, "seg": self.masks, "pose": self.points * self.values, "obb": 1}[self.task]

    @property
    def cells(self) -> int:
        return sum(_grid(self.spec, stride).shape[1] for stride in self.spec.strides)

    @property
    def family(self) -> str:
        name = "yolov10" if self.best else "yolov8"
        name = "yolo26" if self.spec.bins == 1 else name
        return f"{name}-{self.task}" if self.task else name


def build(head: Head, **notes: str) -> onnx.ModelProto:
    """The stock export."""
    spec = head.spec
    b = Builder(spec.opset, spec.inline)
    levels, others = branches(b, spec, head.extra)
    box = _flat(b, [box for box, _, _ in levels], 4 * spec.bins)
    score = _activate(b, spec, _flat(b, [score for _, score, _ in levels], spec.classes))
    third = _flat(b, others, head.extra) if others else ""
    grid = b.const(np.concatenate([_grid(spec, s) for s in spec.strides], axis=1)[None])
    steps = b.const(
        np.concatenate([np.full(_grid(spec, s).shape[1], s) for s in spec.strides])[None, None]
    )
    sides = _sides(b, spec, box)
    angle = _angle(b, head, third) if head.task == "obb" else ""
    boxes = _rotated(b, sides, angle, grid) if angle else _boxes(b, head, sides, grid)
    parts = [b.op("Mul", [boxes, steps]), score]
    if head.task == "pose":
        parts.append(_points(b, head, third, grid, steps, flat=True))
    elif third:
        parts.append(angle or third)
    rows = b.op("Concat", parts, axis=1)
    outputs = [_picked(b, head, rows) if head.best else rows]
    if head.task == "seg":
        outputs.append(_prototypes(b, head))
    return b.model(
        [("images", [1, 3, *spec.size])], [(o, TensorProto.FLOAT) for o in outputs], **notes
    )


def vendor(head: Head, sums: bool = True) -> onnx.ModelProto:
    """Rockchip's export, of the same weights as `build`."""
    spec = head.spec
    b = Builder(spec.opset, spec.inline)
    levels, others = branches(b, spec, head.extra)
    outputs = []
    for index, (box, score, _) in enumerate(levels):
        if head.task in ("pose", "obb"):
            outputs.append(b.op("Concat", [box, score], axis=1))
            continue
        active = b.op("Sigmoid", [score])
        outputs += [box, active]
        if sums:
            total = b.reduce_sum(active, 1, 1)
            outputs.append(b.op("Clip", [total, b.const(0.0), b.const(1.0)]))
        outputs.append(others[index])
    if head.task == "seg":
        outputs.append(_prototypes(b, head))
    else:
        third = _flat(b, others, head.extra)
        if head.task == "obb":
            outputs.append(b.op("Sigmoid", [third]))
        else:
            grid = b.const(np.concatenate([_grid(spec, s) for s in spec.strides], axis=1)[None])
            steps = np.concatenate([np.full(_grid(spec, s).shape[1], s) for s in spec.strides])
            steps_name = b.const(steps[None, None])
            outputs.append(_points(b, head, third, grid, steps_name, flat=False))
    return b.model([("images", [1, 3, *spec.size])], [(o, TensorProto.FLOAT) for o in outputs])


def _flat(b: Builder, names: list[str], channels: int) -> str:
    flat = [b.op("Reshape", [name, b.ints(1, channels, -1)]) for name in names]
    return b.op("Concat", flat, axis=2) if len(flat) > 1 else flat[0]


def _sides(b: Builder, spec: Spec, box: str) -> str:
    if spec.bins == 1:
        return box
    bins = b.op("Reshape", [box, b.ints(1, 4, spec.bins, -1)])
    weight = b.op("Softmax", [b.op("Transpose", [bins], perm=[0, 2, 1, 3])], axis=1)
    kernel = b.const(np.arange(spec.bins).reshape(1, spec.bins, 1, 1))
    return b.op("Reshape", [b.op("Conv", [weight, kernel], kernel_shape=[1, 1]), b.ints(1, 4, -1)])


def _boxes(b: Builder, head: Head, sides: str, grid: str) -> str:
    low = b.op("Sub", [grid, b.slice(sides, 0, 2, 1)])
    high = b.op("Add", [grid, b.slice(sides, 2, 4, 1)])
    if head.best or head.spec.corners:
        return b.op("Concat", [low, high], axis=1)
    centre = b.op("Div", [b.op("Add", [low, high]), b.const(2.0)])
    return b.op("Concat", [centre, b.op("Sub", [high, low])], axis=1)


def _angle(b: Builder, head: Head, third: str) -> str:
    if head.modern:
        return third
    quarter = b.op("Sub", [b.op("Sigmoid", [third]), b.const(0.25)])
    return b.op("Mul", [quarter, b.const(np.pi if head.spoil != "angle" else 3.0)])


def _rotated(b: Builder, sides: str, angle: str, grid: str) -> str:
    low, high = b.slice(sides, 0, 2, 1), b.slice(sides, 2, 4, 1)
    offset = b.op("Div", [b.op("Sub", [high, low]), b.const(2.0)])
    across, down = b.slice(offset, 0, 1, 1), b.slice(offset, 1, 2, 1)
    cos, sin = b.op("Cos", [angle]), b.op("Sin", [angle])
    x = b.op("Sub", [b.op("Mul", [across, cos]), b.op("Mul", [down, sin])])
    y = b.op("Add", [b.op("Mul", [across, sin]), b.op("Mul", [down, cos])])
    centre = b.op("Add", [b.op("Concat", [x, y], axis=1), grid])
    return b.op("Concat", [centre, b.op("Add", [low, high])], axis=1)


def _points(b: Builder, head: Head, third: str, grid: str, steps: str, *, flat: bool) -> str:
    shaped = b.op("Reshape", [third, b.ints(1, head.points, head.values, -1)])
    xy = b.slice(shaped, 0, 2, 2)
    if head.spoil == "points":
        xy = b.op("Mul", [xy, b.const(3.0)])
    if head.modern:
        moved = b.op("Add", [xy, grid])
    else:
        corner = b.op("Sub", [grid, b.const(0.5)])
        moved = b.op("Add", [b.op("Mul", [xy, b.const(2.0)]), corner])
    parts = [b.op("Mul", [moved, steps])]
    if head.values == 3:
        parts.append(b.op("Sigmoid", [b.slice(shaped, 2, 3, 2)]))
    points = b.op("Concat", parts, axis=2)
    return b.op("Reshape", [points, b.ints(1, head.extra, -1)]) if flat else points


def _prototypes(b: Builder, head: Head) -> str:
    raw = b.conv("images", 3, head.masks, kernel=4, stride=4)
    return b.op("Mul", [raw, b.op("Sigmoid", [raw])])


def _picked(b: Builder, head: Head, rows: str) -> str:
    """The best of all cells and classes: first the cells by their best class, then of those."""
    classes, extra = head.spec.classes, head.extra
    best = min(head.best, head.cells)
    table = b.op("Transpose", [rows], perm=[0, 2, 1])
    sizes = [4, classes, extra] if extra else [4, classes]
    parts = b.ops("Split", [table, b.ints(*sizes)], len(sizes), axis=2)
    top = b.op("ReduceMax", [parts[1]], axes=[2], keepdims=0)
    cells = b.op("Unsqueeze", [b.ops("TopK", [top, b.ints(best)], 2, axis=1)[1], b.ints(2)])

    def take(part: str, where: str, width: int) -> str:
        wide = b.op("Expand", [where, b.ints(1, best, width)])
        return b.op("GatherElements", [part, wide], axis=1)

    scores = b.op("Flatten", [take(parts[1], cells, classes)], axis=1)
    score, which = b.ops("TopK", [scores, b.ints(best)], 2, axis=1)
    row = b.op("Unsqueeze", [b.op("Div", [which, b.ints(classes)]), b.ints(2)])
    number = b.op("Cast", [b.op("Mod", [which, b.ints(classes)])], to=TensorProto.FLOAT)
    if head.spoil == "class":
        number = b.op("Add", [number, b.const(0.5)])
    columns = [
        take(take(parts[0], cells, 4), row, 4),
        b.op("Unsqueeze", [score, b.ints(2)]),
        b.op("Unsqueeze", [number, b.ints(2)]),
    ]
    if extra:
        columns.append(take(take(parts[2], cells, extra), row, extra))
    return b.op("Concat", columns, axis=2)


HEADS = [
    Head(_WIDE, "seg"),
    Head(replace(_WIDE, classes=80, inline=True, opset=13), "seg", masks=16),
    Head(replace(_WIDE, size=(96, 64), classes=1), "pose"),
    Head(replace(_WIDE, classes=2), "pose", points=4, values=2),
    Head(replace(_WIDE, classes=2), "pose", points=6, values=2),
    Head(replace(_WIDE, classes=15), "obb"),
    Head(replace(_WIDE, classes=1, strides=(8,)), "obb"),
    Head(_PLAIN),
    Head(_PLAIN, "seg"),
    Head(_PLAIN, "pose", modern=True),
    Head(_PLAIN, "obb", modern=True),
    Head(_WIDE, best=20),
    Head(replace(_WIDE, classes=80), best=300),
    Head(replace(_WIDE, classes=1, strides=(4, 8, 16, 32)), best=300),
    Head(_PLAIN, best=30),
    Head(_PLAIN, "seg", best=30),
    Head(_PLAIN, "pose", best=30, modern=True),
    Head(_PLAIN, "obb", best=30, modern=True),
    Head(replace(_PLAIN, strides=(8, 16, 32, 64), size=(128, 64)), "seg", best=10),
]
VENDOR = [
    Head(_WIDE, "seg"),
    Head(replace(_WIDE, classes=64, inline=True), "seg", masks=64),
    Head(replace(_WIDE, strides=(4, 8, 16)), "seg"),
    Head(replace(_WIDE, classes=1), "pose"),
    Head(replace(_WIDE, classes=3), "pose", points=5, values=2),
    Head(replace(_WIDE, classes=15), "obb"),
    Head(replace(_WIDE, classes=1, bins=8, strides=(8, 16)), "obb"),
]
