"""Every fault by its name and remedy, from trees; and nothing said of healthy boards."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from board_trees import CPU, ME, PROFILES, RENDER, VARIANTS, VIDEO, Board, board, elf
from rknn_writer import Sample

from rkzoo.soc.capture import opened, write_capture
from rkzoo.soc.machine import read_machine
from rkzoo.soc.tree import NodeNote
from rkzoo.workflow.diagnostics import pc_checks
from rkzoo.workflow.diagnostics.board_checks import board_findings
from rkzoo.workflow.diagnostics.doctor import EXIT, diagnose, model_findings
from rkzoo.workflow.diagnostics.findings import Finding


class Model(Sample):
    """A .rknn for any chip, by any toolkit."""

    def __init__(self, chip: str = "rk3588", toolkit: str = "2.3.2", **more: Any) -> None:
        super().__init__(cpu=False, **more)
        self.chip, self.toolkit = chip, toolkit

    def trailer(self) -> dict[str, Any]:
        return super().trailer() | {"version": self.toolkit, "target_platform": [self.chip]}


def by_id(found: tuple[Finding, ...]) -> dict[str, Finding]:
    return {finding.id: finding for finding in found}


@pytest.mark.parametrize("chip", PROFILES)
def test_a_healthy_board_has_no_fault(tmp_path: Path, chip: str) -> None:
    board(tmp_path / "root", chip)
    model = tmp_path / "model.rknn"
    container = 0x1004 if chip == "rv1106" else 6
    model.write_bytes(Model(chip, container=container).write())
    found = diagnose(tmp_path / "root", model=model)
    assert [f for f in found.findings if f.level != "ok"] == []
    assert found.place == "board"
    assert found.machine.chip == chip
    assert found.exit_code == 0
    seen = by_id(found.findings)
    assert {"chip", "driver", "node", "library", "memory", "clock-cpu", "heat", "model"} <= set(
        seen
    )
    assert PROFILES[chip].driver in seen["driver"].text
    assert "2.3.2" in seen["library"].text


def test_the_library_of_the_2d_engine_is_told_and_never_missed(tmp_path: Path) -> None:
    made = board(tmp_path / "root", "rk3588")
    assert "rga" not in by_id(diagnose(tmp_path / "root").findings)
    made.write("/usr/lib/aarch64-linux-gnu/librga.so.2", elf("rga_api version 1.10.3_[1]", 62))
    assert "rga" not in by_id(diagnose(tmp_path / "root").findings)  # for another processor
    made.write("/usr/lib/aarch64-linux-gnu/librga.so.2", elf("rga_api version 1.10.3_[1]", 183))
    found = by_id(diagnose(tmp_path / "root").findings)["rga"]
    assert (found.level, found.text[:14]) == ("ok", "librga 1.10.3:")
    write_capture(tmp_path / "board.tar", tmp_path / "root")
    with opened(tmp_path / "board.tar") as captured:
        assert by_id(diagnose(captured).findings)["rga"] == found


Break = Callable[[Board], object]


def disable(b: Board) -> None:
    b.no_driver()
    b.write(f"proc/device-tree/npu@{b.profile.npu[:8]}/status", b"disabled\0")


def rocket(b: Board) -> None:
    b.no_driver()
    b.write("dev/accel/accel0", "")


def hidden(b: Board) -> None:
    b.remove("sys/kernel/debug/rknpu")
    b.note(denied=("/sys/kernel/debug/rknpu/version",))


def rocket_of_a_user(b: Board) -> None:
    """A mainline kernel (6.18 and later) on a board whose NPU is enabled."""
    mainline(b)
    b.note(denied=("/sys/kernel/debug/rknpu/version", "/sys/kernel/debug/rknpu/load"))


def mainline(b: Board, status: str = "okay") -> None:
    b.remove("sys/kernel/debug")
    for node in ("dev/dri/card1", "dev/dri/renderD129", "sys/class/drm/card1"):
        b.remove(node)
    # One entry for each core; a board must enable them.
    for core in ("fdab0000", "fdac0000", "fdad0000"):
        entry = f"proc/device-tree/npu@{core}"
        b.write(f"{entry}/compatible", b"rockchip,rk3588-rknn-core\0")
        b.write(f"{entry}/status", status.encode() + b"\0")
    if status == "okay":
        b.bound("rocket", "rockchip,rk3588-rknn-core")
        b.write("dev/accel/accel0", "")
        b.write("sys/class/accel/accel0/device/uevent", "MODALIAS=platform:rknn\n")
    else:
        b.remove(f"sys/bus/platform/devices/{b.profile.npu}")


def no_driver_of_a_user(b: Board) -> None:
    b.no_driver()
    b.ordinary_user()


def masked(b: Board) -> None:
    """A container with the devices passed in: Docker hides the device tree."""
    b.remove("proc/device-tree")
    b.write(".dockerenv", "")


def without_devices(b: Board) -> None:
    masked(b)
    b.no_node()


def no_group(b: Board) -> None:
    b.owned(0o600, 0, 0)


def no_group_named_so(b: Board) -> None:
    b.owned(0o600, 0, 0)
    b.write("etc/group", "root:x:0:\nme:x:1000:\n")


def no_udev(b: Board) -> None:
    b.owned(0o600, 0, 0)
    b.note(user=ME, groups=(ME,))


def throttled(folder: str, rate: int, kind: str) -> Break:
    def break_it(b: Board) -> None:
        b.cap(folder.format(npu=b.profile.npu), rate)
        b.cooling(kind, 3)

    return break_it


def chip_of(*names: str) -> Break:
    return lambda b: b.write(
        "proc/device-tree/compatible", b"\0".join(n.encode() for n in names) + b"\0"
    )


POLICY = f"{CPU}/cpufreq/policy4"
# chip, fault, finding, level, a word of the remedy or of the command
FAULTS: dict[str, tuple[str, Break, str, str, str]] = {
    "unknown chip": ("rk3588", chip_of("x,y", "rockchip,rk3399"), "chip", "fail", "rkzoo soc"),
    "first generation": (
        "rk3588",
        chip_of("rockchip,rk1808"),
        "chip-first-generation",
        "fail",
        "1.7.5",
    ),
    "third generation": (
        "rk3588",
        chip_of("rockchip,rk1820"),
        "chip-third-generation",
        "fail",
        "RK3588",
    ),
    "npu switched off": ("rk3568", disable, "npu-disabled", "fail", "okay"),
    "no driver": ("rk3588", Board.no_driver, "driver-missing", "fail", "modprobe rknpu"),
    "mainline driver": ("rk3588", rocket, "driver-rocket", "fail", "kernel of the board's maker"),
    "mainline driver, user": ("rk3588", rocket_of_a_user, "driver-rocket", "fail", "maker"),
    "mainline, root": ("rk3588", mainline, "driver-rocket", "fail", "maker"),
    "mainline, npu off": (
        "rk3588",
        lambda b: mainline(b, "disabled"),
        "driver-rocket",
        "fail",
        "maker",
    ),
    "no driver, user": ("rk3588", no_driver_of_a_user, "driver-missing", "fail", "modprobe"),
    "in a container": ("rk3588", masked, "device-tree-hidden", "warn", "systempaths=unconfined"),
    "container without devices": ("rk3588", without_devices, "node-missing", "fail", "--device"),
    "nobody may open it": ("rk3588", no_group, "node-permission", "fail", 'GROUP="render"'),
    "no group fits": ("rk3588", no_group_named_so, "node-permission", "fail", 'MODE="0666"'),
    "no udev": ("rv1106", no_udev, "node-permission", "fail", "chmod 666 /dev/rknpu"),
    "CPU throttled": (
        "rk3588",
        throttled(f"{CPU}/cpufreq/policy4", 1608000, "cpufreq-cpu4"),
        "clock-cpu-throttled",
        "warn",
        "heat sink",
    ),
    "CPU throttled, Linux 5.10": (
        "rk3568",
        throttled(f"{CPU}/cpufreq/policy0", 1416000, "thermal-cpufreq-0"),
        "clock-cpu-throttled",
        "warn",
        "heat sink",
    ),
    "NPU throttled": (
        "rk3588",
        throttled("sys/class/devfreq/{npu}", 600000000, "devfreq-fdab0000.npu"),
        "clock-npu-throttled",
        "warn",
        "heat sink",
    ),
    "load that cannot be": (
        "rk3588",
        lambda b: b.write(
            "sys/kernel/debug/rknpu/load", "NPU load:  Core0: 99%, Core1: 99%, Core2: 429496%,\n"
        ),
        "npu-stuck",
        "warn",
        "restart",
    ),
    "32-bit programs, 64-bit library": (
        "rk3588",
        lambda b: b.userland(32),
        "library-machine",
        "fail",
        "armhf/librknnrt.so",
    ),
    "driver unreadable": ("rk3588", hidden, "driver-hidden", "warn", "sudo"),
    "driver too old": (
        "rk3588",
        lambda b: b.driver("0.8.2"),
        "version-driver-old",
        "warn",
        "firmware",
    ),
    "driver far too old": (
        "rk3568",
        lambda b: b.driver("0.4.2"),
        "version-driver-no-load",
        "warn",
        "firmware",
    ),
    "driver with one core": (
        "rk3588",
        lambda b: b.driver("0.9.3"),
        "version-driver-broken",
        "warn",
        "firmware",
    ),
    "no device file": ("rk3576", Board.no_node, "node-missing", "fail", "CONFIG_ROCKCHIP_RKNPU"),
    "no permission": ("rk3588", Board.forbidden, "node-permission", "fail", "usermod -aG video"),
    "no permission, rknpu": (
        "rv1106",
        Board.forbidden,
        "node-permission",
        "fail",
        "usermod -aG render",
    ),
    "library missing": (
        "rk3588",
        lambda b: b.remove(b.profile.library),
        "library-missing",
        "fail",
        "aarch64/librknnrt.so",
    ),
    "library of other chips": (
        "rv1106",
        lambda b: (
            b.remove(b.profile.library),
            b.library("2.3.2", path="/usr/lib/librknnrt.so", machine=40),
        ),
        "library-missing",
        "fail",
        "armhf-uclibc/librknnmrt.so",
    ),
    "library 32 bit": (
        "rk3588",
        lambda b: b.library("2.3.2", machine=40),
        "library-machine",
        "fail",
        "aarch64/librknnrt.so",
    ),
    "library of a PC": (
        "rk3566",
        lambda b: b.library("2.3.2", machine=62),
        "library-machine",
        "fail",
        "aarch64",
    ),
    "library is a web page": (
        "rk3588",
        lambda b: b.write(b.profile.library, "\n<!DOCTYPE html><html>"),
        "library-broken",
        "fail",
        "raw file",
    ),
    "library is empty": (
        "rk3588",
        lambda b: b.write(b.profile.library, ""),
        "library-broken",
        "fail",
        "Copy",
    ),
    "library is an LFS pointer": (
        "rk3588",
        lambda b: b.write(b.profile.library, "version https://git-lfs.github.com/spec/v1\noid x"),
        "library-broken",
        "fail",
        "Copy",
    ),
    "library without version": (
        "rk3588",
        lambda b: b.write(b.profile.library, elf("nothing")),
        "library-unknown",
        "warn",
        "strings",
    ),
    "two libraries": (
        "rk3588",
        lambda b: b.library("1.5.2", path="/usr/lib64/librknnrt.so"),
        "library-twice",
        "warn",
        "ldconfig",
    ),
    "library too old for the chip": (
        "rk3576",
        lambda b: b.library("1.6.0"),
        "version-runtime-rk3576",
        "fail",
        "librknn_api",
    ),
    "library too old for rv1126b": (
        "rv1126b",
        lambda b: b.library("2.3.0"),
        "version-runtime-rv1126b",
        "fail",
        "librknn_api",
    ),
    "server too old": (
        "rk3588",
        lambda b: b.write("usr/bin/rknn_server", elf("rknn_server version: 1.6.0 (x build@y)")),
        "version-server-older",
        "warn",
        "restart_rknn.sh",
    ),
    "server too old for little memory": (
        "rv1106",
        lambda b: b.write("oem/usr/bin/rknn_server", elf("rknn_server version: 2.0.0 (x)", 40)),
        "version-server-small",
        "warn",
        "rknn_server",
    ),
    "little memory": (
        "rk3568",
        lambda b: b.memory(2_000_000, 90_000, 65_536, 60_000),
        "memory-low",
        "warn",
        "smaller model",
    ),
    "no iommu": (
        "rk3568",
        lambda b: b.remove(f"sys/bus/platform/devices/{b.profile.npu}/iommu_group"),
        "iommu-off",
        "warn",
        "device tree",
    ),
    "little CMA": (
        "rv1106",
        lambda b: b.memory(220_000, 120_000, 24_576, 5_000),
        "cma-low",
        "warn",
        "rk_dma_heap_cma=",
    ),
    "CPU powersave": (
        "rk3588",
        lambda b: b.governor(POLICY, "powersave", 408000),
        "clock-cpu-low",
        "warn",
        "clocks lock",
    ),
    "NPU stuck low": (
        "rk3576",
        lambda b: b.governor(b.npu_clock, "rknpu_ondemand", 300000000),
        "clock-npu-low",
        "warn",
        "clocks lock",
    ),
    "NPU powersave": (
        "rk3562",
        lambda b: b.governor(b.npu_clock, "powersave", 300000000),
        "clock-npu-low",
        "warn",
        "clocks lock",
    ),
    "NPU capped": (
        "rk3588",
        lambda b: b.write(f"{b.npu_clock}/max_freq", "600000000"),
        "clock-npu-low",
        "warn",
        "clocks lock",
    ),
    "memory clock low": (
        "rk3588",
        lambda b: b.governor("sys/class/devfreq/dmc", "powersave", 528000000),
        "clock-ddr-low",
        "warn",
        "clocks lock",
    ),
    "fast cores off": (
        "rk3588",
        lambda b: b.write(f"{CPU}/online", "0-5\n"),
        "cores-offline",
        "warn",
        "cpu7/online",
    ),
    "hot": ("rk3588", lambda b: b.heat(91.0), "hot", "warn", "heat sink"),
    "NPU held": ("rk3588", Board.held, "npu-held", "warn", "4242"),
    "NPU busy": (
        "rk3588",
        lambda b: b.write("sys/kernel/debug/rknpu/load", "NPU load:  Core0: 83%, Core1:  0%,\n"),
        "npu-busy",
        "warn",
        "fuser",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_with_its_remedy(tmp_path: Path, fault: str) -> None:
    chip, breaks, name, level, remedy = FAULTS[fault]
    broken = board(tmp_path, "rk3568" if chip == "rk3566" else chip)
    breaks(broken)
    found = diagnose(tmp_path)
    finding = by_id(found.findings)[name]
    assert finding.level == level
    assert finding.text
    assert finding.evidence
    assert remedy in finding.fix + finding.command
    assert found.exit_code == EXIT[found.level] != 0


def test_one_finding_tells_of_a_mainline_kernel(tmp_path: Path) -> None:
    for number, breaks in enumerate((mainline, rocket_of_a_user, rocket)):
        broken = board(tmp_path / str(number))
        breaks(broken)
        found = diagnose(tmp_path / str(number)).findings
        assert [f.id for f in found if f.level != "ok"] == ["driver-rocket"]


def test_another_accelerator_is_not_rocket(tmp_path: Path) -> None:
    b = board(tmp_path)
    b.write("dev/accel/accel0", "")
    assert diagnose(tmp_path).exit_code == 0
    b.no_driver()
    b.write("sys/class/accel/accel0/device/uevent", "DRIVER=amdxdna\n")
    assert "driver-missing" in by_id(diagnose(tmp_path).findings)


def test_one_finding_tells_of_a_missing_driver(tmp_path: Path) -> None:
    no_driver_of_a_user(board(tmp_path))
    found = diagnose(tmp_path).findings
    assert [f.id for f in found if f.level != "ok"] == ["driver-missing"]


def test_every_user_reads_the_version_of_a_built_in_driver(tmp_path: Path) -> None:
    b = board(tmp_path)
    b.ordinary_user()
    b.write("sys/module/rknpu/version", "0.9.3\n")
    assert "version-driver-broken" in by_id(diagnose(tmp_path).findings)


@pytest.mark.parametrize("chip", VARIANTS)
def test_a_chip_with_parts_switched_off_has_no_fault(tmp_path: Path, chip: str) -> None:
    board(tmp_path, chip)
    found = diagnose(tmp_path)
    assert [f for f in found.findings if f.level != "ok"] == []
    assert (found.machine.chip, found.machine.variant) == ("rk3588", chip)
    assert chip.upper() in by_id(found.findings)["cores"].text


def test_bad_cpu_cores_that_a_kernel_still_knows(tmp_path: Path) -> None:
    """A boot loader that does not take them away: they do not start."""
    b = board(tmp_path, "rk3582")
    b.write(f"{CPU}/present", "0-7\n")
    b.write(f"{CPU}/online", "0-3,6-7\n")
    assert diagnose(tmp_path).exit_code == 0
    # The same under the name of the whole chip, as many of these boards are called.
    b.write("proc/device-tree/compatible", b"radxa,rock-5c\0rockchip,rk3588s\0")
    finding = by_id(diagnose(tmp_path).findings)["cores-offline"]
    assert "RK3582" in finding.fix
    b.write(f"{CPU}/present", "0-5\n")
    b.write(f"{CPU}/online", "0-5\n")
    assert diagnose(tmp_path).exit_code == 0


def test_programs_of_32_bit_on_a_kernel_of_64(tmp_path: Path) -> None:
    """A working install: kernel aarch64, programs and library armhf."""
    b = board(tmp_path / "root")
    b.userland(32)
    b.library(b.profile.version, machine=40)
    found = diagnose(tmp_path / "root")
    assert [f for f in found.findings if f.level != "ok"] == []
    assert (found.machine.machine, found.machine.bits) == ("aarch64", 32)
    write_capture(tmp_path / "board.tar", tmp_path / "root")
    with opened(tmp_path / "board.tar") as captured:
        assert diagnose(captured).findings == found.findings
    # Missing, it is this one that is wanted; and where nothing tells, nothing is claimed.
    b.remove(b.profile.library)
    assert (
        "armhf/librknnrt.so" in by_id(diagnose(tmp_path / "root").findings)["library-missing"].fix
    )
    b.library(b.profile.version, machine=40)
    b.remove("bin/sh")
    assert "library-machine" not in by_id(diagnose(tmp_path / "root").findings)


def test_a_library_beside_one_for_other_programs(tmp_path: Path) -> None:
    """What a program gets is the one that it can load, and this one's version counts."""
    b = board(tmp_path)
    b.library("1.4.0", machine=40)
    b.library("2.3.2", path="/usr/lib/aarch64-linux-gnu/librknnrt.so")
    path = tmp_path / "model.rknn"
    path.write_bytes(Model().write())
    found = diagnose(tmp_path, model=path)
    assert found.exit_code == 0
    assert by_id(found.findings)["library"].evidence.startswith("/usr/lib/aarch64-linux-gnu")


