"""The list of boards that were reached from here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from rkzoo.cli.main import main
from rkzoo.remote.known_boards import KnownBoard, forget, known_boards, remember


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RKZOO_CONFIG", str(tmp_path / "rkzoo"))
    return tmp_path / "rkzoo/boards.json"


def board(address: str, **more: str) -> KnownBoard:
    facts = {"chip": "rk3588", "board": "Radxa ROCK 5B", "rkzoo": "0.1.0", "library": "", **more}
    return KnownBoard(address, **facts)


def test_the_one_seen_last_comes_first_and_each_stands_there_once() -> None:
    for address in ("ssh://a", "ssh://b", "ssh://a"):
        remember(board(address))
    remember(board("ssh://b", rkzoo="0.2.0"))
    assert [(one.address, one.rkzoo) for one in known_boards()] == [
        ("ssh://b", "0.2.0"),
        ("ssh://a", "0.1.0"),
    ]
    assert all(one.last_seen.startswith("20") for one in known_boards())


def test_list_and_forget(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["board", "list"]) == 0
    assert "rkzoo board setup" in capsys.readouterr().out
    remember(board("ssh://user@board", library="/usr/lib/librknnrt.so 2.3.2"))
    assert main(["board"]) == 0
    words = capsys.readouterr().out.split()
    assert words[words.index("ssh://user@board") + 1] == "rk3588"
    assert main(["board", "list", "--json"]) == 0
    (told,) = json.loads(capsys.readouterr().out)["boards"]
    assert (told["address"], told["library"]) == ("ssh://user@board", "/usr/lib/librknnrt.so 2.3.2")

    # The nearest one is another board, which is not to be forgotten in its place.
    assert main(["board", "forget", "ssh://user@bord"]) == 2
    said = capsys.readouterr().err
    assert "It has ssh://user@board." in said
    assert "Did you mean" not in said
    assert "Run:" not in said
    assert main(["board", "forget", "ssh://user@board"]) == 0
    assert known_boards() == ()


@pytest.mark.parametrize("damage", [b"", b"[{", b'{"address": 1}', b'[{"address": 7}]', b"\xff"])
def test_a_damaged_list_begins_anew(place: Path, damage: bytes) -> None:
    place.parent.mkdir()
    place.write_bytes(damage)
    assert known_boards() == ()
    remember(board("ssh://a"))
    assert [one.address for one in known_boards()] == ["ssh://a"]


def test_a_board_that_tells_much_of_itself_crowds_out_no_other() -> None:
    remember(board("ssh://a"))
    remember(board("ssh://b", board="x" * (2 << 20), library="\U0001f600" * 9999))
    assert [one.address for one in known_boards()] == ["ssh://b", "ssh://a"]


def test_a_place_that_cannot_be_written_stops_nothing(place: Path) -> None:
    place.parent.write_text("a file in the folder's place")
    remember(board("ssh://a"))
    assert known_boards() == ()


def test_processes_at_once_lose_nothing() -> None:
    script = (
        "import sys; from rkzoo.remote.known_boards import *\n"
        "for i in range(10): remember(KnownBoard(f'ssh://{sys.argv[1]}{i}', '', '', '', ''))"
    )
    running = [subprocess.Popen([sys.executable, "-c", script, name]) for name in "ab"]
    assert [process.wait(60) for process in running] == [0, 0]
    assert len(known_boards()) == 20


def test_forget_tells_what_is_there() -> None:
    remember(board("ssh://a"))
    assert forget("ssh://a").chip == "rk3588"
