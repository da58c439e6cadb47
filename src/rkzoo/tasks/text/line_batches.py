"""Lines of many lengths into few input sizes: shrink, split, bucket, batch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from rkzoo.tasks.text.quads import Image

# Widths are rounded up to multiples of this; the recogniser sees the line in steps of 8.
STEP = 32
# Bucket to bucket at most this factor: a line carries at most a fifth of padding.
GROWTH = 1.25
# Longer lines are split even where the width is free (attention grows with its square).
WIDEST = 2560
# Pixels in one batch of lines. Larger batches gain nothing on a CPU and cost memory:
# 18385 classes times 40 steps are 3 MB a line of 320.
BATCH_PIXELS = 48 * 320 * 6


def shrunk(line: Image, height: int) -> Image:
    """A line much taller than `height` averaged down to it: a plain resize would skip
    pixels and fray thin strokes. Others are returned as they are."""
    if line.shape[0] < 2 * height:
        return line
    width = max(1, round(line.shape[1] * height / line.shape[0]))
    return np.asarray(cv2.resize(line, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def width_at(line: Image, height: int) -> int:
    """Pixels a line takes when scaled to `height`."""
    return max(1, round(int(line.shape[1]) * height / int(line.shape[0])))


def bucket(width: int, least: int, most: int) -> int:
    """The input width for a line of `width`: one of few, so that a session is not
    planned anew for every line. At least `least`, at most `most`."""
    size = least
    while size < min(width, most):
        size = max(size + STEP, math.ceil(size * GROWTH / STEP) * STEP)
    return min(size, most)


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of line `line`. `gap`: the cut before it goes through a gap wide enough for
    a space between words."""

    line: int
    image: Image
    gap: bool = False


def pieces(lines: Sequence[Image], height: int, widest: int) -> list[Piece]:
    """Lines, those too long for `widest` (at `height`) split where little ink is."""
    found: list[Piece] = []
    for index, line in enumerate(lines):
        line = shrunk(line, height)
        cuts = split_columns(line, height, widest) if width_at(line, height) > widest else []
        edges = [0, *(column for column, _ in cuts), line.shape[1]]
        gaps = [False, *(gap for _, gap in cuts)]
        found += [
            Piece(index, line[:, left:right], gap)
            for left, right, gap in zip(edges[:-1], edges[1:], gaps, strict=True)
        ]
    return found


def split_columns(line: Image, height: int, widest: int) -> list[tuple[int, bool]]:
    """Where to cut a line so that each part, at `height`, is at most `widest` wide.

    Returns (column, is it a gap between words). The emptiest column in the second half of
    what fits is taken; of equally empty ones the middle of the widest run.
    """
    factor = height / line.shape[0]
    reach = max(2, math.floor((widest + 0.49) / factor))
    ink = ink_of(line)
    cuts: list[tuple[int, bool]] = []
    start = 0
    while line.shape[1] - start > reach:
        # Level pieces: the last one shall not be a sliver.
        left = line.shape[1] - start
        ideal = left / math.ceil(left / reach)
        low, high = start + max(1, int(ideal / 2)), start + reach
        window = ink[low : high + 1]
        empty = ink <= window.min() + 0.1
        place = _emptiest(empty[low : high + 1], ideal - (low - start), line.shape[0] // 4)
        # The gap may go on outside the window.
        around = np.flatnonzero(~empty)
        after = int(around.searchsorted(low + place))
        begin = int(around[after - 1]) + 1 if after else 0
        end = int(around[after]) if after < len(around) else len(ink)
        cuts.append((low + place, (end - begin) * factor >= height / 6))
        start = low + place
    return cuts


def ink_of(line: Image) -> NDArray[np.float32]:
    """(W,): how much each column differs from an even background, 0..1."""
    grey = cv2.cvtColor(line, cv2.COLOR_BGR2GRAY)
    # The rim holds parts of neighbouring lines; the spread ignores lighting and colour.
    rim = grey.shape[0] // 10
    core = grey[rim : grey.shape[0] - rim].astype(np.float32)
    low, high = np.percentile(core, [5, 95], axis=0)
    spread = high - low
    return np.asarray(spread / max(float(spread.max()), 1.0), np.float32)


def _emptiest(empty: NDArray[np.bool_], ideal: float, room: int) -> int:
    """Index of the best cut in a window of empty and inked columns. The cut keeps a quarter of
    its empty run, at most `room`, from the ink on both sides."""
    runs = np.flatnonzero(np.diff(np.r_[False, empty, False])).reshape(-1, 2)
    width = runs[:, 1] - runs[:, 0]
    away = np.minimum(width // 4, room)
    place = np.clip(ideal, runs[:, 0] + away, runs[:, 1] - 1 - away)
    # Width counts most, nearness decides between similar ones.
    merit = width - np.abs(place - ideal) / max(len(empty), 1) * width.max()
    return int(place[int(merit.argmax())])
