"""Checks of a board, on what `soc.machine` read of it."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterable, Iterator

from rkzoo.checks import Level
from rkzoo.soc.chips import Chip, chips, sources
from rkzoo.soc.library import ARM32, Library
from rkzoo.soc.machine import CONTAINER_OPTIONS, HOT, ClockDomain, Machine, Node
from rkzoo.soc.npu_cores import usable_cores
from rkzoo.soc.userland import fits
from rkzoo.soc.versions import Part, Rule, Version, judge, parse, upgrade
from rkzoo.workflow.diagnostics.findings import Finding, fail, ok, warn

_FIRMWARE = "Install the firmware or kernel image of the board's maker that has the NPU driver."
_LITTLE = 0.10
_TIGHT_CMA = 12 << 20
_SLOW = ("powersave", "userspace")
_LOCK = "sudo rkzoo clocks lock --apply"
_LIBRARIES = "github.com/airockchip/rknn-toolkit2 (rknpu2/runtime/Linux/librknn_api)"


def board_findings(machine: Machine) -> list[Finding]:
    """Run all checks of a board; only the chip check where the chip is not supported."""
    findings = list(_chip(machine))
    if any(finding.level == "fail" for finding in findings):
        return findings
    return findings + [finding for check in CHECKS for finding in check(machine)]


def _facts(machine: Machine) -> Chip:
    return chips()[machine.chip or ""]


# ---- chip and kernel ----------------------------------------------------------------


def _chip(machine: Machine) -> Iterator[Finding]:
    seen = "/proc/device-tree/compatible: " + ", ".join(machine.compatible)
    if not machine.compatible:
        seen = f"the uevent of {machine.npu_device}; /proc/device-tree is hidden"
    if machine.chip is None:
        yield fail(
            "chip",
            "This Rockchip chip is not one that rkzoo knows, or has no NPU.",
            seen,
            "Look at `rkzoo soc` for the chips that have one.",
            "rkzoo soc",
        )
        return
    generation = _facts(machine).generation
    if generation == 2:
        name = f"{machine.chip} ({machine.variant})" if machine.variant else machine.chip
        yield ok("chip", f"{name}: {machine.model or 'a board without a name'}", seen)
    elif generation == 1:
        yield fail(
            "chip-first-generation",
            f"{machine.chip} has an NPU of the first generation; RKNN-Toolkit2 does not serve it.",
            seen,
            "Use Rockchip's RKNN-Toolkit 1.7.5 for it; its driver is a .ko file and its library"
            " librknn_runtime.so, both from github.com/airockchip/rknpu.",
        )
    else:
        yield fail(
            "chip-third-generation",
            f"{machine.chip} needs RKNN3-Toolkit, not RKNN-Toolkit2.",
            seen,
            "Run rkzoo on the RK3588 or RK3576 that it is plugged into.",
        )


def _container(machine: Machine) -> Iterator[Finding]:
    if not machine.compatible:
        yield warn(
            "device-tree-hidden",
            "The device tree is hidden, as in a container; rkzoo reads the chip elsewhere, but"
            " rknn-toolkit-lite2 needs it.",
            f"no /proc/device-tree/compatible (source: {sources()['tk2-33']})",
            f"Start the container with {CONTAINER_OPTIONS}; --privileged is not needed.",
        )


def _kernel(machine: Machine) -> Iterator[Finding]:
    if machine.kernel:
        yield ok("kernel", f"Linux {machine.kernel}", "/proc/version")


# ---- driver -------------------------------------------------------------------------


def _enabled(machine: Machine) -> Iterator[Finding]:
    # Mainline kernels disable the node too, and use their own driver.
    if machine.npu_status == "disabled" and not machine.rocket:
        yield fail(
            "npu-disabled",
            "The NPU is switched off in the device tree.",
            "/proc/device-tree/npu@*/status: disabled",
            'Enable it with the overlay tool of your system, or set status = "okay" for the npu'
            " node and its iommu, then restart.",
        )


# The first is readable by every user, the second by root only.
_DEVICES = "/sys/bus/platform/devices"
_DEBUG = "/sys/kernel/debug"


def _driver(machine: Machine) -> Iterator[Finding]:
    if machine.driver:
        yield ok("driver", f"NPU driver {machine.driver}", machine.driver_from)
        return
    if machine.rocket:
        yield fail(
            "driver-rocket",
            "The kernel has the open driver rocket, which Rockchip's library cannot use.",
            "the NPU's uevent or device tree entry, /dev/accel/accel0 or /sys/module/rocket"
            f" (source: {sources()['rocket']})",
            "Install the kernel of the board's maker (Rockchip 5.10 or 6.1) with the rknpu driver.",
        )
    elif machine.bound_driver or machine.nodes or _DEVICES in machine.denied:
        hidden = [p for p in machine.denied if "rknpu" in p or p in (_DEBUG, _DEVICES)]
        yield warn(
            "driver-hidden",
            "The version of the NPU driver cannot be read.",
            f"{hidden[0]} is for root only" if hidden else "/sys/kernel/debug/rknpu is missing",
            "Run doctor as root; when it is still hidden, mount debugfs.",
            "sudo mount -t debugfs none /sys/kernel/debug; sudo rkzoo doctor",
        )
    elif machine.npu_status != "disabled":
        yield fail(
            "driver-missing",
            "No NPU driver is at work.",
            f"{machine.npu_device} has no driver"
            if machine.npu_device
            else "no npu device in /sys",
            _FIRMWARE + " Where the driver is a module, load it.",
            "sudo modprobe rknpu; sudo dmesg | grep -i rknpu",
        )


def _nodes(machine: Machine) -> Iterator[Finding]:
    if not machine.nodes and not machine.rocket and (machine.driver or machine.bound_driver):
        yield fail(
            "node-missing",
            "The driver is there, but no device file for programs to open.",
            "neither /dev/rknpu nor a card of the NPU in /dev/dri (source: "
            f"{sources()['tk2-534']})",
            f"Start the container with {CONTAINER_OPTIONS}."
            if machine.container
            else "Check that the kernel has CONFIG_ROCKCHIP_RKNPU_DRM_GEM (/dev/dri/card*) or"
            " CONFIG_ROCKCHIP_RKNPU_DMA_HEAP (/dev/rknpu).",
            "" if machine.container else "sudo dmesg | grep -i rknpu",
        )
    open_ones = [node for node in machine.nodes if node.allowed is not False]
    for node in open_ones:
        state = "can be opened" if node.allowed else "is there"
        yield ok("node", f"{node.path} {state}", _mode(node) if node.allowed else "")
    # The library tries the next node when the first cannot be opened.
    if machine.nodes and not open_ones:
        node = machine.nodes[0]
        fix, command = _permit(machine, node)
        yield fail("node-permission", f"You may not open {node.path}.", _mode(node), fix, command)


def _mode(node: Node) -> str:
    name = f" ({node.group_name})" if node.group_name else ""
    return f"{node.path} mode {node.mode:o}, owner {node.owner}, group {node.group}{name}"


def _permit(machine: Machine, node: Node) -> tuple[str, str]:
    """Explain how to get access to a device file, with the command."""
    if node.mode & 0o060 == 0o060 and node.group != 0 and node.group_name:
        return (
            f"Join the group that owns it, {node.group_name}, and log in again.",
            f'sudo usermod -aG {shlex.quote(node.group_name)} "$USER"',
        )
    if not machine.udev:
        return (
            "Let everybody open it; this lasts until a restart, so put it into a start script too.",
            f"sudo chmod 666 {node.path}",
        )
    match = 'KERNEL=="rknpu"'
    if node.path.startswith("/dev/dri/"):
        match = 'SUBSYSTEM=="drm", KERNEL=="card*", DRIVERS=="RKNPU"'
    group = next(iter(machine.device_groups), "")
    rule = f'{match}, MODE="0660", GROUP="{group}"' if group else f'{match}, MODE="0666"'
    command = (
        f"echo '{rule}' | sudo tee /etc/udev/rules.d/99-rknpu.rules && sudo udevadm control"
        " --reload && sudo udevadm trigger"
    )
    if not group:
        return "Only root may open it: let udev open it to everybody.", command
    return (
        f"Only root may open it: let udev give it to the group {group}, join that, and log"
        " in again.",
        f'{command} && sudo usermod -aG {shlex.quote(group)} "$USER"',
    )


# ---- library ------------------------------------------------------------------------


def _library(machine: Machine) -> Iterator[Finding]:
    runtime = _facts(machine).runtime
    if not runtime:
        return
    ours = [library for library in machine.libraries if library.name == runtime]
    build = _build(machine)
    if not ours:
        others = ", ".join(library.path for library in machine.libraries)
        text = f"{runtime} is missing; programs cannot reach the NPU without it."
        if others:
            text = f"{runtime} is missing; {others} is for other chips."
        yield fail(
            "library-missing",
            text,
            "looked in /usr/lib and its like, and where /etc/ld.so.conf says"
            + (f", found {others}" if others else ""),
            f"Copy {build}/{runtime} from {_LIBRARIES} to /usr/lib.",
            f"sudo cp {runtime} /usr/lib/ && sudo ldconfig",
        )
    fitting = [library for library in ours if _suits(machine, library)]
    # Libraries of another architecture do no harm beside one that fits: the loader skips them.
    ours = fitting or ours
    for library in ours:
        yield from _one_library(machine, library, build)
    versions = {library.version for library in ours if library.version}
    if len(versions) > 1:
        listed = ", ".join(f"{lib.path} {lib.version.partition(' ')[0]}" for lib in ours)
        yield warn(
            "library-twice",
            f"There are several {runtime} of different versions; which one a program gets"
            " depends on how it looks.",
            listed,
            "Keep the newest and remove or overwrite the others.",
            "ldconfig -p | grep rknn",
        )


def _rga(machine: Machine) -> Iterator[Finding]:
    """Optional: without it, images are preprocessed on the CPU."""
    if machine.rga and not machine.rga.fault and _suits(machine, machine.rga):
        yield ok(
            "rga",
            f"librga {parse(machine.rga.version) or 'of an unknown version'}: rkzoo run and stream"
            " try the 2D engine (RGA) and keep it where it wins.",
            f"{machine.rga.path}; RKZOO_LIBRGA=off leaves it out",
        )


def _build(machine: Machine) -> str:
    if _facts(machine).runtime == "librknnmrt.so":
        return "armhf-uclibc"
    return "armhf" if machine.machine in ARM32 or machine.bits == 32 else "aarch64"


def _one_library(machine: Machine, library: Library, build: str) -> Iterator[Finding]:
    again = f"Copy {build}/{library.name} from {_LIBRARIES} over {library.path}."
    place = shlex.quote(library.path)
    command = f"sudo cp {library.name} {place} && file {place}"
    if library.fault:
        yield fail(
            "library-broken",
            f"{library.path} cannot be loaded: {library.fault}.",
            f"its first bytes (source: {sources()['old2-260']})",
            f"{again} On GitHub take the raw file, not the page about it.",
            command,
        )
    elif not _suits(machine, library):
        bits = f" with programs of {machine.bits} bit" if machine.bits else ""
        yield fail(
            "library-machine",
            f"{library.path} is built for {library.machine}, but this system is"
            f" {machine.machine}{bits}.",
            "its ELF header, uname -m and the programs here",
            again,
            command,
        )
    elif not library.version:
        yield warn(
            "library-unknown",
            f"{library.path} does not contain its version.",
            "no version text in it",
            again,
            f"strings {library.path} | grep 'rt version'",
        )
    else:
        yield ok("library", f"{library.name} {library.version}", library.path)


def _suits(machine: Machine, library: Library) -> bool:
    return fits(library.machine, machine.machine, machine.bits)


def _versions(machine: Machine) -> Iterator[Finding]:
    for rule in judge(known_versions(machine), chip=machine.chip, library=library_name(machine)):
        yield from version_finding(rule, machine)


def library_name(machine: Machine) -> str:
    """File name of the NPU runtime library of the board's chip; "" without a chip."""
    return _facts(machine).runtime if machine.chip else ""


