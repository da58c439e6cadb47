"""YOLOv6, 8, 10 and 11 recognizer for Rockchip's exports: the head in several outputs, in any
order, identified by their values for random inputs.

- detection: box 1x4Mxhxw and score 1xCxhxw per level, optionally the clipped score sum 1x1xhxw
- segmentation: plus mask coefficients per level, and the prototypes
- pose and rotated boxes: box and score of a level in one tensor 1x(4M+C)xhxw, and all keypoints
  1xKxVxN in pixels, or all angles 1x1xN after the sigmoid
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rkzoo.contract.detect import HeadOutput
from rkzoo.errors import RkzooError
from rkzoo.graph.families.anchor_free import (
    ExtraBranch,
    Level,
    extras,
    head,
    head_tensors,
    level_evidence,
    mismatch,
)
from rkzoo.graph.families.branches import (
    SCORE_SLACK,
    cells,
    contract,
    group_by_size,
    is_close,
    probe,
    sigmoid,
    stride,
    times,
    wrong_count,
)
from rkzoo.graph.families.faces import with_faces
from rkzoo.graph.families.head_postprocessing import Branch, HeadPostprocessing, head_postprocessing
from rkzoo.graph.families.recognition import Form, HeadTensor, ImageSource, Recognition
from rkzoo.graph.families.training import PICODET, is_picodet
from rkzoo.graph.onnx.view import Array, GraphView
from rkzoo.ort import CannotRun

_NOT_RAW = "its outputs are not raw box distributions and class scores after a sigmoid"
_LEFT_OVER = "it has outputs that are neither box, score nor sum of scores"


def rockchip(view: GraphView, picture: ImageSource) -> Recognition | str:
    """Recognize any of the forms above."""
    outputs = [output.name for output in view.model.graph.output]
    if len(outputs) == 1:
        return ""
    end = head_postprocessing(view, outputs)
    if isinstance(end, str):
        return end
    try:
        values = probe(end.branches, seed=0)
        answers = dict(zip(outputs, end(values), strict=True))
    except CannotRun as error:
        return f"the end of the graph cannot be run alone ({error.why})"
    prototypes = _prototypes(view, end, values, answers)
    if prototypes is not None:
        answers.pop(prototypes.name)
        rest = head_postprocessing(view, list(answers))
        if isinstance(rest, str):
            return rest
        end = rest
    meanings = _meanings(end, values, answers, prototypes)
    if isinstance(meanings, str):
        return meanings
    levels = []
    for meaning in meanings:
        step = stride(meaning.box, picture)
        if isinstance(step, str):
            return step
        levels.append(Level(meaning.box, meaning.score, step, meaning.third))
    reason = mismatch(levels)
    if reason:
        return reason
    named = [output for index, meaning in enumerate(meanings) for output in meaning.outputs(index)]
    left = {name: answers[name] for name in answers if name not in {o.name for o in named}}
    answer = _extra(levels, values, left, prototypes)
    if isinstance(answer, str):
        return answer
    extra, last = answer
    activated = meanings[0].activated
    sums = meanings[0].score_sum is not None
    family = _family(levels, extra)
    training = PICODET if is_picodet(levels) and not extra.task else None
    if training is not None:
        family, picture = training.family, training.over(picture)
    recognition = Recognition(
        family=family,
        form=_form(extra, sums),
        contract=contract(
            family, picture, head(levels, extra, (*named, *last), activated=activated)
        ),
        head_tensors=head_tensors(levels, extra, prototypes),
        evidence=(
            f"{len(outputs)} outputs: {_describe(meanings[0], last)}.",
            *level_evidence(levels, extra, activated),
            *([_kin(levels)] if training is None else []),
        ),
        assumed=(training.assumed,) if training else (),
    )
    return with_faces(recognition, picture.labels)


# ---- prototypes ---------------------------------------------------------------------


def _prototypes(
    view: GraphView,
    end: HeadPostprocessing,
    values: Mapping[str, Array],
    answers: Mapping[str, Array],
) -> HeadTensor | None:
    """The one map that shows its branch neither raw nor after a sigmoid: it has the activation of
    the prototypes' last layer.
    """
    explained = [a for b in end.branches for a in _describe_logits(values[b.name])]
    candidates = [
        name
        for name, answer in answers.items()
        if answer.ndim == 4 and answer.shape[1] > 1 and _alone(view, name)
        if not any(is_close(answer, known) for known in explained)
    ]
    if len(candidates) != 1:
        return None
    return HeadTensor(candidates[0], "prototypes", 0, tuple(answers[candidates[0]].shape))


def _describe_logits(logits: Array) -> tuple[Array, Array]:
    return logits, sigmoid(logits)


def _alone(view: GraphView, name: str) -> bool:
    own = head_postprocessing(view, [name])
    return not isinstance(own, str) and len(own.branches) == 1


# ---- one level ----------------------------------------------------------------------


@dataclass(frozen=True)
class _Meaning:
    """The branches of a level, and the outputs that show them. `score_name` is empty where box and
    score share an output.
    """

    box: Branch
    score: Branch
    third: Branch | None
    box_name: str
    score_name: str
    score_sum: str | None
    third_name: str | None
    activated: bool

    def outputs(self, level: int) -> list[HeadOutput]:
        if not self.score_name:
            return [HeadOutput(name=self.box_name, role="fused", level=level)]
        head_outputs = [
            HeadOutput(name=self.box_name, role="box", level=level),
            HeadOutput(name=self.score_name, role="score", level=level),
        ]
        if self.score_sum:
            head_outputs.append(HeadOutput(name=self.score_sum, role="score_sum", level=level))
        if self.third_name:
            head_outputs.append(HeadOutput(name=self.third_name, role="coefficients", level=level))
        return head_outputs


def _meanings(
    end: HeadPostprocessing,
    values: Mapping[str, Array],
    answers: Mapping[str, Array],
    prototypes: HeadTensor | None,
) -> list[_Meaning] | str:
    groups = group_by_size(end)
    if isinstance(groups, str):
        return groups
    meanings = []
    for group in groups:
        reason = wrong_count(group, (2, 3), "two or three")
        if reason:
            return reason
        meaning = _fused(group, values, answers) or _separate(group, values, answers, prototypes)
        if isinstance(meaning, str):
            return meaning
        meanings.append(meaning)
    kinds = {
        (
            m.activated,
            m.score_sum is None,
            m.third is None,
            m.third_name is None,
            m.score_name == "",
        )
        for m in meanings
    }
    if len(kinds) != 1:
        return "its levels are not all of one kind"
    return meanings


def _fused(
    group: Sequence[Branch], values: Mapping[str, Array], answers: Mapping[str, Array]
) -> _Meaning | None:
    for box in group:
        for score in group:
            if box is score:
                continue
            logits = values[score.name]
            for activated, numbers in ((False, logits), (True, sigmoid(logits))):
                whole = np.concatenate((values[box.name], numbers), axis=1)
                for name, answer in answers.items():
                    if is_close(answer, whole):
                        others = [b for b in group if b is not box and b is not score]
                        third = others[0] if others else None
                        return _Meaning(box, score, third, name, "", None, None, activated)
    return None


def _separate(
    group: Sequence[Branch],
    values: Mapping[str, Array],
    answers: Mapping[str, Array],
    prototypes: HeadTensor | None,
) -> _Meaning | str:
    raw: dict[str, str] = {}
    activated: dict[str, str] = {}
    sums: dict[str, str] = {}
    for branch in group:
        logits = values[branch.name]
        scores = sigmoid(logits)
        total = np.clip(scores.sum(axis=1, keepdims=True), 0, 1)
        for name, answer in answers.items():
            # With one class the sum equals the score: the first such output is the score.
            if is_close(answer, logits):
                raw.setdefault(branch.name, name)
            elif is_close(answer, scores) and branch.name not in activated:
                activated[branch.name] = name
            elif is_close(answer, total):
                sums[branch.name] = name
    third = None
    if len(group) == 3:
        third = _coefficients(group, raw, list(answers), prototypes)
        if third is None:
            return (
                "its third branch of a level is shown neither as mask coefficients nor in an "
                "output of all levels"
            )
    pair = [branch for branch in group if branch is not third]
    shown = [branch for branch in pair if branch.name in raw]
    if len(shown) == 2:
        box = _which_is_box(pair)
        if box is None:
            return (
                f"its outputs of {pair[0].shape[1]} and {pair[1].shape[1]} channels leave open "
                "which is the box and which the score, as neither passes a sigmoid"
            )
    elif len(shown) == 1:
        box = shown[0]
    else:
        return _NOT_RAW
    (score,) = (branch for branch in pair if branch is not box)
    names = raw if len(shown) == 2 else activated
    if score.name not in names or box.name in activated:
        return _NOT_RAW
    return _Meaning(
        box=box,
        score=score,
        third=third,
        box_name=raw[box.name],
        score_name=names[score.name],
        score_sum=sums.get(score.name) if len(shown) == 1 else None,
        third_name=raw[third.name] if third is not None else None,
        activated=len(shown) == 1,
    )


def _coefficients(
    group: Sequence[Branch],
    raw: Mapping[str, str],
    order: Sequence[str],
    prototypes: HeadTensor | None,
) -> Branch | None:
    """The branch with one channel per prototype; of two such branches the box comes first."""
    if prototypes is None:
        return None
    branches = [b for b in group if b.name in raw and b.shape[1] == prototypes.shape[1]]
    return max(branches, key=lambda branch: order.index(raw[branch.name]), default=None)


def _which_is_box(pair: Sequence[Branch]) -> Branch | None:
    """Raw logits only: 16 bins a side, or the only number that four sides divide. Four numbers
    beside any others are an RTMDet's plain distances (raw_levels)."""
    usual = [branch for branch in pair if branch.shape[1] == 64]
    plain = any(branch.shape[1] == 4 for branch in pair)
    possible = [b for b in pair if b.shape[1] % 4 == 0 and not plain]
    for fits in (usual, possible):
        if len(fits) == 1:
            return fits[0]
    return None


