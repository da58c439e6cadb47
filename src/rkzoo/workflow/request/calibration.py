"""Calibration pictures: found, checked, and made into what the model sees at run time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rkzoo.contract.inputs import ImageInput
from rkzoo.contract.model import Contract
from rkzoo.errors import RkzooError
from rkzoo.files import read_text
from rkzoo.progress import SILENT, ProgressReporter
from rkzoo.tasks.tensors.feed import Sample, arrays_of, input_specs
from rkzoo.vision.image import SUFFIXES, expand, read
from rkzoo.vision.letterbox import fit
from rkzoo.workflow.request.samples import ARRAYS, Files
from rkzoo.workflow.request.samples import read as read_sample

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class CalibrationImages:
    """`count` calibration pictures that are not read yet. `names` go into the sidecar: the
    files they were made from, or the name of what made them. `rows` are the files of each sample
    where they were listed or are .npz: a file an input, or one of all inputs; `flat` where those
    of one sample may follow one another as rows of their own, as a sidecar keeps them."""

    names: tuple[str, ...]
    count: int
    load: Callable[[], Iterable[Image]]
    rows: tuple[tuple[Path, ...], ...] = ()
    flat: bool = False

    def __len__(self) -> int:
        return self.count


def from_files(files: Sequence[Path]) -> CalibrationImages:
    names = tuple(str(file.resolve()) for file in files)
    # A model without alpha drops it when the picture is fitted.
    rows = tuple((file,) for file in files)
    load = partial(_all_read, files)
    return CalibrationImages(names, len(names), load, rows, flat=True)


def _all_read(files: Sequence[Path]) -> Iterator[Image]:
    return (read(file, alpha=True) for file in files)


def from_arrays(images: Sequence[Image], names: Sequence[str]) -> CalibrationImages:
    """Pictures that were made on the spot from the files `names`, or by what they name."""
    return CalibrationImages(tuple(names), len(images), lambda: iter(images))


def find(source: str) -> CalibrationImages:
    """Pictures of a folder, a glob, or a text file that lists one path a line (from the
    list's own folder, as in the toolkit's dataset.txt).

    Every listed file is opened. Raises RkzooError naming all that cannot be read.
    """
    path = Path(source)
    listed = path.suffix == ".txt" and path.is_file()
    rows = _listed(path) if listed else [(file,) for file in _in_folder(path) or expand([source])]
    files = [file for row in rows for file in row]
    broken = [problem for file in files if (problem := _problem(file))]
    if broken:
        shown = " ".join(broken[:5]) + (f" … and {len(broken) - 5} more." if broken[5:] else "")
        raise RkzooError(
            f"{len(broken)} of {len(files)} calibration pictures cannot be used.",
            shown,
            "Remove or replace them.",
        )
    names = tuple(str(file.resolve()) for file in files)
    load = from_files(files).load
    return CalibrationImages(names, len(rows), load, tuple(rows))


def _in_folder(path: Path) -> list[Path]:
    """The arrays of a folder that holds some, one sample each."""
    if not path.is_dir():
        return []
    return sorted(file for file in path.iterdir() if file.suffix.lower() in ARRAYS)


def _listed(path: Path) -> list[tuple[Path, ...]]:
    try:
        lines = read_text(path).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RkzooError(
            f"The list {path} cannot be read.", f"{error}.", "Give one path a line."
        ) from error
    files = [_row(path.parent, line.strip()) for line in lines if line.strip()]
    if not files:
        raise RkzooError(f"The list {path} is empty.", "", "Give one path a line.")
    return files


def _row(folder: Path, line: str) -> tuple[Path, ...]:
    """The files of one sample: a column an input, between blanks; a name may hold blanks where
    it is the only one."""
    whole = folder / line
    columns = line.split()
    if len(columns) < 2 or whole.exists():
        return (whole,)
    return tuple(folder / column for column in columns)


def _problem(file: Path) -> str | None:
    if file.is_file() and file.suffix.lower() in ARRAYS:
        return None  # read when it is known which input it is for
    if file.is_file() and file.suffix.lower() not in SUFFIXES:
        return f"{file} is no picture."
    try:
        read(file)
    except RkzooError as error:
        return error.what
    return None


def sample_arrays(
    pictures: CalibrationImages,
    contract: Contract,
    report: ProgressReporter = SILENT,
    *,
    most: int | None = None,
) -> list[NDArray[Any]]:
    """Calibration samples of a model with plain inputs.

    Args:
        pictures: The samples: pictures, .npz of all inputs, or rows of a file an input.
        contract: The model's.
        report: Where progress goes.
        most: So many of them, the first ones; None for all.

    Returns:
        One stack an input, (number of samples, ...) of what a session takes.

    Raises:
        RkzooError: A sample cannot be read, or does not fit the inputs.
    """
    specs = tuple(input_specs(contract).values())
    stacks: list[list[NDArray[Any]]] = [[] for _ in specs]
    with report.task("Calibration samples", len(pictures)) as bar:
        for number, sample in enumerate(islice(samples(pictures, contract), most), 1):
            for stack, array in zip(stacks, arrays_of(sample, contract), strict=True):
                _check_finite(array, number)
                stack.append(array)
            bar.update(number)
    # A session takes pictures one at a time, and arrays in their whole shape.
    return [
        np.concatenate(stack) if isinstance(spec, ImageInput) else np.stack(stack)
        for spec, stack in zip(specs, stacks, strict=True)
    ]


def _check_finite(array: NDArray[Any], number: int) -> None:
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise RkzooError(
            f"Calibration sample {number} holds numbers that are not finite.",
            "INT8 ranges cannot be made of NaN or infinity.",
            "Leave that sample out.",
        )


def samples(pictures: CalibrationImages, contract: Contract) -> Iterator[Sample]:
    """The calibration samples of a model with plain inputs, as its task takes them, each read
    when it is asked for. Raises RkzooError for one that cannot be read or lacks an input."""
    names = tuple(input_specs(contract))
    rows = pictures.rows
    if pictures.flat and not any(row[0].suffix.lower() == ".npz" for row in rows):
        columns = iter(row[0] for row in rows)
        rows = tuple(zip(*[columns] * len(names), strict=True))
    sources: Iterable[Any] = map(partial(_sample, names), rows) if rows else pictures.load()
    return (read_sample(source, contract) for source in sources)


def _sample(names: tuple[str, ...], row: tuple[Path, ...]) -> Files:
    if len(row) == 1 and row[0].suffix.lower() == ".npz":
        return Files(whole=row[0])
    if len(row) != len(names):
        raise RkzooError(
            f"The calibration sample {row[0]} has {len(row)} columns.",
            f"The model takes {len(names)} inputs: {', '.join(names)}.",
            "Give --calib a list with one file an input in each line, or a folder of .npz.",
        )
    return Files(inputs=dict(zip(names, row, strict=True)))


def arrays(
    pictures: CalibrationImages, spec: ImageInput, report: ProgressReporter = SILENT
) -> Image:
    """uint8 (N, height, width, C) in the model's colour order, fitted as at run time."""
    height, width = spec.size
    stack = np.empty((len(pictures), height, width, spec.channels), np.uint8)
    with report.task("Calibration pictures", len(pictures)) as bar:
        for i, image in enumerate(pictures.load()):
            fit(image, spec, stack[i : i + 1])
            bar.update(i + 1)
    return stack