def runtime(machine: Machine) -> Library | None:
    """The library that a program on this machine would load."""
    name = library_name(machine)
    ours = (lib for lib in machine.libraries if name in ("", lib.name) and lib.version)
    return next((lib for lib in ours if _suits(machine, lib)), None)


def known_versions(machine: Machine) -> dict[Part, Version | None]:
    """Versions of runtime, driver and server, as far as known."""
    library = runtime(machine)
    return {
        "runtime": parse(library.version) if library else None,
        "driver": parse(machine.driver),
        "server": parse(machine.server.version) if machine.server else None,
    }


def version_finding(
    rule: Rule, machine: Machine, model: Version | None = None
) -> Iterator[Finding]:
    """Convert a violated rule of the version matrix to a finding."""
    known = known_versions(machine) | {"model": model}
    seen = ", ".join(f"{part} {known[part]}" for part in rule.when if known.get(part))
    library = runtime(machine)
    yield Finding(
        f"version-{rule.id}",
        rule.level,
        rule.why,
        f"{seen} (source: {', '.join(sources()[key] for key in rule.source)})",
        upgrade(
            rule.mend,
            library=library_name(machine) or "librknnrt.so",
            place=library.path if library else "",
        ),
    )


def _server(machine: Machine) -> Iterator[Finding]:
    if machine.server is None:
        return
    state = "running" if machine.server_running else "not running, which only work over USB needs"
    yield ok("server", f"rknn_server {machine.server.version or '?'}, {state}", machine.server.path)


