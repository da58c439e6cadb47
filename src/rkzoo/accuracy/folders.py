"""Image search in datasets, confined to the folder named by the user."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from rkzoo.errors import RkzooError
from rkzoo.files import os_errors_explained, read_bytes

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})


def subfolder(folder: Path, name: str, told_by: Path) -> Path:
    """Join `folder` and a relative path `name`, which the file `told_by` contains.

    Raises:
        RkzooError: the path is absolute or leaves the folder.
    """
    pure = PurePosixPath(name.replace("\\", "/"))
    if not name or "\0" in name or pure.is_absolute() or ".." in pure.parts or ":" in pure.parts[0]:
        raise RkzooError(
            f"{told_by} names the file {name[:80]!r}.",
            "Files outside the folder of the data are not read.",
            "Put the pictures below that folder and name them from there.",
        )
    return folder / pure


def digest_of(files: Iterable[Path]) -> bytes:
    """SHA-256 over the contents of the files, in order."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(hashlib.sha256(read_bytes(file)).digest())
    return digest.digest()


def check_size(file: Path, shape: tuple[int, ...], size: Iterable[int], kind: str) -> None:
    """Raise RkzooError where a map of `shape` (H, W) differs in size from its image; `kind` names
    the map in the message.
    """
    height, width = size
    if shape != (height, width):
        raise RkzooError(
            f"{file.name} is {shape[1]}x{shape[0]}, its picture {width}x{height}.",
            f"A {kind} has one number for each pixel of its picture.",
            "Put the right map beside the picture.",
        )


def pictures(folder: Path) -> list[Path]:
    """All images below a folder, sorted by path, without hidden ones."""
    with os_errors_explained(f"The folder {folder} cannot be read."):
        paths = [
            path
            for path in folder.rglob("*")
            if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
        ]
    return sorted(paths, key=lambda path: path.relative_to(folder).as_posix())


def best_folder(
    candidates: Iterable[Path], names: Sequence[str], told_by: Path
) -> tuple[Path, list[Path]]:
    """Return the folder with most of the named images, and the path of each image, there or not.

    A name is also tried without its folders (val2017/1.jpg as 1.jpg).

    Raises:
        RkzooError: none is found.
    """
    best: tuple[int, Path, list[Path]] | None = None
    for folder in dict.fromkeys(candidates):
        if not folder.is_dir():
            continue
        present = [_present(folder, name, told_by) for name in names]
        count = sum(path is not None for path in present)
        paths = [path or folder / name for path, name in zip(present, names, strict=True)]
        if best is None or count > best[0]:
            best = count, folder, paths
        if count == len(names):
            break
    if best is None or not best[0]:
        raise RkzooError(
            f"None of the {len(names)} pictures that {told_by} names is there.",
            f"The first is {names[0][:80] if names else ''}.",
            f"Name their folder: {told_by}@FOLDER.",
        )
    return best[1], best[2]


def first_row(paths: Sequence[Path]) -> int:
    """Where a list begins: its first row is a header where it names nothing that is there."""
    return int(bool(paths[1:]) and not paths[0].is_file())


def _present(folder: Path, name: str, told_by: Path) -> Path | None:
    path = subfolder(folder, name, told_by)
    for place in (path, folder / path.name):
        if place.is_file():
            return place
    return None
