"""Reading and writing pictures."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from rkzoo.errors import RkzooError
from rkzoo.files import atomic_output, explained

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})


def read(path: str | os.PathLike[str]) -> NDArray[np.uint8]:
    """Reads a picture as BGR uint8 (H, W, 3), rotated as its EXIF says.

    Grey, transparent (alpha is dropped), 16-bit and CMYK files become the same form.
    Raises RkzooError when the file is missing, empty or no picture.
    """
    path = Path(path)
    with explained(f"The picture {path} cannot be read."):
        # Not cv2.imread: it cannot tell a missing file from a broken one, and fails on
        # some non-ASCII paths.
        data = np.fromfile(path, np.uint8)
    image = None
    if data.size:
        try:
            image = cv2.imdecode(data, cv2.IMREAD_COLOR)
        except cv2.error:
            image = None
    if image is None or image.size == 0:
        raise RkzooError(
            f"{path} is not a picture that can be read.",
            "The file is empty, cut short or of an unknown format.",
            "Open it in a viewer to check, or convert it to JPEG or PNG.",
        )
    return np.asarray(image, np.uint8)


def write(path: Path, image: NDArray[np.uint8]) -> None:
    """Writes BGR uint8 (H, W, 3) in the format of the suffix; jpg when there is none."""
    path = Path(path)
    ok, data = cv2.imencode(path.suffix or ".jpg", image)
    if not ok:
        raise RkzooError(
            f"{path} cannot be written.", "The format is unknown.", "Use .jpg or .png."
        )
    with atomic_output(path) as temporary:
        data.tofile(temporary)


def expand(inputs: list[str]) -> list[Path]:
    """Files, folders and globs to a sorted list of picture files, without doubles.

    Raises RkzooError for an entry that matches nothing.
    """
    found: dict[Path, None] = {}
    for entry in inputs:
        matches = _matches(entry)
        if not matches:
            raise RkzooError(
                f"{entry} holds no picture.",
                "Nothing there, or no file with a picture's suffix.",
                f"Give a file, a folder or a glob; known suffixes: {', '.join(sorted(SUFFIXES))}.",
            )
        found.update(dict.fromkeys(matches))
    return list(found)


def _matches(entry: str) -> list[Path]:
    import glob

    path = Path(entry)
    if path.is_dir():
        return sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file())
    if path.exists():
        return [path]
    return sorted(Path(p) for p in glob.glob(entry, recursive=True) if Path(p).is_file())