# ---- memory -------------------------------------------------------------------------


def needs_cma(machine: Machine) -> bool:
    """Whether the NPU allocates from contiguous memory (CMA)."""
    if _facts(machine).iommu is False:
        return True
    return machine.iommu is False


def _memory(machine: Machine) -> Iterator[Finding]:
    if machine.total and machine.free is not None:
        text = f"{_mb(machine.free)} of {_mb(machine.total)} memory free"
        if machine.free < _LITTLE * machine.total:
            yield warn(
                "memory-low",
                f"Only {text}.",
                "/proc/meminfo",
                "End programs that are not needed, or use a smaller model.",
                "ps -eo rss,comm --sort=-rss | head",
            )
        else:
            yield ok("memory", text, "/proc/meminfo")
    if _facts(machine).iommu is not False and machine.iommu is False:
        yield warn(
            "iommu-off",
            "The NPU works without its IOMMU, so it can only use contiguous memory (CMA).",
            f"{machine.npu_device} has no iommu_group (source: {sources()['old2-44']})",
            "Enable the iommu node of the NPU in the device tree, or reserve more with cma=256M on"
            " the kernel's command line.",
            "grep Cma /proc/meminfo; sudo dmesg | grep -i 'rknpu iommu'",
        )
    if needs_cma(machine) and machine.cma_total is not None:
        free = machine.cma_free or 0
        text = f"{_mb(free)} of {_mb(machine.cma_total)} contiguous memory (CMA) free"
        if free < _TIGHT_CMA:
            yield warn(
                "cma-low",
                f"Only {text}; most models need more.",
                "/proc/meminfo",
                "Raise cma= on the kernel's command line (rk_dma_heap_cma= on RV1103 and RV1106),"
                " or stop the camera programs that hold it.",
                "grep Cma /proc/meminfo",
            )
        else:
            yield ok("cma", text, "/proc/meminfo")


