"""Recognises heads with anchors: YOLOv5, YOLOv7 and their like, with and without masks.

https://docs.ultralytics.com/yolov5: xy = (2 s - 0.5 + cell) * stride, wh = (2 s)^2 * anchor,
where s is the sigmoid of a number. So a tail that is fed zeros answers with its own anchors.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np

from rkzoo.contract import Decoded, DetectHead, HeadOutput
from rkzoo.errors import RkzooError
from rkzoo.graph.branches import (
    BOX_SLACK,
    SCORE_SLACK,
    Float,
    by_size,
    cells,
    contract,
    probe,
    same,
    sigmoid,
    stride,
    times,
)
from rkzoo.graph.cut import cut_outputs
from rkzoo.graph.recognition import Picture, Recognition, Tap
from rkzoo.graph.tail import Branch, Tail, tail
from rkzoo.graph.view import Array, View

Anchors = tuple[tuple[tuple[float, float], ...], ...]


def _table(*rows: tuple[float, ...]) -> Anchors:
    return tuple(tuple(zip(row[::2], row[1::2], strict=True)) for row in rows)


# What upstream's configurations hold, (w, h) in pixels, the finest level first.
YOLOV5 = _table(
    (10, 13, 16, 30, 33, 23), (30, 61, 62, 45, 59, 119), (116, 90, 156, 198, 373, 326)
)  # fmt: skip
YOLOV5_P6 = _table(
    (19, 27, 44, 40, 38, 94), (96, 68, 86, 152, 180, 137),
    (140, 301, 303, 264, 238, 542), (436, 615, 739, 380, 925, 792),
)  # fmt: skip
YOLOV7 = _table(
    (12, 16, 19, 36, 40, 28), (36, 75, 76, 55, 72, 146), (142, 110, 192, 243, 459, 401)
)  # fmt: skip
_USUAL: dict[tuple[int, ...], Anchors] = {(8, 16, 32): YOLOV5, (8, 16, 32, 64): YOLOV5_P6}
# Anchors that were learned from a data set have fractions; files keep four figures or so.
_SAME_ANCHOR = 0.01
_PIXEL_SHARE = 1e-6
_ONE_NUMBER = re.compile(r"[^\s,;:\[\](){}]+")


# ---- anchors by hand ----------------------------------------------------------------


def parse_anchors(text: str) -> tuple[tuple[float, float], ...]:
    """(w, h) pairs in input pixels, the finest level first.

    `text` holds the numbers with anything of commas, blanks, brackets and line ends between
    them, as Rockchip's anchor files (one number a line), or it is the path of such a file.
    Raises RkzooError when it is neither, or the numbers are no anchors.
    """
    name = text.strip()
    if "\n" not in name and len(name) < 4096 and Path(name).is_file():
        text = Path(name).read_text(encoding="utf-8", errors="replace")
    try:
        numbers = [float(word) for word in _ONE_NUMBER.findall(text)]
    except ValueError as error:
        raise RkzooError(
            "The anchors cannot be read.",
            f"They are no numbers and no file with numbers: {error}.",
            "Give them like --anchors 10,13,16,30,33,23,... or the name of a file with one "
            "number a line.",
        ) from error
    if not numbers or len(numbers) % 2:
        raise RkzooError(
            f"There are {len(numbers)} numbers where anchors come in pairs.",
            "Each anchor is a width and a height.",
            "A usual model has 18 numbers: three anchors for each of strides 8, 16 and 32.",
        )
    if not all(0 < number <= 16384 for number in numbers):
        raise RkzooError(
            "An anchor is not a size in pixels.",
            f"The numbers reach from {min(numbers):g} to {max(numbers):g}.",
            "Give anchors in pixels of the model's input, not in cells and not as fractions.",
        )
    return tuple(zip(numbers[::2], numbers[1::2], strict=True))


def check_anchors(found: Anchors, given: Sequence[tuple[float, float]]) -> None:
    """Raises RkzooError, with both lists, when `given` are not the anchors that were read from
    the graph."""
    flat = np.array([pair for level in found for pair in level], np.float64)
    other = np.array(given, np.float64).reshape(-1, 2)
    if flat.shape == other.shape and np.allclose(flat, other, rtol=0, atol=_SAME_ANCHOR):
        return
    raise RkzooError(
        "The anchors given are not those of the model.",
        f"The graph holds {shown(flat.tolist())}; given were {shown(other.tolist())}.",
        "Leave --anchors out: they are read from the graph.",
    )


def with_anchors(found: Recognition, given: Sequence[tuple[float, float]]) -> Recognition:
    """`found` with these anchors where its graph has none of its own; where it has, they are
    only compared. Raises RkzooError when they do not fit."""
    head = found.contract.head
    if not isinstance(head, DetectHead) or head.coding != "anchor":
        raise RkzooError(
            "This model has no anchors.",
            f"It was recognised as {found.family}, which does without them.",
            "Leave --anchors out.",
        )
    if found.anchors_known:
        check_anchors(head.anchors, given)
        return found
    levels = len(head.strides)
    each = len(given) // levels
    whole = next(tap for tap in found.taps if tap.role == "anchors")
    channels = len(whole.channels) or whole.shape[1]
    fixed = found.uncut is not None or head.coefficients
    if (
        len(given) % levels
        or channels % each
        or channels // each < 6
        or (fixed and each != len(head.anchors[0]))
    ):
        raise RkzooError(
            f"{len(given)} anchors do not fit this model.",
            f"It has {levels} levels, each with {channels} channels, which are "
            f"{len(head.anchors[0])} anchors of {channels // len(head.anchors[0])} numbers.",
            f"Give {levels * len(head.anchors[0])} anchors, width and height of each.",
        )
    anchors = tuple(tuple(given[i * each : (i + 1) * each]) for i in range(levels))
    classes = channels // each - 5
    named: Literal["product", "alone"] = _objectness(anchors, classes)

    def changed(old: DetectHead) -> DetectHead:
        return msgspec.structs.replace(old, anchors=anchors, classes=classes, objectness=named)

    labels = found.contract.labels if len(found.contract.labels) == classes else ()
    new = msgspec.structs.replace(
        found.contract, family=_family(anchors), head=changed(head), labels=labels
    )
    uncut = found.uncut
    if uncut is not None and isinstance(uncut.head, DetectHead):
        uncut = msgspec.structs.replace(
            uncut, family=_family(anchors), head=changed(uncut.head), labels=labels
        )
    kept = tuple(s for s in found.evidence if s not in (_ASSUMED, *_SCORE_OF.values()))
    return replace(
        found,
        family=_family(anchors),
        contract=new,
        uncut=uncut,
        evidence=(
            *kept,
            f"The anchors are those given: {shown(given)}.",
            *_score_evidence(anchors, classes),
        ),
    )


def shown(anchors: Sequence[Sequence[float]]) -> str:
    return " ".join(",".join(f"{number:g}" for number in pair) for pair in anchors)


# ---- the decoded export -------------------------------------------------------------


@dataclass(frozen=True)
class _Level:
    branch: Branch
    stride: int


@dataclass(frozen=True)
class _Rows:
    """What the numbers of one box in the uncut tensor are: `classes`, `coefficients`, whether
    an objectness stands before the classes and whether the classes hold it as a factor."""

    classes: int
    coefficients: int
    objectness: bool
    multiplied: bool
    corners: bool
    box_px: float
    score: float


def stock(seen: View, picture: Picture) -> Recognition | str:
    """One output 1xNx(5+C) (or 1x(5+C)xN), centre and size in pixels, objectness, classes and
    perhaps mask coefficients; further outputs may be the heads before decoding, which nobody
    needs, and the masks' prototypes."""
    outputs = [output.name for output in seen.model.graph.output]
    if not outputs:
        return ""
    main = next((name for name in outputs if len(seen.shape(name) or ()) == 3), outputs[0])
    end = tail(seen, [main])
    if isinstance(end, str):
        return end
    levels = _levels(end, picture)
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
            f"its output of {times(answer.shape)} is not a row of numbers for each of some "
            f"anchors in each of {total} cells"
        )
    each, rows_last = turned
    table, blank = (a[0].T if rows_last else a[0] for a in (answer, zero))
    anchors = _anchors(blank, levels, each)
    if anchors is None:
        return "its boxes have no size of their own for each level, as anchors give them"
    rows = _rows(table, levels, values, anchors)
    if isinstance(rows, str):
        return rows
    prototypes = None
    if rows.coefficients:
        prototypes = _prototypes(seen, outputs, rows.coefficients)
        if prototypes is None:
            return f"it has {rows.coefficients} mask coefficients and no prototypes for them"
    objectness = _objectness(anchors, rows.classes)
    taps = _taps(levels, each, rows.coefficients, prototypes)
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
        # The graph multiplies by the class that was not trained: follow the graph.
        head = msgspec.structs.replace(head, objectness="product")
        uncut = msgspec.structs.replace(uncut, objectness="product" if rows.objectness else "none")
    family = _family(anchors)
    spare = [name for name in outputs if name not in {o.name for o in whole}]
    return Recognition(
        family=family,
        form="stock",
        contract=contract(family, picture, head),
        uncut=contract(family, picture, uncut),
        taps=taps,
        evidence=(
            f"One output of {times(answer.shape)}: {each} anchors in each of {total} cells.",
            *_level_evidence(levels, each, rows.classes, rows.coefficients),
            "The anchors, read from the graph by feeding it zeros, are "
            f"{shown([pair for level in anchors for pair in level])}.",
            *(["The graph multiplies the classes by the objectness."] if rows.multiplied else []),
            *_score_evidence(anchors, rows.classes),
            *([f"{len(spare)} more outputs are not needed."] if spare else []),
            "Fed with random numbers, the end of the graph answers as this head must: within "
            f"{rows.box_px:.1g} px and {rows.score:.1g} in score.",
        ),
    )


