"""YOLOv5 and YOLOv7 recognizer for raw outputs, one or two per level.

Such a graph does not hold its anchors: those of YOLOv5 are assumed, with a warning.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from rkzoo.contract.detect import DetectHead, HeadOutput
from rkzoo.graph.families.anchor_levels import anchor_head_tensors, anchored_levels, describe_levels
from rkzoo.graph.families.anchors import ASSUMED, USUAL, describe_scores, family_of, scored_by
from rkzoo.graph.families.branches import (
    Float,
    contract,
    group_by_size,
    is_close,
    probe,
    sigmoid,
    stride,
    times,
    wrong_count,
)
from rkzoo.graph.families.head_postprocessing import HeadPostprocessing, head_postprocessing
from rkzoo.graph.families.outputs import cut_outputs
from rkzoo.graph.families.recognition import HeadTensor, ImageSource, Recognition
from rkzoo.graph.onnx.view import Array, GraphView
from rkzoo.ort import CannotRun

_FACE_NUMBERS = 16
_FACE = (
    "16 numbers an anchor are read as a box, an objectness and 11 classes; YOLOv5-face has as "
    "many (a box, an objectness, five points, one class). If it is one, export it with its boxes "
    "decoded, which tells it."
)


def heads(view: GraphView, picture: ImageSource) -> Recognition | str:
    """Recognize one output per level: 1xAxhxwx(5+C) before or after the sigmoid (undecoded YOLOv5
    and YOLOv7), or 1xA(5+C)xhxw, after the sigmoid (Rockchip's export) or before.
    """
    outputs = [output.name for output in view.model.graph.output]
    if len(outputs) < 2:
        return ""
    end = head_postprocessing(view, outputs)
    if isinstance(end, str):
        return end
    levels = anchored_levels(end, picture)
    if isinstance(levels, str):
        return levels
    if len(levels) != len(outputs):
        return f"its {len(outputs)} outputs come from {len(levels)} sizes of feature maps"
    heads = _probe_outputs(end)
    if isinstance(heads, str):
        return heads
    values, answers = heads
    meanings = [_meaning(values[level.branch.name], answers) for level in levels]
    good = [meaning for meaning in meanings if meaning is not None]
    if len(good) != len(levels) or len({(m.each, m.activated) for m in good}) != 1:
        return "its outputs are not single branches, raw or after a sigmoid"
    each, activated = good[0].each, good[0].activated
    strides = tuple(level.stride for level in levels)
    channels = levels[0].branch.shape[1]
    named = [HeadOutput(name=m.name, role="anchors", level=i) for i, m in enumerate(good)]
    whole = _head(named, strides, channels, each or 3, activated=activated)
    if isinstance(whole, str):
        return whole
    taps = anchor_head_tensors(levels, 3, 0, None)
    cut = msgspec.structs.replace(whole, outputs=cut_outputs(taps, strides), activated=True)
    vendor = not each and activated
    family = family_of(whole.anchors)
    return Recognition(
        family=family,
        form="vendor-3" if vendor else "stock",
        contract=contract(family, picture, whole if vendor else cut),
        uncut=None if vendor else contract(family, picture, whole),
        head_tensors=taps,
        anchors_known=False,
        assumed=(_FACE,) if channels == 3 * _FACE_NUMBERS else (),
        evidence=(
            f"{len(outputs)} outputs like {times(answers[good[0].name].shape)}, one a level, "
            f"{'after' if activated else 'before'} the sigmoid.",
            describe_levels(levels, 3, whole.classes, 0),
            ASSUMED,
            *describe_scores(whole.anchors, whole.classes),
        ),
    )


def masks(view: GraphView, picture: ImageSource) -> Recognition | str:
    """Recognize Rockchip's YOLOv5-seg: per level 1xA(5+C)xhxw after the sigmoid and 1xAMxhxw mask
    coefficients, and prototypes 1xMxHxW.
    """
    outputs = [output.name for output in view.model.graph.output]
    if len(outputs) < 3 or len(outputs) % 2 == 0:
        return ""
    shapes = [(view.shape(name) or (), name) for name in outputs]
    if any(len(shape) != 4 for shape, _ in shapes):
        return "its outputs are not all feature maps 1xCxHxW"
    shape, proto = max(shapes, key=lambda pair: pair[0][2] * pair[0][3])
    end = head_postprocessing(view, [name for name in outputs if name != proto])
    groups = group_by_size(end) if not isinstance(end, str) else end
    if isinstance(end, str) or isinstance(groups, str):
        return str(groups)
    for group in groups:
        reason = wrong_count(group, (2,), "two, scores and mask coefficients")
        if reason:
            return reason
    if 2 * len(groups) != len(end.outputs):
        return f"its {len(outputs)} outputs are not two for each of {len(groups)} levels and one"
    steps = [stride(group[0], picture) for group in groups]
    masks = _probe_outputs(end)
    if isinstance(masks, str):
        return masks
    values, answers = masks
    named, taps = [], []
    for index, group in enumerate(groups):
        branches = [(branch, _meaning(values[branch.name], answers)) for branch in group]
        branches.sort(key=lambda pair: pair[1] is None or not pair[1].activated)
        (scores, first), (mask, second) = branches
        if (
            first is None or second is None or not first.activated or second.activated
            or first.each or second.each or mask.shape[1] != 3 * shape[1]
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
            HeadTensor(scores.name, "anchors", index, scores.shape, sigmoid=True),
            HeadTensor(mask.name, "coefficients", index, mask.shape),
        ]
    named.append(HeadOutput(name=proto, role="prototypes"))
    strides = tuple(step for step in steps if isinstance(step, int))
    head = _head(named, strides, taps[0].shape[1], 3, coefficients=shape[1])
    if isinstance(head, str):
        return head
    family = family_of(head.anchors)
    return Recognition(
        family=family,
        form="vendor-7",
        contract=contract(family, picture, head),
        head_tensors=(*taps, HeadTensor(proto, "prototypes", 0, shape)),
        anchors_known=False,
        evidence=(
            f"{len(outputs)} outputs: scores and mask coefficients for each of {len(groups)} "
            f"levels, and prototypes {times(shape)}.",
            f"Three anchors a cell, {head.classes} class{'es' * (head.classes > 1)}, {shape[1]} "
            "mask coefficients.",
            ASSUMED,
            *describe_scores(head.anchors, head.classes),
        ),
    )


def _probe_outputs(end: HeadPostprocessing) -> tuple[dict[str, Array], dict[str, Array]] | str:
    """Random values for the branches, and the outputs for them."""
    values = probe(end.branches, seed=0)
    try:
        return values, dict(zip(end.outputs, end(values), strict=True))
    except CannotRun as error:
        return f"the end of the graph cannot be run alone ({error.why})"


def _head(
    outputs: Sequence[HeadOutput],
    strides: tuple[int, ...],
    channels: int,
    each: int,
    *,
    activated: bool = True,
    coefficients: int = 0,
) -> DetectHead | str:
    anchors = USUAL.get(strides)
    if anchors is None or each != 3 or channels % each or channels // each < 6:
        return (
            f"its {channels} channels at strides {', '.join(map(str, strides))} are not three "
            "anchors with a box, an objectness and classes, and the anchors are not in the graph"
        )
    classes = channels // each - 5
    return DetectHead(
        outputs=tuple(outputs),
        classes=classes,
        reg_max=1,
        strides=strides,
        activated=activated,
        coding="anchor",
        anchors=anchors,
        objectness=scored_by(anchors, classes),
        coefficients=coefficients,
    )


@dataclass(frozen=True)
class _Meaning:
    """Output `name` shows a branch, split into `each` anchors (0: not split)."""

    name: str
    each: int
    activated: bool


def _meaning(logits: Array, answers: Mapping[str, Array]) -> _Meaning | None:
    scores = sigmoid(logits)
    for name, answer in answers.items():
        each = answer.shape[1] if answer.ndim == 5 else 0
        for activated, want in ((True, scores), (False, logits)):
            if is_close(answer, _split_anchors(want, each) if each else want):
                return _Meaning(name, each, activated)
    return None


def _split_anchors(whole: Array | Float, each: int) -> Array:
    """Reshape 1xA(5+C)xhxw to 1xAxhxwx(5+C); unchanged where the channels do not divide."""
    if whole.shape[1] % each:
        return whole
    apart = whole.reshape(1, each, -1, *whole.shape[2:])
    return np.asarray(apart.transpose(0, 1, 3, 4, 2))
