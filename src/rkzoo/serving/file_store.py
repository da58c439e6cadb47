"""Model files that clients sent, kept by their sha256 in the cache.

A file arrives in pieces and can go on after a cut, from any client: what is there is told by its
size. It counts once all of it is there and its sha256 is right. Several servers may share a cache.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rkzoo.cache import limit
from rkzoo.errors import RkzooError
from rkzoo.files import cache_dir, locked, os_errors_explained, sha256_of, size_text
from rkzoo.kept import drop
from rkzoo.protocol.board import Stored

MOST_PIECE = 16 << 20
"""Bytes of one piece at most."""

_NAME = re.compile(r"[0-9a-f]{64}")
_RANGE = re.compile(r"bytes (\d{1,15})-(\d{1,15})/(\d{1,15})")


@dataclass(frozen=True)
class Piece:
    """Where a piece lies: from `start` up to `end` (excluded) of a file of `total` bytes."""

    start: int
    end: int
    total: int


class WrongPlace(RkzooError):
    """A piece that does not go on where the file ends; `stored` is what is there."""

    def __init__(self, stored: Stored, piece: Piece) -> None:
        super().__init__(
            "The piece of the file does not follow what is there.",
            f"{stored.size} bytes are there, and it begins at {piece.start}.",
            f"Go on from byte {stored.size}.",
        )
        self.stored = stored


class NoRoom(RkzooError):
    """A file that the disk or the cache's bound has no room for."""


class WrongContent(RkzooError):
    """A file whose sha256 is not its name."""


def parse_range(text: str, size: int) -> Piece:
    """The header Content-Range of a piece of `size` bytes. Raises RkzooError."""
    match = _RANGE.fullmatch(text.strip())
    start, last, total = map(int, match.groups()) if match else (0, 0, 0)
    if match is None or not start <= last < total or last + 1 - start != size:
        raise RkzooError(
            "The piece of the file cannot be placed.",
            f"Its Content-Range is {text[:80]!r}, and {size} bytes came.",
            "Send Content-Range: bytes FIRST-LAST/TOTAL, and those bytes.",
        )
    return Piece(start, last + 1, total)


class FileStore:
    """The files in this user's cache. Every method raises RkzooError for a name that is no sha256,
    and for a disk that fails; they may be called by several threads.

    Args:
        most: Bytes of all files together; None for what the cache may take.
    """

    def __init__(self, most: int | None = None) -> None:
        self._most = most

    def state(self, sha256: str) -> Stored:
        """How much of a file is there."""
        whole, part = _places(sha256)
        if whole.is_file():
            return Stored(sha256, whole.stat().st_size, True)
        return Stored(sha256, part.stat().st_size if part.is_file() else 0, False)

    def append(self, sha256: str, piece: Piece, data: bytes) -> Stored:
        """Add a piece. What was sent before, by whomever, is not written again.

        Raises:
            WrongPlace: Bytes before it are missing.
            WrongContent: It was the last, and the file is another; it is dropped.
            NoRoom: There is no room for it.
        """
        with self._writing(sha256):
            stored = self.state(sha256)
            if stored.complete:
                return stored
            if piece.start > stored.size:
                raise WrongPlace(stored, piece)
            if piece.total < stored.size:
                raise RkzooError(
                    "The piece belongs to another file.",
                    f"It is of {piece.total} bytes, and {stored.size} are there already.",
                    "Send the file again.",
                )
            part = _places(sha256)[1]
            new = data[stored.size - piece.start :]
            if new:
                self._make_room(piece.total, sha256)
                _require_space(part.parent, piece.total - stored.size)
                with _kept_at(part), part.open("ab") as file:
                    file.write(new)
            if part.stat().st_size == piece.total:
                self._finish(sha256)
            return self.state(sha256)

    @contextmanager
    def used(self, sha256: str) -> Iterator[Path]:
        """A whole file, which stays while the block lasts.

        Raises:
            RkzooError: It is not there, or was damaged (it is dropped).
        """
        whole, _ = _places(sha256)
        with _shared(_lock("received", sha256)):
            if not whole.is_file():
                raise RkzooError(
                    "The model file is not on the board.",
                    f"No whole file with the sha256 {sha256[:12]}… is there.",
                    "Send it first.",
                )
            if sha256_of(whole) != sha256:
                drop(whole)
                raise _wrong(sha256)
            _mark_used(whole)
            yield whole

    def _finish(self, sha256: str) -> None:
        whole, part = _places(sha256)
        if sha256_of(part) != sha256:
            drop(part)
            raise _wrong(sha256)
        os.replace(part, whole)

    def _make_room(self, size: int, sha256: str) -> None:
        """Drop what was used least recently, where a file of `size` bytes would be too much."""
        most = limit() if self._most is None else self._most
        if size > most:
            raise NoRoom(
                "The file is too large for this board.",
                f"It has {size_text(size)}, and RKZOO_CACHE_LIMIT there lets files take"
                f" {size_text(most)} in all.",
                "Raise RKZOO_CACHE_LIMIT there, or use a smaller model.",
            )
        others = [path for path in _folder().iterdir() if not path.name.startswith(sha256)]
        sizes = {path: path.stat() for path in others if path.is_file()}
        excess = size + sum(status.st_size for status in sizes.values()) - most
        for path in sorted(sizes, key=lambda path: max(sizes[path].st_atime, sizes[path].st_mtime)):
            if excess > 0 and not _is_used(path.name[:64]):
                drop(path)
                excess -= sizes[path].st_size

    @contextmanager
    def _writing(self, sha256: str) -> Iterator[None]:
        _places(sha256)
        with locked(_lock("receiving", sha256)):
            yield


