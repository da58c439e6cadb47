"""Trees as `rkzoo doctor --capture` makes them, of boards that never existed: their files have
the form and the values that users' captures and Rockchip's device trees show."""

from __future__ import annotations

import shutil
import struct
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec

from rkzoo.soc.tree import NOTES, NodeNote, Notes, NpuUser

CPU = "sys/devices/system/cpu"
ME, RENDER, VIDEO = 1000, 105, 44


@dataclass(frozen=True)
class Profile:
    """What differs between boards. `policies`: number -> (cores, rates in kHz)."""

    chip: str
    compatible: tuple[str, ...]
    model: str
    npu: str
    policies: dict[int, tuple[str, tuple[int, ...]]]
    npu_rates: tuple[int, ...] = ()
    ddr_rates: tuple[int, ...] = ()
    load: str = "NPU load:  0%"
    driver: str = "0.9.8"
    kernel: str = "6.1.75"
    machine: str = "aarch64"
    library: str = "/usr/lib/librknnrt.so"
    version: str = "2.3.2 (429f97ae6b@2025-04-09T09:09:27)"
    memory: tuple[int, int, int, int] = (8_000_000, 6_500_000, 262_144, 250_000)
    iommu: bool = True
    render: bool = True
    files: dict[str, str] = field(default_factory=dict)


_A55 = (408000, 816000, 1200000, 1416000, 1608000, 1800000)
_A76 = (408000, 1200000, 1608000, 2016000, 2256000)
_NPU = (300000000, 600000000, 800000000, 1000000000)
PROFILES = {
    "rk3588": Profile(
        "rk3588",
        ("radxa,rock-5b", "rockchip,rk3588"),
        "Radxa ROCK 5B",
        "fdab0000.npu",
        {0: ("0 1 2 3", _A55), 4: ("4 5", _A76), 6: ("6 7", _A76)},
        _NPU,
        (528000000, 1068000000, 2112000000),
        "NPU load:  Core0:  0%, Core1:  0%, Core2:  0%,",
    ),
    "rk3576": Profile(
        "rk3576",
        ("radxa,rock-4d", "rockchip,rk3576"),
        "Radxa ROCK 4D",
        "27700000.npu",
        {0: ("0 1 2 3", _A55), 4: ("4 5 6 7", (408000, 1608000, 2016000))},
        (300000000, 700000000, 950000000),
        (534000000, 2112000000),
        "NPU load:  Core0:  0%, Core1:  0%,",
    ),
    "rk3568": Profile(
        "rk3568",
        ("hardkernel,odroid-m1", "rockchip,rk3568"),
        "Hardkernel ODROID-M1",
        "fde40000.npu",
        {0: ("0 1 2 3", _A55)},
        (200000000, 600000000, 1000000000),
        (324000000, 1560000000),
        kernel="5.10.160",
    ),
    "rk3562": Profile(
        "rk3562",
        ("rockchip,rk3562-evb1-lp4x-v10", "rockchip,rk3562"),
        "Rockchip RK3562 EVB1 LP4X V10 Board",
        "ff300000.npu",
        {0: ("0 1 2 3", (408000, 1008000, 2016000))},
        (300000000, 1000000000),
        kernel="5.10.198",
    ),
    "rv1106": Profile(
        "rv1106",
        ("rockchip,rv1106g-evb", "rockchip,rv1106"),
        "Luckfox Pico Ultra",
        "ff660000.npu",
        {0: ("0", (408000, 816000, 1104000, 1608000))},
        driver="0.9.2",
        kernel="5.10.160",
        machine="armv7l",
        library="/oem/usr/lib/librknnmrt.so",
        version="2.3.2 (429f97ae6b@2025-04-09T09:11:49)",
        memory=(220_000, 120_000, 67_584, 60_000),
        iommu=False,
        render=False,
        files={"sys/kernel/debug/clk/clk_500m_src/clk_rate": "500000000\n"},
    ),
    "rv1126b": Profile(
        "rv1126b",
        ("rockchip,rv1126b-evb1-v10", "rockchip,rv1126b"),
        "reCamera Pro",
        "22000000.npu",
        {0: ("0 1 2 3", (594000, 1008000, 1608000))},
        (600000000, 800000000, 950000000),
        memory=(1_900_000, 1_200_000, 131_072, 100_000),
    ),
}
# The same chip with parts switched off: the boot loader took the CPU cores 6 and 7 away.
_CUT = replace(PROFILES["rk3588"], policies={0: ("0 1 2 3", _A55), 4: ("4 5", _A76)})
VARIANTS = {
    "rk3582": replace(
        _CUT,
        compatible=("radxa,e52c", "rockchip,rk3582", "rockchip,rk3588s"),
        model="Radxa E52C",
    ),
    "rk3583": replace(
        _CUT,
        compatible=("maker,board", "rockchip,rk3583", "rockchip,rk3588s"),
        load="NPU load:  Core0:  0%, Core1:  0%,",
        files={"proc/device-tree/npu@fdab0000/nvmem-cell-names": "cores\0"},
    ),
}


