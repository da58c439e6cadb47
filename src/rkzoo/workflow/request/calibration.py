"""Calibration pictures: found, checked, and made into what the model sees at run time."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from math import prod
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from rkzoo.contract.inputs import ImageInput
from rkzoo.contract.model import Contract, TensorsHead
from rkzoo.errors import RkzooError
from rkzoo.files import cache_dir, files_in, os_errors_explained, read_text, require_space
from rkzoo.progress import SILENT, Failure, ProgressReporter
from rkzoo.tasks.tensors.feed import Sample, arrays_of, input_specs
from rkzoo.vision.image import SUFFIXES, expand, read
from rkzoo.vision.letterbox import fit
from rkzoo.workflow.request.samples import ARRAYS, Files
from rkzoo.workflow.request.samples import read as read_sample

Image = NDArray[np.uint8]
T = TypeVar("T")


USUAL = 100
"""Pictures that calibrate where a folder holds more and neither user nor card says how many."""
_IN_MEMORY = 1 << 28  # bytes of calibration arrays; what is larger lies on the disk
# The arrays themselves, the build that is kept of them, and the toolkit's own copy.
_COPIES = 3


@dataclass(frozen=True)
class CalibrationImages:
    """`count` calibration pictures that are not read yet. `names` go into the sidecar: the
    files they were made from, or the name of what made them. `rows` are the files of each sample
    where they were listed or are .npz: a file an input, or one of all inputs; `flat` where those
    of one sample may follow one another as rows of their own, as a sidecar keeps them. `source`
    is what the user named where it may hold more than are needed: `choose` takes some of it."""

    names: tuple[str, ...]
    count: int
    load: Callable[[], Iterable[Image]]
    rows: tuple[tuple[Path, ...], ...] = ()
    flat: bool = False
    source: str = ""
    # What was chosen of them already, so that the parts of a pipeline choose and tell once.
    chosen: dict[int | None, CalibrationImages] = field(
        default_factory=dict, compare=False, repr=False
    )

    def __len__(self) -> int:
        return self.count


def from_files(files: Sequence[Path]) -> CalibrationImages:
    # A model without alpha drops it when the picture is fitted.
    return _of_rows([(file,) for file in files], flat=True)


def _of_rows(
    rows: Sequence[tuple[Path, ...]], *, flat: bool = False, source: str = ""
) -> CalibrationImages:
    names = tuple(os.path.abspath(file) for row in rows for file in row)
    load = partial(_all_read, [file for row in rows for file in row])
    return CalibrationImages(names, len(rows), load, tuple(rows), flat, source)


def _all_read(files: Sequence[Path]) -> Iterator[Image]:
    return (read(file, alpha=True) for file in files)


def from_arrays(images: Sequence[Image], names: Sequence[str]) -> CalibrationImages:
    """Pictures that were made on the spot from the files `names`, or by what they name."""
    return CalibrationImages(tuple(names), len(images), lambda: iter(images))


def find(source: str) -> CalibrationImages:
    """Pictures of a folder, a glob, or a text file that lists one path a line (from the
    list's own folder, as in the toolkit's dataset.txt).

    None is opened before `choose` has taken those that are needed. Raises RkzooError where
    there is none.
    """
    path = Path(source)
    listed = path.suffix == ".txt" and path.is_file()
    rows = _listed(path) if listed else [(file,) for file in _in_folder(path) or expand([source])]
    return _of_rows(rows, source=source)


def choose(
    pictures: CalibrationImages,
    contract: Contract,
    count: int | None = None,
    usual: int | None = None,
    report: ProgressReporter = SILENT,
) -> CalibrationImages:
    """Those that calibrate, each of which can be read.

    Args:
        pictures: What there is. Of what a user named some are taken at equal distances, in the
            order of the names; what was chosen elsewhere stays whole.
        contract: The model's.
        count: How many the user asks for.
        usual: How many the model's card does.
        report: Is told how many were taken, and of each that cannot be read; the one beside it
            takes its place.

    Raises:
        RkzooError: None can be read.
    """
    if not pictures.rows:
        return pictures
    if count not in pictures.chosen:
        pictures.chosen[count] = _choose(pictures, contract, count, usual, report)
    return pictures.chosen[count]


def _choose(
    pictures: CalibrationImages,
    contract: Contract,
    count: int | None,
    usual: int | None,
    report: ProgressReporter,
) -> CalibrationImages:
    check: Callable[[tuple[Path, ...]], object]
    if isinstance(contract.head, TensorsHead):
        rows = _samples_of(pictures, contract)
        check = partial(_sample_arrays, contract=contract)
    else:
        rows, check = pictures.rows, _check_pictures
    most = count or (usual or USUAL if pictures.source else None) or len(rows)
    wanted = evenly(range(len(rows)), most)
    if len(wanted) < len(rows):
        report.note(
            f"{len(rows):,} pictures found in {pictures.source or 'the list'}; {len(wanted)} of "
            f"them, evenly, calibrate; --calib-count N takes another number."
        )
    errors: list[RkzooError] = []
    taken: set[int] = set()
    tried = set(wanted)
    for index in wanted:
        there: int | None = index
        while there is not None:
            try:
                check(rows[there])
            except RkzooError as error:
                errors.append(error)
                report.failed(Failure(str(rows[there][0]), error.reason))
                there = _beside(index, tried, len(rows))
                tried |= set() if there is None else {there}
            else:
                taken.add(there)
                break
    if not taken:
        raise _none_left(errors)
    return _of_rows([rows[index] for index in sorted(taken)], flat=pictures.flat)


def evenly(items: Sequence[T], most: int) -> list[T]:
    """At most `most` of the items, at equal distances."""
    if len(items) <= most:
        return list(items)
    return [items[int(i)] for i in np.linspace(0, len(items) - 1, most).round()]


def _beside(index: int, tried: Set[int], there: int) -> int | None:
    """The nearest position that was not tried yet."""
    for distance in range(1, there):
        for near in (index + distance, index - distance):
            if 0 <= near < there and near not in tried:
                return near
    return None


def _none_left(errors: Sequence[RkzooError]) -> RkzooError:
    first = errors[0]
    if len(errors) == 1:
        return first
    return RkzooError(
        f"None of the {len(errors):,} calibration pictures can be used.",
        first.reason,
        first.fix,
    )


def _check_pictures(row: tuple[Path, ...]) -> None:
    """Raises RkzooError for a file that is no picture."""
    for file in row:
        if file.is_file() and file.suffix.lower() not in SUFFIXES | ARRAYS:
            raise RkzooError(
                f"{file} is no picture.",
                f"Pictures end in {', '.join(sorted(SUFFIXES))}.",
                "Remove it or rename it.",
            )
        read(file)


def _in_folder(path: Path) -> list[Path]:
    """The arrays of a folder that holds some, one sample each."""
    if not path.is_dir():
        return []
    return files_in(path, ARRAYS)


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
    count = min(len(pictures), most or len(pictures))
    stacks: list[NDArray[Any]] = []
    with report.task("Calibration samples", count) as bar:
        for number, sample in enumerate(islice(samples(pictures, contract), count)):
            # A session takes pictures one at a time, and arrays in their whole shape.
            ready = [
                array[0] if isinstance(spec, ImageInput) else array
                for spec, array in zip(
                    input_specs(contract).values(), arrays_of(sample, contract), strict=True
                )
            ]
            if not stacks:
                shapes = [((count, *array.shape), array.dtype) for array in ready]
                stacks = _room_for(shapes, report)
            for stack, array in zip(stacks, ready, strict=True):
                _check_finite(array, number + 1)
                stack[number] = array
            bar.update(number + 1)
    return stacks


def _room_for(
    shapes: Sequence[tuple[tuple[int, ...], Any]], report: ProgressReporter
) -> list[NDArray[Any]]:
    """Arrays to be filled: in memory, or many of them in a file that is gone with this process.
    Raises RkzooError where the disk has too little room."""
    size = sum(prod(shape) * np.dtype(dtype).itemsize for shape, dtype in shapes)
    if size <= _IN_MEMORY:
        return [np.empty(shape, dtype) for shape, dtype in shapes]
    folder = cache_dir("scratch")
    what = f"{shapes[0][0][0]:,} calibration pictures as the model sees them, {_COPIES} times over"
    report.note(require_space(folder, _COPIES * size, what))
    with os_errors_explained("The calibration pictures cannot be kept in the cache."):
        return [_mapped(folder, shape, dtype) for shape, dtype in shapes]


def _mapped(folder: Path, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    with tempfile.TemporaryFile(dir=folder) as file:
        return np.memmap(file, dtype, "w+", shape=shape)


def _check_finite(array: NDArray[Any], number: int | None) -> None:
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise RkzooError(
            f"Calibration sample {number} holds numbers that are not finite.",
            "INT8 ranges cannot be made of NaN or infinity.",
            "Leave that sample out.",
        )


def samples(pictures: CalibrationImages, contract: Contract) -> Iterator[Sample]:
    """The calibration samples of a model with plain inputs, as its task takes them, each read
    when it is asked for. Raises RkzooError for one that cannot be read or lacks an input."""
    if not pictures.rows:
        return (read_sample(source, contract) for source in pictures.load())
    return (_read_row(row, contract) for row in _samples_of(pictures, contract))


def _samples_of(pictures: CalibrationImages, contract: Contract) -> tuple[tuple[Path, ...], ...]:
    """The files of each sample."""
    rows = pictures.rows
    inputs = len(input_specs(contract))
    if pictures.flat and not any(row[0].suffix.lower() == ".npz" for row in rows):
        columns = iter(row[0] for row in rows)
        rows = tuple(zip(*[columns] * inputs, strict=True))
    return rows


def _read_row(row: tuple[Path, ...], contract: Contract) -> Sample:
    return read_sample(_sample(tuple(input_specs(contract)), row), contract)


def _sample_arrays(row: tuple[Path, ...], contract: Contract) -> None:
    """Raises RkzooError for a sample that cannot be read, does not fit, or is not finite."""
    for array in arrays_of(_read_row(row, contract), contract):
        _check_finite(array, None)


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
    shape = (len(pictures), height, width, spec.channels)
    (stack,) = _room_for([(shape, np.uint8)], report)
    with report.task("Calibration pictures", len(pictures)) as bar:
        for i, image in enumerate(pictures.load()):
            fit(image, spec, stack[i : i + 1])
            bar.update(i + 1)
    return stack
