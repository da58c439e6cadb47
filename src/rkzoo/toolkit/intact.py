"""Whether an installed environment is still what was installed.

A damaged library of the toolkit ends in an error that blames the user's model. Hashing half a
gigabyte at each start takes longer than the start, so a file is read again only where its size or
time has changed since it was last held to its digest.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from rkzoo.files import sha256_of
from rkzoo.kept import keep, kept

_NAME = "digests"
_MADE_LATER = (".pyc",)  # Python writes them when it runs


class _File(msgspec.Struct, array_like=True):
    size: int
    time: int
    sha256: str


_Files = dict[str, _File]


def record(folder: Path) -> None:
    """Write what an environment consists of. Raises RkzooError."""
    found = {
        name: _File(size, time, sha256_of(folder / name))
        for name, (size, time) in _states(folder).items()
    }
    keep(folder / _NAME, msgspec.json.encode(found))


def first_damage(folder: Path) -> str | None:
    """The name of a file that is damaged or missing; None where all is as it was installed.

    An environment of which nothing was recorded is taken as it is, and recorded. Raises RkzooError.
    """
    data = kept(folder / _NAME)
    if data is None:
        record(folder)
        return None
    known = msgspec.json.decode(data, type=_Files)
    states, touched = _states(folder), False
    for name, file in known.items():
        state = states.get(name)
        if state == (file.size, file.time):
            continue
        if state is None or state[0] != file.size or sha256_of(folder / name) != file.sha256:
            return name
        file.time, touched = state[1], True  # copied, say
    if touched:
        keep(folder / _NAME, msgspec.json.encode(known))
    return None


def _states(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of each file, by its name below the folder; links are the system's."""
    states: dict[str, tuple[int, int]] = {}
    folders = [str(folder)]
    start = len(folders[0]) + 1
    while folders:
        with os.scandir(folders.pop()) as found:
            for entry in found:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                elif entry.is_file(follow_symlinks=False) and not entry.name.endswith(_MADE_LATER):
                    status = entry.stat(follow_symlinks=False)
                    states[entry.path[start:]] = (status.st_size, status.st_mtime_ns)
    states.pop(_NAME, None)
    return states