def _levels(end: Tail, picture: Picture) -> list[_Level] | str:
    groups = by_size(end)
    if isinstance(groups, str):
        return groups
    found = []
    for group in groups:
        if len(group) != 1:
            return (
                f"each {times(group[0].shape[2:])} level ends in {len(group)} branches, where a "
                "head with anchors has one"
            )
        step = stride(group[0], picture)
        if isinstance(step, str):
            return step
        found.append(_Level(group[0], step))
    if len({level.branch.shape[1] for level in found}) != 1:
        return "the number of channels differs from level to level"
    return found


def _turned(answer: Array, total: int, channels: int) -> tuple[int, bool] | None:
    """Anchors a cell, and whether the rows come last; None where it is no such tensor. The
    objectness may have gone into the classes, which leaves one number fewer."""
    if answer.ndim != 3 or answer.shape[0] != 1:
        return None
    for rows_last, (boxes, width) in ((False, answer.shape[1:]), (True, answer.shape[:0:-1])):
        each = boxes // total
        if boxes % total == 0 and each and channels % each == 0:
            numbers = channels // each
            if numbers >= 6 and width in (numbers, numbers - 1):
                return each, rows_last
    return None


def _blocks(levels: Sequence[_Level], each: int) -> list[tuple[int, int, slice]]:
    """(level, anchor, where its cells stand in the output), in the output's order."""
    found, start = [], 0
    for index, level in enumerate(levels):
        for anchor in range(each):
            stop = start + cells(level.branch)
            found.append((index, anchor, slice(start, stop)))
            start = stop
    return found