# ---- outputs of all levels ----------------------------------------------------------


def _extra(
    levels: Sequence[Level],
    values: Mapping[str, Array],
    left: Mapping[str, Array],
    prototypes: HeadTensor | None,
) -> tuple[ExtraBranch, tuple[HeadOutput, ...]] | str:
    """The meaning of the third branch, and the outputs that hold it for all levels."""
    third = levels[0].channels[2]
    if prototypes is not None:
        if left:
            return _LEFT_OVER
        if not third:
            return f"it has an output of {times(prototypes.shape)} that none of its boxes needs"
        (extra,) = extras(third, prototypes.shape[1])
        return extra, (HeadOutput(name=prototypes.name, role="prototypes"),)
    if not third:
        return _LEFT_OVER if left else (ExtraBranch(), ())
    if len(left) != 1:
        return f"{len(left)} outputs hold all levels, where there would be one"
    ((name, answer),) = left.items()
    total = sum(cells(level.box) for level in levels)
    if answer.ndim < 3 or answer.shape[0] != 1 or answer.shape[-1] != total:
        return f"its output of {times(answer.shape)} is not for its {total} cells"
    flat = answer.reshape(-1, total)
    for extra in extras(third, 0):
        if extra.fields.get("plain_angle"):
            continue
        if len(flat) == third and np.abs(flat - _expected(levels, values, extra)).max() <= max(
            extra.slack, SCORE_SLACK
        ):
            if extra.role == "angle":
                return extra, (HeadOutput(name=name, role="angles"),)
            return extra, (HeadOutput(name=name, role="points"),)
    return f"its output of {times(answer.shape)} is neither key points nor angles"


