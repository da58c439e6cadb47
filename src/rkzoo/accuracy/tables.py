"""Readers of small text files: two-column lists and YAML."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from rkzoo.errors import RkzooError
from rkzoo.files import os_errors_explained, read_bytes

# A million text lines are about 100 MB; other lists are smaller.
MAX_BYTES = 256 << 20
MAX_YAML = 4 << 20


def text_of(path: Path, most: int = MAX_BYTES) -> str:
    """Read a UTF-8 file, without a byte order mark. Raises RkzooError when too large or not
    UTF-8.
    """
    with os_errors_explained(f"{path} cannot be read."):
        if path.stat().st_size > most:
            raise RkzooError(
                f"{path} is larger than {most >> 20} MB.",
                "No list of this kind is so large.",
                "Check that it is the right file.",
            )
        data = read_bytes(path)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RkzooError(
            f"{path} is not UTF-8 text.",
            f"Byte {error.start} belongs to no character.",
            "Save it as UTF-8.",
        ) from error


def rows_of(path: Path, divider: str) -> list[tuple[str, str]]:
    """Read two columns: up to the divider, and the rest. Empty lines are skipped.

    CSV cells may be quoted; a header row is kept.

    Raises:
        RkzooError: a line has no divider (its number is given), or the file is empty.
    """
    lines = text_of(path).splitlines()
    rows = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        if divider == ",":
            try:
                cells = next(csv.reader([line]))
            except (csv.Error, StopIteration):
                cells = []
            first, second = (cells[0], cells[1]) if len(cells) >= 2 else ("", "")
        else:
            first, _, second = line.partition(divider)
        if not first.strip() or (not second and divider not in line):
            raise RkzooError(
                f"Line {number} of {path} is not understood.",
                "It must be a file name and what is in the picture, "
                f"with a {'comma' if divider == ',' else 'tab'} between.",
                "Correct the line.",
            )
        rows.append((first.strip(), second))
    if not rows:
        raise RkzooError(f"{path} is empty.", "It names no picture.", "Check the file.")
    return rows


def yaml_of(path: Path) -> dict[str, Any]:
    """Read the mapping in a YAML file. Raises RkzooError when it is invalid."""
    import yaml

    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        data = yaml.load(text_of(path, MAX_YAML), loader)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        raise RkzooError(
            f"{path} is not valid yaml.", f"Reading it fails{where}.", "Correct the file."
        ) from error
    if not isinstance(data, dict):
        raise RkzooError(
            f"{path} describes no data.", "It has no keys.", "It must have val and names."
        )
    return data