def _mb(count: int) -> str:
    return f"{count / 2**20:.0f} MiB"


# ---- clocks and heat ----------------------------------------------------------------

_THERMAL = "/sys/class/thermal"
# Locking the clocks does not help against throttling.
_COOL = ("Cool it: a heat sink, a fan, or a pause.", f"cat {_THERMAL}/thermal_zone*/temp")
_NAMES = {"cpu": "CPU", "npu": "NPU", "ddr": "memory"}


def _clocks(machine: Machine) -> Iterator[Finding]:
    for clock in machine.clocks:
        if clock.kind in _NAMES:
            yield _clock(clock)
    if not machine.of("npu") and machine.npu_rate is not None:
        yield ok("clock-npu", f"NPU at {_mhz(machine.npu_rate)}", "/sys/kernel/debug/clk")


def _clock(clock: ClockDomain) -> Finding:
    what = f"{_NAMES[clock.kind]} ({clock.name})" if clock.kind == "cpu" else _NAMES[clock.kind]
    name = f"clock-{clock.kind}"
    seen = f"{clock.path}: {clock.governor}, {_mhz(clock.current)} of {_mhz(clock.top)}"
    slow: Level = "warn"
    if clock.top and clock.highest and clock.highest < clock.top:
        text = f"The {what} is capped at {_mhz(clock.highest)} of {_mhz(clock.top)}."
        if clock.throttled:
            return Finding(
                f"{name}-throttled", slow, f"{text[:-1]}: the chip is too hot.",
                f"{seen}; a cooling device or a thermometer in {_THERMAL} (source:"
                f" {sources()['monitor-log']})", *_COOL,
            )  # fmt: skip
    elif _slowed(clock):
        text = f"The {what} is held at {_mhz(clock.current)} of {_mhz(clock.top)} by its governor"
        text += f" {clock.governor}."
    else:
        return ok(name, f"{what} at {_mhz(clock.current)} of {_mhz(clock.top)}", seen)
    fix = "Hold the clocks at their highest while you measure or run."
    return Finding(f"{name}-low", slow, text, seen, fix, _LOCK)


def _slowed(clock: ClockDomain) -> bool:
    """Whether the governor keeps the rate low regardless of the load. Rockchip's rknpu_ondemand
    does: it stays where the driver put it (radxa/kernel#432).
    """
    below = clock.current is not None and clock.top is not None and clock.current < clock.top
    return below and (clock.governor in _SLOW or clock.governor == "rknpu_ondemand")


