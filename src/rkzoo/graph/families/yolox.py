"""YOLOX recognizer: anchor-free, offset and log size in cells, https://arxiv.org/abs/2107.08430.

Each level ends in three branches: box (4 channels), objectness (1), classes. The network is trained
on BGR pixels of 0..255, padded with 114 at the right and bottom; no file says so, and Rockchip's
example feeds RGB, which costs accuracy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import msgspec
import numpy as np

from rkzoo.contract.detect import DecodedOutput, DetectHead, HeadOutput
from rkzoo.contract.inputs import ImageInput
from rkzoo.graph.families.branches import (
    BOX_SLACK,
    SCORE_SLACK,
    Float,
    cells,
    changed_channels,
    contract,
    group_by_size,
    is_close,
    outputs_without_branch,
    probe,
    sigmoid,
    stride,
    times,
)
from rkzoo.graph.families.head_postprocessing import Branch, HeadPostprocessing, head_postprocessing
from rkzoo.graph.families.outputs import cut_outputs
from rkzoo.graph.families.recognition import HeadTensor, ImageSource, Recognition
from rkzoo.graph.onnx.view import Array, GraphView
from rkzoo.ort import CannotRun

FAMILY = "yolox"
_PIXEL_SHARE = 1e-5
_FEEDING = (
    "Assumed, since the file does not say: BGR pixels of 0..255, placed top left and padded with "
    "114, as YOLOX was trained."
)


@dataclass(frozen=True)
class _Level:
    box: Branch
    objectness: Branch
    score: Branch
    stride: int


def upstream(view: GraphView, picture: ImageSource) -> Recognition | str:
    """Recognize one output 1xNx(5+C), level after level: objectness and classes after the sigmoid,
    boxes raw or decoded to center and size.
    """
    outputs = [output.name for output in view.model.graph.output]
    if len(outputs) != 1:
        return ""
    end = head_postprocessing(view, outputs)
    groups = _groups(end)
    if isinstance(end, str) or isinstance(groups, str):
        return str(groups)
    values = probe(end.branches, seed=0)
    try:
        answer = end(values)[0]
        total = sum(cells(group[0]) for group in groups)
        if answer.ndim != 3 or answer.shape[0] != 1 or total not in answer.shape[1:]:
            return f"its output is not a row of values for each of {total} cells"
        rows_last = answer.shape[1] != total
        levels = _levels(groups, picture, _positions(end, values, answer, 1 if rows_last else 2))
    except CannotRun as error:
        return f"the end of the graph cannot be run alone ({error.why})"
    if isinstance(levels, str):
        return levels
    classes = levels[0].score.shape[1]
    table = (answer[0].T if rows_last else answer[0]).astype(np.float64)
    if table.shape[1] != 5 + classes:
        return f"its output has {table.shape[1]} numbers a cell, not 5 and {classes} classes"
    scores = np.concatenate([_scores(level, values) for level in levels])
    score = float(np.abs(table[:, 4:] - scores).max())
    if not score <= SCORE_SLACK:
        return f"its objectness and classes do not pass a sigmoid of their own ({score:.3g} apart)"
    raw = np.concatenate([_flat(values[level.box.name]) for level in levels])
    boxes = np.concatenate([_boxes(level, values) for level in levels])
    still = bool(np.abs(table[:, :4] - raw).max() <= SCORE_SLACK)
    apart = 0.0 if still else float((np.abs(table[:, :4] - boxes) / _slack(boxes)).max())
    if not apart <= 1:
        return "its boxes are not offset and log size in cells, as YOLOX encodes them"
    taps = tuple(
        head_tensor
        for index, level in enumerate(levels)
        for head_tensor in (
            HeadTensor(level.box.name, "box", index, level.box.shape),
            HeadTensor(
                level.objectness.name, "objectness", index, level.objectness.shape, sigmoid=True
            ),
            HeadTensor(level.score.name, "score", index, level.score.shape, sigmoid=True),
        )
    )
    strides = tuple(level.stride for level in levels)
    head = _head(cut_outputs(taps, strides), classes, strides)
    uncut = msgspec.structs.replace(
        head,
        outputs=(HeadOutput(name=outputs[0], role="decoded"),),
        decoded=DecodedOutput(rows_last=rows_last, raw=still),
    )
    return Recognition(
        family=FAMILY,
        form="stock",
        contract=contract(FAMILY, _with_preprocessing(picture), head),
        uncut=contract(FAMILY, _with_preprocessing(picture), uncut),
        head_tensors=taps,
        evidence=(
            f"One output of {times(answer.shape)}: {total} cells with a box, an objectness and "
            f"{classes} class{'es' * (classes > 1)}.",
            _level_evidence(levels),
            f"The boxes leave the graph {'undecoded' if still else 'decoded to pixels'}.",
            "Run on random values, the graph's decoding agrees with this head's formula within "
            f"{score:.1g} in score.",
            _FEEDING,
        ),
    )


def rockchip(view: GraphView, picture: ImageSource) -> Recognition | str:
    """Recognize Rockchip's export, upstream's with the levels separate: per level one output
    1x(5+C)xhxw of raw box, objectness and classes (both after the sigmoid).
    """
    outputs = [output.name for output in view.model.graph.output]
    if len(outputs) < 2:
        return ""
    end = head_postprocessing(view, outputs)
    groups = _groups(end)
    if isinstance(end, str) or isinstance(groups, str):
        return str(groups)
    if len(groups) != len(outputs):
        return f"its {len(outputs)} outputs come from {len(groups)} sizes of feature maps"
    values = probe(end.branches, seed=0)
    try:
        answers = end(values)
        positions: dict[str, list[int]] = {}
        for group in groups:
            which = [i for i, a in enumerate(answers) if a.shape[2:] == group[0].shape[2:]]
            if len(which) != 1:
                return "its outputs are not one for each level"
            for branch in group:
                after = outputs_without_branch(end, values, branch)[which[0]]
                positions[branch.name] = changed_channels(answers[which[0]], after, 1)
    except CannotRun as error:
        return f"the end of the graph cannot be run alone ({error.why})"
    levels = _levels(groups, picture, positions)
    if isinstance(levels, str):
        return levels
    named = []
    for index, level in enumerate(levels):
        want = np.concatenate(
            (
                values[level.box.name],
                sigmoid(values[level.objectness.name]),
                sigmoid(values[level.score.name]),
            ),
            axis=1,
        )
        name = next((n for n, a in zip(outputs, answers, strict=True) if is_close(a, want)), None)
        if name is None:
            return "its outputs are not raw boxes, then objectness and classes after a sigmoid"
        named.append(HeadOutput(name=name, role="anchors", level=index))
    strides = tuple(level.stride for level in levels)
    head = _head(tuple(named), levels[0].score.shape[1], strides)
    return Recognition(
        family=FAMILY,
        form="vendor-3",
        contract=contract(FAMILY, _with_preprocessing(picture), head),
        head_tensors=(),
        evidence=(
            f"{len(outputs)} outputs, one a level: box, objectness and {head.classes} "
            f"class{'es' * (head.classes > 1)} in one tensor.",
            _level_evidence(levels),
            _FEEDING,
        ),
    )


def _groups(end: HeadPostprocessing | str) -> list[tuple[Branch, ...]] | str:
    groups = end if isinstance(end, str) else group_by_size(end)
    if isinstance(groups, str):
        return groups
    for group in groups:
        if len(group) != 3 or sorted(b.shape[1] for b in group)[0] != 1:
            return (
                f"each {times(group[0].shape[2:])} level ends in {len(group)} "
                f"branch{'es' * (len(group) > 1)}, where YOLOX has three: box, objectness, classes"
            )
    return groups


def _positions(
    end: HeadPostprocessing, values: Mapping[str, Array], answer: Array, axis: int
) -> dict[str, list[int]]:
    return {
        branch.name: changed_channels(answer, outputs_without_branch(end, values, branch)[0], axis)
        for branch in end.branches
    }


def _levels(
    groups: Sequence[tuple[Branch, ...]], picture: ImageSource, positions: Mapping[str, list[int]]
) -> list[_Level] | str:
    """Assign roles to the branches by the positions in the output that they change."""
    levels = []
    for group in groups:
        step = stride(group[0], picture)
        if isinstance(step, str):
            return step
        roles: dict[str, Branch] = {}
        for branch in group:
            where = positions[branch.name]
            first = where[0] if where else -1
            role = {0: "box", 4: "objectness", 5: "score"}.get(first, "")
            if where != list(range(first, first + branch.shape[1])):
                return "its branches are not contiguous in the output"
            roles[role] = branch
        if set(roles) != {"box", "objectness", "score"} or roles["box"].shape[1] != 4:
            return "its three branches are not box, objectness and classes"
        levels.append(_Level(roles["box"], roles["objectness"], roles["score"], step))
    if len({level.score.shape[1] for level in levels}) != 1:
        return "the number of classes differs from level to level"
    return levels


def _flat(branch: Array) -> Float:
    """Values as (cells, channels), float64."""
    return np.asarray(branch[0].reshape(branch.shape[1], -1).T, np.float64)


def _scores(level: _Level, values: Mapping[str, Array]) -> Float:
    both = (values[level.objectness.name], values[level.score.name])
    return np.concatenate([sigmoid(_flat(b)) for b in both], axis=1)


def _boxes(level: _Level, values: Mapping[str, Array]) -> Float:
    """Reference boxes (cells, 4) cx, cy, w, h in pixels, float64."""
    raw = _flat(values[level.box.name])
    y, x = np.divmod(np.arange(len(raw)), level.box.shape[3])
    centre = raw[:, :2] + np.stack((x, y), axis=1)
    return np.concatenate((centre, np.exp(raw[:, 2:])), axis=1) * level.stride


def _slack(boxes: Float) -> Float:
    return BOX_SLACK + _PIXEL_SHARE * np.abs(boxes)


def _head(outputs: tuple[HeadOutput, ...], classes: int, strides: tuple[int, ...]) -> DetectHead:
    return DetectHead(
        outputs=outputs,
        classes=classes,
        reg_max=1,
        strides=strides,
        coding="exponent",
        objectness="product",
        suppression="all",
    )


def _with_preprocessing(picture: ImageSource) -> ImageSource:
    """The preprocessing that YOLOX was trained with."""
    image = ImageInput(
        size=picture.image.size, color="BGR", std=(1.0, 1.0, 1.0), pad=114, place="top-left"
    )
    return replace(picture, image=image)


def _level_evidence(levels: Sequence[_Level]) -> str:
    strides = ", ".join(str(level.stride) for level in levels)
    return (
        f"{len(levels)} level{'s' * (len(levels) > 1)} (stride {strides}), each with branches for "
        f"box (4), objectness (1) and {levels[0].score.shape[1]} classes."
    )