@pytest.mark.parametrize(
    ("configuration", "more"),
    [
        ("include /etc/ld.so.conf.d/*.conf\n", "# of the maker\n/opt/npu/lib  # here\n"),
        ("include ld.so.conf.d/*.conf\n", "/opt/npu/lib/\n"),
        ("/opt/npu/lib\n", ""),
    ],
)
def test_a_library_that_only_the_loader_knows(
    tmp_path: Path, configuration: str, more: str
) -> None:
    b = board(tmp_path / "root")
    b.remove(b.profile.library)
    b.library(b.profile.version, path="/opt/npu/lib/librknnrt.so")
    assert "library-missing" in by_id(diagnose(tmp_path / "root").findings)
    b.write("etc/ld.so.conf", configuration)
    b.write("etc/ld.so.conf.d/npu.conf", more)
    found = diagnose(tmp_path / "root")
    assert found.exit_code == 0
    assert by_id(found.findings)["library"].evidence == "/opt/npu/lib/librknnrt.so"
    write_capture(tmp_path / "board.tar", tmp_path / "root")
    with opened(tmp_path / "board.tar") as captured:
        assert diagnose(captured).findings == found.findings


def test_configurations_of_the_loader_in_a_circle_end(tmp_path: Path) -> None:
    b = board(tmp_path)
    b.write("etc/ld.so.conf", "include ld.so.conf ld.so.conf.d/*\n/opt/../../etc\n")
    b.write("etc/ld.so.conf.d/a.conf", "include /etc/ld.so.conf.d/*.conf\n")
    assert diagnose(tmp_path).exit_code == 0


