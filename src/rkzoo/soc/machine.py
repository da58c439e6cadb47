"""What a machine tells about itself in /proc, /sys and /dev, read below any root.

What cannot be read is left out, and named in `denied` where only the permission was missing.
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from rkzoo.soc.chips import chips
from rkzoo.soc.library import Library, examine
from rkzoo.soc.tree import Holder, NodeNote, Tree

_PROCESSES = 4096


@dataclass(frozen=True)
class Governed:
    """Something with a clock: a CPU policy, or a devfreq device. Rates in Hz.

    `path` is its folder; `cores` only for CPUs. `available` and `governors` may be empty.
    """

    kind: Literal["cpu", "npu", "ddr", "gpu", "other"]
    name: str
    path: str
    governor: str
    current: int | None
    lowest: int | None
    highest: int | None
    available: tuple[int, ...] = ()
    governors: tuple[str, ...] = ()
    cores: tuple[int, ...] = ()

    @property
    def top(self) -> int | None:
        """The highest rate that it offers."""
        return max(self.available) if self.available else self.highest


@dataclass(frozen=True)
class Node:
    """A device file of the NPU. `allowed` is None when it cannot be told."""

    path: str
    mode: int
    owner: int
    group: int
    allowed: bool | None


@dataclass(frozen=True)
class Zone:
    """A thermometer, in degrees Celsius. `passive` is where the kernel begins to slow down."""

    name: str
    celsius: float
    passive: float | None


@dataclass(frozen=True)
class Machine:
    """Everything read. Sizes in bytes; None or empty where nothing was found.

    `compatible` is the device tree's list; `chip` the canonical name it leads to. `npu_status`
    is the device tree's word on the NPU (`okay`, `disabled`), `bound_driver` the kernel driver
    that holds it, `iommu` whether it maps scattered memory. `driver` is the driver's version text.
    `rga` is the library of the 2D engine. `load` is the NPU's busy share for each core, in percent.
    """

    root: Path
    live: bool
    model: str
    compatible: tuple[str, ...]
    chip: str | None
    kernel: str
    machine: str
    npu_device: str
    npu_status: str
    bound_driver: str
    iommu: bool | None
    driver: str
    driver_from: str
    load: tuple[int, ...]
    nodes: tuple[Node, ...]
    rocket: bool
    libraries: tuple[Library, ...]
    rga: Library | None
    server: Library | None
    server_running: bool
    holders: tuple[Holder, ...]
    total: int | None
    free: int | None
    cma_total: int | None
    cma_free: int | None
    clocks: tuple[Governed, ...]
    npu_rate: int | None
    online: tuple[int, ...]
    zones: tuple[Zone, ...]
    denied: tuple[str, ...]

    @property
    def board(self) -> bool:
        """Whether this is a Rockchip board, by its device tree."""
        return any(name.startswith("rockchip,") for name in self.compatible)

    def of(self, kind: str) -> tuple[Governed, ...]:
        return tuple(clock for clock in self.clocks if clock.kind == kind)


def read_machine(root: Path = Path("/")) -> Machine:
    """Reads the machine at `root`: the living one, or a captured tree."""
    tree = Tree(root)
    compatible = _compatible(tree)
    device = _npu_device(tree)
    bound_driver = _bound(tree, device)
    driver, driver_from = _driver(tree)
    nodes = _nodes(tree)
    memory = _meminfo(tree)
    chip = _chip(compatible) or _chip_of_npu(tree)
    return Machine(
        root=tree.root,
        live=tree.live,
        model=tree.text("/proc/device-tree/model") or "",
        compatible=compatible,
        chip=chip,
        kernel=_kernel(tree),
        machine=platform.machine() if tree.live else tree.notes.machine,
        npu_device=device,
        npu_status=_npu_status(tree),
        bound_driver=bound_driver,
        iommu=_iommu(tree, device),
        driver=driver,
        driver_from=driver_from,
        load=npu_load(tree),
        nodes=nodes,
        rocket=tree.exists("/sys/module/rocket") or tree.exists("/dev/accel/accel0"),
        libraries=_libraries(tree),
        rga=next(map(partial(_library, tree), library_paths(tree, RGA_LIBRARIES)), None),
        server=_server(tree),
        server_running=_running(tree, "rknn_server"),
        holders=_holders(tree, nodes),
        total=memory.get("MemTotal"),
        free=memory.get("MemAvailable", memory.get("MemFree")),
        cma_total=memory.get("CmaTotal"),
        cma_free=memory.get("CmaFree"),
        clocks=(*_policies(tree), *_devfreq(tree)),
        npu_rate=_npu_rate(tree, chip),
        online=cores(tree.text("/sys/devices/system/cpu/online") or ""),
        zones=_zones(tree),
        # Last, for everything above adds to it.
        denied=tuple(dict.fromkeys((*tree.denied, *tree.notes.denied))),
    )


# ---- who it is ----------------------------------------------------------------------


def _compatible(tree: Tree) -> tuple[str, ...]:
    data = tree.bytes("/proc/device-tree/compatible") or b""
    return tuple(part.decode("ascii", "replace") for part in data.split(b"\0") if part.strip())


def _chip(compatible: tuple[str, ...]) -> str | None:
    """The chip: the device tree goes from the board to the chip, so the last word counts."""
    for name in reversed(compatible):
        maker, _, word = name.lower().partition(",")
        if maker != "rockchip":
            continue
        for canonical, chip in chips().items():
            if word == canonical or word in chip.aliases:
                return canonical
    return None


def _chip_of_npu(tree: Tree) -> str | None:
    """By the NPU's own entry, for variants of a chip that have a name of their own."""
    folder = "/proc/device-tree"
    for name in tree.names(folder):
        words = (tree.text(f"{folder}/{name}/compatible") or "") if name.startswith("npu@") else ""
        # From the most special to the most general.
        for word in words.split("\0"):
            for canonical, chip in chips().items():
                if word in chip.compatible:
                    return canonical
    return None


