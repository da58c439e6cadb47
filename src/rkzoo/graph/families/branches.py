"""Shared parts of the head recognizers: branches by level, and probing of the decoding part.

Tensor names are not used. Branches are grouped by the size of their feature maps, and their meaning
is found by running the decoding part on random values and comparing its outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rkzoo.contract.detect import DetectHead
from rkzoo.contract.model import Contract
from rkzoo.graph.families.head_postprocessing import Branch, HeadPostprocessing
from rkzoo.graph.families.recognition import ImageSource
from rkzoo.graph.onnx.view import Array

Float = NDArray[np.float64]

# Tolerances for the float32 arithmetic of the graph: pixels, and score.
BOX_SLACK = 0.01
SCORE_SLACK = 1e-4
# Relative tolerance: beyond some thousand pixels float32 has fewer digits than BOX_SLACK.
_PIXEL_SHARE = 1e-6
_MOST_LEVELS = 8
_STRIDES = (4, 8, 16, 32, 64, 128)


def group_by_size(end: HeadPostprocessing) -> list[tuple[Branch, ...]] | str:
    """Group the branches by level, the finest first.

    Returns:
        The branches of each level, in the order in which the tail meets them; a reason where they
        are not 1xCxhxw.
    """
    flat = [b for b in end.branches if len(b.shape) != 4 or b.shape[0] != 1]
    if flat or not end.branches:
        shape = times(flat[0].shape) if flat else "nothing"
        return f"its outputs come from {shape} and not from feature maps 1xCxHxW"
    branches: dict[tuple[int, ...], list[Branch]] = {}
    for branch in end.branches:
        branches.setdefault(branch.shape[2:], []).append(branch)
    if len(branches) > _MOST_LEVELS:
        return f"its outputs come from {len(branches)} sizes of feature maps"
    sizes = sorted(branches, key=lambda size: -size[0] * size[1])
    return [tuple(branches[size]) for size in sizes]


def wrong_count(group: Sequence[Branch], allowed: Sequence[int], requested: str) -> str:
    """Why the number of branches of a level is wrong; "" if it is one of `allowed`."""
    if len(group) in allowed:
        return ""
    channels = ", ".join(str(branch.shape[1]) for branch in group)
    return (
        f"each {times(group[0].shape[2:])} level ends in {len(group)} "
        f"branch{'es' * (len(group) > 1)} of {channels} channels, where there would be {requested}"
    )


def channel_mismatch(channels: Iterable[object]) -> str:
    """Why these are not the levels of one head; "" if all have the same channels."""
    if len(set(channels)) > 1:
        return "the number of channels differs from level to level"
    return ""


def is_table(answer: Array) -> bool:
    """Whether an output is 1xAxB: one row of values per box, for a batch of one."""
    return answer.ndim == 3 and answer.shape[0] == 1


def box_limit(boxes: Float) -> float:
    """Tolerance of boxes in pixels."""
    return BOX_SLACK + _PIXEL_SHARE * float(np.abs(boxes).max(initial=0.0))


def stride(branch: Branch, picture: ImageSource) -> int | str:
    """Pixels of the input to a cell of the branch; a cell may lie in the input in part."""
    size, counts = picture.image.size, branch.shape[2:]
    exact = [side // count for side, count in zip(size, counts, strict=True) if side % count == 0]
    square = exact[0] if len(exact) == 2 and exact[0] == exact[1] else None
    # A convolution rounds up: at stride 64 a side of 800 has 13 cells.
    usual = [step for step in _STRIDES if tuple(-(-side // step) for side in size) == counts]
    if square in usual or (square and not usual):
        return square
    if usual:
        return usual[0]
    return (
        f"its {times(counts)} cells are not those of one stride over an input of {times(size)}; "
        "try another size"
    )


def strides_of(groups: Sequence[Sequence[Branch]], picture: ImageSource) -> list[int] | str:
    """The stride of each level, from its first branch; or why one has none."""
    steps = [stride(group[0], picture) for group in groups]
    wrong = next((step for step in steps if isinstance(step, str)), None)
    return wrong or [step for step in steps if isinstance(step, int)]


def cells(branch: Branch) -> int:
    """The number of cells of a branch, h * w."""
    return branch.shape[2] * branch.shape[3]


def centres(branch: Branch) -> tuple[Float, Float]:
    """x and y of the cell centers, in cells, row-major."""
    y, x = np.divmod(np.arange(cells(branch)), branch.shape[3])
    return x + 0.5, y + 0.5


def probe(branches: Sequence[Branch], seed: int) -> dict[str, Array]:
    """Random values (standard deviation 2) for the branches, enough to tell formulas apart."""
    random = np.random.default_rng(seed)
    return {b.name: random.normal(0, 2, b.shape).astype(np.float32) for b in branches}


def outputs_without_branch(
    end: HeadPostprocessing, values: Mapping[str, Array], branch: Branch
) -> list[Array]:
    """The tail's outputs when this branch alone has other numbers. Raises RkzooError."""
    other = values[branch.name].copy()
    other[:, list(branch.channels) or slice(None)] += probe([branch], 1)[branch.name]
    return end({**values, branch.name: other})


def two_of_one(
    group: tuple[Branch, ...], classes: int, is_score: Callable[[Branch], bool]
) -> tuple[Branch, ...]:
    """The level's branches, box and classes apart where one convolution makes both. `is_score`
    tells whether some channels move scores."""
    if len(group) != 1 or not 0 < classes < group[0].shape[1]:
        return group
    (both,), channels = group, group[0].shape[1]
    split = classes if is_score(both.part(0, 1)) else channels - classes
    return both.part(0, split), both.part(split, channels)


def changed_channels(before: Array, after: Array, axis: int) -> list[int]:
    """Indices along `axis` where anything changed."""
    rest = tuple(a for a in range(before.ndim) if a != axis)
    return [int(i) for i in np.flatnonzero(np.any(before != after, axis=rest))]


def sigmoid(logits: NDArray[Any]) -> Float:
    """Sigmoid in float64."""
    return np.asarray(1 / (1 + np.exp(-logits.astype(np.float64))), np.float64)


def is_close(answer: Array, expected: NDArray[Any]) -> bool:
    """Whether two arrays agree in shape and values, within `SCORE_SLACK`."""
    return answer.shape == expected.shape and bool(
        np.allclose(answer, expected, rtol=0, atol=SCORE_SLACK)
    )


def contract(family: str, picture: ImageSource, head: DetectHead) -> Contract:
    """The contract of a detection head; class names only where the file has one per class."""
    labels = picture.labels if len(picture.labels) == head.classes else ()
    return Contract(
        family=family, picture=picture.image, head=head, labels=labels, others=picture.others
    )


def times(shape: Sequence[int]) -> str:
    """A shape as text: "1x3x640"."""
    return "x".join(str(size) for size in shape)
