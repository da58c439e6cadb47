"""Local weight cache: lookup and verification, without network.

`weights/<sha256>/<name>` are the files, `stamps/` records the last verification, `recorded/` the
hashes of files whose card has none.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from pathlib import Path
from urllib.parse import unquote

from rkzoo.errors import RkzooError
from rkzoo.files import cache_dir, os_errors_explained, sha256_of, write_text
from rkzoo.kept import kept
from rkzoo.zoo import catalogue
from rkzoo.zoo.schema import Card, Source

MODEL = "model"


def cached(card: Card) -> dict[str, Path | None]:
    """As `weights`, with None for files that are not in the cache. No network, no hashing."""
    if card.pipeline:
        return {
            role_name(role, name): path
            for role, member in catalogue.members(card).items()
            for name, path in cached(member).items()
        }
    return {
        name: next((path for path in map(present, mirrors) if path), None)
        for name, mirrors in files_of(card).items()
    }


def size(card: Card) -> int | None:
    """Total bytes of a card's files, each counted once; None where any size is unknown, or there
    are no files.
    """
    parts = catalogue.members(card).values() if card.pipeline else (card,)
    sizes = {
        mirrors[0].url: _bytes(mirrors[0]) for part in parts for mirrors in files_of(part).values()
    }
    return None if None in sizes.values() or not sizes else sum(filter(None, sizes.values()))


def _bytes(source: Source) -> int | None:
    path = present(source) if source.url.startswith("file:") else None
    return path.stat().st_size if path else source.size


def files_of(card: Card) -> dict[str, tuple[Source, ...]]:
    """The mirrors of every file by role, the model's first; empty for an export-only card."""
    return {} if card.export else {MODEL: card.sources, **card.files}


def role_name(role: str, name: str) -> str:
    """The role in a pipeline of a member's file."""
    return role if name == MODEL else f"{role}.{name}"


def base_name(path: str) -> str:
    """A safe file name from the last part of a path or URL."""
    name = unquote(path).rsplit("/", 1)[-1]
    return re.sub(r"[^A-Za-z0-9._+-]", "_", name).lstrip(".")[-150:] or "file"


def digest(text: str) -> str:
    """Hex sha256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def present(source: Source) -> Path | None:
    """The path of a file, not verified; None when it is missing."""
    if source.url.startswith("file:"):
        path = Path(source.url.removeprefix("file:"))
        return path if path.is_file() else None
    sha256 = known_hash(source)
    if sha256 is None:
        return None
    with contextlib.suppress(RkzooError):  # an unusable cache is empty
        folder = cache_dir("weights") / sha256
        # Any name will do: the folder is named by the content.
        return next((path for path in sorted(folder.glob("[!.]*")) if path.is_file()), None)
    return None


def record_path(source: Source) -> Path:
    """Where the hash of a source without one is recorded."""
    return cache_dir("recorded") / digest(source.url)


def known_hash(source: Source) -> str | None:
    """The card's hash, else the one recorded at the first download."""
    if source.sha256:
        return source.sha256
    with contextlib.suppress(RkzooError):  # an unusable cache is empty
        recorded = kept(record_path(source))
        return recorded.decode() if recorded else None
    return None


def valid(path: Path, sha256: str, full: bool = False) -> bool:
    """Whether a file has a hash.

    A stamp of an earlier check saves the reading; it holds size and modification time, so a changed
    file is read again.

    Args:
        path: The file.
        sha256: The expected hash.
        full: Ignore the stamp.

    Raises:
        RkzooError: The file cannot be read.
    """
    with os_errors_explained(f"{path} cannot be read."):
        text = _stamp_text(path, sha256)
        with contextlib.suppress(OSError, RkzooError):
            if not full and _stamp_path(path).read_text("utf-8", "replace") == text:
                return True
        if sha256_of(path) != sha256:
            return False
    stamp(path, sha256)
    return True


def stamp(path: Path, sha256: str) -> None:
    """Record that the file has just been verified."""
    # A read-only cache (in a container image) works without stamps.
    with contextlib.suppress(OSError, RkzooError):
        write_text(_stamp_path(path), _stamp_text(path, sha256))


def _stamp_path(path: Path) -> Path:
    return cache_dir("stamps") / digest(str(path.absolute()))


def _stamp_text(path: Path, sha256: str) -> str:
    status = path.stat()
    return f"{sha256} {status.st_size} {status.st_mtime_ns}"