def _anchors(blank: Array, levels: Sequence[_Level], each: int) -> Anchors | None:
    """Sizes of the boxes that come out when zeros go in; centre and size, or corners."""
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
    """A level of one cell does not show by itself what its numbers are: the centre would be
    half a cell from the corner of the picture."""
    return bool(np.abs(box[:2] - step / 2).max() > BOX_SLACK)


def _spread(level: _Level, each: int, logits: Array) -> Float:
    """(anchors * cells, numbers), anchor by anchor, row by row, in double precision."""
    numbers = level.branch.shape[1] // each
    blocks = logits[0].astype(np.float64).reshape(each, numbers, -1)
    return np.ascontiguousarray(blocks.transpose(0, 2, 1)).reshape(-1, numbers)


def _rows(
    table: Array, levels: Sequence[_Level], values: dict[str, Array], anchors: Anchors
) -> _Rows | str:
    """What the numbers are, by comparison with the formula in double precision."""
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
    limit = BOX_SLACK + _PIXEL_SHARE * float(np.abs(boxes).max())
    if not min(apart) <= limit:
        return (
            f"its boxes are {min(apart):.3g} px from what YOLOv5 and YOLOv7 make of the anchors "
            f"{shown([pair for level in anchors for pair in level])}"
        )
    scores = sigmoid(raw)
    objectness = found.shape[1] == raw.shape[1]
    first = 5 if objectness else 4
    wrong = np.abs(found[:, 4] - scores[:, 4]).max() if objectness else 0.0
    if not wrong <= SCORE_SLACK:
        return f"its fifth number is no objectness: it is {wrong:.3g} from one"
    plain = np.abs(found[:, first:] - scores[:, 5:]).max(axis=0)
    product = np.abs(found[:, first:] - scores[:, 5:] * scores[:, 4:5]).max(axis=0)
    extra = np.abs(found[:, first:] - raw[:, 5:]).max(axis=0)
    coefficients = int((extra <= SCORE_SLACK).sum())
    classes = len(extra) - coefficients
    both = (plain[:classes], product[:classes])
    worst = [float(error.max(initial=0.0)) for error in both]
    multiplied = worst[1] < worst[0]
    if classes < 1 or not min(worst) <= SCORE_SLACK or extra[classes:].max(initial=0) > SCORE_SLACK:
        return "its numbers behind the box are not class scores and perhaps mask coefficients"
    if not objectness and not multiplied:
        return "its class scores leave the objectness out"
    return _Rows(
        classes, coefficients, objectness, multiplied, corners, min(apart), max(wrong, min(worst))
    )


