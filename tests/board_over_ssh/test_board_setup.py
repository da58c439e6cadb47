"""`rkzoo board setup` by a real ssh into an arm64 board that has Python and no network."""

from __future__ import annotations

import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import rkzoo
from board_over_ssh.openssh import SshBoard
from rkzoo.cli.main import main
from rkzoo.errors import RkzooError
from rkzoo.remote import board_packages, setup
from rkzoo.remote.address import parse_address
from rkzoo.remote.board_packages import Layer
from rkzoo.remote.boards import close_boards
from rkzoo.remote.known_boards import known_boards
from workflow.inference.test_board import Bus

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")


@pytest.fixture
def pc(bare_board: SshBoard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SshBoard:
    """The board, and this machine, which knows it by ssh alone."""
    monkeypatch.setenv("RKZOO_SSH", bare_board.client)
    monkeypatch.setenv("RKZOO_CONFIG", str(tmp_path / "config"))
    return bare_board


def installed(board: SshBoard) -> list[str]:
    versions = board.home / ".local/share/rkzoo/versions"
    return sorted(os.listdir(versions)) if versions.is_dir() else []


@pytest.mark.vendor
def test_a_board_is_set_up_once_used_and_taken_back(
    pc: SshBoard,
    assets: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    code = main(["board", "setup", pc.address, "--json"])
    done = json.loads(capsys.readouterr().out)
    assert [one["title"] for one in done["sent"]] == [
        f"rkzoo {rkzoo.__version__}",
        "the packages it needs",
    ]
    # Nothing is in /sys of this board, which doctor calls a failure.
    levels = [finding["level"] for finding in done["doctor"]["findings"]]
    assert code == (4 if "fail" in levels else 0)
    assert done["doctor"]["machine"]["chip"] == "rk3588"
    (library,) = done["doctor"]["machine"]["libraries"]
    assert library["path"] == "/usr/lib/librknnrt.so"
    assert library["version"] == "2.3.2 (rkzoo stand-in)"

    # On the board: of what was installed, not of the working tree.
    program = pc.home / ".local/share/rkzoo/bin/rkzoo"
    told = pc.run(str(program), "--version")
    assert (told.stdout, told.returncode) == (f"rkzoo {rkzoo.__version__}\n", 0), told.stderr
    assert [name.split("-")[0] for name in installed(pc)] == ["packages", "rkzoo"]
    (board,) = known_boards()
    assert (board.address, board.chip, board.rkzoo) == (pc.address, "rk3588", rkzoo.__version__)

    # Again: nothing is packed, and nothing is sent.
    monkeypatch.setattr(board_packages, "_tar", lambda files: pytest.fail("packed again"))
    main(["board", "setup", pc.address, "--json"])
    assert json.loads(capsys.readouterr().out)["sent"] == []

    # Verbs find it there by themselves.
    bus = Bus(assets, tmp_path)
    assert main(["run", str(bus.rknn), str(bus.picture), "--on", pc.address, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["runtime"], len(document["images"][0]["results"])) == ("board", 5)
    close_boards()

    assert main(["board", "setup", pc.address, "--remove"]) == 0
    assert "was removed" in capsys.readouterr().out
    assert not (pc.home / ".local/share/rkzoo").exists()


def test_a_cable_cut_while_sending_leaves_nothing(
    pc: SshBoard, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = Layer("rkzoo-cut", "something large", lambda report: os.urandom(64 << 20))
    monkeypatch.setattr(setup, "layers", lambda target: (layer,))
    versions = pc.home / ".local/share/rkzoo/versions"

    def cut() -> int:
        for _ in range(3000):
            if any(path.stat().st_size for path in versions.glob(".*/packed")):
                return pc.cut()
            time.sleep(0.01)
        return 0

    with ThreadPoolExecutor(1) as pool:
        cutting = pool.submit(cut)
        with pytest.raises(RkzooError, match="connection was cut") as caught:
            setup.set_up(parse_address(pc.address))
        assert cutting.result() > 0
    assert str(caught.value).count("\n") == 0
    for _ in range(300):  # the board notices it by itself
        if not pc.processes():
            break
        time.sleep(0.05)
    assert (pc.processes(), os.listdir(versions)) == ([], [])