class Board:
    """A tree below `root`, healthy at first; the methods break it."""

    def __init__(self, root: Path, profile: Profile) -> None:
        self.root, self.profile = root, profile
        self.node = "/dev/dri/card1" if profile.render else "/dev/rknpu"
        group = VIDEO if profile.render else RENDER
        self.notes = Notes(
            machine=profile.machine,
            user=ME,
            groups=(ME, group),
            nodes={self.node: NodeNote(0o660, 0, group)},
        )
        self._build()

    def write(self, path: str, text: str | bytes) -> None:
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text.encode() if isinstance(text, str) else text)

    def read(self, path: str) -> str:
        return (self.root / path.lstrip("/")).read_text().strip()

    def remove(self, path: str) -> None:
        file = self.root / path.lstrip("/")
        shutil.rmtree(file) if file.is_dir() else file.unlink()

    def note(self, **changes: object) -> None:
        self.notes = msgspec.structs.replace(self.notes, **changes)
        self.write(NOTES, msgspec.json.encode(self.notes))

    # ---- faults

    def driver(self, version: str) -> None:
        self.write("sys/kernel/debug/rknpu/version", f"RKNPU driver: v{version}\n")

    def no_driver(self) -> None:
        self.remove("sys/kernel/debug/rknpu")
        self.bound("")
        self.no_node()

    def no_node(self) -> None:
        self.remove(self.node)

    def forbidden(self) -> None:
        self.note(groups=(ME,))

    def owned(self, mode: int, owner: int, group: int) -> None:
        self.note(nodes={self.node: NodeNote(mode, owner, group)})

    def ordinary_user(self) -> None:
        """Who may not look into debugfs, which is there for root."""
        self.remove("sys/kernel/debug")
        self.note(denied=("/sys/kernel/debug/rknpu/version", "/sys/kernel/debug/rknpu/load"))

    def userland(self, bits: int) -> None:
        self.write("bin/sh", elf("", 183 if bits == 64 else 40))

    def bound(self, driver: str, compatible: str = "") -> None:
        """What the kernel says of the NPU's device."""
        p = self.profile
        self.write(
            f"sys/bus/platform/devices/{p.npu}/uevent",
            (f"DRIVER={driver}\n" if driver else "")
            + f"OF_NAME=npu\nOF_FULLNAME=/npu@{p.npu[:8]}\n"
            f"OF_COMPATIBLE_0={compatible or f'rockchip,{p.chip}-rknpu'}\nOF_COMPATIBLE_N=1\n",
        )

    def cap(self, folder: str, rate: int) -> None:
        """What the kernel shows as the highest rate allowed, in the unit of the folder's files."""
        cpu = "cpufreq" in folder
        self.write(f"{folder}/{'scaling_max_freq' if cpu else 'max_freq'}", f"{rate}\n")

    def cooling(self, kind: str, state: int, number: int = 0) -> None:
        folder = f"sys/class/thermal/cooling_device{number}"
        self.write(f"{folder}/type", f"{kind}\n")
        self.write(f"{folder}/cur_state", f"{state}\n")

    def library(self, version: str, *, machine: int = 183, path: str = "") -> None:
        place = path or self.profile.library
        name = place.rpartition("/")[2].partition(".")[0]
        self.write(place, elf(f"{name} version: {version}", machine))

    def governor(self, folder: str, name: str, now: int) -> None:
        """`now` in the unit of the folder's own files."""
        cpu = "cpufreq" in folder
        self.write(f"{folder}/{'scaling_governor' if cpu else 'governor'}", name)
        self.write(f"{folder}/{'scaling_cur_freq' if cpu else 'cur_freq'}", str(now))

    def memory(self, total: int, free: int, cma: int, cma_free: int) -> None:
        self.write(
            "proc/meminfo",
            f"MemTotal:     {total} kB\nMemFree:   {free} kB\nMemAvailable: {free} kB\n"
            f"CmaTotal:  {cma} kB\nCmaFree:   {cma_free} kB\n",
        )

    def held(self) -> None:
        self.note(holders=(NpuUser(4242, "frigate", self.node),))

    def heat(self, celsius: float) -> None:
        self.write("sys/class/thermal/thermal_zone0/temp", f"{celsius * 1000:.0f}\n")

    @property
    def npu_clock(self) -> str:
        return f"sys/class/devfreq/{self.profile.npu}"

    # ---- the healthy board

    def _build(self) -> None:
        p = self.profile
        self.write("proc/device-tree/compatible", "\0".join(p.compatible).encode() + b"\0")
        self.write("proc/device-tree/model", p.model.encode() + b"\0")
        self.write(f"proc/device-tree/npu@{p.npu[:8]}/status", b"okay\0")
        self.write("proc/version", f"Linux version {p.kernel} (builder@host) (gcc 10.3) #1 SMP\n")
        self.write("proc/sys/kernel/random/boot_id", "11111111-2222-3333-4444-555555555555\n")
        self.memory(*p.memory)
        self.driver(p.driver)
        self.write("sys/kernel/debug/rknpu/load", p.load + "\n")
        device = f"sys/bus/platform/devices/{p.npu}"
        self.bound("RKNPU")
        if p.iommu:
            self.write(f"{device}/iommu_group", "")
        self.write(self.node, "")
        if p.render:
            # The screen first; the NPU has a render node as well, which the library never opens.
            for name, driver in {
                "card0": "rockchip-drm",
                "renderD128": "panfrost",
                "card1": "RKNPU",
                "renderD129": "RKNPU",
            }.items():
                self.write(f"dev/dri/{name}", "")
                self.write(f"sys/class/drm/{name}/device/uevent", f"DRIVER={driver}\n")
            self.write("etc/udev/rules.d/README", "")
        self.write("etc/group", f"root:x:0:\nvideo:x:{VIDEO}:me\nrender:x:{RENDER}:me\n")
        self.userland(32 if p.machine == "armv7l" else 64)
        self.library(p.version, machine=40 if p.machine == "armv7l" else 183)
        cores = " ".join(numbers for numbers, _ in p.policies.values()).split()
        for name in ("online", "present"):
            self.write(f"{CPU}/{name}", f"0-{len(cores) - 1}\n" if len(cores) > 1 else "0\n")
        for number, (numbers, rates) in p.policies.items():
            self._policy(number, numbers, rates)
        for core in cores:
            self.write(f"{CPU}/cpu{core}/cpuidle/state1/disable", "0\n")
        self._devfreq(p.npu, p.npu_rates, "rknpu_ondemand")
        self._devfreq("dmc", p.ddr_rates, "dmc_ondemand", low=True)
        self.write("sys/class/thermal/thermal_zone0/type", "soc-thermal\n")
        for number, heat in enumerate((75000, 85000)):
            self.write(f"sys/class/thermal/thermal_zone0/trip_point_{number}_type", "passive\n")
            self.write(f"sys/class/thermal/thermal_zone0/trip_point_{number}_temp", f"{heat}\n")
        self.heat(48.1)
        for kind in ("cpufreq-cpu0", "cpufreq-cpu4", f"devfreq-{p.npu}"):
            self.cooling(kind, 0, number=len(kind))
        for path, text in p.files.items():
            self.write(path, text)
        self.note()

    def _policy(self, number: int, cores: str, rates: tuple[int, ...]) -> None:
        folder = f"{CPU}/cpufreq/policy{number}"
        for name, text in {
            "scaling_governor": "ondemand",
            "scaling_available_governors": "conservative ondemand userspace powersave performance",
            "scaling_available_frequencies": " ".join(map(str, rates)),
            "scaling_cur_freq": str(rates[1]),
            "scaling_min_freq": str(rates[0]),
            "scaling_max_freq": str(rates[-1]),
            "scaling_setspeed": "<unsupported>",
            "related_cpus": cores,
        }.items():
            self.write(f"{folder}/{name}", text + "\n")

    def _devfreq(
        self, name: str, rates: tuple[int, ...], governor: str, *, low: bool = False
    ) -> None:
        if not rates:
            return
        for file, text in {
            "governor": governor,
            "available_governors": f"{governor} userspace powersave performance simple_ondemand",
            "available_frequencies": " ".join(map(str, rates)),
            "cur_freq": str(rates[0] if low else rates[-1]),
            "min_freq": str(rates[0]),
            "max_freq": str(rates[-1]),
        }.items():
            self.write(f"sys/class/devfreq/{name}/{file}", text + "\n")


def elf(text: str, machine: int = 183, *, before: int = 5000) -> bytes:
    """The head of a shared library for `machine`, and a text far behind it."""
    head = b"\x7fELF" + bytes([2 if machine == 183 else 1, 1, 1]) + bytes(9)
    return head + struct.pack("<HH", 3, machine) + bytes(before) + text.encode() + b"\0tail"


def board(root: Path, chip: str = "rk3588") -> Board:
    return Board(root, (PROFILES | VARIANTS)[chip])
