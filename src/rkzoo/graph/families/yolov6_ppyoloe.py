"""Recognises YOLOv6 and PP-YOLOE: four distances from a cell's centre, plain or as a
distribution, decoded inside the graph.

https://arxiv.org/abs/2209.02976, https://arxiv.org/abs/2203.16250. Their cut is the same; the
uncut tensors differ: YOLOv6 gives centre, size, a 1 in place of an objectness, and classes;
PP-YOLOE gives corners and classes, in one tensor or in two.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import msgspec
import numpy as np

from rkzoo.contract.detect import Decoded, DetectHead, HeadOutput
from rkzoo.errors import RkzooError
from rkzoo.graph.families.anchor_free import (
    Extra,
    Level,
    alike,
    corners,
    head,
    level_evidence,
    outputs_of_cut,
    table,
    taps,
)
from rkzoo.graph.families.branches import (
    SCORE_SLACK,
    Float,
    box_limit,
    by_size,
    cells,
    contract,
    is_table,
    moved,
    probe,
    stride,
    times,
    wrong_count,
)
from rkzoo.graph.families.recognition import Picture, Recognition, Tap
from rkzoo.graph.families.tail import Branch, Tail, tail
from rkzoo.graph.onnx.view import Array, View

_NOT_ROWS = "its output is not a row of numbers for each of {} cells"
# What the tail answers -> corners (N, 4) in pixels and scores (N, C), of so many cells.
Read = Callable[[Sequence[Array], int], tuple[Float, Float] | None]


@dataclass(frozen=True)
class _Seen:
    """A tail that gives boxes as corners and scores, and how near it came. `coarsest_first`:
    the order of its levels, as PaddleDetection has it."""

    levels: tuple[Level, ...]
    coarsest_first: bool
    box_px: float
    score: float

    @property
    def classes(self) -> int:
        return self.levels[0].score.shape[1]


def yolov6(seen: View, picture: Picture) -> Recognition | str:
    """One output 1xNx(5+C): centre and size in pixels, a 1, classes after their sigmoid."""
    outputs = [output.name for output in seen.model.graph.output]
    if len(outputs) != 1:
        return ""
    end = tail(seen, outputs)
    if isinstance(end, str):
        return end
    values = probe(end.branches, seed=0)
    try:
        (answer,) = end(values)
        if not is_table(answer) or answer.shape[2] < 6:
            return "its output is not 1x(cells of all levels)x(5+classes)"
        if np.abs(answer[0, :, 4] - 1).max() > 0:
            return "its fifth number is not a constant 1, as YOLOv6 has it"
        found = _match(end, values, picture, _yolov6_rows)
    except RkzooError as error:
        return f"the end of the graph cannot be run alone ({error.why})"
    if isinstance(found, str):
        return found
    cut, taken = _cut(found)
    uncut = msgspec.structs.replace(
        cut,
        outputs=(HeadOutput(name=outputs[0], role="decoded"),),
        # The 1 stands where the objectness would: a product with it changes nothing.
        objectness="product",
        decoded=Decoded(rows_last=False),
    )
    return Recognition(
        family="yolov6",
        form="stock",
        contract=contract("yolov6", picture, cut),
        uncut=contract("yolov6", picture, uncut),
        taps=taken,
        coarsest_first=found.coarsest_first,
        evidence=(
            f"One output of {times(answer.shape)}: a box, a constant 1 and {found.classes} "
            f"class{'es' * (found.classes > 1)} for each cell.",
            *_evidence(found),
        ),
    )


def ppyoloe(seen: View, picture: Picture) -> Recognition | str:
    """Corners in pixels 1xNx4 and scores 1xCxN, or both in one tensor 1xNx(4+C)."""
    outputs = [output.name for output in seen.model.graph.output]
    if len(outputs) not in (1, 2):
        return ""
    end = tail(seen, outputs)
    if isinstance(end, str):
        return end
    values = probe(end.branches, seed=0)
    try:
        answers = end(values)
        if not all(is_table(a) for a in answers):
            return "its outputs are not boxes 1xNx4 and scores, or both in one tensor"
        read = _one_tensor if len(outputs) == 1 else _two_tensors
        found = _match(end, values, picture, read)
    except RkzooError as error:
        return f"the end of the graph cannot be run alone ({error.why})"
    if isinstance(found, str):
        return found
    cut, taken = _cut(found)
    picture = replace(picture, image=msgspec.structs.replace(picture.image, fit="stretch"))
    if len(outputs) == 1:
        whole: tuple[HeadOutput, ...] = (HeadOutput(name=outputs[0], role="decoded"),)
        decoded = Decoded(rows_last=False, corners=True)
    else:
        box, score = _box_first(answers)
        last = answers[score].shape[1] == found.classes
        whole = (
            HeadOutput(name=outputs[box], role="box"),
            HeadOutput(name=outputs[score], role="score"),
        )
        decoded = Decoded(rows_last=last, corners=True)
    uncut = msgspec.structs.replace(cut, outputs=whole, decoded=decoded)
    return Recognition(
        family="ppyoloe",
        form="stock",
        contract=contract("ppyoloe", picture, cut),
        uncut=contract("ppyoloe", picture, uncut),
        taps=taken,
        coarsest_first=found.coarsest_first,
        evidence=(
            f"{'One output' if len(outputs) == 1 else 'Boxes and scores'} of "
            f"{' and '.join(times(a.shape) for a in answers)}: corners in pixels and "
            f"{found.classes} class{'es' * (found.classes > 1)} for each cell.",
            *_evidence(found),
            "PP-YOLOE was trained on pictures stretched to the input, and PP-YOLOE+ on pixels "
            "divided by 255 only: that is assumed, for the file does not say.",
        ),
    )


# ---- what the tail gives, as corners and scores -------------------------------------


def _yolov6_rows(answers: Sequence[Array], _: int) -> tuple[Float, Float] | None:
    table = answers[0][0].astype(np.float64)
    half = table[:, 2:4] / 2
    return np.concatenate((table[:, :2] - half, table[:, :2] + half), axis=1), table[:, 5:]


def _one_tensor(answers: Sequence[Array], _: int) -> tuple[Float, Float] | None:
    table = answers[0][0].astype(np.float64)
    return table[:, :4], table[:, 4:]


def _two_tensors(answers: Sequence[Array], total: int) -> tuple[Float, Float] | None:
    box, score = _box_first(answers)
    boxes, scores = answers[box][0].astype(np.float64), answers[score][0].astype(np.float64)
    if boxes.shape != (total, 4) or total not in scores.shape:
        return None
    return boxes, scores.T if scores.shape[1] == total else scores


def _box_first(answers: Sequence[Array]) -> tuple[int, int]:
    return (0, 1) if answers[0].shape[2] == 4 else (1, 0)


def _match(end: Tail, values: Mapping[str, Array], picture: Picture, read: Read) -> _Seen | str:
    groups = by_size(end)
    if isinstance(groups, str):
        return groups
    total = sum(cells(group[0]) for group in groups)
    answer = read(end(values), total)
    if answer is None or len(answer[0]) != total:
        return _NOT_ROWS.format(total)
    levels = []
    for group in groups:
        level = _level(group, picture, lambda answers: read(answers, total), end, values)
        if isinstance(level, str):
            return level
        levels.append(level)
    reason = alike(levels)
    if reason:
        return reason
    found = []
    for coarsest_first, order in ((False, levels), (True, levels[::-1])):
        made = table(order, values, Extra(), activated=True)
        boxes, scores = corners(made.boxes).T, made.scores.T
        if answer[1].shape != scores.shape:
            return f"its {scores.shape[1]} classes do not make up its output"
        score = float(np.abs(answer[1] - scores).max())
        box = float(np.abs(answer[0] - boxes).max())
        if box <= box_limit(boxes) and score <= SCORE_SLACK:
            return _Seen(tuple(levels), coarsest_first, box, score)
        found.append((box, score))
    box, score = min(found)
    return (
        "its boxes are not distances from the cells' centres: it differs by "
        f"{box:.3g} px and {score:.3g} in score"
    )


def _level(
    group: Sequence[Branch],
    picture: Picture,
    read: Callable[[Sequence[Array]], tuple[Float, Float] | None],
    end: Tail,
    values: Mapping[str, Array],
) -> Level | str:
    """Which of two branches moves the boxes, and which the scores."""
    reason = wrong_count(group, (2,), "two, box and class")
    step = stride(group[0], picture)
    if reason or isinstance(step, str):
        return reason or str(step)
    before, roles = read(end(values)), {}
    for branch in group:
        after = read(moved(end, values, branch))
        if before is None or after is None:
            return "its output is not a row of numbers for each cell"
        changed = [bool((a != b).any()) for a, b in zip(before, after, strict=True)]
        roles[tuple(changed)] = branch
    if set(roles) != {(True, False), (False, True)}:
        return "its boxes and scores do not come from branches of their own"
    return Level(roles[True, False], roles[False, True], step)


def _cut(found: _Seen) -> tuple[DetectHead, tuple[Tap, ...]]:
    taken = taps(found.levels, Extra(), None)
    return head(found.levels, Extra(), outputs_of_cut(found.levels, taken)), taken


def _evidence(found: _Seen) -> tuple[str, ...]:
    return (
        *level_evidence(found.levels, Extra(), activated=True),
        "Fed with random numbers, the end of the graph answers as this head must: within "
        f"{found.box_px:.1g} px and {found.score:.1g} in score.",
    )
