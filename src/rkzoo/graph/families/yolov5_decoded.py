"""YOLOv5 and YOLOv7 recognizer for decoded outputs, with and without masks.

For zero inputs the decoding returns its own anchors: (2 sigmoid(0))^2 is 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from rkzoo.contract.detect import Decoded, DetectHead, HeadOutput
from rkzoo.errors import RkzooError
from rkzoo.graph.families.anchor_levels import Level, anchor_taps, anchored_levels, said_levels
from rkzoo.graph.families.anchors import Anchors, family_of, said_scores, scored_by, shown
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
from rkzoo.graph.families.outputs import cut_outputs
from rkzoo.graph.families.recognition import Picture, Recognition, Tap
from rkzoo.graph.families.tail import tail
from rkzoo.graph.onnx.view import Array, View


@dataclass(frozen=True)
class _Rows:
    """Layout of a row of the uncut tensor: `classes`, `coefficients`, whether an objectness
    precedes the classes and whether the classes are multiplied by it.
    """

    classes: int
    coefficients: int
    objectness: bool
    multiplied: bool
    corners: bool
    box_px: float
    score: float


def stock(seen: View, picture: Picture) -> Recognition | str:
    """Recognize one output 1xNx(5+C) (or 1x(5+C)xN): center and size in pixels, objectness, classes
    and optional mask coefficients.

    Further outputs may be the raw heads, which are ignored, and the mask prototypes.
    """
    outputs = [output.name for output in seen.model.graph.output]
    if not outputs:
        return ""
    main = next((name for name in outputs if len(seen.shape(name) or ()) == 3), outputs[0])
    end = tail(seen, [main])
    if isinstance(end, str):
        return end
    levels = anchored_levels(end, picture)
    if isinstance(levels, str):
        return levels
    values = probe(end.branches, seed=0)
    try:
        answer = end(values)[0]
        zero = end({name: np.zeros_like(value) for name, value in values.items()})[0]
    except RkzooError as error:
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
    table, blank = (a[0].T if rows_last else a[0] for a in (answer, zero))
    anchors = _anchors(blank, levels, each)
    if anchors is None:
        return "its boxes do not have a constant size per anchor and level"
    rows = _rows(table, levels, values, anchors)
    if isinstance(rows, str):
        return rows
    prototypes = None
    if rows.coefficients:
        prototypes = _prototypes(seen, outputs, rows.coefficients)
        if prototypes is None:
            return f"it has {rows.coefficients} mask coefficients and no prototypes for them"
    objectness = scored_by(anchors, rows.classes)
    taps = anchor_taps(levels, each, rows.coefficients, prototypes)
    strides = tuple(level.stride for level in levels)
    head = DetectHead(
        outputs=cut_outputs(taps, strides),
        classes=rows.classes,
        reg_max=1,
        strides=strides,
        coding="anchor",
        anchors=anchors,
        objectness=objectness,
        coefficients=rows.coefficients,
    )
    whole = [HeadOutput(name=main, role="decoded")]
    if prototypes is not None:
        whole.append(HeadOutput(name=prototypes.name, role="prototypes"))
    uncut = msgspec.structs.replace(
        head,
        outputs=tuple(whole),
        objectness=objectness if rows.objectness else "none",
        decoded=Decoded(
            rows_last=rows_last,
            corners=rows.corners,
            multiplied=rows.objectness and rows.multiplied,
        ),
    )
    if rows.multiplied and objectness == "alone":
        # The graph multiplies by the untrained class score: follow the graph.
        head = msgspec.structs.replace(head, objectness="product")
        uncut = msgspec.structs.replace(uncut, objectness="product" if rows.objectness else "none")
    family = family_of(anchors)
    spare = [name for name in outputs if name not in {o.name for o in whole}]
    return Recognition(
        family=family,
        form="stock",
        contract=contract(family, picture, head),
        uncut=contract(family, picture, uncut),
        taps=taps,
        evidence=(
            f"One output of {times(answer.shape)}: {each} anchors in each of {total} cells.",
            said_levels(levels, each, rows.classes, rows.coefficients),
            "The anchors, read from the graph by feeding it zeros, are "
            f"{shown([pair for level in anchors for pair in level])}.",
            *(["The graph multiplies the classes by the objectness."] if rows.multiplied else []),
            *said_scores(anchors, rows.classes),
            *([f"{len(spare)} more outputs are not needed."] if spare else []),
            "Run on random values, the graph's decoding agrees with this head's formula within "
            f"{rows.box_px:.1g} px and {rows.score:.1g} in score.",
        ),
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
    found, start = [], 0
    for index, level in enumerate(levels):
        for anchor in range(each):
            stop = start + cells(level.branch)
            found.append((index, anchor, slice(start, stop)))
            start = stop
    return found


def _anchors(blank: Array, levels: Sequence[Level], each: int) -> Anchors | None:
    """Box sizes for zero inputs; from center and size, or corners."""
    found: list[list[tuple[float, float]]] = [[] for _ in levels]
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
        found[level].append((float(width), float(height)))
    return tuple(tuple(level) for level in found)


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
    found = table.astype(np.float64)
    edges = np.concatenate(
        (boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2), axis=1
    )
    apart = [float(np.abs(found[:, :4] - want).max()) for want in (boxes, edges)]
    corners = apart[1] < apart[0]
    if not min(apart) <= box_limit(boxes):
        return (
            f"its boxes are {min(apart):.3g} px from what YOLOv5 and YOLOv7 make of the anchors "
            f"{shown([pair for level in anchors for pair in level])}"
        )
    scores = sigmoid(raw)
    objectness = found.shape[1] == raw.shape[1]
    first = 5 if objectness else 4
    wrong = np.abs(found[:, 4] - scores[:, 4]).max() if objectness else 0.0
    if not wrong <= SCORE_SLACK:
        return f"its fifth value is not the objectness: it is {wrong:.3g} from it"
    plain = np.abs(found[:, first:] - scores[:, 5:]).max(axis=0)
    product = np.abs(found[:, first:] - scores[:, 5:] * scores[:, 4:5]).max(axis=0)
    extra = np.abs(found[:, first:] - raw[:, 5:]).max(axis=0)
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
        classes, coefficients, objectness, multiplied, corners, min(apart), max(wrong, min(worst))
    )


def _boxes(
    level: Level, each: int, values: dict[str, Array], anchors: tuple[tuple[float, float], ...]
) -> Float:
    """(anchors * cells, 4) cx, cy, w, h in pixels."""
    s = 2 * sigmoid(_spread(level, each, values[level.branch.name])[:, :4])
    count, columns = cells(level.branch), level.branch.shape[3]
    y, x = np.divmod(np.arange(count), columns)
    corner = np.tile(np.stack((x, y), axis=1), (each, 1))
    sizes = np.repeat(np.array(anchors, np.float64), count, axis=0)
    return np.concatenate(((s[:, :2] - 0.5 + corner) * level.stride, s[:, 2:] ** 2 * sizes), axis=1)


def _prototypes(seen: View, outputs: Sequence[str], count: int) -> Tap | None:
    found = [(name, seen.shape(name)) for name in outputs]
    fitting = [(n, s) for n, s in found if s is not None and len(s) == 4 and s[1] == count]
    return Tap(fitting[0][0], "prototypes", 0, fitting[0][1]) if len(fitting) == 1 else None
