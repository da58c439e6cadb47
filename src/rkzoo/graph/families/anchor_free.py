"""Anchor-free heads of YOLOv8 to YOLO26: a box, a class and an optional third branch per level.

Reference formulas of these heads in float64, which the recognizers compare with the graph's own
output.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rkzoo.contract.detect import DecodedOutput, DetectHead, HeadOutput
from rkzoo.graph.families.branches import (
    BOX_SLACK,
    SCORE_SLACK,
    Float,
    cells,
    centres,
    channel_mismatch,
    sigmoid,
    times,
)
from rkzoo.graph.families.head_postprocessing import Branch
from rkzoo.graph.families.outputs import cut_outputs
from rkzoo.graph.families.recognition import HeadTensor, Role
from rkzoo.graph.onnx.view import Array


@dataclass(frozen=True)
class Level:
    """The branches of a level. `third` makes what `ExtraBranch` says. Distances are measured from
    `offset` of a cell; 4 channels are their logarithms where `logarithms`."""

    box: Branch
    score: Branch
    stride: int
    third: Branch | None = None
    offset: float = 0.5
    logarithms: bool = False

    @property
    def channels(self) -> tuple[int, int, int]:
        """Channels of the box, class and third branch (0 without one)."""
        return (
            self.box.shape[1],
            self.score.shape[1],
            self.third.shape[1] if self.third is not None else 0,
        )


@dataclass(frozen=True)
class ExtraBranch:
    """The meaning of the third branch.

    Attributes:
        task: Suffix of the family.
        role: Role of the tap.
        read: Maps its raw values (E, cells) to those of the uncut graph.
        fields: Its fields in `DetectHead`.
        slack: Tolerance of a comparison.
        said: Description for the evidence.
    """

    task: Literal["", "seg", "pose", "obb"] = ""
    role: Role | None = None
    read: Callable[[Float, Level], Float] = field(default=lambda numbers, _: numbers)
    fields: Mapping[str, Any] = field(default_factory=dict)
    slack: float = SCORE_SLACK
    description: str = ""


def key_points(numbers: Float, level: Level, values: int, *, centred: bool) -> Float:
    """Decode raw keypoints (K * values, cells) to pixels.

    (2 p + corner) * stride, or (p + center) * stride where `centred`; a third value is the
    visibility and passes a sigmoid.

    Args:
        numbers: Raw keypoint values, float64.
        level: Their level.
        values: Values per keypoint, 2 or 3.
        centred: Which of the two formulas.

    Returns:
        (K * values, cells), float64.
    """
    x, y = centres(level.box)
    points = numbers.reshape(-1, values, numbers.shape[1]).copy()
    for axis, centre in enumerate((x, y)):
        p = points[:, axis]
        points[:, axis] = (p + centre if centred else 2 * p + centre - 0.5) * level.stride
    if values == 3:
        points[:, 2] = sigmoid(points[:, 2])
    return np.asarray(points.reshape(numbers.shape), np.float64)


def radians(numbers: Float, _: Level) -> Float:
    """Decode a raw angle: (sigmoid(x) - 0.25) * pi, in radians."""
    return np.asarray((sigmoid(numbers) - 0.25) * np.pi, np.float64)


def extras(channels: int, prototypes: int) -> list[ExtraBranch]:
    """All possible meanings of a third branch.

    Args:
        channels: Its number of channels; 0 for no branch.
        prototypes: Number of mask prototypes, which equals the coefficients per box; 0 for none.
    """
    if not channels:
        return [ExtraBranch()]
    if prototypes:
        text = f"and a third of {channels} mask coefficients"
        fields = {"coefficients": channels}
        return [ExtraBranch("seg", "coefficients", fields=fields, description=text)] * (
            channels == prototypes
        )
    extra_branches = [
        _key_points(channels, v, c) for v in (3, 2) for c in (False, True) if not channels % v
    ]
    if channels == 1:
        fields = {"rotated": True}
        text = "and a third of one channel, the angle"
        extra_branches += [
            ExtraBranch("obb", "angle", radians, fields, description=text),
            ExtraBranch(
                "obb",
                "angle",
                fields={**fields, "plain_angle": True},
                description=f"{text} in radians",
            ),
        ]
    return extra_branches


def _key_points(channels: int, values: int, centred: bool) -> ExtraBranch:
    return ExtraBranch(
        "pose",
        "keypoints",
        lambda numbers, level: key_points(numbers, level, values, centred=centred),
        {
            "keypoints": channels // values,
            "keypoint_values": values,
            "centred_keypoints": centred,
        },
        BOX_SLACK,
        f"and a third of {channels} channels ({channels // values} keypoints of {values} values)",
    )


# ---- what the head computes ---------------------------------------------------------


@dataclass(frozen=True)
class DecodedTable:
    """Decoded values of all cells of all levels: `boxes` (4, N) cx, cy, w, h in pixels, `scores`
    (C, N), `extras` (E, N).
    """

    boxes: Float
    scores: Float
    extras: Float


def table(
    levels: Sequence[Level], values: Mapping[str, Array], extra: ExtraBranch, *, activated: bool
) -> DecodedTable:
    """Decode all levels by the reference formulas.

    Args:
        levels: The levels, in the order of the cells in the result.
        values: Values 1xCxhxw by branch name.
        extra: The meaning of the third branch.
        activated: Apply a sigmoid to the scores.
    """
    boxes, scores, others = [], [], []
    for level in levels:
        third = np.empty((0, cells(level.box)))
        if level.third is not None:
            third = extra.read(_flat(values, level.third), level)
        angle = third[0] if extra.role == "angle" else None
        boxes.append(_boxes(level, _flat(values, level.box), angle))
        raw = _flat(values, level.score)
        scores.append(sigmoid(raw) if activated else raw)
        others.append(third)
    return DecodedTable(*(np.concatenate(parts, axis=1) for parts in (boxes, scores, others)))


def boxes_of(levels: Sequence[Level], values: Mapping[str, Array]) -> Float:
    """(4, N) cx, cy, w, h in pixels of every cell of upright boxes."""
    parts = [_boxes(v, _flat(values, v.box), None) for v in levels]
    return np.asarray(np.concatenate(parts, axis=1), np.float64)


def _flat(values: Mapping[str, Array], branch: Branch) -> Float:
    return np.asarray(branch.of(values), np.float64)


def _boxes(level: Level, numbers: Float, angle: NDArray[np.float64] | None) -> Float:
    left, top, right, bottom = np.exp(numbers) if level.logarithms else sides(numbers)
    x, y = (middle - 0.5 + level.offset for middle in centres(level.box))
    across, down = (right - left) / 2, (bottom - top) / 2
    if angle is not None:
        cos, sin = np.cos(angle), np.sin(angle)
        across, down = across * cos - down * sin, across * sin + down * cos
    return level.stride * np.stack((x + across, y + down, left + right, top + bottom))


def sides(numbers: Float) -> Float:
    """Distances l, t, r, b (4, N) in cells from DFL logits (4 * bins, N); 4 rows are distances
    already.
    """
    if len(numbers) == 4:
        return numbers
    bins = numbers.reshape(4, -1, numbers.shape[1])
    weight = np.exp(bins - bins.max(axis=1, keepdims=True))
    weight /= weight.sum(axis=1, keepdims=True)
    return np.asarray(np.einsum("smn,m->sn", weight, np.arange(bins.shape[1])), np.float64)


def corners(boxes: Float) -> Float:
    """Convert boxes (4, N) from cx, cy, w, h to x1, y1, x2, y2."""
    half = boxes[2:] / 2
    return np.asarray(np.concatenate((boxes[:2] - half, boxes[:2] + half)), np.float64)


# ---- comparing it with a graph ------------------------------------------------------


@dataclass(frozen=True)
class Shares:
    """Whether an uncut tensor gives boxes, and key points too, in shares of the input's width
    and height, as TFLite and OpenVINO exports do."""

    boxes: bool = False
    points: bool = False

    def in_pixels(
        self, numbers: Float, size: tuple[int, int], first: int, extra: ExtraBranch
    ) -> Float:
        """(R, N) rows of numbers of an input of `size` (height, width), with boxes and key points
        in pixels; these begin at row `first`."""
        scaled: Float = numbers.copy()
        if self.boxes:
            scaled[:4] *= np.array([*size[::-1], *size[::-1]])[:, None]
        if self.points and extra.role == "keypoints":
            for axis, side in enumerate(reversed(size)):
                scaled[first + axis :: extra.fields["keypoint_values"]] *= side
        return scaled


NO_SHARES = Shares()
SHARES_SAID = (
    "Boxes leave the graph in shares of the input's width and height, as TFLite and OpenVINO have "
    "them."
)
ALL_SHARES = (NO_SHARES, Shares(boxes=True), Shares(boxes=True, points=True))


@dataclass(frozen=True)
class FormulaFit:
    """How far a hypothesis about the head is from the graph's own output."""

    extra: ExtraBranch
    activated: bool
    corners: bool
    box: float
    score: float
    other: float
    shares: Shares = NO_SHARES

    @property
    def good(self) -> bool:
        """Whether all errors are within their tolerances."""
        return (
            self.box <= BOX_SLACK and self.score <= SCORE_SLACK and self.other <= self.extra.slack
        )

    @property
    def badness(self) -> float:
        """The largest error, in units of its tolerance."""
        return max(self.box / BOX_SLACK, self.score / SCORE_SLACK, self.other / self.extra.slack)


