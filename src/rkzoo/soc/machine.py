"""Hardware and driver state of a machine from /proc, /sys and /dev, below any root.

What cannot be read is left out, and listed in `denied` where only the permission was missing.
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import msgspec

from rkzoo.soc.chips import chips
from rkzoo.soc.library import Library, examine
from rkzoo.soc.tree import NodeNote, NpuUser, Tree
from rkzoo.soc.userland import bits_of, group_names, library_folders

_PROCESSES = 4096


@dataclass(frozen=True)
class ClockDomain:
    """A clock domain: a CPU policy, or a devfreq device. Rates in Hz.

    Attributes:
        kind: What it clocks.
        name: Its name in /sys.
        path: Its folder.
        governor: Active governor.
        current: Present rate.
        lowest: Minimum rate in force.
        highest: Maximum rate in force.
        available: Rates it offers; may be empty.
        governors: Governors it offers; may be empty.
        cores: CPU cores, for CPUs only.
        throttled: Whether the kernel holds it down now because of heat.
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
    throttled: bool = False

    @property
    def top(self) -> int | None:
        """The highest rate that it offers."""
        return max(self.available) if self.available else self.highest


@dataclass(frozen=True)
class Node:
    """A device file of the NPU that Rockchip's library opens. `group_name` is empty where the group
    has no name, `allowed` (read and write) None where unknown.
    """

    path: str
    mode: int
    owner: int
    group: int
    group_name: str
    allowed: bool | None


@dataclass(frozen=True)
class Zone:
    """A thermal zone, in degrees Celsius. `passive` is where the kernel begins to throttle."""

    name: str
    celsius: float
    passive: float | None


@dataclass(frozen=True)
class Machine:
    """Everything read from a machine. Sizes in bytes; None or empty where nothing was found.

    Attributes:
        root: Root of the tree.
        live: Whether this is the running machine, not a capture.
        model: Board name of the device tree.
        compatible: `compatible` list of the device tree.
        chip: Canonical name of the chip.
        variant: Name of the chip's variant with parts fused off (rk3582).
        npu_cores: Number of NPU cores.
        kernel: Kernel release.
        machine: Architecture of the kernel (`uname -m`).
        bits: Pointer size of its programs, 32 or 64.
        container: Whether it is a container.
        udev: Whether udev is there.
        device_groups: Those of the usual groups for device files that exist.
        npu_device: Name of the NPU's platform device.
        npu_status: Status of the NPU in the device tree (`okay`, `disabled`).
        bound_driver: Kernel driver bound to it.
        iommu: Whether it can map scattered memory.
        driver: Version text of the driver.
        driver_from: File with that version.
        load: NPU load per core in percent, None for an invalid value.
        nodes: Device files of the NPU.
        rocket: Whether its driver is the mainline kernel's.
        libraries: Runtime libraries.
        rga: Library of the 2D engine.
        server: rknn_server.
        server_running: Whether it runs.
        holders: Processes that use the NPU.
        total: Memory.
        free: Available memory.
        cma_total: CMA memory.
        cma_free: Free CMA memory.
        clocks: Clock domains.
        npu_rate: NPU clock of the clock tree, in Hz.
        online: CPU cores in use.
        present: CPU cores that the kernel knows.
        zones: Thermal zones.
        denied: Paths without read permission.
    """

    root: Path
    live: bool
    model: str
    compatible: tuple[str, ...]
    chip: str | None
    variant: str
    npu_cores: int | None
    kernel: str
    machine: str
    bits: int | None
    container: bool
    udev: bool
    device_groups: tuple[str, ...]
    npu_device: str
    npu_status: str
    bound_driver: str
    iommu: bool | None
    driver: str
    driver_from: str
    load: tuple[int | None, ...]
    nodes: tuple[Node, ...]
    rocket: bool
    libraries: tuple[Library, ...]
    rga: Library | None
    server: Library | None
    server_running: bool
    holders: tuple[NpuUser, ...]
    total: int | None
    free: int | None
    cma_total: int | None
    cma_free: int | None
    clocks: tuple[ClockDomain, ...]
    npu_rate: int | None
    online: tuple[int, ...]
    present: tuple[int, ...]
    zones: tuple[Zone, ...]
    denied: tuple[str, ...]

    @property
    def board(self) -> bool:
        """Whether this is a Rockchip board, by its device tree or, where a container hides
        that, by its NPU."""
        return self.chip is not None or any(n.startswith("rockchip,") for n in self.compatible)

    def of(self, kind: str) -> tuple[ClockDomain, ...]:
        """The clocks of one kind, such as "cpu"."""
        return tuple(clock for clock in self.clocks if clock.kind == kind)