def test_only_what_the_library_opens_is_judged(tmp_path: Path) -> None:
    b = board(tmp_path)
    # The render node's group does not help, and the screen's card is no business of the NPU's.
    b.note(groups=(ME, RENDER))
    finding = by_id(diagnose(tmp_path).findings)["node-permission"]
    assert "/dev/dri/card1" in finding.text
    assert finding.command == 'sudo usermod -aG video "$USER"'
    # /dev/rknpu comes first; where it is closed, the card is taken.
    b.write("dev/rknpu", "")
    nodes = dict(b.notes.nodes)
    b.note(groups=(ME, VIDEO), nodes=nodes | {"/dev/rknpu": NodeNote(0o600, 0, 0)})
    assert diagnose(tmp_path).exit_code == 0
    b.note(groups=(ME,))
    assert "/dev/rknpu" in by_id(diagnose(tmp_path).findings)["node-permission"].text


def test_a_container_may_run_what_is_passed_in(tmp_path: Path) -> None:
    b = board(tmp_path / "root")
    masked(b)
    found = diagnose(tmp_path / "root")
    assert (found.place, found.machine.chip, found.level) == ("board", "rk3588", "warn")
    assert [f.id for f in found.findings if f.level != "ok"] == ["device-tree-hidden"]
    write_capture(tmp_path / "board.tar", tmp_path / "root")
    with opened(tmp_path / "board.tar") as captured:
        assert diagnose(captured).findings == found.findings