def _mhz(rate: int | None) -> str:
    return "?" if rate is None else f"{rate / 1e6:.0f} MHz"


def _cores(machine: Machine) -> Iterator[Finding]:
    big = _facts(machine).big_cores
    if not big or not machine.online:
        return
    there = [core for core in big if core in (machine.present or big)]
    fast = [core for core in there if core in machine.online]
    off = [core for core in there if core not in fast]
    seen = f"/sys/devices/system/cpu/online: {_listed(machine.online)}"
    # On RK3582 and RK3583 the boot loader disables defective cores, or they do not start.
    if off and not (machine.variant and fast):
        yield warn(
            "cores-offline",
            f"Fast CPU cores are switched off: {_listed(off)}.",
            seen,
            "Switch them on; where the kernel refuses, they are defective (as on RK3582).",
            "; ".join(
                f"echo 1 | sudo tee /sys/devices/system/cpu/cpu{core}/online" for core in off
            ),
        )
    elif machine.live and fast and not set(fast) & os.sched_getaffinity(0):
        yield warn(
            "cores-affinity",
            "This program may use the slow CPU cores only.",
            f"its affinity: {_listed(sorted(os.sched_getaffinity(0)))}",
            "Start it on the fast cores.",
            f"taskset -c {_listed(fast)} rkzoo ...",
        )
    elif len(fast) < len(big):
        name = machine.variant.upper() or "this variant of the chip"
        yield ok(
            "cores",
            f"fast CPU cores: {_listed(fast) or 'none'}; {name} has not all of them",
            f"{seen} (source: {sources()['rk3582-cores']})",
        )
    else:
        yield ok("cores", f"fast CPU cores: {_listed(fast)}", seen)


def _npu_cores(machine: Machine) -> Iterator[Finding]:
    """Reported only where it differs from the chip's nominal number."""
    usable = usable_cores(machine)
    if usable != _facts(machine).cores:
        text = "how many NPU cores there are is not known here, so the driver shares out work"
        if usable is not None:
            text = f"NPU cores that rkzoo gives work to: {_listed(range(usable))}"
        yield ok("npu-cores", text, "the driver's load file, the device tree and known faults")


def _listed(cores: Iterable[int]) -> str:
    return ",".join(map(str, cores))


def _heat(machine: Machine) -> Iterator[Finding]:
    if not machine.zones:
        return
    hottest = max(machine.zones, key=lambda zone: zone.celsius - (zone.passive or HOT))
    limit = hottest.passive or HOT
    text = f"{hottest.name} at {hottest.celsius:.0f} degrees"
    if hottest.celsius >= limit:
        yield warn(
            "hot",
            f"{text}; from {limit:.0f} on the chip slows itself down.",
            _THERMAL,
            *_COOL,
        )
    else:
        yield ok("heat", text, _THERMAL)


_NODES = "/dev/rknpu /dev/dri/card*"


def _busy(machine: Machine) -> Iterator[Finding]:
    if machine.holders:
        listed = ", ".join(sorted({f"{h.name} (process {h.pid})" for h in machine.holders}))
        yield warn(
            "npu-held",
            f"The NPU is open in other programs: {listed}.",
            "/proc/*/fd",
            "They share its time and memory; end them before you measure.",
            "kill " + " ".join(sorted({str(h.pid) for h in machine.holders})),
        )
    shown = [share for share in machine.load if share is not None]
    if len(shown) < len(machine.load):
        yield warn(
            "npu-stuck",
            "The NPU driver reports an impossible load, as after a failed run.",
            f"/sys/kernel/debug/rknpu/load (source: {sources()['driver-load']})",
            "End what uses the NPU; when it stays so, restart the board.",
            f"sudo fuser -v {_NODES}",
        )
    if max(shown, default=0) >= 10:
        shares = ", ".join(
            f"core {n} {'?' if share is None else share} %" for n, share in enumerate(machine.load)
        )
        yield warn(
            "npu-busy",
            f"The NPU is busy already: {shares}.",
            "/sys/kernel/debug/rknpu/load",
            "End what uses it before you measure.",
            f"sudo fuser -v {_NODES}",
        )
    elif shown and len(shown) == len(machine.load):
        yield ok("npu-load", "the NPU is idle", "/sys/kernel/debug/rknpu/load")


CHECKS: tuple[Callable[[Machine], Iterator[Finding]], ...] = (
    _container,
    _kernel,
    _enabled,
    _driver,
    _nodes,
    _library,
    _rga,
    _versions,
    _server,
    _memory,
    _clocks,
    _cores,
    _npu_cores,
    _heat,
    _busy,
)
