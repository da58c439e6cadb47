"""Samples of a model's inputs by name: pictures, .npy, .npz, or NAME=FILE."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from rkzoo.contract.inputs import ArrayInput, ImageInput
from rkzoo.contract.model import Contract
from rkzoo.errors import RkzooError
from rkzoo.files import files_in, os_errors_explained, read_bytes
from rkzoo.tasks.tensors.feed import Array, Sample, input_specs
from rkzoo.vision.image import SUFFIXES, from_bytes

ARRAYS = frozenset({".npy", ".npz"})


@dataclass(frozen=True)
class Files:
    """The files of one sample: one .npz of all inputs, or a file an input by its name."""

    whole: Path | None = None
    inputs: Mapping[str, Path] | None = None


def expand(names: Sequence[str], contract: Contract) -> list[Files]:
    """The samples that the user named.

    Args:
        names: NAME=FILE for each input; or for a model with one input pictures and arrays, and
            folders of them; or .npz files, one a sample; or a file an input, in their order.
        contract: The model's.

    Returns:
        The files of each sample, not read yet.

    Raises:
        RkzooError: A file is missing, or there are too few or many for one sample.
    """
    inputs = tuple(input_specs(contract))
    pairs = [name.partition("=") for name in names]
    if pairs and all(first in inputs and equal for first, equal, _ in pairs):
        named = {first: _there(Path(file)) for first, _, file in pairs}
        return [Files(inputs=_complete(named, inputs))]
    for first, equal, file in pairs:
        if equal and first not in inputs and not Path(f"{first}={file}").exists():
            raise RkzooError(
                f"The model has no input {first}.",
                f"Its inputs are {', '.join(inputs)}.",
                f"Give {' '.join(f'{name}=FILE' for name in inputs)}.",
            )
    files = [file for name in names for file in files_of(Path(name).expanduser())]
    if len(inputs) == 1:
        return [
            Files(whole=file) if file.suffix.lower() == ".npz" else Files(inputs={inputs[0]: file})
            for file in files
        ]
    if files and all(file.suffix.lower() == ".npz" for file in files):
        return [Files(whole=file) for file in files]
    if len(files) == len(inputs):
        return [Files(inputs=dict(zip(inputs, files, strict=True)))]
    example = " ".join(f"{name}=FILE" for name in inputs)
    raise RkzooError(
        f"{len(files)} files are no sample of this model.",
        f"It takes {len(inputs)} inputs: {', '.join(inputs)}.",
        f"Give {example}, or .npz files with these names, one a sample.",
    )


def _complete(named: dict[str, Path], inputs: tuple[str, ...]) -> dict[str, Path]:
    missing = [name for name in inputs if name not in named]
    if missing:
        raise RkzooError(
            f"The input {missing[0]} is not given.",
            f"The model takes {', '.join(inputs)}.",
            f"Add {missing[0]}=FILE.",
        )
    return named


def _there(path: Path) -> Path:
    if not path.is_file():
        raise RkzooError(f"There is no file {path}.", "", "Check the name.")
    return path


def files_of(path: Path) -> list[Path]:
    """A file, or the pictures and arrays of a folder. Raises RkzooError where there are none."""
    if not path.is_dir():
        return [_there(path)]
    files = files_in(path, SUFFIXES | ARRAYS)
    if not files:
        raise RkzooError(
            f"There is nothing in {path} that could be fed.",
            "Pictures, .npy and .npz files are.",
            "Check the name.",
        )
    return files


def file_of(source: Any) -> Path | None:
    """The file that a sample is named after."""
    if isinstance(source, Files):
        return source.whole or next(iter((source.inputs or {}).values()), None)
    return Path(source) if isinstance(source, str | Path) else None


def read(source: Any, contract: Contract) -> Sample:
    """A sample as the task takes it: files are read, arrays go through.

    Raises:
        RkzooError: A file cannot be read.
    """
    if isinstance(source, str | Path):
        (source,) = expand([str(source)], contract)
    if isinstance(source, Mapping):
        specs = input_specs(contract)
        return {key: _given(value, specs.get(key), str(key)) for key, value in source.items()}
    if not isinstance(source, Files):
        return _given(source, None, "sample")
    if source.whole is not None:
        with os_errors_explained(f"{source.whole} cannot be read."):
            return _npz(BytesIO(read_bytes(source.whole)), source.whole)
    specs = input_specs(contract)
    return {name: _read(file, specs[name]) for name, file in (source.inputs or {}).items()}


def _given(value: Any, spec: ImageInput | ArrayInput | None, name: str) -> Array:
    """What a program gives for an input: a file's name, or numbers."""
    if isinstance(value, str | Path) and spec is not None:
        return _read(_there(Path(value)), spec)
    try:
        array = np.asarray(value)
    except ValueError:  # rows of different lengths
        array = np.asarray(None)
    if array.dtype.kind not in "fiub":
        raise RkzooError(
            f"What was given for {name} is no array of numbers.",
            f"It is a {type(value).__name__} of {array.dtype}.",
            "Give a numpy array, or the path of a file.",
        )
    return array


def decode(data: bytes, path: Path, contract: Contract) -> Sample:
    """As `read`, for the bytes of the one file of a sample; `path` is its name.

    Raises:
        RkzooError: The file cannot be read, or the model takes more than it holds.
    """
    if path.suffix.lower() == ".npz":
        return _npz(BytesIO(data), path)
    specs = input_specs(contract)
    if len(specs) != 1:
        raise RkzooError(
            f"{path} is no sample of this model.",
            f"It takes {len(specs)} inputs: {', '.join(specs)}.",
            "Give .npz files with these names, one a sample.",
        )
    return {name: _decoded(data, path, spec) for name, spec in specs.items()}


def _read(file: Path, spec: ImageInput | ArrayInput) -> Array:
    with os_errors_explained(f"{file} cannot be read."):
        return _decoded(read_bytes(file), file, spec)


def _decoded(data: bytes, file: Path, spec: ImageInput | ArrayInput) -> Array:
    if file.suffix.lower() == ".npy":
        return _npy(BytesIO(data), file)
    image = spec if isinstance(spec, ImageInput) else spec.image
    if image is None:
        raise RkzooError(
            f"{file} is no array.",
            f"The input {spec.name if isinstance(spec, ArrayInput) else ''} takes numbers.",
            "Give an .npy file, as numpy.save writes it.",
        )
    return from_bytes(data, file, alpha=image.channels == 4)


def _npy(source: BytesIO, file: Path) -> Array:
    """An array of numbers. Raises RkzooError."""
    try:
        array = np.load(source, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise _unreadable(file, error) from error
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiub":
        raise RkzooError(f"{file} holds no numbers.", "", "Give an .npy as numpy.save writes it.")
    return array


def _npz(source: BytesIO, file: Path) -> dict[str, Array]:
    """Arrays of numbers by name. Raises RkzooError."""
    try:
        with np.load(source, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except _NO_ARCHIVE as error:
        raise _unreadable(file, error) from error


_NO_ARCHIVE = (OSError, ValueError, EOFError, KeyError, AttributeError, TypeError, BadZipFile)


def _unreadable(file: Path, error: Exception) -> RkzooError:
    # What numpy says of a ValueError is advice that nobody should follow (to unpickle).
    why = f"{error}." if isinstance(error, OSError) else "It is no file of plain numbers."
    return RkzooError(f"{file} cannot be read.", why, "Write it with numpy.save or numpy.savez.")