def test_heat_is_not_met_with_a_higher_clock(tmp_path: Path) -> None:
    b = board(tmp_path / "root")
    b.cap(b.npu_clock, 600000000)
    b.cap(POLICY, 1608000)
    assert "clocks lock" in by_id(diagnose(tmp_path / "root").findings)["clock-npu-low"].command
    b.cooling(f"devfreq-{b.profile.npu}", 2)
    found = diagnose(tmp_path / "root").findings
    assert "clocks lock" not in by_id(found)["clock-npu-throttled"].command
    assert "clocks lock" in by_id(found)["clock-cpu-low"].command
    write_capture(tmp_path / "board.tar", tmp_path / "root")
    with opened(tmp_path / "board.tar") as captured:
        assert diagnose(captured).findings == found
    # Rockchip's system monitor has no cooling device; the thermometer tells.
    b.cooling(f"devfreq-{b.profile.npu}", 0)
    b.heat(83.0)
    assert "clock-npu-throttled" in by_id(diagnose(tmp_path / "root").findings)


def test_nonsense_is_no_load(tmp_path: Path) -> None:
    b = board(tmp_path)
    b.write("sys/kernel/debug/rknpu/load", "NPU load:  Core0:  0%, Core1: 429496%, Core2:  2%,\n")
    found = diagnose(tmp_path)
    assert found.machine.load == (0, None, 2)
    assert "496" not in " ".join(f.text for f in found.findings)
    assert "npu-busy" not in by_id(found.findings)


