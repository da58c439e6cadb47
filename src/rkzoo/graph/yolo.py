"""Recognises the detection head of YOLOv8 and YOLO11 (distribution focal loss, no anchors).

Two things are looked at, and no name: the shapes of the branches that end in the head, and
what the tail behind them answers to numbers that we feed it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rkzoo.contract import Contract, DetectHead, HeadOutput
from rkzoo.errors import RkzooError
from rkzoo.graph.recognition import Form, Picture, Recognition, Tap
from rkzoo.graph.tail import Branch, Tail, tail
from rkzoo.graph.view import Array, View

FAMILY = "yolov8"
# What the tail's own float32 arithmetic may differ from ours: pixels, and score.
_BOX_SLACK = 0.01
_SCORE_SLACK = 1e-4
_SAME_HEAD = "YOLOv8 and YOLO11 have the same head, so they are not told apart."
_NO_DISTRIBUTION = (
    "its box branch has 4 channels, plain distances without a distribution "
    "(as in YOLOv6, YOLO26 and YOLO-World)"
)
Float = NDArray[np.float64]


@dataclass(frozen=True)
class _Level:
    box: Branch
    score: Branch
    stride: int


def stock(seen: View, picture: Picture) -> Recognition | str:
    """The export with one output, 1x(4+C)xN: cx, cy, w, h in pixels, then the scores."""
    outputs = [output.name for output in seen.model.graph.output]
    if len(outputs) != 1:
        return ""
    end = tail(seen, outputs)
    if isinstance(end, str):
        return end
    pairs = _pairs(end)
    if isinstance(pairs, str):
        return pairs
    values = _probe(end.branches, seed=0)
    try:
        whole = _answer(end, values)
        if whole is None or whole.shape[2] != sum(_cells(pair[0]) for pair in pairs):
            return "its output is not 1x(4+classes)x(cells of all levels)"
        roles = {branch.name: _role(end, values, branch, whole) for branch in end.branches}
    except RkzooError as error:
        return f"the end of the graph cannot be run alone ({error.why})"
    levels = _levels([_sorted_by_role(pair, roles) for pair in pairs], picture)
    if isinstance(levels, str):
        return levels
    classes = levels[0].score.shape[1]
    if whole.shape[1] != 4 + classes:
        return f"its output has {whole.shape[1]} rows, not 4 and one for each of {classes} classes"
    apart = _difference(levels, values, whole)
    activated = True
    if apart[1] > _SCORE_SLACK:
        activated = False
        apart = _difference(levels, values, whole, activated=False)
    if apart[0] > _BOX_SLACK or apart[1] > _SCORE_SLACK:
        return (
            "its output is not the boxes (centre and size in pixels) and class scores that the "
            f"branches give: it differs by {apart[0]:.3g} px and {apart[1]:.3g} in score"
        )
    head = _head(levels, _cut_outputs(levels), activated=True)
    decoded = (HeadOutput(name=outputs[0], role="decoded"),)
    return Recognition(
        family=FAMILY,
        form="stock",
        contract=_contract(picture, head),
        uncut=_contract(picture, _head(levels, decoded, activated=activated)),
        taps=_taps(levels),
        evidence=(
            f"One output of {_times(whole.shape)}: {whole.shape[2]} cells are "
            f"{' + '.join(_times(level.box.shape[2:]) for level in levels)}.",
            *_level_evidence(levels, activated),
            "Fed with random numbers, the end of the graph answers as this head must: within "
            f"{apart[0]:.1g} px and {apart[1]:.1g} in score.",
            _SAME_HEAD,
        ),
    )


def vendor(seen: View, picture: Picture) -> Recognition | str:
    """Rockchip's export: a level, box 1x4Mxhxw and score 1xCxhxw, and perhaps their sum
    1x1xhxw, in any order."""
    outputs = [output.name for output in seen.model.graph.output]
    if len(outputs) == 1:
        return ""
    end = tail(seen, outputs)
    if isinstance(end, str):
        return end
    sizes = len({branch.shape[2:] for branch in end.branches})
    if len(outputs) not in (2 * sizes, 3 * sizes):
        return (
            f"its {len(outputs)} outputs come from {sizes} sizes of feature maps, where there "
            "would be two or three for each (box, score and perhaps their sum)"
        )
    pairs = _pairs(end)
    if isinstance(pairs, str):
        return pairs
    values = _probe(end.branches, seed=0)
    try:
        answers = end(values)
    except RkzooError as error:
        return f"the end of the graph cannot be run alone ({error.why})"
    meanings = _meanings(pairs, values, dict(zip(outputs, answers, strict=True)))
    if isinstance(meanings, str):
        return meanings
    levels = _levels([meaning.pair for meaning in meanings], picture)
    if isinstance(levels, str):
        return levels
    activated = meanings[0].activated
    sums = any(meaning.score_sum for meaning in meanings)
    named = [
        HeadOutput(name=name, role=role, level=index)
        for index, meaning in enumerate(meanings)
        for name, role in meaning.roles
    ]
    form: Form = "vendor-9" if sums else "vendor-6"
    return Recognition(
        family=FAMILY,
        form=form,
        contract=_contract(picture, _head(levels, tuple(named), activated=activated)),
        taps=_taps(levels),
        evidence=(
            f"{len(outputs)} outputs: {'box, score and sum' if sums else 'box and score'} for "
            f"each of {len(levels)} levels.",
            *_level_evidence(levels, activated),
            _SAME_HEAD,
        ),
    )


# ---- branches and levels ------------------------------------------------------------


def _pairs(end: Tail) -> list[tuple[Branch, Branch]] | str:
    """Two branches a level, the finest level first."""
    flat = [b for b in end.branches if len(b.shape) != 4 or b.shape[0] != 1]
    if flat or not end.branches:
        shape = _times(flat[0].shape) if flat else "nothing"
        return f"its outputs come from {shape} and not from pictures of features 1xCxHxW"
    found: dict[tuple[int, ...], list[Branch]] = {}
    for branch in end.branches:
        found.setdefault(branch.shape[2:], []).append(branch)
    if len(found) > 8:
        return f"its outputs come from {len(found)} sizes of feature maps"
    pairs = []
    for cells in sorted(found, key=lambda size: -size[0] * size[1]):
        branches = found[cells]
        if len(branches) != 2:
            channels = ", ".join(str(b.shape[1]) for b in branches)
            return (
                f"each {_times(cells)} level ends in {len(branches)} "
                f"branch{'es' * (len(branches) > 1)} of {channels} channels, where there would be "
                "two, box and class (three are of a segment, pose or rotated-box model)"
            )
        pairs.append((branches[0], branches[1]))
    return pairs


def _levels(pairs: Sequence[tuple[Branch, Branch] | str], picture: Picture) -> list[_Level] | str:
    levels = []
    height, width = picture.image.size
    for pair in pairs:
        if isinstance(pair, str):
            return pair
        box, score = pair
        rows, columns = box.shape[2:]
        if height % rows or width % columns or height // rows != width // columns:
            return (
                f"its {rows}x{columns} cells do not divide the input of {height}x{width} evenly; "
                "the size should be a multiple of 32"
            )
        levels.append(_Level(box, score, height // rows))
    channels = {(level.box.shape[1], level.score.shape[1]) for level in levels}
    if len(channels) != 1:
        return "the number of channels differs from level to level"
    if levels[0].box.shape[1] == 4:
        return _NO_DISTRIBUTION
    if levels[0].box.shape[1] % 4:
        return f"its box branch has {levels[0].box.shape[1]} channels, which is not four sides"
    return levels


def _cells(branch: Branch) -> int:
    return branch.shape[2] * branch.shape[3]


# ---- asking the tail ----------------------------------------------------------------


def _probe(branches: Sequence[Branch], seed: int) -> dict[str, Array]:
    random = np.random.default_rng(seed)
    return {b.name: random.normal(0, 2, b.shape).astype(np.float32) for b in branches}


def _answer(end: Tail, values: Mapping[str, Array]) -> Array | None:
    answer = end(values)[0]
    if answer.ndim != 3 or answer.shape[0] != 1 or answer.shape[1] < 5:
        return None
    return answer


def _role(end: Tail, values: Mapping[str, Array], branch: Branch, whole: Array) -> str:
    """Which rows of the output move with the branch: the first four, or the others."""
    moved = end({**values, branch.name: values[branch.name] + _probe([branch], 1)[branch.name]})[0]
    rows = np.flatnonzero(np.any(moved[0] != whole[0], axis=1))
    if rows.size and rows.max() < 4:
        return "box"
    return "score" if rows.size and rows.min() >= 4 else "both"


def _sorted_by_role(
    pair: tuple[Branch, Branch], roles: Mapping[str, str]
) -> tuple[Branch, Branch] | str:
    found = {roles[branch.name]: branch for branch in pair}
    if set(found) != {"box", "score"}:
        return "its boxes and scores do not come from branches of their own"
    return found["box"], found["score"]


def _difference(
    levels: Sequence[_Level], values: Mapping[str, Array], whole: Array, *, activated: bool = True
) -> tuple[float, float]:
    """Largest difference between the tail's answer and this head's: pixels, and score."""
    boxes = np.concatenate([_boxes(level, values[level.box.name]) for level in levels], axis=1)
    flat = [values[level.score.name][0].reshape(level.score.shape[1], -1) for level in levels]
    scores = np.concatenate(flat, axis=1).astype(np.float64)
    if activated:
        scores = _sigmoid(scores)
    found = whole[0].astype(np.float64)
    return float(np.abs(found[:4] - boxes).max()), float(np.abs(found[4:] - scores).max())


def _boxes(level: _Level, logits: Array) -> Float:
    """(4, cells) cx, cy, w, h in pixels: the tail's reference, in double precision."""
    rows, columns = level.box.shape[2:]
    bins = logits[0].astype(np.float64).reshape(4, -1, rows * columns)
    weight = np.exp(bins - bins.max(axis=1, keepdims=True))
    weight /= weight.sum(axis=1, keepdims=True)
    left, top, right, bottom = np.einsum("smn,m->sn", weight, np.arange(bins.shape[1]))
    y, x = np.divmod(np.arange(rows * columns), columns) + np.float64(0.5)
    return level.stride * np.stack(
        (x + (right - left) / 2, y + (bottom - top) / 2, left + right, top + bottom)
    )