def _folder() -> Path:
    return cache_dir("received")


def _places(sha256: str) -> tuple[Path, Path]:
    """Of the whole file, and of what is there of it."""
    if not _NAME.fullmatch(sha256):
        raise RkzooError(
            "There is no such file.", "A file's name is its sha256, 64 digits of 0-9 and a-f.", ""
        )
    folder = _folder()
    return folder / sha256, folder / f"{sha256}.part"


def _require_space(folder: Path, size: int) -> None:
    with os_errors_explained(f"{folder} cannot be used."):
        free = shutil.disk_usage(folder).free
    if size > free:
        raise _no_room(f"{size_text(free)} are free, and {size_text(size)} needed, in {folder}.")


@contextmanager
def _kept_at(part: Path) -> Iterator[None]:
    """The disk may fill up, and a quota be reached, while a piece is written."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _no_room(f"{part.parent} takes no more: {error.strerror}.") from error
        raise RkzooError(
            "The file cannot be kept.",
            f"The system says: {error.strerror} ({part.parent}).",
            "Check that folder there, which RKZOO_CACHE names.",
        ) from error


def _no_room(why: str) -> NoRoom:
    # Nothing that is in use is removed.
    fix = "Free some space there, for example by: rkzoo cache prune --keep 0"
    return NoRoom("There is no room for the file.", why, fix)


def _mark_used(path: Path) -> None:
    """Of the times of a file only that of access: by the other an open model is known again."""
    with contextlib.suppress(OSError):
        os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))


def _lock(what: str, sha256: str) -> Path:
    return cache_dir("locks") / f"{what}-{sha256}"


def _wrong(sha256: str) -> WrongContent:
    return WrongContent(
        "The file that came is another one.",
        f"Its sha256 is not {sha256[:12]}….",
        "Send it again; if it happens again, the connection spoils what it carries.",
    )


@contextmanager
def _shared(path: Path) -> Iterator[None]:
    """Hold a shared lock, by which the cache sees that the entry is in use."""
    import fcntl

    with os_errors_explained(f"The lock {path} cannot be taken."), path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        yield


def _is_used(sha256: str) -> bool:
    import fcntl

    for what in ("received", "receiving"):
        with contextlib.suppress(FileNotFoundError), _lock(what, sha256).open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
    return False