# model, board's chip, fault of the board, finding, level, remedy
MODELS: dict[str, tuple[Model, str, Break | None, str, str, str]] = {
    "for another chip": (Model("rk3566"), "rk3588", None, "model-chip", "fail", "--soc rk3588"),
    "newer than the library": (
        Model(toolkit="2.5.0"),
        "rk3588",
        None,
        "version-model-newer",
        "warn",
        "Copy a newer librknnrt.so",
    ),
    "older than the library": (
        Model(toolkit="2.2.0"),
        "rk3588",
        None,
        "version-model-older",
        "warn",
        "--toolkit 2.3.2",
    ),
    "a little older": (
        Model(toolkit="2.3.0"),
        "rk3588",
        None,
        "version-model-older",
        "warn",
        "Convert the model again",
    ),
    "library refuses the format": (
        Model(),
        "rk3588",
        lambda b: b.library("1.4.0 (a10f100eb@2022-09-09T09:07:14)"),
        "version-model-format",
        "fail",
        "Copy a newer librknnrt.so",
    ),
    "too big for CMA": (
        Model("rv1106", container=0x1004),
        "rv1106",
        lambda b: b.memory(64_000, 20_000, 8_192, 1),
        "model-cma",
        "fail",
        "rk_dma_heap_cma=",
    ),
    "too big for memory": (
        Model(),
        "rk3588",
        lambda b: b.memory(8_000_000, 1, 0, 0),
        "model-memory-low",
        "fail",
        "smaller model",
    ),
    "one scale for boxes and scores": (
        Model(output_shape=(1, 84, 8400), output_scale=2.494),
        "rk3588",
        None,
        "model-built",
        "fail",
        "rkzoo inspect",
    ),
}


