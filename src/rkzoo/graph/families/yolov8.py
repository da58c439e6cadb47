"""YOLOv8 to YOLO26 recognizer for upstream exports: detection, segmentation, pose and rotated
boxes, with or without top-k inside the graph.

No tensor names are used, only the shapes of the head's branches and the outputs of the decoding
part for probe values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from rkzoo.contract.detect import DecodedOutput, HeadOutput
from rkzoo.graph.families.anchor_free import (
    ALL_SHARES,
    SHARES_SAID,
    ExtraBranch,
    FormulaFit,
    Level,
    cells_evidence,
    compare,
    compare_picked,
    extras,
    head,
    head_tensors,
    level_evidence,
    mismatch,
    outputs_of_cut,
    table,
)
from rkzoo.graph.families.branches import (
    Float,
    cells,
    changed_channels,
    contract,
    group_by_size,
    outputs_without_branch,
    probe,
    stride,
    times,
    two_of_one,
    wrong_count,
)
from rkzoo.graph.families.faces import with_faces
from rkzoo.graph.families.head_postprocessing import Branch, HeadPostprocessing, head_postprocessing
from rkzoo.graph.families.recognition import HeadTensor, ImageSource, Recognition
from rkzoo.graph.onnx.view import Array, GraphView
from rkzoo.ort import CannotRun

# So low that top-k selects nothing from a level set to it.
_QUIET = -30.0
_SAME_HEAD = "YOLOv8, 9, 11 and 12 have the same head, so they are not distinguished."
_PICKED_AWAY = (
    "its top-k selection inside the graph is not that of YOLOv10 or YOLO26; export it "
    "without NMS and without end-to-end mode"
)


def upstream(view: GraphView, picture: ImageSource) -> Recognition | str:
    """Recognize one output 1x(4+C+E)xN (center, size, scores, extras), or 1xKx(6+E) (corners,
    score, class, extras) of the top k; optionally mask prototypes as a second output.
    """
    split = _outputs(view)
    if split is None:
        return ""
    decoded, prototypes = split
    end = head_postprocessing(view, [decoded], picking=True)
    if isinstance(end, str):
        return end
    groups = group_by_size(end)
    if isinstance(groups, str):
        return groups
    values = probe(end.branches, seed=0)
    try:
        whole = _answer(end, values, groups)
        if isinstance(whole, str):
            return _wrong_count(groups) or whole
        if not end.picks:
            groups = [_apart(end, values, whole, group) for group in groups]
        reason = _wrong_count(groups)
        if reason:
            return reason
        levels = _levels(end, groups, values, picture)
    except CannotRun as error:
        return f"the end of the graph cannot be run alone ({error.why})"
    if isinstance(levels, str):
        return levels
    fit = _fit(end, levels, values, whole, prototypes, picture.image.size)
    if isinstance(fit, str):
        return fit
    return _recognition(end, levels, fit, whole, prototypes, picture)


def _outputs(view: GraphView) -> tuple[str, HeadTensor | None] | None:
    """The output with the boxes, and the prototypes, if any."""
    names = [output.name for output in view.model.graph.output]
    if len(names) == 1:
        return names[0], None
    maps = [name for name in names if len(view.shapes.get(name, ())) == 4]
    shape = view.shape(maps[0]) if len(names) == 2 and len(maps) == 1 else None
    if shape is None:
        return None
    (decoded,) = (name for name in names if name != maps[0])
    return decoded, HeadTensor(maps[0], "prototypes", 0, shape)


def _wrong_count(groups: Sequence[Sequence[Branch]]) -> str:
    requested = "two, box and class, or three with masks, key points or an angle"
    reasons = [wrong_count(group, (2, 3), requested) for group in groups]
    if len({len(group) for group in groups}) != 1:
        reasons.append("the number of branches differs from level to level")
    return next(filter(None, reasons), "")


# ---- probing the tail ---------------------------------------------------------------


def _answer(
    end: HeadPostprocessing, values: Mapping[str, Array], groups: Sequence[Sequence[Branch]]
) -> Array | str:
    """1x(values)x(cells), or 1x(top k)x(values) of a tail with top-k."""
    answer = end(values)[0]
    if answer.ndim == 3 and answer.shape[0] == 1:
        if end.picks and answer.shape[2] >= 6 and answer.shape[1]:
            return answer
        total = sum(cells(group[0]) for group in groups)
        if not end.picks and answer.shape[1] >= 5 and answer.shape[2] == total:
            return answer
    if end.picks:
        return _PICKED_AWAY
    return "its output is not 1x(4+classes)x(cells of all levels)"


def _apart(
    end: HeadPostprocessing, values: Mapping[str, Array], whole: Array, group: tuple[Branch, ...]
) -> tuple[Branch, ...]:
    """Box and classes of a level."""

    def is_score(branch: Branch) -> bool:
        return (
            min(
                changed_channels(whole, outputs_without_branch(end, values, branch)[0], 1),
                default=0,
            )
            >= 4
        )

    return two_of_one(group, whole.shape[1] - 4, is_score)


def _levels(
    end: HeadPostprocessing,
    groups: Sequence[Sequence[Branch]],
    values: Mapping[str, Array],
    picture: ImageSource,
) -> list[Level] | str:
    levels = []
    for group in groups:
        step = stride(group[0], picture)
        if isinstance(step, str):
            return step
        mine = {branch.name for branch in group}
        # With the other levels suppressed, top-k selects from this one.
        alone = {
            name: value if name in mine else np.full_like(value, _QUIET)
            for name, value in values.items()
        }
        before = end(alone)[0]
        roles = {
            _role(before, outputs_without_branch(end, alone, branch)[0], branch, end.picks): branch
            for branch in group
        }
        if set(roles) - {"extra"} != {"box", "score"} or len(roles) != len(group):
            return "its boxes and scores do not come from branches of their own"
        levels.append(Level(roles["box"], roles["score"], step, roles.get("extra")))
    return mismatch(levels) or levels


def _role(before: Array, after: Array, branch: Branch, picks: bool) -> str:
    """The role of a branch by which values of a result it changes: the box, the scores, those after
    them, or (an angle) the box center and the last value.
    """
    axis = 2 if picks else 1
    rows = changed_channels(before, after, axis)
    last = before.shape[axis] - 1
    if not rows:
        return "none"
    if rows[-1] < 4:
        return "box"
    if picks and 4 in rows:
        return "score"
    if rows[0] == 4:
        return "score"
    if rows[0] > 4 or (branch.shape[1] == 1 and rows[-1] == last and rows[-2] < 4):
        return "extra"
    return "both"


def _fit(
    end: HeadPostprocessing,
    levels: Sequence[Level],
    values: Mapping[str, Array],
    whole: Array,
    prototypes: HeadTensor | None,
    size: tuple[int, int],
) -> FormulaFit | str:
    """The meaning of the branches that agrees with the tail's outputs."""
    _, classes, third = levels[0].channels
    numbers = whole.shape[2 if end.picks else 1]
    expected = (6 if end.picks else 4 + classes) + third
    if numbers != expected:
        return f"its output has {numbers} rows, not {expected} as its branches require"
    possible = extras(third, prototypes.shape[1] if prototypes else 0)
    if prototypes is not None and not third:
        return "it has a second output that none of its boxes needs"
    if not possible:
        return f"its third branch of {third} channels is neither masks, key points nor an angle"
    answer = whole[0].T if end.picks else whole[0]
    fits = [
        replace(fit, shares=shares)
        for shares in ALL_SHARES
        for extra in possible
        for fit in _fits(
            end, levels, values, extra,
            shares.in_pixels(answer.astype(np.float64), size, expected - third, extra),
        )
    ]  # fmt: skip
    best = min(fits, key=lambda fit: fit.badness)
    if best.good:
        return best
    if end.picks:
        return _PICKED_AWAY
    other = f" and {best.other:.3g} in the values after them" if third else ""
    return (
        "its output is not the boxes (centre and size in pixels) and class scores of its "
        f"branches: it differs by {best.box:.3g} px and {best.score:.3g} in score{other}"
    )