def _kernel(tree: Tree) -> str:
    found = re.match(r"Linux version (\S+)", tree.text("/proc/version") or "")
    return found[1] if found else ""


# ---- the NPU ------------------------------------------------------------------------

_DEVICES = "/sys/bus/platform/devices"


def _npu_device(tree: Tree) -> str:
    """The name of the NPU's platform device, such as `fdab0000.npu`."""
    return next((n for n in tree.names(_DEVICES, 4096) if n.endswith(".npu")), "")


def _npu_status(tree: Tree) -> str:
    folder = "/proc/device-tree"
    for name in tree.names(folder):
        if name.startswith("npu@"):
            # No status means that it is in use.
            return tree.text(f"{folder}/{name}/status") or "okay"
    return ""


def _bound(tree: Tree, device: str) -> str:
    text = tree.text(f"{_DEVICES}/{device}/uevent") if device else None
    found = re.search(r"^DRIVER=(\S+)", text or "", re.M)
    return found[1] if found else ""


def _iommu(tree: Tree, device: str) -> bool | None:
    if not device:
        return None
    folder = f"{_DEVICES}/{device}"
    if tree.exists(f"{folder}/iommu_group") or tree.exists(f"{folder}/iommu"):
        return True
    return False if tree.exists(f"{folder}/uevent") else None


_DRIVER = ("/sys/kernel/debug/rknpu/version", "/proc/rknpu/version", "/sys/module/rknpu/version")
_LOAD = ("/sys/kernel/debug/rknpu/load", "/proc/rknpu/load")


def _driver(tree: Tree) -> tuple[str, str]:
    for path in _DRIVER:
        found = re.search(r"v?(\d+\.\d+\.\d+)", tree.text(path) or "")
        if found:
            return found[1], path
    return "", ""


def npu_load(tree: Tree) -> tuple[int, ...]:
    """The NPU's busy share for each core in percent; empty where nothing tells (no NPU, or the
    kernel shows it to root only)."""
    for path in _LOAD:
        if text := tree.text(path):
            return tuple(int(share) for share in re.findall(r"(\d{1,3})%", text))
    return ()


