"""YOLOv6 and PP-YOLOE recognizer: four distances from the cell center, plain or as a distribution
(DFL), decoded inside the graph.

https://arxiv.org/abs/2209.02976, https://arxiv.org/abs/2203.16250. The cut is the same for both;
the uncut tensors differ: YOLOv6 returns center, size, a constant 1 in place of an objectness, and
classes; PP-YOLOE returns corners and classes, in one tensor or two.
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
# Outputs and the number of cells -> corners (N, 4) in pixels and scores (N, C).
Read = Callable[[Sequence[Array], int], tuple[Float, Float] | None]


@dataclass(frozen=True)
class _Seen:
    """A matched head with its errors. `coarsest_first`: the order of its levels in the output, as
    in PaddleDetection.
    """

    levels: tuple[Level, ...]
    coarsest_first: bool
    box_px: float
    score: float

    @property
    def classes(self) -> int:
        return self.levels[0].score.shape[1]


def yolov6(seen: View, picture: Picture) -> Recognition | str:
    """Recognize one output 1xNx(5+C): center and size in pixels, a 1, classes after the sigmoid."""
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
            return "its fifth value is not a constant 1, as in YOLOv6"
        found = _match(end, values, picture, _yolov6_rows)
    except RkzooError as error:
        return f"the end of the graph cannot be run alone ({error.why})"
    if isinstance(found, str):
        return found
    cut, taken = _cut(found)
    uncut = msgspec.structs.replace(
        cut,
        outputs=(HeadOutput(name=outputs[0], role="decoded"),),
        # The 1 is in the place of the objectness: multiplying by it changes nothing.
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
    """Recognize corners 1xNx4 in pixels and scores 1xCxN, or both in one tensor 1xNx(4+C)."""
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
            "Assumed, since the file does not say: images stretched to the input as PP-YOLOE was "
            "trained, and pixels only divided by 255 as in PP-YOLOE+.",
        ),
    )


# ---- outputs as corners and scores --------------------------------------------------


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
    """Tell box and score branch apart, by which of the outputs each one changes."""
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
        "Run on random values, the graph's decoding agrees with this head's formula within "
        f"{found.box_px:.1g} px and {found.score:.1g} in score.",
    )
