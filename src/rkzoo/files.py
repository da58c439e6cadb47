"""Atomic file output, cache folders, hashes and locks."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterable, Iterator, Set
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import IO, Any, BinaryIO

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
    place = _nearest_existing(folder)
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


def is_device_or_pipe(path: Path) -> bool:
    """Whether something is there that is neither a file nor a folder."""
    return path.exists() and not (path.is_file() or path.is_dir())


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

    Its lock, which ends with the process, tells that it is in use: those that killed processes have
    left behind are removed by the next that makes one.
    """
    import tempfile

    root = Path(tempfile.gettempdir())
    _sweep(root)
    path = root / f"{_PREFIX}{secrets.token_hex(6)}"
    # It gets its name when it is locked, so that nobody sweeps it before.
    with disposable(path.with_suffix(".new")) as new, disposable(path) as folder:
        with os_errors_explained(f"The temporary folder {folder} cannot be made."):
            new.mkdir(mode=0o700)
        with _folder_lock(new):
            with os_errors_explained(f"The temporary folder {folder} cannot be made."):
                new.rename(folder)
            yield folder


_PREFIX = "rkzoo-t-"  # other folders of ours are not locked


@contextmanager
def _folder_lock(folder: Path) -> Iterator[bool]:
    """Hold the lock of a folder, which is also systemd-tmpfiles' sign to leave it alone; whether it
    was free. False where folders cannot be locked (Windows, some network disks)."""
    try:
        import fcntl

        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except (ImportError, OSError):
        yield False
        return
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            free = True
        except OSError:
            free = False
        yield free
    finally:
        os.close(handle)


def _sweep(root: Path) -> None:
    """Remove the temporary folders of this user's processes that are gone."""
    if os.name != "posix":
        return
    with contextlib.suppress(OSError), os.scandir(root) as there:
        for entry in there:
            with contextlib.suppress(OSError):
                if re.fullmatch(_PREFIX + "[0-9a-f]{12}", entry.name) and (
                    entry.is_dir(follow_symlinks=False)
                    and entry.stat(follow_symlinks=False).st_uid == os.geteuid()
                ):
                    with _folder_lock(Path(entry.path)) as free:
                        if free:
                            shutil.rmtree(entry.path, ignore_errors=True)


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
    if path.is_symlink():
        path = path.resolve()  # the link stays one
    if is_device_or_pipe(path):
        raise RkzooError(
            f"{path} cannot be written.",
            "It is a device or a pipe, and a file would take its place.",
            "Name a file.",
        )
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(4)}.part{path.suffix}")
    with os_errors_explained(f"{path} cannot be written."):
        path.parent.mkdir(parents=True, exist_ok=True)
        with disposable(temporary):
            yield temporary
            os.replace(temporary, path)


def files_in(folder: Path, suffixes: Set[str]) -> list[Path]:
    """The files of a folder with one of these suffixes, by name, and what only looks like one, so
    that it is told where it is read; quick for a hundred thousand. Raises RkzooError where the
    folder cannot be read."""
    with os_errors_explained(f"The folder {folder} cannot be read."), os.scandir(folder) as there:
        names = [
            entry.name
            for entry in there
            if os.path.splitext(entry.name)[1].lower() in suffixes and not _is_folder(entry)
        ]
    return [folder / name for name in sorted(names)]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _nearest_existing(path: Path) -> Path:
    """The path, or the nearest folder above it that is there."""
    place = path.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    return place


def check_folder(folder: Path) -> None:
    """Raise RkzooError when `folder` is not writable. Called before long work, not after it."""
    place = _nearest_existing(folder)
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
