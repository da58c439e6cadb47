"""Levels of an anchor-based head: one branch per level with all values of all anchors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rkzoo.graph.families.branches import channel_mismatch, group_by_size, stride, wrong_count
from rkzoo.graph.families.head_postprocessing import Branch, HeadPostprocessing
from rkzoo.graph.families.recognition import HeadTensor, ImageSource, Role


@dataclass(frozen=True)
class Level:
    """The branch of a level, and its stride in pixels."""

    branch: Branch
    stride: int


def anchored_levels(end: HeadPostprocessing, picture: ImageSource) -> list[Level] | str:
    """The levels of an anchor-based head, the finest first; a reason where the graph has none."""
    groups = group_by_size(end)
    if isinstance(groups, str):
        return groups
    levels = []
    for group in groups:
        reason = wrong_count(group, (1,), "one in a head with anchors")
        step = stride(group[0], picture)
        if reason or isinstance(step, str):
            return reason or str(step)
        levels.append(Level(group[0], step))
    return channel_mismatch(level.branch.shape[1] for level in levels) or levels


def anchor_head_tensors(
    levels: Sequence[Level],
    each: int,
    coefficients: int,
    prototypes: HeadTensor | None,
    points: int = 0,
) -> tuple[HeadTensor, ...]:
    """Classes go through a sigmoid, mask coefficients (behind them) and key points (before them)
    must not: where one convolution makes both it is split."""
    taps = []
    for index, level in enumerate(levels):
        name, shape = level.branch.name, level.branch.shape
        if not coefficients and not points:
            taps.append(HeadTensor(name, "anchors", index, shape, sigmoid=True))
            continue
        numbers = shape[1] // each
        first, count = (5, 2 * points) if points else (numbers - coefficients, coefficients)
        aside = [c for c in range(shape[1]) if first <= c % numbers < first + count]
        scores = sorted(set(range(shape[1])) - set(aside))
        taps.append(HeadTensor(name, "anchors", index, shape, sigmoid=True, channels=tuple(scores)))
        role: Role = "keypoints" if points else "coefficients"
        taps.append(HeadTensor(name, role, index, shape, channels=tuple(aside)))
    return (*taps, prototypes) if prototypes else tuple(taps)


def describe_levels(
    levels: Sequence[Level], each: int, classes: int, coefficients: int, points: int = 0
) -> str:
    strides = ", ".join(str(level.stride) for level in levels)
    masks_too = f" and {coefficients} mask coefficients" if coefficients else ""
    masks_too += f" and {points} key points" if points else ""
    return (
        f"{len(levels)} level{'s' * (len(levels) > 1)} (stride {strides}), each with one branch of "
        f"{levels[0].branch.shape[1]} channels: {each} anchors x (box, objectness, {classes} "
        f"class{'es' * (classes > 1)}{masks_too})."
    )
