"""Atomic file output, cache folders, hashes and locks."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import secrets
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import BinaryIO

from rkzoo.errors import RkzooError


def cache_dir(*parts: str) -> Path:
    """Return the folder `parts` below the cache root, created if missing.

    The root is RKZOO_CACHE, else the user's cache folder.

    Raises:
        RkzooError: the folder cannot be created.
    """
    root = os.environ.get("RKZOO_CACHE")
    if root:
        base = Path(root).expanduser().absolute()
    else:
        from platformdirs import user_cache_path

        base = user_cache_path("rkzoo", appauthor=False)
    path = base.joinpath(*parts)
    with os_errors_explained(f"The cache folder {path} cannot be used."):
        path.mkdir(parents=True, exist_ok=True)
    return path


@contextmanager
def os_errors_explained(what: str) -> Iterator[None]:
    """Turn an OSError inside the block into an RkzooError whose first sentence is `what`."""
    try:
        yield
    except OSError as error:
        raise RkzooError(what, _why(error), _fix(error)) from error


class NotRegular(OSError):
    """A device, a pipe or a folder where a file is read, or a file that is too large."""


# Larger than any picture, sound or table that is read at once.
MOST_BYTES = 1 << 30


def open_file(path: Path) -> BinaryIO:
    """Open a regular file for reading. A pipe would wait for ever, a device never end.

    Raises:
        OSError: It cannot be opened; NotRegular where it is something else.
    """

    def opened(name: str, flags: int) -> int:
        # Checked first, since opening a device may do something; and again, since it may have
        # become another. Without waiting for a pipe's writer.
        _check_regular(os.stat(name), path)
        descriptor = os.open(name, flags | getattr(os, "O_NONBLOCK", 0))
        try:
            _check_regular(os.fstat(descriptor), path)
        except NotRegular:
            os.close(descriptor)
            raise
        return descriptor

    return open(path, "rb", opener=opened)


def _check_regular(found: os.stat_result, path: Path) -> None:
    if not stat.S_ISREG(found.st_mode):
        kind = "a folder" if stat.S_ISDIR(found.st_mode) else "a device or a pipe"
        raise NotRegular(errno.EINVAL, f"It is {kind}, and no file", str(path))


def read_bytes(path: Path, most: int = MOST_BYTES) -> bytes:
    """Read a regular file of at most `most` bytes. Raises as `open_file`."""
    with open_file(path) as file:
        # As large a buffer is made as is asked for; and it may grow meanwhile.
        data = file.read(min(os.fstat(file.fileno()).st_size, most) + 1)
        while len(data) <= most and (more := file.read(1 << 20)):
            data += more
    if len(data) > most:
        size = f"{most / 2**20:.3g} MB"
        raise NotRegular(errno.EFBIG, f"It is larger than {size}", str(path))
    return data


def read_text(path: Path, encoding: str = "utf-8", errors: str = "strict") -> str:
    """Read a regular file as text, with line ends as they are in Python. Raises as `open_file`,
    and UnicodeDecodeError."""
    with io.TextIOWrapper(io.BytesIO(read_bytes(path)), encoding, errors) as text:
        return text.read()


def _why(error: OSError) -> str:
    if isinstance(error, NotRegular):
        return f"{error.strerror}."
    where = f" ({error.filename})" if error.filename else ""
    return f"The system says: {error.strerror or error}{where}."


def _fix(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "Free some space, or point -o or RKZOO_CACHE at a disk that has room."
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "Choose a place you may write to, with -o or RKZOO_CACHE."
    if error.errno == errno.ENOENT:
        return "Check the path."
    return "Check the path and the disk."


@contextmanager
def atomic_output(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, and rename it to `path` when the block succeeds.

    The temporary name keeps the suffix, for writers that choose a format by it. On any exception,
    Ctrl-C included, the temporary file is removed and an existing `path` is unchanged.

    Raises:
        RkzooError: the file cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(4)}.part{path.suffix}")
    with os_errors_explained(f"{path} cannot be written."):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            os.replace(temporary, path)
        finally:
            if temporary.is_dir():
                shutil.rmtree(temporary, ignore_errors=True)
            else:
                temporary.unlink(missing_ok=True)


def check_folder(folder: Path) -> None:
    """Raise RkzooError when `folder` is not writable. Called before long work, not after it."""
    place = folder.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir() or not os.access(place, os.W_OK):
        raise RkzooError(
            f"Nothing can be written into {folder}.",
            f"{place} is {'not writable' if place.is_dir() else 'no folder'}.",
            "Name another folder with -o.",
        )


def refuse_overwriting_inputs(outputs: Iterable[Path], inputs: Iterable[Path]) -> None:
    """Raise RkzooError when an output path is also an input path."""
    taken = {path.resolve() for path in inputs}
    for path in outputs:
        if path.resolve() in taken:
            raise RkzooError(
                f"{path} would be overwritten.",
                "It is also an input, and the result would replace it.",
                "Choose another place for the result.",
            )


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic_output(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def sha256_of(path: Path) -> str:
    """Return the hex SHA-256 of a file. Raises RkzooError when it cannot be read."""
    digest = hashlib.sha256()
    with os_errors_explained(f"{path} cannot be read."), open_file(path) as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@cache
def package_digest() -> str:
    """Return the hex SHA-256 of all .py and .yaml files of the installed package, with their paths.

    Part of every cache key, so that no cached result outlives the code that made it. Computed
    once per process.
    """
    root = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        if path.suffix in (".py", ".yaml"):
            digest.update(f"{path.relative_to(root).as_posix()} {sha256_of(path)}\n".encode())
    return digest.hexdigest()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive inter-process lock on `path`, created if missing."""
    import fcntl

    with os_errors_explained(f"The lock {path} cannot be taken."):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
