"""Atomic file output, cache folders, hashes and locks."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

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


def _why(error: OSError) -> str:
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


_temporary: set[Path] = set()


@contextmanager
def disposable(path: Path) -> Iterator[Path]:
    """Remove the file or folder `path` when the block ends, also where a signal ends the process
    without unwinding it (`remove_temporary`).
    """
    _temporary.add(path)
    try:
        yield path
    finally:
        _remove(path)
        _temporary.discard(path)


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Yield a new private folder outside of the cache, for the duration of the block. Raises
    RkzooError.
    """
    import tempfile

    with disposable(Path(tempfile.gettempdir()) / f"rkzoo-{secrets.token_hex(6)}") as folder:
        with os_errors_explained(f"The temporary folder {folder} cannot be made."):
            folder.mkdir(mode=0o700)
        yield folder


def remove_temporary() -> None:
    """Remove what open `disposable` blocks would remove, for a process that leaves at once."""
    for path in list(_temporary):
        _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


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
        with disposable(temporary):
            yield temporary
            os.replace(temporary, path)


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
    with os_errors_explained(f"{path} cannot be read."), path.open("rb") as file:
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
    """Hold an exclusive lock on `path`, created if missing, against other processes and threads."""
    with os_errors_explained(f"The lock {path} cannot be taken."):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            _lock(file.fileno())
            yield


def _lock(descriptor: int) -> None:
    """Wait for the lock of an open file; closing the file gives it back."""
    try:
        import fcntl
    except ImportError:  # Windows
        msvcrt: Any = import_module("msvcrt")
        while True:
            try:
                # Of ten seconds' patience. The mode "a" begins at the end of the file, which is
                # empty.
                msvcrt.locking(descriptor, msvcrt.LK_LOCK, 1)
                return
            except OSError as error:
                if error.errno != errno.EDEADLK:
                    raise
    fcntl.flock(descriptor, fcntl.LOCK_EX)
