"""Levels of an anchor-based head: one branch per level with all values of all anchors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rkzoo.graph.families.branches import by_size, stride, unlike, wrong_count
from rkzoo.graph.families.recognition import Picture, Tap
from rkzoo.graph.families.tail import Branch, Tail


@dataclass(frozen=True)
class Level:
    """The branch of a level, and its stride in pixels."""

    branch: Branch
    stride: int


def anchored_levels(end: Tail, picture: Picture) -> list[Level] | str:
    """The levels of an anchor-based head, the finest first; a reason where the graph has none."""
    groups = by_size(end)
    if isinstance(groups, str):
        return groups
    found = []
    for group in groups:
        reason = wrong_count(group, (1,), "one in a head with anchors")
        step = stride(group[0], picture)
        if reason or isinstance(step, str):
            return reason or str(step)
        found.append(Level(group[0], step))
    return unlike(level.branch.shape[1] for level in found) or found


def anchor_taps(
    levels: Sequence[Level], each: int, coefficients: int, prototypes: Tap | None
) -> tuple[Tap, ...]:
    """The tensors that a cut exposes.

    Scores get a sigmoid, mask coefficients must not: where one convolution computes both, it is
    split by channels.

    Args:
        levels: The levels, the finest first.
        each: Anchors per cell.
        coefficients: Mask coefficients per box; 0 for none.
        prototypes: The tap of the prototypes; None for none.
    """
    taps = []
    for index, level in enumerate(levels):
        name, shape = level.branch.name, level.branch.shape
        if not coefficients:
            taps.append(Tap(name, "anchors", index, shape, sigmoid=True))
            continue
        numbers = shape[1] // each
        split = numbers - coefficients
        where = [(anchor * numbers, anchor * numbers + split) for anchor in range(each)]
        scores = tuple(c for start, middle in where for c in range(start, middle))
        masks = tuple(c for _, middle in where for c in range(middle, middle + coefficients))
        taps.append(Tap(name, "anchors", index, shape, sigmoid=True, channels=scores))
        taps.append(Tap(name, "coefficients", index, shape, channels=masks))
    return (*taps, prototypes) if prototypes else tuple(taps)


def said_levels(levels: Sequence[Level], each: int, classes: int, coefficients: int) -> str:
    """A sentence that describes the levels."""
    strides = ", ".join(str(level.stride) for level in levels)
    masks_too = f" and {coefficients} mask coefficients" if coefficients else ""
    return (
        f"{len(levels)} level{'s' * (len(levels) > 1)} (stride {strides}), each with one branch of "
        f"{levels[0].branch.shape[1]} channels: {each} anchors x (box, objectness, {classes} "
        f"class{'es' * (classes > 1)}{masks_too})."
    )
