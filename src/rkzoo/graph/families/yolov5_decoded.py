"""YOLOv5 and YOLOv7 recognizer for decoded outputs, with and without masks.

For zero inputs the decoding returns its own anchors: (2 sigmoid(0))^2 is 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from rkzoo.contract.detect import DecodedOutput, DetectHead, HeadOutput, Part
from rkzoo.graph.families.anchor_free import SHARES_SAID
from rkzoo.graph.families.anchor_levels import (
    Level,
    anchor_head_tensors,
    anchored_levels,
    describe_levels,
)
from rkzoo.graph.families.anchors import (
    Anchors,
    describe_scores,
    family_of,
    format_anchors,
    scored_by,
)
from rkzoo.graph.families.branches import (
    BOX_SLACK,
    SCORE_SLACK,
    Float,
    box_limit,
    cells,
    contract,
    is_table,
    probe,
    sigmoid,
    times,
)
from rkzoo.graph.families.faces import with_faces
from rkzoo.graph.families.head_postprocessing import head_postprocessing
from rkzoo.graph.families.outputs import cut_outputs
from rkzoo.graph.families.recognition import HeadTensor, ImageSource, Recognition
from rkzoo.graph.onnx.view import Array, GraphView
from rkzoo.ort import CannotRun

_POINTS_FIRST: tuple[Part, ...] = ("box", "objectness", "keypoints", "score")


@dataclass(frozen=True)
class _Rows:
    """What the numbers of one box in the uncut tensor are: `points` before the `classes`,
    `coefficients` behind them, whether an objectness stands before all these and whether the
    classes hold it as a factor."""

    anchors: Anchors
    points: int
    classes: int
    coefficients: int
    objectness: bool
    multiplied: bool
    corners: bool
    box_px: float
    score: float


def upstream(view: GraphView, picture: ImageSource) -> Recognition | str:
    """One output 1xNx(5+C) (or 1x(5+C)xN), centre and size in pixels, objectness, classes and
    perhaps mask coefficients, or key points before the classes (YOLOv5-face); further outputs
    may be the heads before decoding, which nobody needs, and the masks' prototypes."""
    outputs = [output.name for output in view.model.graph.output]
    if not outputs:
        return ""
    main = next((name for name in outputs if len(view.shape(name) or ()) == 3), outputs[0])
    end = head_postprocessing(view, [main])
    if isinstance(end, str):
        return end
    levels = anchored_levels(end, picture)
    if isinstance(levels, str):
        return levels
    values = probe(end.branches, seed=0)
    try:
        answer = end(values)[0]
        zero = end({name: np.zeros_like(value) for name, value in values.items()})[0]
    except CannotRun as error:
        return f"the end of the graph cannot be run alone ({error.why})"
    channels = levels[0].branch.shape[1]
    total = sum(cells(level.branch) for level in levels)
    turned = _turned(answer, total, channels)
    if turned is None:
        return (
            f"its output of {times(answer.shape)} is not a row of values for each anchor of "
            f"{total} cells"
        )
    each, rows_last = turned
    table, blank = (np.array(a[0].T if rows_last else a[0], np.float64) for a in (answer, zero))
    # In pixels the last cell's centre is far beyond 1.
    relative = bool(blank[:, :2].max() <= 1)
    if relative:
        for rows_of in (table, blank):
            rows_of[:, :4] *= np.tile(picture.image.size[::-1], 2)
    anchors = _anchors(blank, levels, each)
    if anchors is None:
        return "its boxes do not have a constant size per anchor and level"
    rows = _rows(table, levels, values, anchors)
    if isinstance(rows, str):
        return rows
    shape = DecodedOutput(rows_last=rows_last, corners=rows.corners, relative=relative)
    return _recognition(view, outputs, _Answer(main, answer.shape, shape), levels, rows, picture)


@dataclass(frozen=True)
class _Answer:
    """The output with the boxes: its name, shape, and how it is laid out."""

    name: str
    shape: tuple[int, ...]
    layout: DecodedOutput


