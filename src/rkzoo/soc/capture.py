"""System capture: a machine's relevant files as a tar for a bug report, and back as a tree to read.

The files are an allow-list: no kernel command line, no serial numbers, no network, no keys. Their
contents are scrubbed of addresses and hosts.
"""

from __future__ import annotations

import fnmatch
import io
import os
import re
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import msgspec

from rkzoo.errors import RkzooError
from rkzoo.files import atomic_output, os_errors_explained, temporary_folder
from rkzoo.soc.machine import (
    CONTAINER,
    RGA_LIBRARIES,
    SERVERS,
    UDEV,
    Machine,
    library_paths,
    read_machine,
)
from rkzoo.soc.tree import NOTES, LibraryNote, NodeNote, Notes, Tree

# One pattern per path component; regular files only.
ALLOWED = (
    "/proc/version",
    "/proc/meminfo",
    "/proc/rknpu/version",
    "/proc/rknpu/load",
    "/proc/device-tree/model",
    "/proc/device-tree/compatible",
    "/proc/device-tree/npu@*/status",
    "/proc/device-tree/npu@*/compatible",
    "/proc/device-tree/npu@*/nvmem-cell-names",
    "/sys/kernel/debug/rknpu/version",
    "/sys/kernel/debug/rknpu/load",
    "/sys/kernel/debug/clk/scmi_clk_npu/clk_rate",
    "/sys/kernel/debug/clk/clk_500m_src/clk_rate",
    "/sys/module/rknpu/version",
    "/sys/bus/platform/devices/*.npu/uevent",
    "/sys/class/drm/card*/device/uevent",
    "/sys/class/accel/accel0/device/uevent",
    "/sys/class/devfreq/*/governor",
    "/sys/class/devfreq/*/available_governors",
    "/sys/class/devfreq/*/available_frequencies",
    "/sys/class/devfreq/*/cur_freq",
    "/sys/class/devfreq/*/min_freq",
    "/sys/class/devfreq/*/max_freq",
    "/sys/devices/system/cpu/online",
    "/sys/devices/system/cpu/present",
    "/sys/devices/system/cpu/cpufreq/policy*/scaling_governor",
    "/sys/devices/system/cpu/cpufreq/policy*/scaling_available_governors",
    "/sys/devices/system/cpu/cpufreq/policy*/scaling_available_frequencies",
    "/sys/devices/system/cpu/cpufreq/policy*/scaling_cur_freq",
    "/sys/devices/system/cpu/cpufreq/policy*/scaling_min_freq",
    "/sys/devices/system/cpu/cpufreq/policy*/scaling_max_freq",
    "/sys/devices/system/cpu/cpufreq/policy*/related_cpus",
    "/sys/class/thermal/thermal_zone*/type",
    "/sys/class/thermal/thermal_zone*/temp",
    "/sys/class/thermal/thermal_zone*/trip_point_*_type",
    "/sys/class/thermal/thermal_zone*/trip_point_*_temp",
    "/sys/class/thermal/cooling_device*/type",
    "/sys/class/thermal/cooling_device*/cur_state",
)
# Only their existence is captured, as empty files.
PRESENT = (
    "/sys/bus/platform/devices/*.npu/iommu_group",
    "/sys/bus/platform/devices/*.npu/iommu",
    "/sys/module/rocket",
    "/dev/accel/accel0",
    *CONTAINER,
    *UDEV,
)
_LARGEST = 16 << 20
_MOST = 5000

_SCRUBBED = (
    # Builder of the kernel: user@host.
    (re.compile(r"\([^()\s]+@[^()\s]+\)"), "(user@host)"),
    (re.compile(r"(?i)\b[0-9a-f]{2}(?:[:-][0-9a-f]{2}){5}\b"), "scrubbed"),
    (
        re.compile(r"(?im)^(.*(?:serial|mac[-_ ]?addr|uuid|token|secret).*?[=:]\s*).*$"),
        r"\1scrubbed",
    ),
    (re.compile(r"(?i)\b(?=[0-9a-f]*[a-f])(?=[0-9a-f]*\d)[0-9a-f]{16,}\b"), "scrubbed"),
)


def scrub(text: str) -> str:
    """Replace hardware addresses, serial numbers, hosts and long hexadecimal words."""
    for pattern, instead in _SCRUBBED:
        text = pattern.sub(instead, text)
    return text