def _boxes(
    level: _Level, each: int, values: dict[str, Array], anchors: tuple[tuple[float, float], ...]
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


def _taps(
    levels: Sequence[_Level], each: int, coefficients: int, prototypes: Tap | None
) -> tuple[Tap, ...]:
    """Classes go through a sigmoid, mask coefficients must not: where one convolution makes
    both it is split."""
    taps = []
    for index, level in enumerate(levels):
        name, shape = level.branch.name, level.branch.shape
        if not coefficients:
            taps.append(Tap(name, "anchors", index, shape, sigmoid=True))
            continue
        numbers = shape[1] // each
        split = numbers - coefficients
        where = [(anchor * numbers, anchor * numbers + split) for anchor in range(each)]
        scores = tuple(c for start, middle in where for c in range(start, middle))
        masks = tuple(c for _, middle in where for c in range(middle, middle + coefficients))
        taps.append(Tap(name, "anchors", index, shape, sigmoid=True, channels=scores))
        taps.append(Tap(name, "coefficients", index, shape, channels=masks))
    return (*taps, prototypes) if prototypes else tuple(taps)


# ---- the heads before decoding ------------------------------------------------------


def heads(seen: View, picture: Picture) -> Recognition | str:
    """One output a level: 1xAxhxwx(5+C) before or after the sigmoid (YOLOv5 and YOLOv7 left
    undecoded) or 1xA(5+C)xhxw, after the sigmoid as Rockchip's export has it, or before.

    The anchors are not in such a graph: those of YOLOv5 are assumed, aloud.
    """
    outputs = [output.name for output in seen.model.graph.output]
    if len(outputs) < 2:
        return ""
    end = tail(seen, outputs)
    if isinstance(end, str):
        return end
    levels = _levels(end, picture)
    if isinstance(levels, str):
        return levels
    if len(levels) != len(outputs):
        return f"its {len(outputs)} outputs come from {len(levels)} sizes of feature maps"
    values = probe(end.branches, seed=0)
    try:
        answers = dict(zip(outputs, end(values), strict=True))
    except RkzooError as error:
        return f"the end of the graph cannot be run alone ({error.why})"
    meanings = [_meaning(values[level.branch.name], answers) for level in levels]
    good = [meaning for meaning in meanings if meaning is not None]
    if len(good) != len(levels) or len({(m.each, m.activated) for m in good}) != 1:
        return "its outputs are not what single branches give, as they are or after a sigmoid"
    each, activated = good[0].each, good[0].activated
    strides = tuple(level.stride for level in levels)
    anchors = _USUAL.get(strides)
    channels = levels[0].branch.shape[1]
    count = each or 3
    if anchors is None or count != 3 or channels % count or channels // count < 6:
        return (
            f"its {channels} channels at strides {', '.join(map(str, strides))} are not three "
            "anchors with a box, an objectness and classes, and the anchors are not in the graph"
        )
    classes = channels // count - 5
    taps = _taps(levels, count, 0, None)
    named = tuple(HeadOutput(name=m.name, role="anchors", level=i) for i, m in enumerate(good))
    whole = DetectHead(
        outputs=named,
        classes=classes,
        reg_max=1,
        strides=strides,
        activated=activated,
        coding="anchor",
        anchors=anchors,
        objectness=_objectness(anchors, classes),
    )
    vendor = not each and activated
    cut = msgspec.structs.replace(whole, outputs=cut_outputs(taps, strides), activated=True)
    return Recognition(
        family=_family(anchors),
        form="vendor-3" if vendor else "stock",
        contract=contract(_family(anchors), picture, whole if vendor else cut),
        uncut=None if vendor else contract(_family(anchors), picture, whole),
        taps=taps,
        anchors_known=False,
        evidence=(
            f"{len(outputs)} outputs like {times(answers[good[0].name].shape)}, one a level, "
            f"{'after' if activated else 'before'} the sigmoid.",
            *_level_evidence(levels, count, classes, 0),
            _ASSUMED,
            *_score_evidence(anchors, classes),
        ),
    )


@dataclass(frozen=True)
class _Meaning:
    """Output `name` is a branch with `each` anchors apart (0: as the branch has them)."""

    name: str
    each: int
    activated: bool


def _meaning(logits: Array, answers: dict[str, Array]) -> _Meaning | None:
    scores = sigmoid(logits)
    for name, answer in answers.items():
        each = answer.shape[1] if answer.ndim == 5 else 0
        for activated, want in ((True, scores), (False, logits)):
            if same(answer, _apart(want, each) if each else want):
                return _Meaning(name, each, activated)
    return None


def _apart(whole: Array | Float, each: int) -> Array:
    """1xA(5+C)xhxw to 1xAxhxwx(5+C); itself where it cannot be."""
    if whole.shape[1] % each:
        return whole
    apart = whole.reshape(1, each, -1, *whole.shape[2:])
    return np.asarray(apart.transpose(0, 1, 3, 4, 2))


def masks(seen: View, picture: Picture) -> Recognition | str:
    """Rockchip's YOLOv5-seg: a level, 1xA(5+C)xhxw after the sigmoid and 1xAMxhxw mask
    coefficients, and prototypes 1xMxHxW."""
    outputs = [output.name for output in seen.model.graph.output]
    if len(outputs) < 3 or len(outputs) % 2 == 0:
        return ""
    shapes = [(seen.shape(name) or (), name) for name in outputs]
    if any(len(shape) != 4 for shape, _ in shapes):
        return "its outputs are not all pictures of features 1xCxHxW"
    shape, proto = max(shapes, key=lambda pair: pair[0][2] * pair[0][3])
    rest = [name for name in outputs if name != proto]
    end = tail(seen, rest)
    groups = by_size(end) if not isinstance(end, str) else end
    if isinstance(end, str) or isinstance(groups, str):
        return str(groups)
    if any(len(group) != 2 for group in groups) or 2 * len(groups) != len(rest):
        return "its levels do not end in two branches each, scores and mask coefficients"
    steps = [stride(group[0], picture) for group in groups]
    values = probe(end.branches, seed=0)
    try:
        answers = dict(zip(rest, end(values), strict=True))
    except RkzooError as error:
        return f"the end of the graph cannot be run alone ({error.why})"
    named, taps = [], []
    for index, group in enumerate(groups):
        found = [(branch, _meaning(values[branch.name], answers)) for branch in group]
        found.sort(key=lambda pair: pair[1] is None or not pair[1].activated)
        (scores, first), (mask, second) = found
        if (
            first is None or second is None or not first.activated or second.activated
            or first.each or second.each or mask.shape[1] != 3 * shape[1]
            or scores.shape[1] % 3 or scores.shape[1] < 18
        ):  # fmt: skip
            return (
                "its levels are not scores after a sigmoid and raw mask coefficients of three "
                "anchors"
            )
        named += [
            HeadOutput(name=first.name, role="anchors", level=index),
            HeadOutput(name=second.name, role="coefficients", level=index),
        ]
        taps += [
            Tap(scores.name, "anchors", index, scores.shape, sigmoid=True),
            Tap(mask.name, "coefficients", index, mask.shape),
        ]
    strides = tuple(step for step in steps if isinstance(step, int))
    anchors = _USUAL.get(strides)
    if anchors is None:
        return "its levels are not at strides 8, 16 and 32, and it has no anchors in the graph"
    classes = taps[0].shape[1] // 3 - 5
    named.append(HeadOutput(name=proto, role="prototypes"))
    head = DetectHead(
        outputs=tuple(named),
        classes=classes,
        reg_max=1,
        strides=strides,
        coding="anchor",
        anchors=anchors,
        objectness=_objectness(anchors, classes),
        coefficients=shape[1],
    )
    return Recognition(
        family=_family(anchors),
        form="vendor-7",
        contract=contract(_family(anchors), picture, head),
        taps=(*taps, Tap(proto, "prototypes", 0, shape)),
        anchors_known=False,
        evidence=(
            f"{len(outputs)} outputs: scores and mask coefficients for each of {len(groups)} "
            f"levels, and prototypes {times(shape)}.",
            f"Three anchors a cell, {classes} class{'es' * (classes > 1)}, {shape[1]} mask "
            "coefficients.",
            _ASSUMED,
            *_score_evidence(anchors, classes),
        ),
    )


# ---- words --------------------------------------------------------------------------

_ASSUMED = (
    "THE ANCHORS ARE NOT IN THIS GRAPH: those of YOLOv5 are assumed, and with others every box "
    "has a wrong size. If the model has its own (YOLOv7, or trained on your data) give them with "
    "--anchors, or convert the stock export, which holds them."
)
_SCORE_OF = {
    "alone": (
        "One class and YOLOv7's own anchors: the score is the objectness alone, for YOLOv7 does "
        "not train the class when there is one."
    ),
    "product": (
        "One class: the score is objectness times class, as YOLOv5 trains it. YOLOv7-tiny has the "
        "same anchors as YOLOv5 and cannot be told from it; it would want the objectness alone."
    ),
}


def _objectness(anchors: Anchors, classes: int) -> Literal["product", "alone"]:
    return "alone" if classes == 1 and _close(anchors, YOLOV7) else "product"


def _family(anchors: Anchors) -> str:
    return "yolov7" if _close(anchors, YOLOV7) else "yolov5"


def _close(a: Anchors, b: Anchors) -> bool:
    left, right = (np.array([pair for level in x for pair in level]) for x in (a, b))
    return left.shape == right.shape and bool(np.allclose(left, right, rtol=0, atol=_SAME_ANCHOR))


def _score_evidence(anchors: Anchors, classes: int) -> tuple[str, ...]:
    if classes > 1:
        return ()
    return (_SCORE_OF[_objectness(anchors, classes)],)


def _level_evidence(
    levels: Sequence[_Level], each: int, classes: int, coefficients: int
) -> tuple[str, ...]:
    strides = ", ".join(str(level.stride) for level in levels)
    masks_too = f" and {coefficients} mask coefficients" if coefficients else ""
    return (
        f"{len(levels)} level{'s' * (len(levels) > 1)} (stride {strides}), each with one branch of "
        f"{levels[0].branch.shape[1]} channels: {each} anchors x (box, objectness, {classes} "
        f"class{'es' * (classes > 1)}{masks_too}).",
    )
