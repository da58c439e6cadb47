"""Disk space, looked at before it is used."""

from __future__ import annotations

import shutil
from pathlib import Path

from rkzoo.errors import RkzooError
from rkzoo.files import os_errors_explained
from rkzoo.progress import ProgressReporter

_LARGE = 10**9
"""Bytes from which on a need is told."""


def check_room(folder: Path, need: int, report: ProgressReporter, what: str = "") -> None:
    """Tells of a large need of disk space, before it is used.

    Args:
        folder: Where it is needed; it need not exist yet.
        need: Bytes.
        report: Is told of a large need.
        what: What it is needed for; nothing is told without.

    Raises:
        RkzooError: There is less.
    """
    place = folder.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    with os_errors_explained(f"{place} cannot be looked at."):
        free = shutil.disk_usage(place).free
    if need > free:
        raise RkzooError(
            f"There is too little room in {folder}.",
            f"At least {_size(need)} are needed, and {_size(free)} are free.",
            "Free some space, or point -o or RKZOO_CACHE at a disk that has room.",
        )
    if what and need >= _LARGE:
        report.note(f"{what} take {_size(need)} in {folder}, of {_size(free)} free.")


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= _LARGE else f"{count / 1e6:.1f} MB"
