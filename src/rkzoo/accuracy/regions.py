"""Text detection ground truth and metrics."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from rkzoo.accuracy.answers import Record
from rkzoo.accuracy.folders import best_folder
from rkzoo.accuracy.metric import Metric
from rkzoo.accuracy.resampling import of_sums
from rkzoo.accuracy.tables import rows_of
from rkzoo.errors import RkzooError

F64 = NDArray[np.float64]

IOU = 0.5
# Marks of illegible text, which counts neither as hit nor as miss.
_UNREADABLE = frozenset({"###", "*"})
_FAR = 1e5


@dataclass(frozen=True)
class TextRegion:
    """A text line: `outline` corners (K, 2) x, y in pixels; `readable`: whether it counts."""

    outline: tuple[tuple[float, float], ...]
    readable: bool


@dataclass(frozen=True)
class TextRegionTruth:
    """Ground truth of text detection: the lines of each image."""

    pictures: tuple[tuple[TextRegion, ...], ...]

    def check(self, labels: tuple[str, ...]) -> None:
        """Nothing to check: there are no labels."""

    def take(self, kept: Sequence[int]) -> TextRegionTruth:
        """The ground truth of some of the items, in their order."""
        return replace(self, pictures=tuple(self.pictures[i] for i in kept))

    def digest(self) -> bytes:
        """Digest of the lines."""
        return hashlib.sha256(repr(self.pictures).encode()).digest()

    def score(
        self, records: Sequence[Record], labels: tuple[str, ...], names: Sequence[str]
    ) -> tuple[Metric, ...]:
        """Harmonic mean, precision and recall at an IoU of 0.5."""
        counts = np.array(
            [
                count_matches(truth, record["quads"])
                for truth, record in zip(self.pictures, records, strict=False)
            ]
        ).reshape(-1, 3)
        hits, lines, answers = counts.sum(axis=0).tolist()
        if not lines:
            return ()
        both = 2 * hits / (lines + answers)
        precision = hits / answers if answers else 0.0
        return (
            Metric("hmean", both, "", True, 0.01, True, of_sums(counts, _hmean)),
            Metric("precision", precision, "", True, 0.02),
            Metric("recall", hits / lines, "", True, 0.02),
        )


def _hmean(sums: F64) -> F64:
    """Harmonic means (R,) of hits, ground-truth lines and detections (R, 3)."""
    hits, lines, answers = sums.T
    return np.asarray(2 * hits / (lines + answers))


def count_matches(truth: Sequence[TextRegion], quads: NDArray[Any]) -> tuple[int, int, int]:
    """Count hits, ground-truth lines and detections of one image.

    Detections that lie by more than half on an illegible line do not count; each line matches one
    detection, in order.

    Args:
        truth: the lines.
        quads: (N, 4, 2) convex detections.
    """
    outlines = [np.array(region.outline, np.float64) for region in truth]
    shared = np.array(
        [[common_area(outline, quad) for quad in quads] for outline in outlines], np.float64
    ).reshape(len(outlines), len(quads))
    size = np.array([polygon_area(quad) for quad in quads], np.float64)
    marked = np.array([polygon_area(outline) for outline in outlines], np.float64)
    readable = np.array([region.readable for region in truth], bool)
    hidden = (shared[~readable] > IOU * size).any(axis=0)
    union = marked[:, None] + size - shared
    free = ~hidden
    hits = 0
    for line in np.flatnonzero(readable):
        good = np.flatnonzero(free & (shared[line] > IOU * union[line]))
        if len(good):
            free[good[0]] = False
            hits += 1
    return hits, int(readable.sum()), int((~hidden).sum())


def polygon_area(corners: NDArray[Any]) -> float:
    """Area of a simple polygon (K, 2) of either orientation."""
    x, y = np.asarray(corners, np.float64).T
    return abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2


def common_area(polygon: NDArray[Any], convex: NDArray[Any]) -> float:
    """Intersection area of any polygon (K, 2) with a convex one (M, 2).

    Sutherland-Hodgman clipping; separate parts stay connected by edges without area.
    """
    rest = np.asarray(polygon, np.float64)
    clip = np.asarray(convex, np.float64)
    x, y = clip.T
    if x @ np.roll(y, -1) < y @ np.roll(x, -1):
        clip = clip[::-1]
    for start, stop in zip(clip, np.roll(clip, -1, axis=0), strict=True):
        along = stop - start
        side = along[0] * (rest[:, 1] - start[1]) - along[1] * (rest[:, 0] - start[0])
        rest = _cut(rest, side)
        if not len(rest):
            return 0.0
    return polygon_area(rest)


def _cut(corners: F64, side: F64) -> F64:
    """Part of a polygon where `side`, which is linear along its edges, is positive."""
    kept: list[F64] = []
    for here, there, distance, next_distance in zip(
        corners, np.roll(corners, -1, axis=0), side, np.roll(side, -1), strict=True
    ):
        if distance >= 0:
            kept.append(here)
        if (distance < 0) != (next_distance < 0):
            kept.append(here + (there - here) * (distance / (distance - next_distance)))
    return np.array(kept).reshape(-1, 2)


class _Line(msgspec.Struct):
    points: list[tuple[float, float]]
    transcription: str = ""
    difficult: bool = False


def read(path: Path, images: Path | None) -> tuple[tuple[Path, ...], TextRegionTruth]:
    """Read PaddleOCR's list: file, tab, JSON of the lines with points and transcription."""
    rows = rows_of(path, "\t")
    _, paths = best_folder([images or path.absolute().parent], [name for name, _ in rows], path)
    lines = tuple(_regions(text, number, path) for number, (_, text) in enumerate(rows, 1))
    return tuple(paths), TextRegionTruth(lines)


def _regions(text: str, number: int, path: Path) -> tuple[TextRegion, ...]:
    try:
        lines = msgspec.json.decode(text, type=list[_Line])
    except (msgspec.DecodeError, RecursionError) as error:
        raise RkzooError(
            f"Line {number} of {path} is not understood.",
            f"After the tab: {error}.",
            'It must be a list as [{"transcription": "text", "points": [[x, y], ...]}].',
        ) from error
    for line in lines:
        if len(line.points) < 3 or any(abs(value) > _FAR for at in line.points for value in at):
            raise RkzooError(
                f"Line {number} of {path} has no right outline.",
                "An outline has three corners or more, in pixels.",
                "Correct the line.",
            )
    return tuple(
        TextRegion(tuple(line.points), not line.difficult and line.transcription not in _UNREADABLE)
        for line in lines
    )
