"""Version of a runtime library or server, read from its bytes without loading it."""

from __future__ import annotations

import os
import re
import struct
from dataclasses import dataclass
from pathlib import Path

from rkzoo.errors import RkzooError

_CHUNK = 1 << 20
_LIMIT = 64 << 20
_OVERLAP = 256
_MARK = re.compile(
    rb"(?:librknn\w*|rknn_server|rga_api)[ :]+version[: ]+"
    rb"v?(\d+\.\d+[\w.]*(?: ?\([^()\0]{0,80}\))?)"
)
# ELF machine numbers -> `uname -m` names.
_MACHINES = {183: "aarch64", 40: "armv7l", 62: "x86_64", 3: "i686", 243: "riscv64"}

VARIABLE = "RKZOO_LIBRKNNRT"
"""Names the library to use in place of the one that is found."""
LITE = "rknn-toolkit-lite2"
"""In place of a path: Rockchip's Python package."""

ARM32 = frozenset({"armv7l", "armv8l"})
"""`uname -m` names of 32-bit Arm."""


@dataclass(frozen=True)
class Library:
    """A library file.

    Attributes:
        path: Its path on the machine.
        name: Its file name.
        version: Its version text.
        machine: Architecture it is built for (`uname -m`).
        fault: Why it is no library at all; "" for none.
    """

    path: str
    name: str
    version: str = ""
    machine: str = ""
    fault: str = ""


def named_library() -> str:
    """The library that the user names, a path or LITE; "" for none. Raises RkzooError where it is
    no file."""
    library = os.environ.get(VARIABLE, "")
    if library and library != LITE and not Path(library).is_file():
        raise RkzooError(
            f"{VARIABLE} names {library}, which is no file.",
            "",
            "Point it at librknnrt.so, or unset it.",
        )
    return library


def examine(file: Path, path: str) -> Library:
    """Read version and architecture of a library file; at most 64 MiB are read.

    Args:
        file: The file to read.
        path: Its path on the machine.

    Returns:
        The library; unusable contents set `fault` instead of raising.
    """
    name = path.rpartition("/")[2]
    try:
        with file.open("rb") as stream:
            head = stream.read(_CHUNK)
            machine, fault = _elf(head)
            if fault:
                return Library(path, name, fault=fault)
            version, completed = _version(head), len(head)
            while not version and completed < _LIMIT and (more := stream.read(_CHUNK)):
                # The text may span two chunks.
                version, completed = _version(head[-_OVERLAP:] + more), completed + len(more)
                head = more
    except OSError as error:
        return Library(path, name, fault=f"it cannot be read ({error.strerror})")
    return Library(path, name, version, machine)


def _elf(head: bytes) -> tuple[str, str]:
    if head[:4] != b"\x7fELF" or len(head) < 20:
        if head.lstrip()[:1] == b"<":
            return "", "it is a web page, not a library"
        if head.startswith(b"version https://git-lfs"):
            return "", "it is a pointer of Git LFS, not the library itself"
        return "", "it is not a library" if head else "it is empty"
    order = ">" if head[5] == 2 else "<"
    number = struct.unpack_from(f"{order}H", head, 18)[0]
    return _MACHINES.get(number, f"machine {number}"), ""


def _version(data: bytes) -> str:
    match = _MARK.search(data)
    return match[1].decode("ascii", "replace") if match else ""
