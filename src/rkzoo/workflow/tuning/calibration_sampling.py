"""Which pictures of a folder set the INT8 ranges: spread evenly, or as unlike as possible."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rkzoo.files import explained
from rkzoo.progress import SILENT, Reporter

_SIDE = 8  # a picture is known by so many places along each side, in colour


def evenly(files: Sequence[Path], count: int) -> list[Path]:
    """`count` of the files at equal distances in their order; all where there are fewer."""
    if len(files) <= count:
        return list(files)
    return [files[int(i)] for i in np.linspace(0, len(files) - 1, count).round()]


def farthest(files: Sequence[Path], count: int, report: Reporter = SILENT) -> list[Path]:
    """`count` files, each the one least like all those before (farthest-point selection, which
    Gonzalez 1985 proves to cover a set within twice the least radius). The first is the most
    ordinary one. Raises RkzooError when a picture cannot be read."""
    if len(files) <= count:
        return list(files)
    known = np.empty((len(files), _SIDE * _SIDE * 3), np.float32)
    with report.task("Comparing pictures", len(files), unit="pictures") as bar:
        for index, file in enumerate(files):
            known[index] = _look(file)
            bar.update(index + 1)
    return [files[index] for index in spread(known, count)]


def spread(points: NDArray[np.float32], count: int) -> list[int]:
    """Rows of `points` (N, D) by farthest-point selection, in the order of choice."""
    first = int(np.linalg.norm(points - points.mean(axis=0), axis=1).argmin())
    chosen = [first]
    nearest = np.linalg.norm(points - points[first], axis=1)
    while len(chosen) < min(count, len(points)):
        chosen.append(int(nearest.argmax()))
        np.minimum(nearest, np.linalg.norm(points - points[chosen[-1]], axis=1), out=nearest)
    return chosen


def _look(file: Path) -> NDArray[Any]:
    """A picture as a few numbers. An eighth of a JPEG is all that is decoded of it."""
    from rkzoo.vision.image import read

    with explained(f"The picture {file} cannot be read."):
        data = np.fromfile(file, np.uint8)
    image = cv2.imdecode(data, cv2.IMREAD_REDUCED_COLOR_8) if data.size else None
    if image is None:
        image = read(file)  # the error in words
    return np.asarray(
        cv2.resize(image, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA), np.float32
    ).reshape(-1)
