"""File access below a root: the running machine's, or a captured tree's.

Reading never changes anything, follows no link out of the root, and is limited in size.
"""

from __future__ import annotations

import os
import re
import stat
from functools import cached_property
from pathlib import Path

import msgspec

NOTES = "rkzoo-capture.json"
"""File in a captured tree with what plain files cannot hold (owners, processes, versions)."""

_TEXT_LIMIT = 64 << 10
_MANY = 256


class NpuUser(msgspec.Struct, frozen=True):
    """A process that has a device of the NPU open."""

    pid: int
    name: str
    path: str


class NodeNote(msgspec.Struct, frozen=True):
    """Mode and owner of a device file."""

    mode: int
    owner: int
    group: int
    group_name: str = ""


class LibraryNote(msgspec.Struct, frozen=True):
    """What a library file says about itself, as in `Library`."""

    name: str
    version: str = ""
    machine: str = ""
    fault: str = ""


class Notes(msgspec.Struct, frozen=True):
    """What a capture adds to its plain files. `user` and `groups` are those of the process that
    captured, `bits` of its programs; `device_groups` as in Machine; `fused` is the chip's name in
    its fuses.
    """

    rkzoo: str = ""
    machine: str = ""
    bits: int | None = None
    fused: str = ""
    device_groups: tuple[str, ...] = ()
    user: int | None = None
    groups: tuple[int, ...] = ()
    nodes: dict[str, NodeNote] = {}
    libraries: dict[str, LibraryNote] = {}
    holders: tuple[NpuUser, ...] = ()
    denied: tuple[str, ...] = ()


class Tree:
    """Reads below `root` only. `denied` collects paths without read permission."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self.live = self.root == Path("/")
        self.denied: list[str] = []

    def real(self, path: str) -> Path | None:
        """The file for an absolute `path` of the machine; None when it is outside of the root."""
        plain = self.root / path.lstrip("/")
        if self.live:
            return plain
        try:
            real = plain.resolve()
        except (OSError, RuntimeError):
            return None
        return real if real == self.root or self.root in real.parents else None

    def text(self, path: str) -> str | None:
        """The first 64 KiB as text, without trailing newlines and NULs; None when unreadable."""
        data = self.bytes(path)
        return None if data is None else data.decode("utf-8", "replace").strip("\0\n\r\t ")

    def bytes(self, path: str) -> bytes | None:
        """The first 64 KiB of a regular file; None when unreadable."""
        file = self.real(path)
        if file is None:
            return None
        try:
            # A device node or a pipe could block forever.
            if not stat.S_ISREG(file.stat().st_mode):
                return None
            with file.open("rb") as stream:
                return stream.read(_TEXT_LIMIT)
        except PermissionError:
            self.denied.append(path)
        except OSError:
            pass
        return None

    def number(self, path: str) -> int | None:
        """The leading integer of a file; None when there is none."""
        text = self.text(path)
        match = re.match(r"-?\d{1,18}\b", text) if text else None
        return int(match[0]) if match else None

    def names(self, folder: str, many: int = _MANY) -> list[str]:
        """Entries of a folder, sorted, at most `many`; empty when unreadable."""
        real = self.real(folder)
        try:
            return sorted(entry.name for entry in os.scandir(real))[:many] if real else []
        except PermissionError:
            self.denied.append(folder)
        except OSError:
            pass
        return []

    def exists(self, path: str) -> bool:
        """Whether a path exists inside the root."""
        real = self.real(path)
        try:
            return real is not None and real.exists()
        except OSError:
            return False

    @cached_property
    def notes(self) -> Notes:
        """The notes of a capture; empty on a running machine or where they are damaged."""
        if self.live:
            return Notes()
        try:
            return msgspec.json.decode(self.bytes(f"/{NOTES}") or b"", type=Notes)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return Notes()
