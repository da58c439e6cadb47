"""Atomic file output, cache folders, hashes and locks."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator, Set
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import IO

from rkzoo.errors import RkzooError


def cache_dir(*parts: str) -> Path:
    """Return the folder `parts` below the cache root, created if missing.

    Raises:
        RkzooError: the folder cannot be created.
    """
    base = cache_root()
    path = base.joinpath(*parts)
    with os_errors_explained(f"The cache folder {path} cannot be used."):
        new = base not in _used and not (base.is_dir() and any(base.iterdir()))
        path.mkdir(parents=True, exist_ok=True)
    _use(base, new)
    return path


def cache_root() -> Path:
    """The root of the cache, which may be missing: RKZOO_CACHE, else the user's cache folder."""
    root = os.environ.get("RKZOO_CACHE")
    if root:
        return Path(root).expanduser().absolute()
    from platformdirs import user_cache_path

    return user_cache_path("rkzoo", appauthor=False)


CACHE_TAG = "CACHEDIR.TAG"
"""Marks a folder as a cache (https://bford.info/cachedir), and here as rkzoo's own."""
TAG_TEXT = (
    "Signature: 8a477f597d28d172789f06886806bc55\n"
    "# rkzoo's cache: `rkzoo cache` shows what is in it, and removes it.\n"
)
IN_USE = ".in-use"
"""A file of the cache on which each running process holds a shared lock."""
_used: dict[Path, IO[bytes] | None] = {}


def caches_in_use() -> tuple[Path, ...]:
    """The roots that this process has used."""
    return tuple(_used)


def _use(base: Path, new: bool) -> None:
    """Mark a new cache, and show that a process uses it, for as long as the process lives."""
    if base in _used:
        return
    _used[base] = None
    with contextlib.suppress(OSError, ImportError):  # a read-only cache; Windows
        # A folder that held something may be anything, and a home must not pass for a cache.
        if new and base not in (Path.home(), *Path.home().parents):
            (base / CACHE_TAG).write_text(TAG_TEXT, encoding="utf-8")
        import fcntl

        file = (base / IN_USE).open("ab")
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        _used[base] = file


def others_use(base: Path) -> bool:
    """Whether another process uses the cache at `base`; True where that cannot be known."""
    _use(base, new=False)
    file = _used[base]
    if file is None:
        return True
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return False
    except OSError:
        return True
    finally:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)


def size_text(size: float) -> str:
    """`1.2 GB` of bytes."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size:.0f} bytes"


def require_space(folder: Path, size: int, what: str) -> str:
    """Say what is about to be written, before much is.

    Args:
        folder: Where; it need not be there yet.
        size: Bytes to be written.
        what: Subject of the sentence, such as "The calibration arrays of 100 pictures".

    Returns:
        One sentence with both figures, for who is told of large ones.

    Raises:
        RkzooError: Less is free.
    """
    place = folder.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    with os_errors_explained(f"{folder} cannot be used."):
        free = shutil.disk_usage(place).free
    said = (
        f"{what}: {size_text(size)} will be written to {folder}, where {size_text(free)} are free."
    )
    if size > free:
        raise RkzooError(
            f"{what} cannot be stored.",
            said,
            "Free some space (`rkzoo cache` shows what rkzoo keeps), or point -o or RKZOO_CACHE at"
            " a disk that has room.",
        )
    return said


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


def files_in(folder: Path, suffixes: Set[str]) -> list[Path]:
    """The files of a folder with one of these suffixes, by name; quick for a hundred thousand.
    Raises RkzooError where the folder cannot be read."""
    with os_errors_explained(f"The folder {folder} cannot be read."), os.scandir(folder) as there:
        names = [
            entry.name
            for entry in there
            if os.path.splitext(entry.name)[1].lower() in suffixes and entry.is_file()
        ]
    return [folder / name for name in sorted(names)]


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
    """Hold an exclusive inter-process lock on `path`, created if missing."""
    import fcntl

    with os_errors_explained(f"The lock {path} cannot be taken."):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