ELSEWHERE = Path(os.devnull)
"""Root of a machine that was read elsewhere: nothing of this one is below it."""


def machine_to_json(machine: Machine) -> bytes:
    """A machine as JSON, for another one."""
    return msgspec.json.encode(machine, enc_hook=str)


def machine_from_json(data: bytes) -> Machine:
    """A machine that `machine_to_json` wrote elsewhere; its root is ELSEWHERE.

    Raises:
        msgspec.DecodeError: It is none.
    """
    machine = msgspec.json.decode(data, type=Machine, dec_hook=lambda kind, value: kind(value))
    return replace(machine, root=ELSEWHERE, live=False)


def read_machine(root: Path = Path("/")) -> Machine:
    """Read the state of a machine.

    Args:
        root: "/" for the running machine, or the root of a captured tree.
    """
    tree = Tree(root)
    compatible = _compatible(tree)
    device = _npu_device(tree)
    bound_driver = _bound(tree, device)
    driver, driver_from = _driver(tree)
    nodes = _nodes(tree)
    memory = _meminfo(tree)
    chip = _chip(compatible) or _chip_of_npu(tree, "" if compatible else device)
    variant = _variant(tree, chip, compatible)
    load = npu_load(tree)
    zones = thermal_zones(tree)
    return Machine(
        root=tree.root,
        live=tree.live,
        model=tree.text("/proc/device-tree/model") or "",
        compatible=compatible,
        chip=chip,
        variant=variant,
        npu_cores=_npu_cores(tree, chip, variant, load),
        kernel=_kernel(tree),
        machine=platform.machine() if tree.live else tree.notes.machine,
        bits=bits_of(tree),
        container=any(tree.exists(mark) for mark in CONTAINER),
        udev=any(tree.exists(folder) for folder in UDEV),
        device_groups=tree.notes.device_groups or _device_groups(tree),
        npu_device=device,
        npu_status=_npu_status(tree),
        bound_driver=bound_driver,
        iommu=_iommu(tree, device),
        driver=driver,
        driver_from=driver_from,
        load=load,
        nodes=nodes,
        rocket=_rocket(tree, bound_driver),
        libraries=_libraries(tree),
        rga=next(map(partial(_library, tree), library_paths(tree, RGA_LIBRARIES)), None),
        server=_server(tree),
        server_running=_running(tree, "rknn_server"),
        holders=_holders(tree, nodes),
        total=memory.get("MemTotal"),
        free=memory.get("MemAvailable", memory.get("MemFree")),
        cma_total=memory.get("CmaTotal"),
        cma_free=memory.get("CmaFree"),
        clocks=_with_heat(tree, (*_policies(tree), *_devfreq(tree)), zones),
        npu_rate=_npu_rate(tree, chip),
        online=cores(tree.text("/sys/devices/system/cpu/online") or ""),
        present=cores(tree.text("/sys/devices/system/cpu/present") or ""),
        zones=zones,
        # Last, because everything above adds to it.
        denied=tuple(dict.fromkeys((*tree.denied, *tree.notes.denied))),
    )


# ---- identity -----------------------------------------------------------------------


def _compatible(tree: Tree) -> tuple[str, ...]:
    data = tree.bytes("/proc/device-tree/compatible") or b""
    return tuple(part.decode("ascii", "replace") for part in data.split(b"\0") if part.strip())


def _chip(compatible: tuple[str, ...]) -> str | None:
    """The chip: a device tree lists the board first and the chip last, so the last match counts."""
    for name in reversed(compatible):
        maker, _, word = name.lower().partition(",")
        if maker != "rockchip":
            continue
        for canonical, chip in chips().items():
            if word == canonical or word in chip.aliases:
                return canonical
    return None


def _chip_of_npu(tree: Tree, device: str) -> str | None:
    """The chip by the NPU's own device tree node, for variants with a name of their own; and by its
    `device`, for containers, which hide the device tree but not sysfs.
    """
    uevent = tree.text(f"{_DEVICES}/{device}/uevent") if device else None
    seen = re.findall(r"^OF_COMPATIBLE_\d+=(\S+)", uevent or "", re.M)
    # From the most specific to the most general.
    for word in (*_npu_texts(tree, "compatible"), *seen):
        for canonical, chip in chips().items():
            if word in chip.compatible or word == f"rockchip,{canonical}-{_MAINLINE}":
                return canonical
    return None