@pytest.mark.parametrize("fault", MODELS)
def test_a_model_that_cannot_run_is_named(tmp_path: Path, fault: str) -> None:
    model, chip, breaks, name, level, remedy = MODELS[fault]
    broken = board(tmp_path / "root", chip)
    if breaks is not None:
        breaks(broken)
    path = tmp_path / "model.rknn"
    path.write_bytes(model.write())
    found = diagnose(tmp_path / "root", model=path).findings
    matching = [f for f in found if f.id == name and f.level == level]
    assert matching
    assert remedy in matching[0].fix + matching[0].command


def test_a_newer_model_may_be_built_again_for_the_library(tmp_path: Path) -> None:
    board(tmp_path / "root")
    path = tmp_path / "model.rknn"
    path.write_bytes(Model(toolkit="2.5.0").write())
    finding = by_id(diagnose(tmp_path / "root", model=path).findings)["version-model-newer"]
    assert finding.command == "rkzoo convert MODEL --soc rk3588 --toolkit 2.3.2"
    board(tmp_path / "old").library("1.6.0")
    finding = by_id(diagnose(tmp_path / "old", model=path).findings)["version-model-newer"]
    assert finding.command == ""


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"RKNN" + bytes(100), "cannot read"),
        (b"RKCE" + bytes(100), "encrypted"),
        (Sample().write()[:900], "cut short"),
    ],
)
def test_a_broken_model_is_a_finding(tmp_path: Path, data: bytes, words: str) -> None:
    board(tmp_path / "root")
    path = tmp_path / "model.rknn"
    path.write_bytes(data)
    finding = by_id(diagnose(tmp_path / "root", model=path).findings)["model-unreadable"]
    assert words in finding.text + finding.evidence
    assert finding.fix