def compare(
    decoded_table: DecodedTable, whole: Float, extra: ExtraBranch, *, activated: bool
) -> FormulaFit:
    """Compare reference values with the uncut output.

    Args:
        decoded_table: The reference values.
        whole: The graph's output (4 + C + E, N).
        extra: The meaning of the third branch.
        activated: Whether the reference scores have their sigmoid.

    Returns:
        The errors with the box form (center and size, or corners) that fits better.
    """
    classes = len(decoded_table.scores)
    score = _max_difference(whole[4 : 4 + classes], decoded_table.scores)
    other = _max_difference(whole[4 + classes :], decoded_table.extras)
    formula_fits = [
        FormulaFit(extra, activated, turned, _max_difference(whole[:4], boxes), score, other)
        for turned, boxes in _both(decoded_table.boxes, extra)
    ]
    return min(formula_fits, key=lambda fit: fit.box)


def compare_picked(decoded_table: DecodedTable, rows: Float, extra: ExtraBranch) -> FormulaFit:
    """Compare reference values with the top-k rows of an end-to-end head.

    Args:
        decoded_table: The reference values of all cells.
        rows: The graph's output (K, 4 + score + class + E).
        extra: The meaning of the third branch.

    Returns:
        The errors. Where several cells share a score, a row is matched to the nearest box.
    """
    classes, expected = len(decoded_table.scores), rows[:, 4]
    number = np.rint(rows[:, 5])
    if np.any(number != rows[:, 5]) or number.min() < 0 or number.max() >= classes:
        return FormulaFit(extra, True, True, np.inf, np.inf, np.inf)
    # The top k of all cells and classes, or of the cells by their best class.
    ranked = (np.sort(decoded_table.scores, axis=None), np.sort(decoded_table.scores.max(axis=0)))
    falling = np.sort(expected)[::-1]
    score = min(_max_difference(falling, best[::-1][: len(rows)]) for best in ranked)
    formula_fits = []
    for turned, boxes in _both(decoded_table.boxes, extra):
        box = other = 0.0
        for row, class_id in zip(rows, number.astype(int), strict=True):
            near = np.flatnonzero(np.abs(decoded_table.scores[class_id] - row[4]) <= SCORE_SLACK)
            if not len(near):
                return FormulaFit(extra, True, turned, np.inf, np.inf, np.inf)
            apart = np.abs(boxes[:, near] - row[:4, None]).max(axis=0)
            best = near[apart.argmin()]
            box = max(box, float(apart.min()))
            other = max(other, _max_difference(row[6:], decoded_table.extras[:, best]))
        formula_fits.append(FormulaFit(extra, True, turned, box, score, other))
    return min(formula_fits, key=lambda fit: fit.box)


