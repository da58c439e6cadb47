"""Userland of a machine: bitness of its programs and library folders, below any root.

A 64-bit kernel may run 32-bit programs: a library must match the programs.
"""

from __future__ import annotations

import ctypes
import fnmatch
import os
import re
from collections.abc import Iterator

from rkzoo.soc.library import ARM32
from rkzoo.soc.tree import Tree

FOLDERS = (
    "/usr/lib",
    "/usr/lib64",
    "/lib",
    "/lib64",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib/arm-linux-gnueabihf",
    "/usr/local/lib",
    "/oem/usr/lib",
    "/vendor/lib64",
    "/vendor/lib",
    "/system/lib64",
)
_PROGRAMS = ("/bin/sh", "/usr/bin/sh", "/usr/bin/python3", "/system/bin/sh")
_CONFIGURED = 64
"""Limit of folders from the loader's configuration."""


def bits_of(tree: Tree) -> int | None:
    """32 or 64, by this process, or in a captured tree by its shell; None when unknown."""
    if tree.live:
        return 8 * ctypes.sizeof(ctypes.c_void_p)
    if tree.notes.bits:
        return tree.notes.bits
    heads = ((tree.bytes(path) or b"")[:5] for path in _PROGRAMS)
    classes = (head[4] for head in heads if head[:4] == b"\x7fELF" and len(head) == 5)
    return next(({1: 32, 2: 64}.get(number) for number in classes), None)


def fits(built: str, machine: str, bits: int | None) -> bool:
    """Whether programs can load a library.

    Args:
        built: Architecture of the library (`uname -m`).
        machine: Architecture of the kernel (`uname -m`).
        bits: 32 or 64 for the programs, None when unknown.

    Returns:
        True also where something is unknown.
    """
    if not built or not machine:
        return True
    arm = machine == "aarch64" or machine in ARM32
    if bits == 32 and arm:
        return built in ARM32
    if bits is None and arm and built in ARM32:
        # A 64-bit Arm kernel can run 32-bit programs, but not the other way round.
        return True
    return built == machine


def library_folders(tree: Tree) -> Iterator[str]:
    """Folders that the dynamic loader searches, and common ones; may contain duplicates."""
    if tree.live:
        inputs = os.environ.get("LD_LIBRARY_PATH", "").split(":")
        yield from (folder for folder in inputs if folder.startswith("/"))
    # A capture records what was found, but not by which setting.
    yield from (path.rpartition("/")[0] for path in tree.notes.libraries)
    yield from FOLDERS
    yield from _configured(tree, "/etc/ld.so.conf", set())


def _configured(tree: Tree, path: str, read: set[str]) -> Iterator[str]:
    """The folders in /etc/ld.so.conf and the files it includes."""
    if path in read or len(read) >= _CONFIGURED:
        return
    read.add(path)
    for line in (tree.text(path) or "").splitlines()[:_CONFIGURED]:
        words = line.partition("#")[0].split()
        if words[:1] == ["include"]:
            for pattern in words[1:]:
                for file in _matching(tree, pattern):
                    yield from _configured(tree, file, read)
        else:
            yield from (f"/{word.strip('/')}" for word in words if word.startswith("/"))


def _matching(tree: Tree, pattern: str) -> list[str]:
    folder, _, name = (pattern if pattern.startswith("/") else f"/etc/{pattern}").rpartition("/")
    return [f"{folder}/{n}" for n in tree.names(folder) if fnmatch.fnmatchcase(n, name)]


def group_names(tree: Tree) -> dict[int, str]:
    """The groups of /etc/group, id -> name."""
    match = re.findall(r"^([^:\n]+):[^:\n]*:(\d{1,9})(?::|$)", tree.text("/etc/group") or "", re.M)
    return {int(number): name for name, number in match}
