"""Selection of calibration images as diverse as possible."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rkzoo.errors import RkzooError
from rkzoo.files import os_errors_explained
from rkzoo.progress import SILENT, Failure, ProgressReporter
from rkzoo.workflow.request.calibration import CalibrationImages, evenly, from_files
from rkzoo.zoo.schema import Int8Recipe

_COMPARED = 500  # pictures that are read to be told apart
_SIDE = 8  # side of the thumbnail by which images are compared


def farthest(files: Sequence[Path], count: int, report: ProgressReporter = SILENT) -> list[Path]:
    """Select `count` diverse files by farthest-point selection (Gonzalez 1985: covers the set
    within twice the optimal radius), starting with the most average one. An unreadable image is
    left out, which `report` is told.
    """
    if len(files) <= count:
        return list(files)
    known: dict[Path, NDArray[Any]] = {}
    with report.task("Comparing pictures", len(files), unit="pictures") as bar:
        for index, file in enumerate(files):
            try:
                known[file] = _look(file)
            except RkzooError as error:
                report.failed(Failure(str(file), error.reason))
            bar.update(index + 1)
    readable = list(known)
    if not readable:
        return []
    return [readable[index] for index in spread(np.stack(list(known.values())), count)]


def picked(
    recipe: Int8Recipe, pictures: CalibrationImages, report: ProgressReporter = SILENT
) -> CalibrationImages:
    """Those of the calibration pictures that a card's recipe takes; all where they are no files.
    Raises RkzooError for an unreadable image.
    """
    single = bool(pictures.rows) and all(len(row) == 1 for row in pictures.rows)
    if not recipe.pictures or not single or len(pictures) <= recipe.count:
        return pictures
    files = [row[0] for row in pictures.rows]
    if recipe.pictures == "evenly":
        return from_files(evenly(files, recipe.count))
    return from_files(farthest(evenly(files, _COMPARED), recipe.count, report))


def spread(points: NDArray[np.float32], count: int) -> list[int]:
    """Farthest-point selection of rows of `points` (N, D), in order of choice."""
    first = int(np.linalg.norm(points - points.mean(axis=0), axis=1).argmin())
    chosen = [first]
    nearest = np.linalg.norm(points - points[first], axis=1)
    while len(chosen) < min(count, len(points)):
        chosen.append(int(nearest.argmax()))
        np.minimum(nearest, np.linalg.norm(points - points[chosen[-1]], axis=1), out=nearest)
    return chosen


def _look(file: Path) -> NDArray[Any]:
    """Feature vector of an image. JPEGs are decoded at an eighth of their size."""
    from rkzoo.vision.image import read

    with os_errors_explained(f"The picture {file} cannot be read."):
        data = np.fromfile(file, np.uint8)
    image = cv2.imdecode(data, cv2.IMREAD_REDUCED_COLOR_8) if data.size else None
    if image is None:
        image = read(file)  # raises a readable error
    return np.asarray(
        cv2.resize(image, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA), np.float32
    ).reshape(-1)