_CODE = "/sys/bus/nvmem/devices/rockchip-otp0/nvmem"


def _variant(tree: Tree, chip: str | None, compatible: tuple[str, ...]) -> str:
    """By the device tree, else by the chip's fuses, which only root may read."""
    known = chips()[chip].variants if chip else {}
    named = {name.lower().partition(",")[2] for name in compatible} | {tree.notes.fused}
    if known and tree.live and (fuses := tree.bytes(_CODE)):
        # Bytes 2 and 3 hold the chip's number (cpu-code in the device tree).
        named.add(f"rk{fuses[2:4].hex()}")
    return next((name for name in known if name in named), "")


def _npu_cores(
    tree: Tree, chip: str | None, variant: str, load: tuple[int | None, ...]
) -> int | None:
    """As the driver counts them, where visible: its load has one figure per core, and an nvmem cell
    named `cores` in the NPU's node makes an RK3588 a chip with two (rknpu_drv.c).
    """
    if chip is None:
        return None
    if load:
        return len(load)
    if chip == "rk3588" and "cores" in _npu_texts(tree, "nvmem-cell-names"):
        return 2
    known = chips()[chip]
    return known.variants[variant].cores if variant else known.cores


def _kernel(tree: Tree) -> str:
    match = re.match(r"Linux version (\S+)", tree.text("/proc/version") or "")
    return match[1] if match else ""


# ---- the NPU ------------------------------------------------------------------------

_DEVICES = "/sys/bus/platform/devices"


def _npu_device(tree: Tree) -> str:
    """The name of the NPU's platform device, such as `fdab0000.npu`."""
    return next((n for n in tree.names(_DEVICES, 4096) if n.endswith(".npu")), "")


def _npu_entries(tree: Tree) -> Iterator[str]:
    """The NPU's nodes in the device tree: one, or in mainline kernels one per core."""
    folder = "/proc/device-tree"
    return (f"{folder}/{name}" for name in tree.names(folder) if name.startswith("npu@"))


def _npu_texts(tree: Tree, name: str) -> list[str]:
    """The strings of a property of these nodes."""
    texts = (tree.text(f"{entry}/{name}") or "" for entry in _npu_entries(tree))
    return [word for text in texts for word in text.split("\0") if word]


def _npu_status(tree: Tree) -> str:
    # No status property means enabled.
    return next((tree.text(f"{entry}/status") or "okay" for entry in _npu_entries(tree)), "")


def _bound(tree: Tree, device: str) -> str:
    text = tree.text(f"{_DEVICES}/{device}/uevent") if device else None
    match = re.search(r"^DRIVER=(\S+)", text or "", re.M)
    return match[1] if match else ""


_MAINLINE = "rknn-core"
"""Device tree name of an NPU core in mainline kernels."""


def _rocket(tree: Tree, bound: str) -> bool:
    """Whether the NPU belongs to the open driver rocket: by the bound driver, else by signs of a
    mainline kernel.
    """
    if bound:
        return bound == "rocket"
    if tree.exists("/sys/module/rocket"):
        return True
    if any(word.endswith(f"-{_MAINLINE}") for word in _npu_texts(tree, "compatible")):
        return True
    # Other accelerators may have this file too; rocket's belongs to a device called rknn.
    uevent = tree.text("/sys/class/accel/accel0/device/uevent")
    return tree.exists("/dev/accel/accel0") and (uevent is None or "rknn" in uevent)


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
        match = re.search(r"v?(\d+\.\d+\.\d+)", tree.text(path) or "")
        if match:
            return match[1], path
    return "", ""


def npu_load(tree: Tree) -> tuple[int | None, ...]:
    """NPU load of each core.

    Args:
        tree: The machine's files.

    Returns:
        Percent per core, None for invalid values: after a failed submit drivers show figures such
            as 429496% (sources.yaml, driver-load). Empty without an NPU, or where the kernel shows
            it to root only.
    """
    for path in _LOAD:
        if text := tree.text(path):
            shares = (int(share[:9]) for share in re.findall(r"(\d+)%", text)[:_MANY])
            return tuple(share if share <= 100 else None for share in shares)
    return ()


_CARDS = 16


