"""check, doctor and clocks with --on say of a board what they say there.

The stand-in for Rockchip's library plays; nothing here was measured on a board."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from golden_net import Net

import soc.board_trees as board_trees
from npu_standin import build
from rkzoo.cli.main import main
from rkzoo.errors import RkzooError
from rkzoo.remote import boards
from rkzoo.remote.client import ConnectionLost
from rkzoo.remote.session import RemoteSession
from rkzoo.workflow.comparison import check as check_room
from rkzoo.workflow.comparison.check import check
from serving.board_server import Served, board_server, until


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    library = build.compiled(tmp_path_factory.mktemp("standin"))
    folder = tmp_path_factory.mktemp("board")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RKZOO_LIBRKNNRT", str(library))
        patch.setenv("STANDIN_STRICT", "1")
        patch.setenv("RKZOO_CACHE", str(folder / "cache"))
        board_trees.board(folder / "tree")
        with board_server(folder, folder / "tree") as served:
            yield served
            boards.close_boards()


@pytest.fixture(autouse=True)
def nothing_is_left(server: Served) -> Iterator[None]:
    yield
    boards.close_boards()
    until(lambda: not len(server.board.leases) and not server.board._sessions)


@pytest.fixture
def net(server: Served, tmp_path: Path) -> Net:
    return Net(tmp_path)


# ---- check --------------------------------------------------------------------------------


def digits(found: Any) -> Any:
    """A report without what may differ: times, the date, the machine."""
    document = found.to_json()
    for part in document["parts"]:
        del part["ms"], part["npu_ms"]
    for name in ("date", "place", "next"):
        del document[name]
    return document


def test_check_says_what_it_says_there(server: Served, net: Net) -> None:
    random = np.random.default_rng(5)
    for change in (
        lambda array: array,
        lambda array: np.where(random.random(array.shape) < 0.3, array ^ 1, array),
        np.zeros_like,
    ):
        net.changed(change)
        here, there = check(net.file), check(net.file, on=server.address)
        assert digits(there) == digits(here)
    assert there.level == "fail"
    assert f"--on {server.address}" in there.next


def test_the_board_is_told_and_not_this_machine(server: Served, net: Net) -> None:
    found = check(net.file, on=server.address)
    assert found.label == "stand-in: not measured on a board"
    place = found.place
    assert (place.board, place.chip, place.driver) == ("Radxa ROCK 5B", "rk3588", "0.9.8")
    assert (place.library, place.driver_told) == ("librknnrt.so", "0.9.8 (rkzoo stand-in)")
    assert any(clock.kind == "npu" and clock.before for clock in place.clocks)
    part = found.parts[0]
    assert part.runs == 2 * check_room.ROUNDS
    assert part.npu_ms is not None


def test_rockchips_library_on_a_board_is_measured(
    server: Served, net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = RemoteSession.__init__

    def no_stand_in(self: RemoteSession, client: Any, opened: Any, name: str) -> None:
        inner(self, client, msgspec.structs.replace(opened, stand_in=False), name)

    monkeypatch.setattr(RemoteSession, "__init__", no_stand_in)
    found = check(net.file, on=server.address)
    assert found.label == "board"
    # And no report names who sent it: no address, no folder.
    text = json.dumps(found.to_json())
    assert "127.0.0.1" not in text
    assert server.address not in text
    assert str(net.file.parent) not in text


def test_a_board_that_fails_is_told_without_its_address(
    server: Served, net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = check_room._run

    def failing(session: Any, golden: Any, rounds: int) -> Any:
        if session.outputs[0].layout == "NC1HWC2":
            raise RkzooError(f"On {server.address}: net.rknn did not run.", f"At {server.address}.")
        return inner(session, golden, rounds)

    monkeypatch.setattr(check_room, "_run", failing)
    found = check(net.file, on=server.address)
    assert found.level == "fail"
    assert found.parts[0].reasons == ("net.rknn did not run. At it",)


def test_a_cut_cable_is_no_fault_of_the_board(
    server: Served, net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = check_room._run

    def cutting(session: Any, golden: Any, rounds: int) -> Any:
        if session.outputs[0].layout == "NC1HWC2":
            client = boards.board(server.address).client
            client._end_calls()  # the lease's connection, too
            assert client._lost.wait(10)  # its thread has seen it
        return inner(session, golden, rounds)

    monkeypatch.setattr(check_room, "_run", cutting)
    with pytest.raises(ConnectionLost):
        check(net.file, on=server.address)


def test_the_command_of_check(
    server: Served, net: Net, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", str(net.file), "--on", server.address, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["level"] == "ok"
    assert main(["check", str(net.file), "--on", server.address, "--runtime", "simulator"]) == 2
    assert "--on does not go with --runtime simulator" in capsys.readouterr().err


# ---- doctor -------------------------------------------------------------------------------


def test_doctor_prints_what_it_prints_there(
    server: Served, net: Net, capsys: pytest.CaptureFixture[str]
) -> None:
    root = str(server.board._root)
    for options in (["--all"], ["--json"], [str(net.file)]):
        code = main(["doctor", "--root", root, *options])
        there = capsys.readouterr().out
        assert main(["doctor", "--on", server.address, *options]) == code
        here = capsys.readouterr().out
        if options == ["--json"]:
            ours, theirs = json.loads(here), json.loads(there)
            for document in (ours, theirs):
                del document["machine"]["root"]
            assert ours == theirs
            assert ours["machine"]["chip"] == "rk3588"
        else:
            assert here == there.replace(str(net.file), net.file.name)


def test_what_does_not_go_with_on(server: Served, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (
        ["doctor", "--root", "/"],
        ["doctor", "--adb"],
        ["doctor", "--soc", "rk3588"],
        ["clocks", "show", "--root", "/"],
    ):
        assert main([*words, "--on", server.address]) == 2
        assert f"{words[-1] if words[-1] == '--adb' else words[-2]} does not go with --on" in (
            capsys.readouterr().err
        )


def test_a_capture_of_the_board(
    server: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ours, theirs = tmp_path / "ours.tar", tmp_path / "theirs.tar"
    assert main(["doctor", "--on", server.address, "--capture", str(ours)]) == 0
    assert main(["doctor", "--root", str(server.board._root), "--capture", str(theirs)]) == 0
    one, other = (text for text in capsys.readouterr().out.splitlines() if "files" in text)
    assert one.partition(": ")[2] == other.partition(": ")[2]
    assert contents(ours) == contents(theirs)


def contents(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as tar:
        return {entry.name: tar.extractfile(entry).read() for entry in tar}  # type: ignore[union-attr]


# ---- clocks -------------------------------------------------------------------------------


def test_clocks_are_shown_locked_and_restored(
    server: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    root = server.board._root
    governor = root / "sys/devices/system/cpu/cpufreq/policy0/scaling_governor"
    before = governor.read_text()

    def both(*words: str) -> str:
        """What is said there, which equals what is said here."""
        assert main(["clocks", *words, "--root", str(root)]) == 0
        there = capsys.readouterr().out
        assert main(["clocks", *words, "--on", server.address]) == 0
        here = capsys.readouterr().out
        assert (
            here.replace("rkzoo clocks", "sudo rkzoo clocks").replace(f" --on {server.address}", "")
            == there
        )
        return here

    assert "rk3588" not in both("show")
    both("show", "--json")
    both("lock", "--json")
    assert "Do it with: rkzoo clocks lock --apply --on" in both("lock")
    assert governor.read_text() == before
    assert main(["clocks", "lock", "--apply", "--on", server.address]) == 0
    assert f"clocks restore --apply --on {server.address}" in capsys.readouterr().out
    assert governor.read_text().strip() == "performance"
    boards.close_boards()
    assert governor.read_text().strip() == "performance"  # until they are restored
    assert main(["clocks", "restore", "--apply", "--on", server.address]) == 0
    assert governor.read_text().strip() == before.strip()


def test_who_may_not_set_clocks_is_told_how(
    server: Served, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from rkzoo.soc import clocks

    def refused(tree: Any) -> None:
        raise clocks.NeedsRoot("Clocks can only be set by the administrator.", "", "sudo")

    monkeypatch.setattr(clocks, "_need_root", refused)
    assert main(["clocks", "lock", "--apply", "--on", server.address]) == 2
    assert "ssh://root@BOARD" in capsys.readouterr().err