def _sigmoid(logits: NDArray[Any]) -> Float:
    return np.asarray(1 / (1 + np.exp(-logits.astype(np.float64))), np.float64)


# ---- the vendor's outputs -----------------------------------------------------------


@dataclass(frozen=True)
class _Meaning:
    """One level of the vendor's form: its branches (box, score) and the outputs' names."""

    pair: tuple[Branch, Branch]
    box: str
    score: str
    score_sum: str | None
    activated: bool

    @property
    def roles(self) -> list[tuple[str, Literal["box", "score", "score_sum"]]]:
        roles: list[tuple[str, Literal["box", "score", "score_sum"]]] = [
            (self.box, "box"),
            (self.score, "score"),
        ]
        return [*roles, (self.score_sum, "score_sum")] if self.score_sum else roles


def _meanings(
    pairs: Sequence[tuple[Branch, Branch]],
    values: Mapping[str, Array],
    answers: Mapping[str, Array],
) -> list[_Meaning] | str:
    found = [_meaning(pair, values, answers) for pair in pairs]
    for meaning in found:
        if isinstance(meaning, str):
            return meaning
    good = [meaning for meaning in found if isinstance(meaning, _Meaning)]
    if len({(m.activated, m.score_sum is None) for m in good}) != 1:
        return "its levels are not all of one kind"
    if sum(len(m.roles) for m in good) != len(answers):
        return "it has outputs that are neither box, score nor sum of scores"
    return good


