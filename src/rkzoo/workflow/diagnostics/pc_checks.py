"""Checks of the PC that converts models: interpreter, toolkit, disk, adb."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec

from rkzoo.errors import RkzooError
from rkzoo.files import cache_dir
from rkzoo.soc.machine import CONTAINER_OPTIONS
from rkzoo.toolkit import environment
from rkzoo.toolkit.versions import KINDS
from rkzoo.workflow.diagnostics.findings import Finding, fail, ok, warn

_TOOLKIT = 1 << 30
_LITTLE_DISK = 2 << 30
_LITTLE_MEMORY = 2 << 30


def pc_findings(*, adb: bool = False, memory: int | None = None) -> list[Finding]:
    """Run all checks of this PC.

    Args:
        adb: allow starting adb's daemon to list devices.
        memory: free memory in bytes.
    """
    if find_spec("onnxruntime") is None:
        return [*_python(), *_board_without_npu()]
    return [*_python(), *_toolkit(), *_disk(), *_memory(memory), *_adb(adb)]


def _python() -> Iterator[Finding]:
    text = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"
    yield ok("python", text, sys.executable)


def _board_without_npu() -> Iterator[Finding]:
    """With a board installation of rkzoo (without onnxruntime), a missing NPU is a problem."""
    yield warn(
        "no-npu",
        "No Rockchip NPU is seen here, and what converts and simulates models is not installed.",
        "/proc/device-tree/compatible names no Rockchip chip; the package onnxruntime is missing",
        f"In a container on a board, start it with {CONTAINER_OPTIONS}; on any other machine,"
        " install what a PC has.",
        "pip install 'rkzoo[pc]'",
    )


def _toolkit() -> Iterator[Finding]:
    have = environment.installed()
    if have:
        listed = ", ".join(
            f"{env.version}{KINDS[env.kind].title} (Python {env.python_version})" for env in have
        )
        yield ok("toolkit", f"RKNN-Toolkit2 {listed}", str(have[0].folder.parent))
        return
    error = environment.unavailable()
    if error is None:
        yield ok("toolkit", "RKNN-Toolkit2 is not installed yet; the first convert does it", "")
    else:
        yield from_error("toolkit-unavailable", error)


def from_error(name: str, error: RkzooError) -> Finding:
    """Convert an error to a finding."""
    return fail(name, error.what, error.why, error.fix)


def _disk() -> Iterator[Finding]:
    try:
        folder = cache_dir()
        free = shutil.disk_usage(folder).free
    except RkzooError as error:
        yield from_error("cache-unusable", error)
        return
    except OSError:
        return
    text = f"{free / 1e9:.1f} GB free for toolkits, weights and builds"
    if free < _LITTLE_DISK:
        fix = "Free some space, or point RKZOO_CACHE at a disk that has room."
        level = fail if free < _TOOLKIT and not environment.installed() else warn
        yield level("disk-low", f"Only {text}.", str(folder), fix, f"du -sh {folder}/*")
    else:
        yield ok("disk", text, str(folder))


def _memory(free: int | None) -> Iterator[Finding]:
    if free is not None and free < _LITTLE_MEMORY:
        yield warn(
            "memory-low",
            f"Only {free / 2**30:.1f} GiB of memory free; converting a YOLO takes about 1 GiB.",
            "/proc/meminfo",
            "End programs that are not needed.",
        )


def _adb(allowed: bool) -> Iterator[Finding]:
    program = shutil.which("adb")
    if program is None:
        yield ok("adb", "adb is not installed; only boards on a USB cable need it", "")
        return
    if not allowed:
        yield ok("adb", "adb is there; --adb lists its devices (it starts adb's daemon)", program)
        return
    try:
        answer = subprocess.run(
            [program, "devices"], capture_output=True, text=True, timeout=15, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        yield warn("adb-fails", "adb does not answer.", str(error), "Reinstall adb.", "adb devices")
        return
    rows = [line.split("\t") for line in answer.stdout.splitlines() if "\t" in line]
    yield from _devices(rows, program)


def _devices(rows: list[list[str]], program: str) -> Iterator[Finding]:
    ready = [row for row in rows if row[1] == "device"]
    for row in rows:
        if row[1] != "device":
            yield warn(
                "adb-device",
                f"A device on adb is {row[1]}.",
                "adb devices",
                "Unplug and plug it again; for `unauthorized` confirm on its screen, for"
                " `no permissions` add a udev rule for vendor 2207.",
                "adb kill-server; adb devices",
            )
    if ready:
        yield ok("adb", f"{len(ready)} device(s) on adb", program)
    elif not rows:
        yield warn(
            "adb-empty",
            "adb sees no device.",
            "adb devices",
            "Connect the board's OTG port, and see that its system has adbd running.",
            "lsusb -d 2207:",
        )
