"""What is kept in the cache to save time, checked each time it is used.

A damaged entry would give other results without an error, so a file is kept behind its digest, and
a folder with the digests of its files. What does not fit is dropped, and its maker makes it again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
from pathlib import Path

from rkzoo.errors import RkzooError
from rkzoo.files import atomic_output, cache_dir, os_errors_explained, sha256_of
from rkzoo.progress import SILENT, ProgressReporter

DIGESTS = "digests"
"""The file of a kept folder that holds the digests of the others."""


def keep(path: Path, data: bytes) -> None:
    """Write a file that `kept` reads. Raises RkzooError when it cannot be written."""
    with atomic_output(path) as temporary:
        temporary.write_bytes(_head(data) + data)


def kept(path: Path, report: ProgressReporter = SILENT) -> bytes | None:
    """The bytes given to `keep`, marked as used now.

    Args:
        path: The file in the cache.
        report: Is told where the file was there and damaged.

    Returns:
        None where there is nothing, or nothing whole: that is dropped.
    """
    if not os.path.lexists(path):
        return None
    with contextlib.suppress(OSError):
        if path.is_file():  # a pipe would hang
            head, line, data = path.read_bytes().partition(b"\n")
            if head + line == _head(data):
                mark_used(path)
                return data
    _drop_damaged(path, report)
    return None


def seal(folder: Path) -> None:
    """Write the digests of a folder's files into it. Raises RkzooError."""
    keep(folder / DIGESTS, json.dumps(_digests(folder)).encode())


def intact(folder: Path, report: ProgressReporter = SILENT) -> bool:
    """Whether a folder holds exactly what it held when it was sealed; else it is dropped.

    Args:
        folder: The folder in the cache, without folders in it.
        report: Is told where the folder was there and damaged.
    """
    if not os.path.lexists(folder):
        return False
    with contextlib.suppress(OSError, RkzooError, ValueError):
        own = folder.is_dir() and not folder.is_symlink()
        sealed = kept(folder / DIGESTS) if own else None
        if sealed is not None and json.loads(sealed) == _digests(folder):
            mark_used(folder)
            return True
    _drop_damaged(folder, report)
    return False


def kept_folder(*parts: str) -> Path:
    """As `cache_dir`; a file in the folder's place, which must be the cache's own, is dropped.

    Raises:
        RkzooError: The folder cannot be made.
    """
    path = cache_dir(*parts[:-1]) / parts[-1]
    if not path.is_dir():
        drop(path)
    with os_errors_explained(f"The cache folder {path} cannot be used."):
        path.mkdir(exist_ok=True)
    return path


def drop(path: Path) -> None:
    """Remove a file or folder of the cache. Links are not followed; a cache that is read-only stays
    as it is.
    """
    with contextlib.suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            # Under its name no half of it ever counts.
            doomed = path.with_name(f".{path.name}.{secrets.token_hex(4)}.old")
            os.replace(path, doomed)
            shutil.rmtree(doomed, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def mark_used(path: Path) -> None:
    """The cache removes what was used least recently."""
    with contextlib.suppress(OSError):
        os.utime(path)


def _drop_damaged(path: Path, report: ProgressReporter) -> None:
    drop(path)
    report.note(f"{path} in rkzoo's cache was damaged; it is made again.")


def _head(data: bytes) -> bytes:
    return b"rkzoo kept " + hashlib.sha256(data).hexdigest().encode() + b"\n"


def _digests(folder: Path) -> dict[str, str]:
    """By name; "" for what is no regular file."""
    return {
        path.name: sha256_of(path) if path.is_file() else ""
        for path in sorted(folder.iterdir())
        if path.name != DIGESTS
    }
