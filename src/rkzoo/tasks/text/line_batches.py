"""Batching of text lines: shrink, split long lines, bucket by width."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from rkzoo.tasks.text.quads import Image

# Bucket widths are multiples of this; the recognizer has a stride of 8.
STEP = 32
# Growth from bucket to bucket: at most a fifth of a line is padding.
GROWTH = 1.25
# Longer lines are split even where the width is dynamic (attention is quadratic).
WIDEST = 2560
# Pixels per batch. Larger batches are no faster on a CPU and cost memory: 18385 classes
# times 40 steps are 3 MB per line of width 320.
BATCH_PIXELS = 48 * 320 * 6


def shrunk(line: Image, height: int) -> Image:
    """Downscale a line much taller than `height` by area averaging; plain interpolation would skip
    pixels and break thin strokes. Other lines are returned unchanged.
    """
    if line.shape[0] < 2 * height:
        return line
    width = max(1, round(line.shape[1] * height / line.shape[0]))
    return np.asarray(cv2.resize(line, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def width_at(line: Image, height: int) -> int:
    """Width in pixels of a line scaled to `height`."""
    return max(1, round(int(line.shape[1]) * height / int(line.shape[0])))


def bucket(width: int, least: int, most: int) -> int:
    """Input width for a line of `width`, from `least` to `most`: one of a few sizes, so that the
    session is not replanned for every line.
    """
    size = least
    while size < min(width, most):
        size = max(size + STEP, math.ceil(size * GROWTH / STEP) * STEP)
    return min(size, most)


@dataclass(frozen=True, slots=True)
class LineChunk:
    """A part of line number `line`. `gap`: the cut before it is wide enough for a word space."""

    line: int
    image: Image
    gap: bool = False


def split_lines(lines: Sequence[Image], height: int, widest: int) -> list[LineChunk]:
    """Split lines that are wider than `widest` at `height`, where there is little ink."""
    line_chunks: list[LineChunk] = []
    for index, line in enumerate(lines):
        line = shrunk(line, height)
        cuts = split_columns(line, height, widest) if width_at(line, height) > widest else []
        edges = [0, *(column for column, _ in cuts), line.shape[1]]
        gaps = [False, *(gap for _, gap in cuts)]
        line_chunks += [
            LineChunk(index, line[:, left:right], gap)
            for left, right, gap in zip(edges[:-1], edges[1:], gaps, strict=True)
        ]
    return line_chunks


def split_columns(line: Image, height: int, widest: int) -> list[tuple[int, bool]]:
    """Choose columns at which to cut a line, so that each part at `height` is at most `widest`
    wide.

    The emptiest column in the second half of the allowed width is taken; of equally empty ones the
    middle of the widest run.

    Returns:
        (column, whether it is a word gap) of each cut.
    """
    factor = height / line.shape[0]
    reach = max(2, math.floor((widest + 0.49) / factor))
    ink = ink_of(line)
    cuts: list[tuple[int, bool]] = []
    start = 0
    while line.shape[1] - start > reach:
        # Equal parts, so that the last one is not a sliver.
        left = line.shape[1] - start
        ideal = left / math.ceil(left / reach)
        low, high = start + max(1, int(ideal / 2)), start + reach
        window = ink[low : high + 1]
        empty = ink <= window.min() + 0.1
        place = _emptiest(empty[low : high + 1], ideal - (low - start), line.shape[0] // 4)
        # The gap may extend outside the window.
        around = np.flatnonzero(~empty)
        after = int(around.searchsorted(low + place))
        begin = int(around[after - 1]) + 1 if after else 0
        end = int(around[after]) if after < len(around) else len(ink)
        cuts.append((low + place, (end - begin) * factor >= height / 6))
        start = low + place
    return cuts


def ink_of(line: Image) -> NDArray[np.float32]:
    """Contrast of each column, (W,) float32 in 0..1."""
    grey = cv2.cvtColor(line, cv2.COLOR_BGR2GRAY)
    # The rim shows neighbouring lines; the spread is invariant to lighting and colour.
    rim = grey.shape[0] // 10
    core = grey[rim : grey.shape[0] - rim].astype(np.float32)
    low, high = np.percentile(core, [5, 95], axis=0)
    spread = high - low
    return np.asarray(spread / max(float(spread.max()), 1.0), np.float32)


def _emptiest(empty: NDArray[np.bool_], ideal: float, room: int) -> int:
    """Index of the best cut in a window of empty and inked columns. The cut keeps a quarter of its
    empty run, at most `room`, from the ink on both sides.
    """
    runs = np.flatnonzero(np.diff(np.r_[False, empty, False])).reshape(-1, 2)
    width = runs[:, 1] - runs[:, 0]
    away = np.minimum(width // 4, room)
    place = np.clip(ideal, runs[:, 0] + away, runs[:, 1] - 1 - away)
    # Width of the gap first, then distance to the ideal position.
    merit = width - np.abs(place - ideal) / max(len(empty), 1) * width.max()
    return int(place[int(merit.argmax())])