def _nodes(tree: Tree) -> tuple[Node, ...]:
    """The device files of the NPU that Rockchip's library opens, in its order: /dev/rknpu, then
    /dev/dri/card0 to card15. It never opens a render node.
    """
    groups = group_names(tree)
    nodes = [_node(tree, "/dev/rknpu", groups)]
    for name in (f"card{number}" for number in range(_CARDS)):
        uevent = tree.text(f"/sys/class/drm/{name}/device/uevent") or ""
        if re.search(r"rknpu", uevent, re.I):
            nodes.append(_node(tree, f"/dev/dri/{name}", groups))
    return tuple(node for node in nodes if node is not None)


CONTAINER_OPTIONS = "--device /dev/dri (or /dev/rknpu) --security-opt systempaths=unconfined"
"""Options with which a container sees the NPU and its chip, short of --privileged."""
CONTAINER = ("/.dockerenv", "/run/.containerenv")
UDEV = ("/etc/udev/rules.d", "/usr/lib/udev/rules.d", "/lib/udev/rules.d")
_USUAL = ("render", "video")


def _device_groups(tree: Tree) -> tuple[str, ...]:
    return tuple(name for name in _USUAL if name in group_names(tree).values())


def _node(tree: Tree, path: str, groups: dict[int, str]) -> Node | None:
    real = tree.real(path)
    try:
        status = real.stat() if real else None
    except OSError:
        return None
    if real is None or status is None:
        return None
    if tree.live:
        allowed = os.access(real, os.R_OK | os.W_OK)
        name = groups.get(status.st_gid, "")
        return Node(path, status.st_mode & 0o777, status.st_uid, status.st_gid, name, allowed)
    note = tree.notes.nodes.get(path)
    if note is None:
        # A plain file in a captured tree says nothing about the device.
        return Node(path, 0, 0, 0, "", None)
    name = note.group_name or groups.get(note.group, "")
    return Node(path, note.mode, note.owner, note.group, name, _allowed(note, tree))


def _allowed(note: NodeNote, tree: Tree) -> bool | None:
    user, groups = tree.notes.user, tree.notes.groups
    if user is None:
        return None
    if user == 0:
        return True
    shift = 6 if user == note.owner else 3 if note.group in groups else 0
    return (note.mode >> shift) & 0o6 == 0o6


def _npu_rate(tree: Tree, chip: str | None) -> int | None:
    """The NPU clock from the clock tree, in Hz; None where no file has it."""
    places = chips()[chip].npu_clock if chip else ()
    files = (place for place in places if place.startswith("/sys/kernel/debug/"))
    return next((rate for file in files if (rate := tree.number(file)) is not None), None)


# ---- libraries and processes --------------------------------------------------------

LIBRARIES = ("librknnrt.so", "librknnmrt.so", "librknn_runtime.so")
RGA_LIBRARIES = ("librga.so", "librga.so.2")
"""Libraries of the 2D engine RGA, which preprocesses images."""
SERVERS = ("/usr/bin/rknn_server", "/oem/usr/bin/rknn_server", "/vendor/bin/rknn_server")


def library_paths(tree: Tree, names: tuple[str, ...] = LIBRARIES) -> Iterator[str]:
    """Paths of this machine's runtime libraries, or of those called `names`; links to one file
    once.
    """
    seen = set()
    for folder in dict.fromkeys(library_folders(tree)):
        for name in names:
            path = f"{folder}/{name}"
            real = tree.real(path)
            if real is not None and tree.exists(path) and real.resolve() not in seen:
                seen.add(real.resolve())
                yield path


def _libraries(tree: Tree) -> tuple[Library, ...]:
    return tuple(_library(tree, path) for path in library_paths(tree))


def _library(tree: Tree, path: str) -> Library:
    # A capture records the library's version, and holds an empty file in its place.
    if note := tree.notes.libraries.get(path):
        return Library(path, note.name, note.version, note.machine, note.fault)
    real = tree.real(path)
    name = path.rpartition("/")[2]
    return examine(real, path) if real else Library(path, name, fault="it is a broken link")


def _server(tree: Tree) -> Library | None:
    path = next((path for path in SERVERS if tree.exists(path)), None)
    return _library(tree, path) if path else None


def _processes(tree: Tree) -> Iterator[str]:
    return (name for name in tree.names("/proc", _PROCESSES) if name.isdecimal())


def _running(tree: Tree, name: str) -> bool:
    return any(tree.text(f"/proc/{pid}/comm") == name for pid in _processes(tree))


