"""A capture tells doctor the same, and tells nobody who the board is."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
from board_trees import PROFILES, board

from rkzoo.errors import RkzooError
from rkzoo.soc import capture
from rkzoo.soc.capture import opened, scrub, write_capture
from rkzoo.soc.machine import read_machine
from rkzoo.workflow.diagnostics.doctor import diagnose


@pytest.mark.parametrize("chip", PROFILES)
def test_doctor_says_the_same_of_a_capture(tmp_path: Path, chip: str) -> None:
    b = board(tmp_path / "root", chip)
    b.forbidden()
    b.held()
    b.driver("0.8.2")
    b.library("1.4.0 (a10f100eb@2022-09-09T09:07:14)", machine=40)
    tar = tmp_path / "out.tar"
    write_capture(tar, tmp_path / "root")
    with opened(tar) as root:
        again = diagnose(root)
        # And a capture of the capture.
        write_capture(tmp_path / "two.tar", root)
    with opened(tmp_path / "two.tar") as root:
        twice = diagnose(root)
    first = diagnose(tmp_path / "root")
    assert again.findings == first.findings == twice.findings
    assert first.level == "fail"


def test_no_serial_number_address_host_or_key_is_in_it(tmp_path: Path) -> None:
    b = board(tmp_path / "root")
    secrets = {
        "proc/device-tree/serial-number": b"SERIAL1234567890\0",
        "proc/cmdline": b"androidboot.serialno=SERIAL1234567890 root=PARTUUID=614e0000",
        "proc/cpuinfo": b"Serial\t\t: SERIAL1234567890\n",
        "sys/class/net/eth0/address": b"52:1c:0a:5e:e7:01\n",
        "etc/machine-id": b"0123456789abcdef0123456789abcdef\n",
        "etc/ssh/ssh_host_rsa_key": b"PRIVATE KEY",
        "proc/version": b"Linux version 6.1.75 (anna@secret-host.example) (gcc) #1 SMP\n",
        "sys/bus/platform/devices/fdab0000.npu/uevent": b"DRIVER=RKNPU\nSERIAL=SERIAL1234567890\n",
    }
    for path, data in secrets.items():
        b.write(path, data)
    write_capture(tmp_path / "out.tar", tmp_path / "root")
    data = (tmp_path / "out.tar").read_bytes()
    for secret in (
        b"SERIAL1234567890",
        b"52:1c:0a",
        b"0123456789abcdef",
        b"PRIVATE",
        b"anna",
        b"secret-host",
        b"PARTUUID",
    ):
        assert secret not in data
    with opened(tmp_path / "out.tar") as root:
        assert read_machine(root).kernel == "6.1.75"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("at 52:1C:0a:5e:e7:01 now", "at scrubbed now"),
        ("id 0123456789abcdef01", "id scrubbed"),
        ("(me@host.local)", "(user@host)"),
        ("OF_FULLNAME=/npu@fdab0000", "OF_FULLNAME=/npu@fdab0000"),
        ("408000 600000 816000", "408000 600000 816000"),
        ("fdab0000.npu 1000000000000000000", "fdab0000.npu 1000000000000000000"),
        ("rockchip,rk3588\0", "rockchip,rk3588\0"),
    ],
)
def test_scrubbing(text: str, wanted: str) -> None:
    assert scrub(text) == wanted


def test_no_half_capture_is_left(tmp_path: Path) -> None:
    board(tmp_path / "root")
    (tmp_path / "file").write_text("")
    with pytest.raises(RkzooError):
        write_capture(tmp_path / "file" / "out.tar", tmp_path / "root")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "root"]


def _tar(path: Path, *entries: tarfile.TarInfo, data: bytes = b"x") -> Path:
    with tarfile.open(path, "w") as tar:
        for entry in entries:
            entry.size = len(data) if entry.isreg() else 0
            tar.addfile(entry, io.BytesIO(data))
    return path


@pytest.mark.parametrize("name", ["../evil", "/evil", "a/../../evil"])
def test_a_tar_that_leads_out_is_refused(tmp_path: Path, name: str) -> None:
    tar = _tar(tmp_path / "t.tar", tarfile.TarInfo(name))
    with pytest.raises(RkzooError, match="not a capture"), opened(tar):
        pass
    assert not (tmp_path.parent / "evil").exists()


def test_links_and_devices_in_a_tar_are_left_out(tmp_path: Path) -> None:
    link = tarfile.TarInfo("proc")
    link.type, link.linkname = tarfile.SYMTYPE, "/proc"
    device = tarfile.TarInfo("dev/rknpu")
    device.type = tarfile.CHRTYPE
    tar = _tar(tmp_path / "t.tar", link, device, tarfile.TarInfo("a"))
    with opened(tar) as root:
        assert [path.name for path in root.rglob("*")] == ["a"]


@pytest.mark.parametrize(("most", "largest"), [(3, 1000), (1000, 3)])
def test_a_tar_without_end_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int, largest: int
) -> None:
    monkeypatch.setattr(capture, "_MOST", most)
    monkeypatch.setattr(capture, "_LARGEST", largest)
    tar = _tar(tmp_path / "t.tar", *(tarfile.TarInfo(f"f{number}") for number in range(4)))
    with pytest.raises(RkzooError, match="larger"), opened(tar):
        pass


@pytest.mark.parametrize("data", [b"", b"no tar", b"\0" * 512 + b"x"])
def test_what_is_no_tar(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "t.tar").write_bytes(data)
    if data.startswith(b"\0"):
        # An end mark: an empty tar, which holds no board.
        with opened(tmp_path / "t.tar") as root:
            assert not read_machine(root).board
        return
    with pytest.raises(RkzooError, match="not a capture"), opened(tmp_path / "t.tar"):
        pass


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(RkzooError, match="cannot be read"), opened(tmp_path / "none.tar"):
        pass