def _nodes(tree: Tree) -> tuple[Node, ...]:
    """/dev/rknpu, and the render nodes whose device is the NPU."""
    paths = ["/dev/rknpu"] if tree.exists("/dev/rknpu") else []
    for name in tree.names("/dev/dri"):
        uevent = tree.text(f"/sys/class/drm/{name}/device/uevent") or ""
        if name.startswith("renderD") and re.search(r"rknpu", uevent, re.I):
            paths.append(f"/dev/dri/{name}")
    return tuple(node for path in paths if (node := _node(tree, path)) is not None)


def _node(tree: Tree, path: str) -> Node | None:
    real = tree.real(path)
    try:
        found = real.stat() if real else None
    except OSError:
        return None
    if real is None or found is None:
        return None
    if tree.live:
        allowed = os.access(real, os.R_OK | os.W_OK)
        return Node(path, found.st_mode & 0o777, found.st_uid, found.st_gid, allowed)
    note = tree.notes.nodes.get(path)
    if note is None:
        # A plain file in a tree says nothing of the device it stands for.
        return Node(path, 0, 0, 0, None)
    return Node(path, note.mode, note.owner, note.group, _allowed(note, tree))


def _allowed(note: NodeNote, tree: Tree) -> bool | None:
    user, groups = tree.notes.user, tree.notes.groups
    if user is None:
        return None
    if user == 0:
        return True
    shift = 6 if user == note.owner else 3 if note.group in groups else 0
    return (note.mode >> shift) & 0o6 == 0o6


def _npu_rate(tree: Tree, chip: str | None) -> int | None:
    """The NPU's clock where a file of the clock tree tells it, in Hz."""
    places = chips()[chip].npu_clock if chip else ()
    files = (place for place in places if place.startswith("/sys/kernel/debug/"))
    return next((rate for file in files if (rate := tree.number(file)) is not None), None)


# ---- libraries and processes --------------------------------------------------------

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
LIBRARIES = ("librknnrt.so", "librknnmrt.so", "librknn_runtime.so")
RGA_LIBRARIES = ("librga.so", "librga.so.2")
"""Of the 2D engine, which prepares pictures."""
SERVERS = ("/usr/bin/rknn_server", "/oem/usr/bin/rknn_server", "/vendor/bin/rknn_server")


def library_paths(tree: Tree, names: tuple[str, ...] = LIBRARIES) -> Iterator[str]:
    """Where the runtime libraries of this machine lie, or those of other `names`; a file under
    two names once."""
    folders = list(FOLDERS)
    if tree.live:
        given = os.environ.get("LD_LIBRARY_PATH", "").split(":")
        folders = [folder for folder in given if folder.startswith("/")] + folders
    seen = set()
    for folder in folders:
        for name in names:
            path = f"{folder}/{name}"
            real = tree.real(path)
            if real is not None and tree.exists(path) and real.resolve() not in seen:
                seen.add(real.resolve())
                yield path


def _libraries(tree: Tree) -> tuple[Library, ...]:
    return tuple(_library(tree, path) for path in library_paths(tree))


def _library(tree: Tree, path: str) -> Library:
    # A capture notes what the library said, and holds an empty file in its place.
    if note := tree.notes.libraries.get(path):
        return Library(path, note.name, note.version, note.machine, note.fault)
    real = tree.real(path)
    name = path.rpartition("/")[2]
    return examine(real, path) if real else Library(path, name, fault="it leads nowhere")


def _server(tree: Tree) -> Library | None:
    path = next((path for path in SERVERS if tree.exists(path)), None)
    return _library(tree, path) if path else None


def _processes(tree: Tree) -> Iterator[str]:
    return (name for name in tree.names("/proc", _PROCESSES) if name.isdecimal())


def _running(tree: Tree, name: str) -> bool:
    return any(tree.text(f"/proc/{pid}/comm") == name for pid in _processes(tree))


def _holders(tree: Tree, nodes: tuple[Node, ...]) -> tuple[Holder, ...]:
    if not tree.live and tree.notes.holders:
        return tree.notes.holders
    paths = {node.path for node in nodes}
    found = []
    for pid in _processes(tree) if paths else ():
        if int(pid) == os.getpid() and tree.live:
            continue
        folder = tree.root / "proc" / pid / "fd"
        try:
            links = {os.readlink(entry.path) for entry in os.scandir(folder) if entry.is_symlink()}
        except OSError:
            # Another user's process, or one that has just ended.
            continue
        name = tree.text(f"/proc/{pid}/comm") or "?"
        found += [Holder(int(pid), name, path) for path in sorted(paths & links)]
    return tuple(found)