def _recognition(
    view: GraphView,
    outputs: Sequence[str],
    answer: _Answer,
    levels: Sequence[Level],
    rows: _Rows,
    picture: ImageSource,
) -> Recognition | str:
    prototypes = None
    if rows.coefficients:
        prototypes = _prototypes(view, outputs, rows.coefficients)
        if prototypes is None:
            return f"it has {rows.coefficients} mask coefficients and no prototypes for them"
    anchors = rows.anchors
    taps = anchor_head_tensors(levels, len(anchors[0]), rows.coefficients, prototypes, rows.points)
    strides = tuple(level.stride for level in levels)
    head = DetectHead(
        outputs=cut_outputs(taps, strides),
        classes=rows.classes,
        reg_max=1,
        strides=strides,
        coding="anchor",
        anchors=anchors,
        # A graph may multiply by a class that was not trained: follow the graph.
        objectness="product" if rows.multiplied else scored_by(anchors, rows.classes),
        coefficients=rows.coefficients,
        keypoints=rows.points,
        keypoint_values=2 if rows.points else 3,
    )
    whole = [HeadOutput(name=answer.name, role="decoded")]
    if prototypes is not None:
        whole.append(HeadOutput(name=prototypes.name, role="prototypes"))
    uncut = msgspec.structs.replace(
        head,
        outputs=tuple(whole),
        objectness=head.objectness if rows.objectness else "none",
        decoded=msgspec.structs.replace(
            answer.layout,
            multiplied=rows.objectness and rows.multiplied,
            order=_POINTS_FIRST if rows.points else answer.layout.order,
        ),
    )
    family = f"{family_of(anchors)}{'-pose' * bool(rows.points)}"
    recognition = Recognition(
        family=family,
        form="stock",
        contract=contract(family, picture, head),
        uncut=contract(family, picture, uncut),
        head_tensors=taps,
        evidence=_evidence(answer, levels, rows, len(outputs) - len(whole)),
    )
    return with_faces(recognition, picture.labels)


def _evidence(answer: _Answer, levels: Sequence[Level], rows: _Rows, spare: int) -> tuple[str, ...]:
    each = len(rows.anchors[0])
    total = sum(cells(level.branch) for level in levels)
    return (
        f"One output of {times(answer.shape)}: {each} anchors in each of {total} cells.",
        describe_levels(levels, each, rows.classes, rows.coefficients, rows.points),
        *([SHARES_SAID] if answer.layout.relative else []),
        "The anchors, read from the graph by feeding it zeros, are "
        f"{format_anchors([pair for level in rows.anchors for pair in level])}.",
        *(["The graph multiplies the classes by the objectness."] if rows.multiplied else []),
        *describe_scores(rows.anchors, rows.classes),
        *([f"{spare} more outputs are not needed."] if spare else []),
        "Fed with random numbers, the end of the graph answers as this head must: within "
        f"{rows.box_px:.1g} px and {rows.score:.1g} in score.",
    )


def _turned(answer: Array, total: int, channels: int) -> tuple[int, bool] | None:
    """Anchors per cell, and whether the output is transposed; None where it is no such tensor.
    Without a separate objectness a row has one value fewer.
    """
    if not is_table(answer):
        return None
    for rows_last, (boxes, width) in ((False, answer.shape[1:]), (True, answer.shape[:0:-1])):
        each = boxes // total
        if boxes % total == 0 and each and channels % each == 0:
            numbers = channels // each
            if numbers >= 6 and width in (numbers, numbers - 1):
                return each, rows_last
    return None


def _blocks(levels: Sequence[Level], each: int) -> list[tuple[int, int, slice]]:
    """(level, anchor, slice of its cells in the output), in the output's order."""
    blocks, start = [], 0
    for index, level in enumerate(levels):
        for anchor in range(each):
            stop = start + cells(level.branch)
            blocks.append((index, anchor, slice(start, stop)))
            start = stop
    return blocks


def _anchors(blank: Array, levels: Sequence[Level], each: int) -> Anchors | None:
    """Box sizes for zero inputs; from center and size, or corners."""
    sizes: list[list[tuple[float, float]]] = [[] for _ in levels]
    for level, _, where in _blocks(levels, each):
        boxes = blank[where, :4].astype(np.float64)
        if not np.isfinite(boxes).all():
            return None
        if np.ptp(boxes[:, 2:], axis=0).max() > BOX_SLACK:
            boxes[:, 2:] -= boxes[:, :2]
        if np.ptp(boxes[:, 2:], axis=0).max() > BOX_SLACK or boxes[:, 2:].min() <= 0:
            return None
        if len(boxes) == 1 and _is_corner(boxes[0], levels[level].stride):
            boxes[:, 2:] -= boxes[:, :2]
        width, height = np.round(np.median(boxes[:, 2:], axis=0), 4)
        sizes[level].append((float(width), float(height)))
    return tuple(tuple(level) for level in sizes)


def _is_corner(box: Float, step: int) -> bool:
    """For a level of one cell, whether the box is given as corners: as center and size, its center
    would be half a stride from the image corner.
    """
    return bool(np.abs(box[:2] - step / 2).max() > BOX_SLACK)


def _spread(level: Level, each: int, logits: Array) -> Float:
    """Logits as (anchors * cells, values), anchor by anchor, row-major, float64."""
    numbers = level.branch.shape[1] // each
    blocks = logits[0].astype(np.float64).reshape(each, numbers, -1)
    return np.ascontiguousarray(blocks.transpose(0, 2, 1)).reshape(-1, numbers)


