"""Recognises heads that give four distances from a point of each cell, plain, as logarithms or as
a distribution, decoded inside the graph: YOLOv6, PP-YOLOE, PicoDet, NanoDet-Plus, RTMDet.

https://arxiv.org/abs/2209.02976, https://arxiv.org/abs/2203.16250,
https://arxiv.org/abs/2111.00902, https://arxiv.org/abs/2212.07784. Their cut is the same; the
uncut tensors differ: YOLOv6 gives centre, size, a 1 in place of an objectness, and classes; the
others give corners and classes, in one tensor or in two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

import msgspec
import numpy as np

from rkzoo.contract.detect import DecodedOutput, HeadOutput
from rkzoo.graph.families.anchor_free import (
    NO_SHARES,
    SHARES_SAID,
    ExtraBranch,
    Level,
    Shares,
    boxes_of,
    corners,
    head,
    head_tensors,
    level_evidence,
    mismatch,
    outputs_of_cut,
    table,
)
from rkzoo.graph.families.branches import (
    SCORE_SLACK,
    Float,
    box_limit,
    cells,
    contract,
    group_by_size,
    is_table,
    outputs_without_branch,
    probe,
    stride,
    times,
    two_of_one,
    wrong_count,
)
from rkzoo.graph.families.head_postprocessing import Branch, HeadPostprocessing, head_postprocessing
from rkzoo.graph.families.recognition import ImageSource, Recognition
from rkzoo.graph.families.training import (
    NANODET_PLUS,
    PICODET,
    PPYOLOE,
    RTMDET,
    Training,
    is_picodet,
)
from rkzoo.graph.onnx.view import Array, GraphView
from rkzoo.ort import CannotRun

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
    shares: Shares
    box_px: float
    score: float


@dataclass(frozen=True)
class _Layout:
    """How the uncut outputs are read, and described: `objectness` where a 1 stands for it."""

    read: Read
    outputs: tuple[HeadOutput, ...]
    decoded: DecodedOutput
    said: str
    objectness: bool = False


def yolov6(view: GraphView, picture: ImageSource) -> Recognition | str:
    """One output 1xNx(5+C): centre and size in pixels, a 1, classes after their sigmoid."""
    return _recognised(view, picture, 1, _rows_with_a_one)


def ppyoloe(view: GraphView, picture: ImageSource) -> Recognition | str:
    """Corners in pixels 1xNx4 and scores 1xCxN or 1xNxC, or both in one tensor 1xNx(4+C)."""
    return _recognised(view, picture, 2, _corner_rows)


def _recognised(
    view: GraphView,
    picture: ImageSource,
    most_outputs: int,
    layout_of: Callable[[Sequence[str], Sequence[Array]], _Layout | str],
) -> Recognition | str:
    outputs = [output.name for output in view.model.graph.output]
    if not 1 <= len(outputs) <= most_outputs:
        return ""
    end = head_postprocessing(view, outputs)
    if isinstance(end, str):
        return end
    values = probe(end.branches, seed=0)
    try:
        answers = end(values)
        layout = layout_of(outputs, answers)
        if isinstance(layout, str):
            return layout
        recognised = _match(end, values, picture, layout.read)
    except CannotRun as error:
        return f"the end of the graph cannot be run alone ({error.why})"
    if isinstance(recognised, str):
        return recognised
    training = None if layout.objectness else _training(recognised.levels)
    family = training.family if training else "yolov6"
    picture = training.over(picture) if training else picture
    taken = head_tensors(recognised.levels, ExtraBranch(), None)
    cut = head(recognised.levels, ExtraBranch(), outputs_of_cut(recognised.levels, taken))
    uncut = msgspec.structs.replace(
        cut,
        outputs=layout.outputs,
        # The 1 stands where the objectness would: a product with it changes nothing.
        objectness="product" if layout.objectness else "none",
        decoded=msgspec.structs.replace(layout.decoded, relative=recognised.shares.boxes),
    )
    return Recognition(
        family=family,
        form="stock",
        contract=contract(family, picture, cut),
        uncut=contract(family, picture, uncut),
        head_tensors=taken,
        coarsest_first=recognised.coarsest_first,
        evidence=(
            f"{layout.said} and {cut.classes} class{'es' * (cut.classes > 1)} for each cell.",
            *level_evidence(recognised.levels, ExtraBranch(), activated=True),
            *([SHARES_SAID] if recognised.shares.boxes else []),
            "Fed with random numbers, the end of the graph answers as this head must: within "
            f"{recognised.box_px:.1g} px and {recognised.score:.1g} in score.",
        ),
        assumed=(training.assumed,) if training else (),
    )


def _training(levels: Sequence[Level]) -> Training:
    if is_picodet(levels):
        return PICODET if levels[0].offset else NANODET_PLUS
    return RTMDET if levels[0].box.shape[1] == 4 and not levels[0].offset else PPYOLOE


# ---- what the tail gives, as corners and scores -------------------------------------


def _rows_with_a_one(outputs: Sequence[str], answers: Sequence[Array]) -> _Layout | str:
    (answer,) = answers
    if not is_table(answer) or answer.shape[2] < 6:
        return "its output is not 1x(cells of all levels)x(5+classes)"
    if np.abs(answer[0, :, 4] - 1).max() > 0:
        return "its fifth number is not a constant 1, as YOLOv6 has it"
    return _Layout(
        _yolov6_rows,
        (HeadOutput(name=outputs[0], role="decoded"),),
        DecodedOutput(rows_last=False),
        f"One output of {times(answer.shape)}: a box, a constant 1",
        objectness=True,
    )


def _corner_rows(outputs: Sequence[str], answers: Sequence[Array]) -> _Layout | str:
    if not all(is_table(answer) for answer in answers):
        return "its outputs are not boxes 1xNx4 and scores, or both in one tensor"
    shapes = " and ".join(times(answer.shape) for answer in answers)
    if len(answers) == 1:
        return _Layout(
            _one_tensor,
            (HeadOutput(name=outputs[0], role="decoded"),),
            DecodedOutput(rows_last=False, corners=True),
            f"One output of {shapes}: corners",
        )
    box, score = _box_first(answers)
    return _Layout(
        _two_tensors,
        (HeadOutput(name=outputs[box], role="box"), HeadOutput(name=outputs[score], role="score")),
        DecodedOutput(rows_last=answers[score].shape[2] == answers[box].shape[1], corners=True),
        f"Boxes and scores of {shapes}: corners",
    )


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


def _match(
    end: HeadPostprocessing, values: Mapping[str, Array], picture: ImageSource, read: Read
) -> _Seen | str:
    groups = group_by_size(end)
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
    reason = mismatch(levels)
    if reason:
        return reason
    candidates = []
    for coarsest_first, order in ((False, levels), (True, levels[::-1])):
        scores = table(order, values, ExtraBranch(), activated=True).scores.T
        if answer[1].shape != scores.shape:
            return f"its {scores.shape[1]} classes do not make up its output"
        score = float(np.abs(answer[1] - scores).max())
        for kind, shares, array in _readings(order, values):
            seen = shares.in_pixels(answer[0].T, picture.image.size, 4, ExtraBranch()).T
            box = float(np.abs(seen - array).max())
            if box <= box_limit(array) and score <= SCORE_SLACK:
                fitting = tuple(
                    replace(level, offset=kind.offset, logarithms=kind.logarithms)
                    for level in levels
                )
                return _Seen(fitting, coarsest_first, shares, box, score)
            candidates.append((box, score))
    box, score = min(candidates)
    return (
        "its boxes are not distances from a point of each cell: it differs by "
        f"{box:.3g} px and {score:.3g} in score"
    )


def _readings(
    levels: Sequence[Level], values: Mapping[str, Array]
) -> Iterator[tuple[Level, Shares, Float]]:
    """Every way to read the box branches, and the corners (N, 4) in pixels that it gives: from
    the centres of the cells or their corners, plain or as logarithms."""
    plain = levels[0].box.shape[1] == 4
    for logarithms, offset in product((False, True) if plain else (False,), (0.5, 0.0)):
        kinds = [replace(level, offset=offset, logarithms=logarithms) for level in levels]
        transposed = corners(boxes_of(kinds, values)).T
        for shares in (NO_SHARES, Shares(boxes=True)):
            yield kinds[0], shares, transposed


def _level(
    group: tuple[Branch, ...],
    picture: ImageSource,
    read: Callable[[Sequence[Array]], tuple[Float, Float] | None],
    end: HeadPostprocessing,
    values: Mapping[str, Array],
) -> Level | str:
    """Which of two branches, or parts of one, moves the boxes, and which the scores."""
    before = read(end(values))
    if before is None:
        return "its output is not a row of numbers for each cell"

    def moves(branch: Branch) -> tuple[bool, ...]:
        after = read(outputs_without_branch(end, values, branch)) or before
        return tuple(bool((a != b).any()) for a, b in zip(before, after, strict=True))

    group = two_of_one(group, before[1].shape[1], lambda part: moves(part) == (False, True))
    reason = wrong_count(group, (2,), "two, box and class")
    step = stride(group[0], picture)
    if reason or isinstance(step, str):
        return reason or str(step)
    roles = {moves(branch): branch for branch in group}
    if set(roles) != {(True, False), (False, True)}:
        return "its boxes and scores do not come from branches of their own"
    return Level(roles[True, False], roles[False, True], step)