def _both(boxes: Float, extra: ExtraBranch) -> list[tuple[bool, Float]]:
    """Boxes as center and size, and as corners where the head can have those."""
    plain = [(False, boxes)]
    return plain if extra.role == "angle" else [*plain, (True, corners(boxes))]


def _max_difference(actual: Float, expected: Float) -> float:
    if actual.shape != expected.shape:
        return float("inf")
    # A NaN difference fits nothing.
    worst = np.abs(actual - expected).max(initial=0.0)
    return float(worst) if np.isfinite(worst) else float("inf")


# ---- the result ---------------------------------------------------------------------


def head_tensors(
    levels: Sequence[Level], extra: ExtraBranch, prototypes: HeadTensor | None
) -> tuple[HeadTensor, ...]:
    """The tensors that a cut exposes: box, score, third branch per level; then the prototypes."""
    head_tensors: list[HeadTensor] = []
    for index, level in enumerate(levels):
        head_tensors.append(_tap(level.box, "box", index))
        head_tensors.append(replace(_tap(level.score, "score", index), sigmoid=True))
        if level.third is not None and extra.role is not None:
            head_tensors.append(_tap(level.third, extra.role, index))
    return (*head_tensors, prototypes) if prototypes is not None else tuple(head_tensors)


def _tap(branch: Branch, role: Role, level: int) -> HeadTensor:
    return HeadTensor(branch.name, role, level, branch.shape, channels=branch.channels)


