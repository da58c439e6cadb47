"""Files that are never half-written, and the place where rkzoo keeps its own."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from rkzoo.errors import RkzooError


def cache_dir(*parts: str) -> Path:
    """The folder `parts` below the cache (RKZOO_CACHE, else the user's cache folder).

    The folder is created. Raises RkzooError when it cannot be.
    """
    root = os.environ.get("RKZOO_CACHE")
    if root:
        base = Path(root).expanduser().absolute()
    else:
        from platformdirs import user_cache_path

        base = user_cache_path("rkzoo", appauthor=False)
    path = base.joinpath(*parts)
    with explained(f"The cache folder {path} cannot be used."):
        path.mkdir(parents=True, exist_ok=True)
    return path


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Turns an OSError inside the block into an RkzooError that begins with `what`."""
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


@contextmanager
def atomic_output(path: Path) -> Iterator[Path]:
    """Yields a temporary name beside `path`; moves it into place when the block succeeds.

    The temporary name keeps the suffix, for writers that choose a format by it. On any
    exception (Ctrl-C too) the temporary file goes and an existing `path` stays as it was.
    Raises RkzooError when the disk refuses.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(4)}.part{path.suffix}")
    with explained(f"{path} cannot be written."):
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
    """Raises RkzooError when nothing can be written there: better now than after the work."""
    place = folder.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir() or not os.access(place, os.W_OK):
        raise RkzooError(
            f"Nothing can be written into {folder}.",
            f"{place} is {'not writable' if place.is_dir() else 'no folder'}.",
            "Name another folder with -o.",
        )


def check_apart(outputs: Iterable[Path], inputs: Iterable[Path]) -> None:
    """Raises RkzooError when an output would take the place of an input."""
    taken = {path.resolve() for path in inputs}
    for path in outputs:
        if path.resolve() in taken:
            raise RkzooError(
                f"{path} would be overwritten.",
                "It is what is read, and the result would take its place.",
                "Choose another place for the result.",
            )


def write_text(path: Path, text: str) -> None:
    with atomic_output(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file's bytes."""
    digest = hashlib.sha256()
    with explained(f"{path} cannot be read."), path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@cache
def package_digest() -> str:
    """Hex sha256 of all code and data (.py, .yaml) of the installed package, by path and content.

    Part of the key of everything that is kept, so that nothing outlives the code that made it.
    Read once in a process.
    """
    root = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        if path.suffix in (".py", ".yaml"):
            digest.update(f"{path.relative_to(root).as_posix()} {sha256_of(path)}\n".encode())
    return digest.hexdigest()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds an exclusive lock on `path` (made when missing) against other processes."""
    import fcntl

    with explained(f"The lock {path} cannot be taken."):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