def _meaning(
    pair: tuple[Branch, Branch], values: Mapping[str, Array], answers: Mapping[str, Array]
) -> _Meaning | str:
    raw: dict[str, str] = {}
    activated: dict[str, str] = {}
    sums: dict[str, str] = {}
    for branch in pair:
        logits = values[branch.name]
        scores = _sigmoid(logits)
        total = np.clip(scores.sum(axis=1, keepdims=True), 0, 1)
        for name, answer in answers.items():
            # With one class the sum is the score over again: the first takes the name.
            if _same(answer, logits):
                raw.setdefault(branch.name, name)
            elif _same(answer, scores) and branch.name not in activated:
                activated[branch.name] = name
            elif _same(answer, total):
                sums[branch.name] = name
    if len(raw) == 2:
        order = _which_is_box(pair)
        if order is None:
            return (
                f"its outputs of {pair[0].shape[1]} and {pair[1].shape[1]} channels leave open "
                "which is the box and which the score, as neither passes a sigmoid"
            )
        box, score = order
        return _Meaning(order, raw[box.name], raw[score.name], None, False)
    if len(raw) != 1 or len(activated) != 1 or set(raw) & set(activated):
        return "its outputs are not raw box distributions and class scores after a sigmoid"
    box, score = sorted(pair, key=lambda branch: branch.name in activated)
    return _Meaning((box, score), raw[box.name], activated[score.name], sums.get(score.name), True)