def _holders(tree: Tree, nodes: tuple[Node, ...]) -> tuple[NpuUser, ...]:
    if not tree.live and tree.notes.holders:
        return tree.notes.holders
    paths = {node.path for node in nodes}
    npu_users = []
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
        npu_users += [NpuUser(int(pid), name, path) for path in sorted(paths & links)]
    return tuple(npu_users)


# ---- memory, clocks, temperature ----------------------------------------------------


def _meminfo(tree: Tree) -> dict[str, int]:
    text = tree.text("/proc/meminfo") or ""
    match = re.findall(r"^(\w+):\s+(\d{1,15}) kB", text, re.M)
    return {name: int(number) * 1024 for name, number in match}


_CPUFREQ = "/sys/devices/system/cpu/cpufreq"


def _policies(tree: Tree) -> Iterator[ClockDomain]:
    for name in tree.names(_CPUFREQ):
        if not name.startswith("policy"):
            continue
        path = f"{_CPUFREQ}/{name}"
        current = tree.number(f"{path}/scaling_cur_freq") or tree.number(f"{path}/cpuinfo_cur_freq")
        yield ClockDomain(
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


def _devfreq(tree: Tree) -> Iterator[ClockDomain]:
    for name in tree.names(_DEVFREQ):
        path = f"{_DEVFREQ}/{name}"
        yield ClockDomain(
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


HOT = 85.0
"""Throttling point of chips whose device tree names none, in degrees Celsius."""
_COOLER = 5.0


def _with_heat(
    tree: Tree, clocks: tuple[ClockDomain, ...], zones: tuple[Zone, ...]
) -> tuple[ClockDomain, ...]:
    """Mark the clocks that are throttled by heat.

    Such a cap looks like the owner's: the kernel shows the lower of both in scaling_max_freq and
    max_freq. Rockchip's system monitor caps the NPU without a cooling device, and lifts the cap 5
    degrees below (h=85000 hyst=5000 in its log, monitor-log of sources.yaml), so near the limit
    every cap is counted as thermal.
    """
    hot = any(zone.celsius > (zone.passive or HOT) - _COOLER for zone in zones)
    devices = [
        (tree.text(f"{_THERMAL}/{name}/type") or "", tree.number(f"{_THERMAL}/{name}/cur_state"))
        for name in tree.names(_THERMAL, 1024)
        if name.startswith("cooling_device")
    ]
    cooled = {kind for kind, state in devices if state}
    return tuple(replace(clock, throttled=_cooled(clock, cooled, hot)) for clock in clocks)


def _cooled(clock: ClockDomain, cooled: set[str], hot: bool) -> bool:
    """Whether a capped clock has an active cooling device. Kernels name it after the clock
    (cpufreq-cpu4, devfreq-fdab0000.npu), older ones by a mere number (thermal-cpufreq-0): then any
    capped clock of that kind counts.
    """
    if clock.top is None or clock.highest is None or clock.highest >= clock.top:
        return False
    if hot:
        return True
    bus = "cpufreq" if clock.kind == "cpu" else "devfreq"
    name = f"cpu{clock.cores[0]}" if clock.cores else clock.name
    return f"{bus}-{name}" in cooled or any(kind.startswith(f"thermal-{bus}-") for kind in cooled)


def cores(text: str) -> tuple[int, ...]:
    """Parse a CPU list, `0-3,6` or `0 1 2 3`; unknown parts are skipped."""
    numbers: list[int] = []
    for first, last in re.findall(r"(\d{1,4})(?:-(\d{1,4}))?", text):
        numbers += range(int(first), int(last or first) + 1)
    return tuple(numbers[:1024])


_THERMAL = "/sys/class/thermal"


def thermal_zones(tree: Tree) -> tuple[Zone, ...]:
    """The thermal zones of a machine.

    Args:
        tree: The machine's files.
    """
    zones = []
    for name in tree.names(_THERMAL):
        path = f"{_THERMAL}/{name}"
        heat = tree.number(f"{path}/temp") if name.startswith("thermal_zone") else None
        if heat is not None:
            zones.append(Zone(tree.text(f"{path}/type") or name, heat / 1000, _passive(tree, path)))
    return tuple(zones)


def _passive(tree: Tree, path: str) -> float | None:
    """Where the kernel begins to throttle: the last passive trip point; the first only arms the
    control.
    """
    points = [
        heat / 1000
        for number in range(12)
        if tree.text(f"{path}/trip_point_{number}_type") == "passive"
        and (heat := tree.number(f"{path}/trip_point_{number}_temp")) is not None
    ]
    return max(points, default=None)