# ---- memory, clocks, heat -----------------------------------------------------------


def _meminfo(tree: Tree) -> dict[str, int]:
    text = tree.text("/proc/meminfo") or ""
    found = re.findall(r"^(\w+):\s+(\d{1,15}) kB", text, re.M)
    return {name: int(number) * 1024 for name, number in found}


_CPUFREQ = "/sys/devices/system/cpu/cpufreq"


def _policies(tree: Tree) -> Iterator[Governed]:
    for name in tree.names(_CPUFREQ):
        if not name.startswith("policy"):
            continue
        path = f"{_CPUFREQ}/{name}"
        current = tree.number(f"{path}/scaling_cur_freq") or tree.number(f"{path}/cpuinfo_cur_freq")
        yield Governed(
            kind="cpu",
            name=name,
            path=path,
            governor=tree.text(f"{path}/scaling_governor") or "",
            current=_hertz(current),
            lowest=_hertz(tree.number(f"{path}/scaling_min_freq")),
            highest=_hertz(tree.number(f"{path}/scaling_max_freq")),
            available=_rates(tree.text(f"{path}/scaling_available_frequencies"), 1000),
            governors=_words(tree.text(f"{path}/scaling_available_governors")),
            cores=cores(tree.text(f"{path}/related_cpus") or ""),
        )


def _hertz(kilohertz: int | None) -> int | None:
    return None if kilohertz is None else kilohertz * 1000


_DEVFREQ = "/sys/class/devfreq"


def _devfreq(tree: Tree) -> Iterator[Governed]:
    for name in tree.names(_DEVFREQ):
        path = f"{_DEVFREQ}/{name}"
        yield Governed(
            kind=_kind(name),
            name=name,
            path=path,
            governor=tree.text(f"{path}/governor") or "",
            current=tree.number(f"{path}/cur_freq"),
            lowest=tree.number(f"{path}/min_freq"),
            highest=tree.number(f"{path}/max_freq"),
            available=_rates(tree.text(f"{path}/available_frequencies"), 1),
            governors=_words(tree.text(f"{path}/available_governors")),
        )


def _kind(name: str) -> Literal["npu", "ddr", "gpu", "other"]:
    if name.endswith(".npu"):
        return "npu"
    if name.startswith("dmc"):
        return "ddr"
    return "gpu" if name.endswith(".gpu") else "other"


def _rates(text: str | None, unit: int) -> tuple[int, ...]:
    return tuple(int(word) * unit for word in _words(text) if word.isdecimal() and len(word) < 13)


def _words(text: str | None) -> tuple[str, ...]:
    return tuple((text or "").split()[:_MANY])


_MANY = 64


def cores(text: str) -> tuple[int, ...]:
    """`0-3,6` or `0 1 2 3` to numbers; what is not understood is left out."""
    found: list[int] = []
    for first, last in re.findall(r"(\d{1,4})(?:-(\d{1,4}))?", text):
        found += range(int(first), int(last or first) + 1)
    return tuple(found[:1024])


_THERMAL = "/sys/class/thermal"


def _zones(tree: Tree) -> tuple[Zone, ...]:
    found = []
    for name in tree.names(_THERMAL):
        path = f"{_THERMAL}/{name}"
        heat = tree.number(f"{path}/temp") if name.startswith("thermal_zone") else None
        if heat is not None:
            found.append(Zone(tree.text(f"{path}/type") or name, heat / 1000, _passive(tree, path)))
    return tuple(found)


def _passive(tree: Tree, path: str) -> float | None:
    """Where the kernel really begins to slow down: the last passive point, for the first
    one only arms the control."""
    points = [
        heat / 1000
        for number in range(12)
        if tree.text(f"{path}/trip_point_{number}_type") == "passive"
        and (heat := tree.number(f"{path}/trip_point_{number}_temp")) is not None
    ]
    return max(points, default=None)