def _which_is_box(pair: tuple[Branch, Branch]) -> tuple[Branch, Branch] | None:
    """Raw logits only: 16 bins a side, or the only number that four sides divide."""
    usual = [branch.shape[1] == 64 for branch in pair]
    possible = [branch.shape[1] % 4 == 0 and branch.shape[1] > 4 for branch in pair]
    for fits in (usual, possible):
        if fits[0] != fits[1]:
            return pair if fits[0] else (pair[1], pair[0])
    return None


def _same(answer: Array, expected: NDArray[Any]) -> bool:
    return answer.shape == expected.shape and bool(
        np.allclose(answer, expected, rtol=0, atol=_SCORE_SLACK)
    )


# ---- the result ---------------------------------------------------------------------


def _cut_outputs(levels: Sequence[_Level]) -> tuple[HeadOutput, ...]:
    return tuple(
        HeadOutput(name=f"{role}_{level.stride}", role=role, level=index)
        for index, level in enumerate(levels)
        for role in ("box", "score")
    )


def _head(
    levels: Sequence[_Level], outputs: tuple[HeadOutput, ...], *, activated: bool
) -> DetectHead:
    return DetectHead(
        outputs=outputs,
        classes=levels[0].score.shape[1],
        reg_max=levels[0].box.shape[1] // 4,
        strides=tuple(level.stride for level in levels),
        activated=activated,
    )


def _contract(picture: Picture, head: DetectHead) -> Contract:
    labels = picture.labels if len(picture.labels) == head.classes else ()
    return Contract(family=FAMILY, input=picture.image, head=head, labels=labels)


def _taps(levels: Sequence[_Level]) -> tuple[Tap, ...]:
    return tuple(
        tap
        for index, level in enumerate(levels)
        for tap in (
            Tap(level.box.name, "box", index, level.box.shape),
            Tap(level.score.name, "score", index, level.score.shape, sigmoid=True),
        )
    )


def _level_evidence(levels: Sequence[_Level], activated: bool) -> tuple[str, str]:
    bins, classes = levels[0].box.shape[1] // 4, levels[0].score.shape[1]
    strides = ", ".join(str(level.stride) for level in levels)
    sigmoid = "after their sigmoid" if activated else "before any sigmoid"
    return (
        f"{len(levels)} level{'s' * (len(levels) > 1)} (stride {strides}), each with a box branch "
        f"of {4 * bins} channels (4 sides x {bins} bins) and a class branch of {classes}.",
        f"The scores leave the graph {sigmoid}.",
    )


def _times(shape: Sequence[int]) -> str:
    return "x".join(str(size) for size in shape)