def _fits(
    end: HeadPostprocessing,
    levels: Sequence[Level],
    values: Mapping[str, Array],
    extra: ExtraBranch,
    answer: Float,
) -> list[FormulaFit]:
    """How well each reading of the scores fits the answer's numbers (R, N), boxes in pixels."""
    if end.picks:
        return [compare_picked(table(levels, values, extra, activated=True), answer.T, extra)]
    return [
        compare(
            table(levels, values, extra, activated=activated), answer, extra, activated=activated
        )
        for activated in (True, False)
    ]


# ---- the result ---------------------------------------------------------------------


def _recognition(
    end: HeadPostprocessing,
    levels: Sequence[Level],
    fit: FormulaFit,
    whole: Array,
    prototypes: HeadTensor | None,
    picture: ImageSource,
) -> Recognition:
    taken = head_tensors(levels, fit.extra, prototypes)
    outputs = [HeadOutput(name=end.outputs[0], role="decoded")]
    if prototypes is not None:
        outputs.append(HeadOutput(name=prototypes.name, role="prototypes"))
    decoded = DecodedOutput(
        rows_last=not end.picks,
        corners=fit.corners,
        picked=end.picks,
        relative=fit.shares.boxes,
        relative_points=fit.shares.points,
    )
    cut = head(levels, fit.extra, outputs_of_cut(levels, taken), picks=end.picks)
    uncut = head(
        levels,
        fit.extra,
        tuple(outputs),
        activated=fit.activated,
        picks=end.picks,
        decoded=decoded,
    )
    family = _family(levels, fit.extra, end.picks)
    recognition = Recognition(
        family=family,
        form="stock",
        contract=contract(family, picture, cut),
        uncut=contract(family, picture, uncut),
        head_tensors=taken,
        evidence=(
            f"One output of {times(whole.shape)}: {_describe(end, levels, whole)}.",
            *([_describe_prototypes(prototypes)] if prototypes else []),
            *level_evidence(levels, fit.extra, fit.activated),
            *([SHARES_SAID] if fit.shares.boxes else []),
            "Fed with random numbers, the end of the graph answers as this head must: within "
            f"{fit.box:.1g} px and {fit.score:.1g} in score.",
            _kin(family),
        ),
    )
    return with_faces(recognition, picture.labels)


def _family(levels: Sequence[Level], extra: ExtraBranch, picks: bool) -> str:
    name = "yolov10" if picks else "yolov8"
    if levels[0].channels[0] == 4:
        name = "yolo26"
    return f"{name}-{extra.task}" if extra.task else name


def _describe(end: HeadPostprocessing, levels: Sequence[Level], whole: Array) -> str:
    if end.picks:
        return (
            f"the {whole.shape[1]} best of {cells_evidence(levels)} cells, selected inside the "
            "graph; one box per object, so no NMS is needed"
        )
    return f"{whole.shape[2]} cells are {cells_evidence(levels)}"


def _describe_prototypes(prototypes: HeadTensor) -> str:
    return f"A second output of {times(prototypes.shape)}: the prototypes of the masks."


def _kin(family: str) -> str:
    if family.startswith("yolo26"):
        return "Plain distances without a distribution: YOLO26's head."
    return _SAME_HEAD if family.startswith("yolov8") else "The top-k selection is YOLOv10's."
