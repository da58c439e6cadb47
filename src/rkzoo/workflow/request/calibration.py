"""Calibration pictures: found, checked, and made into what the model sees at run time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rkzoo.contract.inputs import ImageInput
from rkzoo.errors import RkzooError
from rkzoo.progress import SILENT, Reporter
from rkzoo.vision.image import ARRAY, SUFFIXES, expand, read
from rkzoo.vision.letterbox import fit

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class Pictures:
    """`count` calibration pictures that are not read yet. `names` go into the sidecar: the
    files they were made from, or the name of what made them."""

    names: tuple[str, ...]
    count: int
    load: Callable[[], Iterable[Image]]

    def __len__(self) -> int:
        return self.count


def from_files(files: Sequence[Path]) -> Pictures:
    names = tuple(str(file.resolve()) for file in files)
    # A model without alpha drops it when the picture is fitted.
    return Pictures(names, len(names), lambda: (read(file, alpha=True) for file in files))


def from_arrays(images: Sequence[Image], names: Sequence[str]) -> Pictures:
    """Pictures that were made on the spot from the files `names`, or by what they name."""
    return Pictures(tuple(names), len(images), lambda: iter(images))


def find(source: str) -> Pictures:
    """Pictures of a folder, a glob, or a text file that lists one path a line (from the
    list's own folder, as in the toolkit's dataset.txt).

    Every listed file is opened. Raises RkzooError naming all that cannot be read.
    """
    path = Path(source)
    files = _listed(path) if path.suffix == ".txt" and path.is_file() else expand([source])
    broken = [problem for file in files if (problem := _problem(file))]
    if broken:
        shown = " ".join(broken[:5]) + (f" … and {len(broken) - 5} more." if broken[5:] else "")
        raise RkzooError(
            f"{len(broken)} of {len(files)} calibration pictures cannot be used.",
            shown,
            "Remove or replace them.",
        )
    return from_files(files)


def _listed(path: Path) -> list[Path]:
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RkzooError(
            f"The list {path} cannot be read.", f"{error}.", "Give one path a line."
        ) from error
    files = [path.parent / line.strip() for line in lines if line.strip()]
    if not files:
        raise RkzooError(f"The list {path} is empty.", "", "Give one path a line.")
    return files


def _problem(file: Path) -> str | None:
    if file.is_file() and file.suffix.lower() not in (*SUFFIXES, ARRAY):
        return f"{file} is no picture."
    try:
        read(file)
    except RkzooError as error:
        return error.what
    return None


def arrays(pictures: Pictures, spec: ImageInput, report: Reporter = SILENT) -> Image:
    """uint8 (N, height, width, C) in the model's colour order, fitted as at run time."""
    height, width = spec.size
    stack = np.empty((len(pictures), height, width, spec.channels), np.uint8)
    with report.task("Calibration pictures", len(pictures)) as bar:
        for i, image in enumerate(pictures.load()):
            fit(image, spec, stack[i : i + 1])
            bar.update(i + 1)
    return stack
