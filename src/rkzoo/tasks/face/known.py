"""Faces whose names are known: a folder of pictures, NAME.jpg or NAME/*.jpg."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rkzoo.errors import RkzooError
from rkzoo.files import files_in, os_errors_explained, sha256_of
from rkzoo.kept import keep, kept, kept_folder
from rkzoo.progress import SILENT, ProgressReporter
from rkzoo.vision.image import SUFFIXES, read

Embed = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""A BGR picture (H, W, 3) to the embeddings (N, D) of its faces, of length 1, the largest face
first."""


Cosines = NDArray[np.float32]


@dataclass(frozen=True)
class KnownFaces:
    """Embeddings of faces by name.

    Attributes:
        persons: Names, each once.
        person: (K,) whose each embedding is, an index into `persons`.
        embeddings: (K, D) float32 of length 1.
    """

    persons: tuple[str, ...]
    person: NDArray[np.int32]
    embeddings: NDArray[np.float32]

    def nearest(self, embeddings: NDArray[np.float32]) -> tuple[NDArray[np.int32], Cosines]:
        """Whom faces are most like, (N,) indices into `persons`, and how much, (N,) cosines.

        Args:
            embeddings: (N, D) of length 1.
        """
        cosines = embeddings @ self.embeddings.T
        best = cosines.argmax(axis=1)
        return self.person[best], np.clip(cosines[np.arange(len(cosines)), best], -1, 1)


def known_faces(
    folder: Path, embed: Embed, digest: str = "", report: ProgressReporter = SILENT
) -> KnownFaces:
    """The known faces of a folder. Of a picture with several the largest face is taken.

    Args:
        folder: Pictures NAME.jpg, or folders NAME with pictures of one person.
        embed: Makes the embeddings.
        digest: Of all that makes the numbers: embeddings are kept in the cache under it; "" to
            keep none.
        report: Is told of pictures with no face or several.

    Raises:
        RkzooError: The folder cannot be read, or shows no face at all.
    """
    pictures = _pictures(folder)
    if not pictures:
        raise RkzooError(
            f"{folder} holds no known faces.",
            "It has no pictures, and no folders with pictures.",
            f"Put a picture of each person there: {folder / 'NAME.jpg'} or {folder / 'NAME'}/*.jpg",
        )
    place = kept_folder("embeddings", digest[:32]) if digest else None
    names: list[str] = []
    rows: list[NDArray[np.float32]] = []
    with report.task("Looking at known faces", len(pictures), unit="pictures") as bar:
        for done, (name, file) in enumerate(pictures, 1):
            try:
                faces = _embedded(file, embed, place)
            except RkzooError as error:
                report.note(f"{error.what} {error.why} It is left out of the known faces.")
                continue
            finally:
                bar.update(done)
            if not len(faces):
                report.note(f"{file} is left out: no face was found on it.")
                continue
            if len(faces) > 1:
                seen = f"{file} shows {len(faces)} faces"
                report.note(f"{seen}: the largest of the sure ones is taken for {name}.")
            names.append(name)
            rows.append(faces[0])
    if not names:
        raise RkzooError(
            f"No face was found in {folder}.",
            f"{len(pictures)} pictures were looked at.",
            "Give pictures in which the face is seen from the front and is 50 pixels or larger.",
        )
    persons = tuple(sorted(set(names)))
    person = np.array([persons.index(name) for name in names], np.int32)
    return KnownFaces(persons, person, np.stack(rows))


def _pictures(folder: Path) -> list[tuple[str, Path]]:
    """Names and pictures, by name."""
    with os_errors_explained(f"The folder {folder} of known faces cannot be read."):
        inside = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
        folders = [path for path in inside if path.is_dir()]
    found = [(file.stem, file) for file in files_in(folder, SUFFIXES) if file in inside]
    found += [(one.name, file) for one in folders for file in files_in(one, SUFFIXES)]
    return sorted(found)


def _embedded(file: Path, embed: Embed, place: Path | None) -> NDArray[np.float32]:
    """The embeddings (N, D) of a picture, from the cache where they are kept."""
    entry = None if place is None else place / f"faces-{sha256_of(file)}.npy"
    known = None if entry is None else kept(entry)
    if known is not None:
        rows: NDArray[np.float32] = np.load(io.BytesIO(known), allow_pickle=False)
        return rows
    rows = embed(read(file))
    if entry is not None:
        packed = io.BytesIO()
        np.save(packed, rows)
        keep(entry, packed.getvalue())
    return rows