def test_a_missing_model_is_a_finding(tmp_path: Path) -> None:
    board(tmp_path)
    found = diagnose(tmp_path, model=tmp_path / "none.rknn").findings
    assert by_id(found)["model-unreadable"].level == "fail"


def test_siblings_run_each_others_models(tmp_path: Path) -> None:
    board(tmp_path / "root", "rk3568")
    path = tmp_path / "model.rknn"
    path.write_bytes(Model("rk3566").write())
    assert "model-chip" not in by_id(diagnose(tmp_path / "root", model=path).findings)


@pytest.mark.parametrize(
    ("soc", "level"), [("rk3588", "ok"), ("rk3576", "fail"), ("rk1808", "fail")]
)
def test_on_a_pc_the_chip_is_given(tmp_path: Path, soc: str, level: str) -> None:
    path = tmp_path / "model.rknn"
    path.write_bytes(Model("rk3588").write())
    first = model_findings(path, read_machine(tmp_path), soc)[0]
    assert first.level == level


def test_slow_cores_only_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    board(tmp_path)
    machine = replace(read_machine(tmp_path), live=True)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1}, raising=False)
    finding = by_id(tuple(board_findings(machine)))["cores-affinity"]
    assert finding.level == "warn"
    assert "taskset -c 4,5,6,7" in finding.command
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 4}, raising=False)
    assert "cores-affinity" not in by_id(tuple(board_findings(machine)))


