"""A remedy is for the machine that it is to be followed on."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Iterator

import pytest

from rkzoo.errors import RkzooError
from rkzoo.remote.boards import Board
from rkzoo.remote.connection import cause
from rkzoo.remote.remedies import as_run_there, host_key_name, install

SSH = "ssh://me@board:2222"


@pytest.mark.parametrize(
    ("board", "machine", "words"),
    [
        (SSH, "", f"rkzoo board setup {SSH}"),
        (SSH, "aarch64", f"rkzoo board setup {SSH}"),
        (SSH, "x86_64", 'pip install "rkzoo[serve]"'),
        ("adb:1d2c", "aarch64", 'pip install "rkzoo[serve]"'),  # board setup takes ssh alone
        ("http://board:8000", "", 'pip install "rkzoo[serve]"'),
    ],
)
def test_rkzoo_is_installed_the_way_that_works(board: str, machine: str, words: str) -> None:
    assert install(board, machine).endswith(words)


def test_no_rkzoo_on_a_machine_that_is_no_board() -> None:
    told = cause(SSH, 127, ["Welcome", "machine: x86_64"])
    assert told is not None
    why, fix = told.why, told.fix
    assert why == "There is no rkzoo there."
    assert fix.endswith('pip install "rkzoo[serve]"')


@pytest.mark.parametrize(
    ("board", "told"),
    [
        (SSH, "ssh -p 2222 me@board 'PATH=~/.local/share/rkzoo/bin:$PATH rkzoo cache prune'"),
        ("adb:", "adb shell 'PATH=~/.local/share/rkzoo/bin:$PATH rkzoo cache prune'"),
        ("http://board:8000", "rkzoo cache prune (on the board)"),
    ],
)
def test_a_command_of_the_boards_is_given_whole(board: str, told: str) -> None:
    assert (
        as_run_there(board, "Free some space: `rkzoo cache prune`.") == f"Free some space: {told}."
    )
    twice = as_run_there(board, as_run_there(board, "Run rkzoo doctor: it says which."))
    assert twice == f"Run rkzoo doctor --on {board}: it says which."


def test_a_changed_host_key_is_named() -> None:
    changed = "@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @"
    for said, name in (
        ([], "'[board]:2222'"),
        (["Host key for 10.0.0.7 has changed and"], "10.0.0.7"),
    ):
        told = cause(SSH, 255, [changed, *said])
        assert told is not None
        fix = told.fix
        assert fix.endswith(f"ssh-keygen -R {name}")
    assert host_key_name("ssh://me@board") == host_key_name("ssh://board:22") == "board"


@pytest.fixture(params=[b"SSH-2.0-OpenSSH_9.2\r\n", b""])
def other(request: pytest.FixtureRequest) -> Iterator[tuple[str, bool]]:
    """A port where something else answers, or closes."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(1 << 12)
            self.request.sendall(request.param)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.server_address[1]}", bool(request.param)
        server.shutdown()
        thread.join()


def test_what_speaks_no_http(other: tuple[str, bool]) -> None:
    place, speaks = other
    with pytest.raises(RkzooError, match="cannot be reached") as caught:
        Board(f"http://{place}")
    assert ("does not speak HTTP" if speaks else "without an answer") in caught.value.why
    assert "Check the port" in caught.value.fix
    assert "SSL_CERT_FILE" not in str(caught.value)


def test_what_speaks_no_tls(other: tuple[str, bool]) -> None:
    place, _ = other
    with pytest.raises(RkzooError, match="cannot be reached") as caught:
        Board(f"https://{place}")
    assert "does not speak TLS" in caught.value.why
    assert f"http://{place}" in caught.value.fix
    assert "SSL_CERT_FILE" not in str(caught.value)