def head(
    levels: Sequence[Level],
    extra: ExtraBranch,
    outputs: tuple[HeadOutput, ...],
    *,
    activated: bool = True,
    picks: bool = False,
    decoded: DecodedOutput | None = None,
) -> DetectHead:
    """The `DetectHead` of such levels.

    Args:
        levels: The levels, the finest first.
        extra: The meaning of the third branch.
        outputs: The graph's outputs.
        activated: Whether the scores have their sigmoid.
        picks: Whether the graph selects the top k itself, so that no NMS is needed.
        decoded: Form of the uncut output; None for a cut head.
    """
    box, classes, _ = levels[0].channels
    return DetectHead(
        outputs=outputs,
        classes=classes,
        reg_max=box // 4,
        strides=tuple(level.stride for level in levels),
        activated=activated,
        coding=_coding(levels[0]),
        cell_offset=levels[0].offset,
        suppression="none" if picks else "class",
        decoded=decoded,
        **extra.fields,
    )


def _coding(level: Level) -> Literal["dfl", "distance", "log_distance"]:
    if level.box.shape[1] > 4:
        return "dfl"
    return "log_distance" if level.logarithms else "distance"


def outputs_of_cut(levels: Sequence[Level], taken: Sequence[HeadTensor]) -> tuple[HeadOutput, ...]:
    """The outputs of a cut that exposes `head_tensors`."""
    return cut_outputs(taken, [level.stride for level in levels])


def mismatch(levels: Sequence[Level]) -> str:
    """Why these are not the levels of one head; "" if they can be."""
    box = levels[0].channels[0]
    if box % 4:
        return f"its box branch has {box} channels, which is not four sides"
    return channel_mismatch(level.channels for level in levels)


def level_evidence(levels: Sequence[Level], extra: ExtraBranch, activated: bool) -> tuple[str, str]:
    """Two sentences that describe the levels and the scores."""
    box, classes, _ = levels[0].channels
    strides = ", ".join(str(level.stride) for level in levels)
    sigmoid_said = "after their sigmoid" if activated else "before any sigmoid"
    bins = f"4 sides x {box // 4} bins" if box > 4 else "4 plain distances"
    if levels[0].logarithms:
        bins = "4 logarithms of distances"
    third = f" {extra.description}" if extra.description else ""
    both = "," if extra.description else " and"
    return (
        f"{len(levels)} level{'s' * (len(levels) > 1)} (stride {strides}), each with a box branch "
        f"of {box} channels ({bins}){both} a class branch of {classes}{third}.",
        f"The scores leave the graph {sigmoid_said}.",
    )


def cells_evidence(levels: Sequence[Level]) -> str:
    """The number of cells of each level, as in "80x80 + 40x40"."""
    return " + ".join(times(level.box.shape[2:]) for level in levels)