def _expected(levels: Sequence[Level], values: Mapping[str, Array], extra: ExtraBranch) -> Array:
    parts = []
    for level in levels:
        if level.third is None:
            raise RkzooError("A level has no third branch.", code=1)
        numbers = values[level.third.name][0].reshape(level.third.shape[1], -1).astype(np.float64)
        # Angles leave the graph after the sigmoid, not in radians.
        parts.append(sigmoid(numbers) if extra.role == "angle" else extra.read(numbers, level))
    return np.concatenate(parts, axis=1)


# ---- the result ---------------------------------------------------------------------


def _family(levels: Sequence[Level], extra: ExtraBranch) -> str:
    name = "yolov8" if levels[0].channels[0] > 4 else "yolov6"
    return f"{name}-{extra.task}" if extra.task else name


def _form(extra: ExtraBranch, sums: bool) -> Form:
    if extra.task:
        return "vendor"
    return "vendor-9" if sums else "vendor-6"


def _describe(meaning: _Meaning, last: Sequence[HeadOutput]) -> str:
    parts = ["box and score in one"] if not meaning.score_name else ["box", "score"]
    parts += ["sum"] * (meaning.score_sum is not None)
    parts += ["mask coefficients"] * (meaning.third_name is not None)
    whole = f", and {last[0].role} of all together" if last else ""
    return f"{', '.join(parts)} a level{whole}"


def _kin(levels: Sequence[Level]) -> str:
    if levels[0].channels[0] == 4:
        return (
            "Plain distances without a distribution, as in YOLOv6 n and s. An RTMDet looks the "
            "same in this form; export it with its boxes decoded, which tells it."
        )
    # YOLOv10's one-to-one head has the very tensors of YOLOv8's; only the trained numbers
    # differ. So it gets YOLOv8's suppression, which finds little to do: the head was trained to
    # give an object one box. Taking YOLOv8 for YOLOv10 would return every object many times.
    return (
        "YOLOv8, 9, 10, 11 and PP-YOLOE have the same head in this form, so they are not "
        "distinguished; NMS is applied to all. YOLOv10 does not need it, and it only matters there "
        "where objects of one class overlap by more than the IoU threshold."
    )
