"""Reading trees: what boards show, and what strangers' trees must not do."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest
from board_trees import CPU, PROFILES, board, elf
from hypothesis import given, settings
from hypothesis import strategies as st

from rkzoo.soc import machine as machine_room
from rkzoo.soc.library import examine
from rkzoo.soc.machine import cores, read_machine
from rkzoo.soc.tree import NOTES, Tree
from rkzoo.soc.userland import bits_of, fits
from rkzoo.workflow.diagnostics.doctor import diagnose


@pytest.mark.parametrize("chip", PROFILES)
def test_a_board_is_read_in_full(tmp_path: Path, chip: str) -> None:
    profile = PROFILES[chip]
    board(tmp_path, chip)
    found = read_machine(tmp_path)
    assert (found.chip, found.model, found.machine) == (chip, profile.model, profile.machine)
    assert found.kernel == profile.kernel
    assert found.board
    assert not found.live
    assert (found.driver, found.bound_driver, found.npu_status) == (profile.driver, "RKNPU", "okay")
    assert found.iommu is profile.iommu
    assert [(n.path, n.allowed) for n in found.nodes] == [
        ("/dev/dri/card1" if profile.render else "/dev/rknpu", True)
    ]
    assert [lib.version for lib in found.libraries] == [profile.version]
    total, free, cma, cma_free = profile.memory
    assert (found.total, found.free) == (total * 1024, free * 1024)
    assert (found.cma_total, found.cma_free) == (cma * 1024, cma_free * 1024)
    assert len(found.of("cpu")) == len(profile.policies)
    assert found.load == (0,) * profile.load.count("%")
    assert [zone.celsius for zone in found.zones] == [48.1]
    assert found.zones[0].passive == 85.0
    assert found.denied == ()


def test_clocks_are_in_hertz(tmp_path: Path) -> None:
    board(tmp_path)
    found = read_machine(tmp_path)
    big = found.of("cpu")[1]
    assert (big.cores, big.current, big.top) == ((4, 5), 1_200_000_000, 2_256_000_000)
    assert found.of("npu")[0].current == 1_000_000_000
    assert found.of("ddr")[0].lowest == 528_000_000


def test_the_npu_clock_of_rv1106_comes_from_the_clock_tree(tmp_path: Path) -> None:
    board(tmp_path, "rv1106")
    found = read_machine(tmp_path)
    assert found.of("npu") == ()
    assert found.npu_rate == 500_000_000


def test_the_aliases_of_a_chip(tmp_path: Path) -> None:
    b = board(tmp_path)
    b.write("proc/device-tree/compatible", b"xunlong,orangepi-5\0rockchip,rk3588s\0")
    assert read_machine(tmp_path).chip == "rk3588"


def test_a_variant_is_known_by_its_npu(tmp_path: Path) -> None:
    b = board(tmp_path)
    b.write("proc/device-tree/compatible", b"maker,board\0rockchip,rk3588xyz\0")
    assert read_machine(tmp_path).chip is None
    b.write("proc/device-tree/npu@fdab0000/compatible", b"rockchip,rk3588-rknpu\0")
    assert read_machine(tmp_path).chip == "rk3588"
    b.write("proc/device-tree/npu@fdab0000/compatible", b"rockchip,rk3562-rknpu\0rockchip,rknpu\0")
    assert read_machine(tmp_path).chip == "rk3562"


def test_who_holds_the_npu_is_read_from_proc(tmp_path: Path) -> None:
    b = board(tmp_path)
    b.write("proc/77/comm", "yolo\n")
    fd = tmp_path / "proc/77/fd"
    fd.mkdir()
    (fd / "0").symlink_to("/dev/null")
    (fd / "5").symlink_to("/dev/dri/card1")
    b.write("proc/78/comm", "other\n")
    found = read_machine(tmp_path)
    assert [(h.pid, h.name, h.path) for h in found.holders] == [(77, "yolo", "/dev/dri/card1")]


def test_rknn_server_is_seen_running(tmp_path: Path) -> None:
    b = board(tmp_path)
    assert not read_machine(tmp_path).server_running
    b.write("usr/bin/rknn_server", elf("rknn_server version: 2.3.2 (1842325 build@2025-03-30)"))
    b.write("proc/99/comm", "rknn_server\n")
    found = read_machine(tmp_path)
    assert found.server_running
    assert found.server is not None
    assert found.server.version.startswith("2.3.2 (")


def test_an_empty_tree_reads_as_nothing(tmp_path: Path) -> None:
    found = read_machine(tmp_path)
    assert not found.board
    assert (found.chip, found.driver, found.nodes, found.clocks) == (None, "", (), ())
    assert found.total is None


def test_the_living_machine_is_read() -> None:
    found = read_machine()
    assert found.live
    assert found.total is not None
    assert found.total > 2**26


# ---- strangers' trees ---------------------------------------------------------------


def test_a_link_does_not_lead_out_of_the_tree(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("RKNPU driver: v6.6.6")
    root = tmp_path / "root"
    b = board(root)
    b.remove("sys/kernel/debug/rknpu/version")
    (root / "sys/kernel/debug/rknpu/version").symlink_to(tmp_path / "secret")
    assert read_machine(root).driver == ""
    b.remove("sys/class/thermal")
    (root / "sys/class/thermal").symlink_to("/sys/class/thermal")
    assert read_machine(root).zones == ()


def test_links_in_a_circle_are_nothing(tmp_path: Path) -> None:
    b = board(tmp_path)
    b.remove("proc/version")
    (tmp_path / "proc/version").symlink_to("version")
    assert read_machine(tmp_path).kernel == ""


def test_a_pipe_does_not_block(tmp_path: Path) -> None:
    b = board(tmp_path)
    b.remove("proc/version")
    os.mkfifo(tmp_path / "proc/version")
    assert read_machine(tmp_path).kernel == ""


def test_a_huge_file_is_read_in_part(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(b"x" * 1_000_000)
    assert len(Tree(tmp_path).text("/big") or "") == 64 << 10


@pytest.mark.parametrize("notes", [b"", b"{", b"[]", b'{"user": "x"}', b"\xff\xfe"])
def test_broken_notes_are_no_notes(tmp_path: Path, notes: bytes) -> None:
    b = board(tmp_path)
    b.write(NOTES, notes)
    found = read_machine(tmp_path)
    assert found.chip == "rk3588"
    assert [node.allowed for node in found.nodes] == [None]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("board")
    board(root)
    return root


@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=200) | st.text(max_size=60).map(str.encode), number=st.integers(0))
def test_any_content_of_any_file_is_survived(tree: Path, data: bytes, number: int) -> None:
    files = sorted(path for path in tree.rglob("*") if path.is_file())
    chosen = files[number % len(files)]
    before = chosen.read_bytes()
    try:
        chosen.write_bytes(data)
        assert diagnose(tree).findings
    finally:
        chosen.write_bytes(before)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("0-3,6", (0, 1, 2, 3, 6)), ("0 1 2", (0, 1, 2)), ("", ()), ("x", ()), ("3-1", ())],
)
def test_lists_of_cores(text: str, wanted: tuple[int, ...]) -> None:
    assert cores(text) == wanted


def test_a_list_of_cores_without_end_is_cut() -> None:
    assert len(cores("0-9999,0-9999")) == 1024


# ---- libraries ----------------------------------------------------------------------


@pytest.mark.parametrize("before", [0, (1 << 20) - 40, (1 << 20) - 20, (1 << 20) + 7, 3 << 20])
def test_the_version_is_found_wherever_it_lies(tmp_path: Path, before: int) -> None:
    file = tmp_path / "librknnrt.so"
    file.write_bytes(
        elf("librknnrt version: 2.3.2 (429f97ae6b@2025-04-09T09:09:27)", before=before)
    )
    found = examine(file, "/usr/lib/librknnrt.so")
    assert found.version == "2.3.2 (429f97ae6b@2025-04-09T09:09:27)"
    assert (found.machine, found.fault) == ("aarch64", "")


def test_a_mention_of_another_library_is_not_its_version(tmp_path: Path) -> None:
    file = tmp_path / "lib"
    file.write_bytes(elf("onnx version: 1.2.3"))
    assert examine(file, "/lib").version == ""


def test_a_library_that_cannot_be_opened(tmp_path: Path) -> None:
    assert "cannot be read" in examine(tmp_path / "none", "/none").fault


def test_offline_cores_are_seen(tmp_path: Path) -> None:
    b = board(tmp_path)
    b.write(f"{CPU}/online", "0-3\n")
    assert read_machine(tmp_path).online == (0, 1, 2, 3)


# ---- programs -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("built", "machine", "bits", "wanted"),
    [
        ("aarch64", "aarch64", 64, True),
        ("armv7l", "aarch64", 64, False),
        # 32-bit programs on a 64-bit kernel, by either name of that kernel.
        ("armv7l", "aarch64", 32, True),
        ("aarch64", "aarch64", 32, False),
        ("armv7l", "armv8l", 32, True),
        ("armv7l", "armv7l", 32, True),
        ("aarch64", "armv7l", None, False),
        # An old capture that does not tell.
        ("armv7l", "aarch64", None, True),
        ("aarch64", "aarch64", None, True),
        ("x86_64", "aarch64", 64, False),
        ("x86_64", "x86_64", 64, True),
        ("", "aarch64", 64, True),
    ],
)
def test_what_programs_can_load(built: str, machine: str, bits: int | None, wanted: bool) -> None:
    assert fits(built, machine, bits) is wanted


def test_the_living_programs_have_the_pointers_of_this_one() -> None:
    assert bits_of(Tree(Path("/"))) == 8 * struct.calcsize("P")


@pytest.mark.parametrize(("bits", "number"), [(32, 40), (64, 183)])
def test_the_programs_of_a_tree_are_known_by_its_shell(
    tmp_path: Path, bits: int, number: int
) -> None:
    b = board(tmp_path)
    b.remove("bin/sh")
    assert bits_of(Tree(tmp_path)) is None
    b.write("usr/bin/python3", elf("", number))
    assert bits_of(Tree(tmp_path)) == bits


# ---- cores of the NPU ---------------------------------------------------------------


def test_the_cores_of_rk3583_by_each_sign_alone(tmp_path: Path) -> None:
    b = board(tmp_path, "rk3583")
    entry = "proc/device-tree/npu@fdab0000/nvmem-cell-names"
    assert read_machine(tmp_path).npu_cores == 2
    b.ordinary_user()
    b.remove(entry)
    assert read_machine(tmp_path).npu_cores == 2  # by its name
    b.write("proc/device-tree/compatible", b"maker,board\0rockchip,rk3588s\0")
    assert read_machine(tmp_path).npu_cores == 3
    b.write(entry, b"speed\0cores\0")
    assert read_machine(tmp_path).npu_cores == 2  # by what the driver goes by
    b.remove(entry)
    b.write("sys/kernel/debug/rknpu/load", "NPU load:  Core0:  0%, Core1:  0%,\n")
    assert read_machine(tmp_path).npu_cores == 2  # by what the driver shows


def test_a_variant_by_its_fuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    b = board(tmp_path, "rk3582")
    b.write("proc/device-tree/compatible", b"radxa,rock-5c\0rockchip,rk3588s\0")
    # cpu-code stands at bytes 2 and 3.
    fuses = "sys/bus/nvmem/devices/rockchip-otp0/nvmem"
    b.write(fuses, bytes.fromhex("524b358200fe21") + bytes(1017))
    assert read_machine(tmp_path).variant == ""  # nobody captures them: the serial number is there
    tree = Tree(tmp_path)
    tree.live = True
    monkeypatch.setattr(tree, "real", lambda path: tmp_path / path.lstrip("/"))
    assert machine_room._variant(tree, "rk3588", ()) == "rk3582"
    b.write(fuses, bytes.fromhex("524b3588"))
    assert machine_room._variant(tree, "rk3588", ()) == ""
    b.write(fuses, b"")
    assert machine_room._variant(tree, "rk3588", ()) == ""