def write_capture(target: Path, root: Path = Path("/")) -> tuple[str, ...]:
    """Write a capture of a machine.

    Args:
        target: The .tar to write.
        root: Root of the machine, or of a captured tree.

    Returns:
        The captured paths, sorted.

    Raises:
        RkzooError: The file cannot be written.
    """
    tree = Tree(root)
    machine = read_machine(root)
    files = {path: _scrubbed(data) for path, data in _contents(tree)}
    files |= {path: b"" for pattern in PRESENT for path in _matches(tree, pattern)}
    for path in (*(node.path for node in machine.nodes), *_programs(tree)):
        files[path] = b""
    files[f"/{NOTES}"] = msgspec.json.format(msgspec.json.encode(_notes(machine, tree)), indent=1)
    with atomic_output(target) as part, tarfile.open(part, "w") as tar:
        for path in sorted(files):
            entry = tarfile.TarInfo(path.lstrip("/"))
            entry.size = len(files[path])
            tar.addfile(entry, io.BytesIO(files[path]))
    return tuple(sorted(files))


def _contents(tree: Tree) -> Iterator[tuple[str, bytes]]:
    for pattern in ALLOWED:
        for path in _matches(tree, pattern):
            data = tree.bytes(path)
            if data is not None:
                yield path, data


def _scrubbed(data: bytes) -> bytes:
    # Device tree strings end in NUL; decoding and encoding keeps that.
    return scrub(data.decode("utf-8", "replace")).encode("utf-8")


def _matches(tree: Tree, pattern: str) -> list[str]:
    paths = [""]
    for part in pattern.strip("/").split("/"):
        if "*" in part:
            paths = [
                f"{folder}/{name}"
                for folder in paths
                for name in tree.names(folder, _MOST)
                if fnmatch.fnmatchcase(name, part)
            ]
        else:
            paths = [f"{folder}/{part}" for folder in paths]
    return [path for path in paths if tree.exists(path)]


def _programs(tree: Tree) -> Iterator[str]:
    yield from library_paths(tree)
    yield from library_paths(tree, RGA_LIBRARIES)
    yield from (path for path in SERVERS if tree.exists(path))


def _notes(machine: Machine, tree: Tree) -> Notes:
    from importlib.metadata import version

    live = machine.live and hasattr(os, "getuid")  # Windows has other users
    others = (program for program in (machine.rga, machine.server) if program)
    programs = (*machine.libraries, *others)
    return Notes(
        rkzoo=version("rkzoo"),
        machine=machine.machine,
        bits=machine.bits,
        fused=machine.variant,
        device_groups=machine.device_groups,
        user=os.getuid() if live else tree.notes.user,
        groups=tuple(os.getgroups()) if live else tree.notes.groups,
        nodes={n.path: NodeNote(n.mode, n.owner, n.group, n.group_name) for n in machine.nodes},
        libraries={p.path: LibraryNote(p.name, p.version, p.machine, p.fault) for p in programs},
        holders=machine.holders,
        denied=machine.denied,
    )


# ---- reading a capture --------------------------------------------------------------


@contextmanager
def opened(place: Path) -> Iterator[Path]:
    """Open a folder or a capture's tar as a tree.

    Args:
        place: The folder or tar.

    Yields:
        The root folder; a tar is unpacked into a temporary folder for the duration of the block.

    Raises:
        RkzooError: It is neither.
    """
    if place.is_dir():
        yield place
        return
    with temporary_folder() as folder:
        with os_errors_explained(f"{place} cannot be read."):
            _unpack(place, folder)
        yield folder


def _unpack(source: Path, folder: Path) -> None:
    """Unpack regular files only, only below `folder`, and up to a limit."""
    taken = 0
    try:
        with tarfile.open(source, "r:*") as tar:
            for count, entry in enumerate(tar):
                name = PurePosixPath(entry.name)
                taken += entry.size
                if count >= _MOST or taken > _LARGEST:
                    raise _foreign(source, "It is far larger than a capture.")
                if name.is_absolute() or ".." in name.parts:
                    raise _foreign(source, f"It holds {entry.name!r}, a path outside of it.")
                if not entry.isreg():
                    # Folders are created as files need them; links and devices are skipped.
                    continue
                file = tar.extractfile(entry)
                target = folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(file.read() if file else b"")
    except (tarfile.TarError, EOFError, ValueError, NotADirectoryError, IsADirectoryError) as error:
        raise _foreign(source, "It is not a tar file, or it is damaged.") from error


def _foreign(source: Path, why: str) -> RkzooError:
    return RkzooError(
        f"{source} is not a capture of a machine.",
        why,
        "Give a folder, or a file that `rkzoo doctor --capture FILE.tar` wrote.",
    )