def test_an_install_for_a_board_where_no_npu_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pc_checks, "find_spec", lambda name: None)
    (found,) = (f for f in pc_checks.pc_findings() if f.level != "ok")
    assert found.id == "no-npu"
    assert "--security-opt systempaths=unconfined" in found.fix
    assert found.command == "pip install 'rkzoo[pc]'"


def test_an_empty_tree_is_said_to_be_none(tmp_path: Path) -> None:
    found = diagnose(tmp_path)
    assert [finding.id for finding in found.findings] == ["tree-empty"]
    assert found.exit_code == EXIT["fail"]


def test_versions_are_judged_by_the_library_that_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also on this machine, which is no board."""
    here = {"x86_64": 62, "aarch64": 183}.get(os.uname().machine)
    if here is None:
        pytest.skip("the tests write no library for this processor")
    library = tmp_path / "another-name.so"
    library.write_bytes(elf("librknnrt version: 2.0.0b0 (x)", here))
    model = tmp_path / "model.rknn"
    model.write_bytes(Model("rk3588", toolkit="2.3.2").write())
    monkeypatch.delenv("RKZOO_LIBRKNNRT", raising=False)
    machine = read_machine()
    assert not {"model-version", "version-model-newer"} & {
        one.id for one in model_findings(model, machine)
    }
    monkeypatch.setenv("RKZOO_LIBRKNNRT", str(library))
    newer = by_id(tuple(model_findings(model, machine)))["version-model-newer"]
    assert newer.level == "warn"
    assert "model 2.3.2, runtime 2.0.0" in newer.evidence
    assert str(library) in newer.fix
    library.write_bytes(elf("librknnrt version: 2.3.2 (x)", here))
    assert by_id(tuple(model_findings(model, machine)))["model-version"].level == "ok"
    monkeypatch.setenv("RKZOO_LIBRKNNRT", "/nope.so")
    named = by_id(tuple(model_findings(model, machine)))["library-named"]
    assert (named.level, named.text) == (
        "fail",
        "RKZOO_LIBRKNNRT names /nope.so, which is no file.",
    )