def _rows(
    table: Array, levels: Sequence[Level], values: dict[str, Array], anchors: Anchors
) -> _Rows | str:
    """Identify the values of a row by comparing them with the formula in float64."""
    each = len(anchors[0])
    raw = np.concatenate([_spread(v, each, values[v.branch.name]) for v in levels])
    boxes = np.concatenate(
        [_boxes(level, each, values, anchors[i]) for i, level in enumerate(levels)]
    )
    actual = table.astype(np.float64)
    edges = np.concatenate(
        (boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2), axis=1
    )
    apart = [float(np.abs(actual[:, :4] - want).max()) for want in (boxes, edges)]
    corners = apart[1] < apart[0]
    if not min(apart) <= box_limit(boxes):
        return (
            f"its boxes are {min(apart):.3g} px from what YOLOv5 and YOLOv7 make of the anchors "
            f"{format_anchors([pair for level in anchors for pair in level])}"
        )
    scores = sigmoid(raw)
    objectness = actual.shape[1] == raw.shape[1]
    wrong = np.abs(actual[:, 4] - scores[:, 4]).max() if objectness else 0.0
    if not wrong <= SCORE_SLACK:
        return f"its fifth number is no objectness: it is {wrong:.3g} from one"
    points = _points(actual, raw, levels, anchors) if objectness else 0
    after = actual[:, (5 if objectness else 4) + 2 * points :]
    raw, scores = (np.delete(a, range(5, 5 + 2 * points), axis=1) for a in (raw, scores))
    plain = np.abs(after - scores[:, 5:]).max(axis=0)
    product = np.abs(after - scores[:, 5:] * scores[:, 4:5]).max(axis=0)
    extra = np.abs(after - raw[:, 5:]).max(axis=0)
    coefficients = int((extra <= SCORE_SLACK).sum())
    classes = len(extra) - coefficients
    both = (plain[:classes], product[:classes])
    worst = [float(error.max(initial=0.0)) for error in both]
    multiplied = worst[1] < worst[0]
    if classes < 1 or not min(worst) <= SCORE_SLACK or extra[classes:].max(initial=0) > SCORE_SLACK:
        return "its values after the box are not class scores and optional mask coefficients"
    if not objectness and not multiplied:
        return "its class scores do not include the objectness"
    return _Rows(
        anchors, points, classes, coefficients, objectness, multiplied, corners, min(apart),
        max(wrong, min(worst)),
    )  # fmt: skip


def _points(actual: Float, raw: Float, levels: Sequence[Level], anchors: Anchors) -> int:
    """How many key points stand behind the objectness: p * anchor + corner of the cell * stride,
    as in YOLOv5-face."""
    parts = []
    for level, sizes in zip(levels, anchors, strict=True):
        corner, size = _places(level, sizes)
        parts.append(np.concatenate((corner * level.stride, size), axis=1))
    start, size = np.split(np.concatenate(parts), 2, axis=1)
    pairs = (raw.shape[1] - 6) // 2
    expected = raw[:, 5 : 5 + 2 * pairs] * np.tile(size, pairs) + np.tile(start, pairs)
    apart = np.abs(actual[:, 5 : 5 + 2 * pairs] - expected).max(axis=0)
    wrong = np.flatnonzero(apart > box_limit(expected))
    return int(wrong[0] if len(wrong) else 2 * pairs) // 2


def _boxes(
    level: Level, each: int, values: dict[str, Array], anchors: tuple[tuple[float, float], ...]
) -> Float:
    """(anchors * cells, 4) cx, cy, w, h in pixels."""
    s = 2 * sigmoid(_spread(level, each, values[level.branch.name])[:, :4])
    corner, sizes = _places(level, anchors)
    return np.concatenate(((s[:, :2] - 0.5 + corner) * level.stride, s[:, 2:] ** 2 * sizes), axis=1)


def _places(level: Level, anchors: Sequence[tuple[float, float]]) -> tuple[Float, Float]:
    """(anchors * cells, 2) the corners of the cells in cells, and the anchors in pixels."""
    count, columns = cells(level.branch), level.branch.shape[3]
    y, x = np.divmod(np.arange(count), columns)
    corner = np.tile(np.stack((x, y), axis=1), (len(anchors), 1)).astype(np.float64)
    return corner, np.repeat(np.array(anchors, np.float64), count, axis=0)


def _prototypes(view: GraphView, outputs: Sequence[str], count: int) -> HeadTensor | None:
    shapes = [(name, view.shape(name)) for name in outputs]
    fitting = [(n, s) for n, s in shapes if s is not None and len(s) == 4 and s[1] == count]
    return HeadTensor(fitting[0][0], "prototypes", 0, fitting[0][1]) if len(fitting) == 1 else None
