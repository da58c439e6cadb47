"""The PC's side of a board over a cable, against a server and an ssh of the tests' own."""

from __future__ import annotations

import os
import pickle
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import tritonclient.http

from remote import fake_board
from remote.conftest import ADDRESS, Cable, Small
from rkzoo.cli.signals import descendants
from rkzoo.errors import RkzooError
from rkzoo.protocol.board import OpenSession
from rkzoo.protocol.tensors import encode_request
from rkzoo.remote import boards, connection
from rkzoo.remote.boards import Shared, board, client_of
from rkzoo.remote.client import Client, ConnectionLost
from rkzoo.remote.connection import Endpoint, remote_script
from rkzoo.remote.session import RemoteSession
from rkzoo.runtime.npu import NpuSession
from rkzoo.runtime.npu_context import NpuLibrary
from rkzoo.serving import log
from rkzoo.workflow.inference.board import LIBRARY

SHELLS = [name for name in ("dash", "bash", "busybox sh") if shutil.which(name.split()[0])]


def opened(client: Client, small: Small, **how: object) -> RemoteSession:
    wanted = OpenSession(sha256=client.put(small.rknn), name="small", **how)  # type: ignore[arg-type]
    return RemoteSession(client, client.open(wanted), "small")


# ---- what works ---------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["native", "plain"])
def test_the_same_as_here(cable: Cable, small: Small, standin: Path, layout: str) -> None:
    """Bit for bit, and the same specs; read-only, and held as long as one likes."""
    client = board(ADDRESS).client
    with (
        NpuSession.open(NpuLibrary(str(standin)), small.rknn, layout=layout) as here,  # type: ignore[arg-type]
        opened(client, small, layout=layout) as there,
    ):
        assert there.label == "board"
        assert (there.inputs, there.outputs) == (here.inputs, here.outputs)
        answers = [there.run([fed]) for fed in small.fed]
        for fed, answer in zip(small.fed, answers, strict=True):
            for ours, own in zip(answer, here.run([fed]), strict=True):
                assert ours.dtype == own.dtype
                np.testing.assert_array_equal(ours, own)
                assert not ours.flags.writeable
                del own


def test_a_file_is_sent_once_and_in_pieces(cable: Cable, small: Small) -> None:
    client = board(ADDRESS).client
    sha256 = client.put(small.rknn)
    assert client.put(small.rknn) == sha256
    pieces = [line.split("bytes ")[1] for line in cable.calls() if line.startswith("PUT")]
    size = small.rknn.stat().st_size
    assert pieces == [
        f"0-4194303/{size}",
        f"4194304-8388607/{size}",
        f"8388608-{size - 1}/{size}",
    ]
    assert (cable.files / sha256).read_bytes() == small.rknn.read_bytes()


def test_threads_share_a_connection(cable: Cable, small: Small) -> None:
    """Each with a session of its own, all at once."""
    client = board(ADDRESS).client
    wrong: list[object] = []

    def work(number: int) -> None:
        try:
            with opened(client, small, layout="plain") as session:
                for turn in range(10):
                    at = (number + turn) % 4
                    for ours, own in zip(
                        session.run([small.fed[at]]), small.outputs[at], strict=True
                    ):
                        np.testing.assert_array_equal(ours, own)
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert board(ADDRESS) is board("ssh://me@board")
    assert sum("/leases" in line for line in cable.calls()) == 1


def test_times_are_the_boards(cable: Cable, small: Small) -> None:
    with opened(board(ADDRESS).client, small) as session:
        timed = session.time([small.fed[0]], 5)
    assert len(timed.seconds) == 5
    assert all(0 < seconds < 1 for seconds in timed.seconds)


def test_a_worker_process_uses_the_connection_of_its_maker(cable: Cable, small: Small) -> None:
    shared = pickle.loads(pickle.dumps(board(ADDRESS).shared))
    sha256 = board(ADDRESS).client.put(small.rknn)
    script = (
        "import sys, pickle\n"
        "from rkzoo.remote.boards import client_of\n"
        "from rkzoo.protocol.board import OpenSession\n"
        "shared = pickle.loads(bytes.fromhex(sys.argv[1]))\n"
        f"client = client_of({ADDRESS!r}, shared)\n"
        f"print(client.open(OpenSession(sha256={sha256!r}, name='small')).session)\n"
    )
    command = [sys.executable, "-c", script, pickle.dumps(shared).hex()]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout.startswith("session-"), done.stderr
    assert sum("/leases" in line for line in cable.calls()) == 1
    # One that outlives its maker has a connection of its own.
    gone = Shared(Endpoint("b", socket="/nowhere/s"), "x", owner=0)
    assert client_of(ADDRESS, gone) is board(ADDRESS).client


def test_a_request_as_tritonclient_writes_it(small: Small) -> None:
    wanted = tritonclient.http.InferInput("images", small.fed[0].shape, "UINT8")
    wanted.set_data_from_numpy(small.fed[0], binary_data=True)
    theirs, size = tritonclient.http.InferenceServerClient.generate_request_body([wanted])
    ours = encode_request({"images": small.fed[0]})
    import json

    first, second = (
        json.loads(body[:length])
        for body, length in ((theirs, size), (ours.data, ours.header_size))
    )
    assert first == second
    assert theirs[size:] == ours.data[ours.header_size :]


# ---- other ways there ---------------------------------------------------------------


def test_adb(cable: Cable, small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against a stand-in for adb; a real one was not tried."""
    log = tmp_path / "adb"
    here = Path(__file__).parent / "fake_adb.py"
    monkeypatch.setenv("RKZOO_ADB", shlex.join([sys.executable, str(here)]))
    monkeypatch.setenv("FAKE_ADB_LOG", str(log))
    with opened(board("adb:1d2c").client, small, layout="plain") as session:
        np.testing.assert_array_equal(session.run([small.fed[2]])[0], small.outputs[2][0])
    boards.close_boards()
    assert [line.split()[2] for line in log.read_text().splitlines()] == [
        "shell",
        "forward",
        "forward",
    ]
    assert "--remove" in log.read_text()


@pytest.fixture
def over_tcp(cable: Cable, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The fake board at an http address, which wants a token."""
    monkeypatch.setitem(fake_board.FAULTS, "token", "a secret")
    monkeypatch.setattr(fake_board, "LIBRARY", os.environ[LIBRARY])
    monkeypatch.setitem(fake_board.HELLO, "library", os.environ[LIBRARY])
    monkeypatch.setattr(fake_board.BOARD, "folder", cable.files)
    with fake_board.TcpServer(("127.0.0.1", 0), fake_board.Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        boards.close_boards()
        server.shutdown()
        thread.join()


def test_http(over_tcp: str, small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is started; the token comes from a variable, and is not shown."""
    processes = set(descendants(os.getpid()))
    for given, why in (("", "is not set"), ("wrong", "is another")):
        monkeypatch.setenv("RKZOO_BOARD_TOKEN", given)
        with pytest.raises(RkzooError, match=f"{over_tcp} asks for a token") as caught:
            board(over_tcp)
        assert why in caught.value.why
        assert "export RKZOO_BOARD_TOKEN=" in caught.value.fix
    monkeypatch.setenv("RKZOO_BOARD_TOKEN", "a secret")
    with opened(board(over_tcp).client, small, layout="plain") as session:
        np.testing.assert_array_equal(session.run([small.fed[3]])[1], small.outputs[3][1])
    assert set(descendants(os.getpid())) == processes
    assert "secret" not in repr(board(over_tcp).client.endpoint)


def test_what_is_no_board_at_an_http_address(cable: Cable) -> None:
    from http.server import BaseHTTPRequestHandler, HTTPServer

    class Other(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Other) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}"
        with pytest.raises(RkzooError, match="does not do that") as caught:
            board(address)
        assert "without --board" in caught.value.fix
        server.shutdown()
    with pytest.raises(ConnectionLost, match="cannot be reached") as lost:
        board(address)
    assert "Connection refused" in lost.value.why


def test_a_board_that_is_full(cable: Cable, small: Small) -> None:
    cable.fault(full="Free some there: rkzoo cache prune --keep 0")
    with pytest.raises(RkzooError) as caught:
        board(ADDRESS).client.put(small.rknn)
    assert caught.value.what == f"{ADDRESS} has no room for small.rknn."
    assert caught.value.why == "1 MB is free."
    assert caught.value.fix.startswith("Free some there: ssh me@board '")
    assert caught.value.fix.endswith(" rkzoo cache prune --keep 0'")


# ---- nothing stays ------------------------------------------------------------------


def ended(before: set[int]) -> bool:
    for _ in range(100):
        if set(descendants(os.getpid())) <= before:
            return True
        time.sleep(0.05)
    return False


def test_the_end_leaves_nothing(cable: Cable, small: Small) -> None:
    processes = set(descendants(os.getpid()))
    session = opened(board(ADDRESS).client, small)
    assert set(descendants(os.getpid())) > processes
    local = Path(session.client.endpoint.socket)
    folders = (local.parent, Path(os.readlink(local)).parent)
    assert [folder.stat().st_mode & 0o777 for folder in folders] == [0o700, 0o700]
    boards.close_boards()
    assert ended(processes)
    assert not any(folder.exists() for folder in folders)
    with pytest.raises(ConnectionLost):
        session.run([small.fed[0]])
    session.close()


def test_the_board_ends_with_the_pc(cable: Cable, tmp_path: Path) -> None:
    """Also where the PC's side is killed."""
    script = tmp_path / "pc.py"
    script.write_text(
        "import sys, time\n"
        "from rkzoo.remote.boards import board\n"
        f"board({ADDRESS!r}).hello\n"
        "print('open', flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE) as pc:
        assert pc.stdout is not None
        assert pc.stdout.readline() == b"open\n"
        below = descendants(pc.pid)
        assert below
        pc.kill()
    for _ in range(100):
        if not any(os.path.exists(f"/proc/{pid}/cmdline") for pid in below):
            break
        time.sleep(0.05)
    assert [pid for pid in below if os.path.exists(f"/proc/{pid}/cmdline")] == []


# ---- the cable is cut ---------------------------------------------------------------


def test_a_piece_that_is_cut_is_sent_again(cable: Cable, small: Small) -> None:
    cable.fault(cut="PUT /files")
    client = board(ADDRESS).client
    sha256 = client.put(small.rknn)
    assert (cable.files / sha256).read_bytes() == small.rknn.read_bytes()


def test_what_was_sent_before_a_cut_is_not_sent_again(cable: Cable, small: Small) -> None:
    client = board(ADDRESS).client
    data = small.rknn.read_bytes()
    import hashlib

    sha256 = hashlib.sha256(data).hexdigest()
    (cable.files / f"{sha256}.part").write_bytes(data[: 5 << 20])
    assert client.put(small.rknn) == sha256
    puts = [line for line in cable.calls() if line.startswith("PUT")]
    assert puts[0].endswith(f"bytes {5 << 20}-{(9 << 20) - 1}/{len(data)}")


@pytest.mark.parametrize(
    "stage", ["GET /hello", "POST /leases", "PUT /files", "POST /sessions", "POST /v2/models"]
)
def test_a_board_that_dies_is_one_error(cable: Cable, small: Small, stage: str) -> None:
    """And the next command has a new one."""
    cable.fault(die=stage)
    start = time.monotonic()
    with pytest.raises(RkzooError) as caught, opened(board(ADDRESS).client, small) as session:
        session.run([small.fed[0]])
    assert time.monotonic() - start < 10
    assert caught.value.what == f"The connection to {ADDRESS} was cut."
    assert "the fake board dies here" in caught.value.why
    assert caught.value.code == 1  # no fault of a file's
    cable.fault()
    with opened(board(ADDRESS).client, small, layout="plain") as session:
        np.testing.assert_array_equal(session.run([small.fed[1]])[0], small.outputs[1][0])


@pytest.mark.parametrize("format", ["text", "json"])
def test_that_the_server_listens_is_not_why_it_is_gone(cable: Cable, format: log.Format) -> None:
    """The line as the server writes it."""
    told: list[str] = []
    log.Log(format, told.append).say("", "Listening at unix:/tmp/x/s (Ctrl-C ends it)")
    cable.fault(die="POST /sessions", says="a word of the board's", then=told[0])
    with pytest.raises(ConnectionLost) as caught:
        board(ADDRESS).client.open(OpenSession(sha256="0" * 64, name="none"))
    assert caught.value.why == "The last that was heard: a word of the board's."
    cable.fault(die="POST /sessions", says="", then=told[0])
    with pytest.raises(ConnectionLost) as caught:
        board(ADDRESS).client.open(OpenSession(sha256="0" * 64, name="none"))
    assert "Listening" not in str(caught.value)


def test_an_idle_connection_that_was_closed_is_no_error(cable: Cable, small: Small) -> None:
    with opened(board(ADDRESS).client, small, layout="plain") as session:
        session.run([small.fed[0]])
        for idle in session.client._idle:
            assert idle.sock is not None
            idle.sock.shutdown(socket.SHUT_RDWR)
        np.testing.assert_array_equal(session.run([small.fed[1]])[0], small.outputs[1][0])


# ---- what the board says ------------------------------------------------------------


def test_errors_of_the_board_are_told_as_its_own(cable: Cable, small: Small) -> None:
    client = board(ADDRESS).client
    sha256 = client.put(small.rknn)
    with pytest.raises(RkzooError) as caught:
        client.open(OpenSession(sha256="0" * 64, name="none"))
    assert caught.value.what.startswith(f"On {ADDRESS}: ")
    with opened(client, small) as session:
        with pytest.raises(RkzooError, match=r"uint8 \[1, 2, 2, 3\]"):
            session.run([np.zeros((1, 2, 2, 3), np.uint8)])
        with pytest.raises(RkzooError, match="has 1 inputs, not 2"):
            session.run([small.fed[0]] * 2)
        # The stand-in has no answer for what was not recorded.
        with pytest.raises(RkzooError, match=f"On {ADDRESS}: ") as caught:
            session.run([np.zeros((1, 32, 48, 3), np.uint8)])
        assert "RKNN: the last line" in caught.value.why
        session.run([small.fed[0]])
    with pytest.raises(RkzooError, match="The model is closed"):
        session.run([small.fed[0]])
    stale = Client(client.endpoint, "no-lease")
    with pytest.raises(RkzooError, match="The lease has ended"):
        stale.open(OpenSession(sha256=sha256, name="small"))


@pytest.mark.parametrize("where", ["ready", "hello"])
def test_another_protocol_is_refused(cable: Cable, where: str) -> None:
    cable.fault(**{where: {"protocol": 7, "rkzoo": "8.1", "new": [1]}})
    with pytest.raises(RkzooError, match="do not understand each other") as caught:
        board(ADDRESS)
    assert "rkzoo 8.1 (protocol 7)" in caught.value.why
    assert "(protocol 1)" in caught.value.why
    assert f"rkzoo board setup {ADDRESS}" in caught.value.fix


def test_a_shell_that_talks(cable: Cable) -> None:
    cable.fault(noise=True)
    assert board(ADDRESS).hello.board == "A board of tests"


def test_ctrl_c_ends_what_was_started(
    cable: Cable, tmp_path: Path, hears_ctrl_c: Callable[[], None]
) -> None:
    """In the middle of a connection that never comes about."""
    cable.fault(mute=True)
    command = [sys.executable, "-m", "rkzoo", "doctor", "--on", ADDRESS]
    with subprocess.Popen(
        command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, preexec_fn=hears_ctrl_c
    ) as pc:
        for _ in range(200):
            below = descendants(pc.pid)
            if len(below) >= 2:
                break
            time.sleep(0.05)
        assert below
        time.sleep(0.3)
        pc.send_signal(signal.SIGINT)
        _, said = pc.communicate(timeout=20)
    assert "Stopped." in said
    assert "Traceback" not in said
    for _ in range(100):
        if not any(os.path.exists(f"/proc/{pid}/cmdline") for pid in below):
            break
        time.sleep(0.05)
    assert [pid for pid in below if os.path.exists(f"/proc/{pid}/cmdline")] == []


def test_ctrl_c_in_a_terminal_reaches_ssh_too_and_does_not_end_it(
    cable: Cable, tmp_path: Path, hears_ctrl_c: Callable[[], None]
) -> None:
    """The whole group hears it: what was started is deaf, and stays in the group, for ssh may ask
    for a password at the terminal."""
    script = tmp_path / "pc.py"
    script.write_text(
        "import os, signal, time\n"
        "from rkzoo.remote.boards import board\n"
        f"client = board({ADDRESS!r}).client\n"
        "signal.signal(signal.SIGINT, lambda *_: None)\n"
        "print('open', flush=True)\n"
        "signal.pause()\n"
        "time.sleep(0.5)\n"
        "print(client.hello().board, client.lost, flush=True)\n"
    )
    with subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=hears_ctrl_c,
    ) as pc:
        assert pc.stdout is not None
        assert pc.stdout.readline() == "open\n"
        below = descendants(pc.pid)
        assert below
        assert {os.getpgid(pid) for pid in below} == {pc.pid}
        os.killpg(pc.pid, signal.SIGINT)
        assert pc.stdout.readline() == "A board of tests False\n"


def test_a_server_that_never_begins(cable: Cable, monkeypatch: pytest.MonkeyPatch) -> None:
    cable.fault(mute=True)
    monkeypatch.setattr(connection, "START_SECONDS", 1.5)
    processes = set(descendants(os.getpid()))
    with pytest.raises(RkzooError, match=f"{ADDRESS} does not answer"):
        board(ADDRESS)
    assert ended(processes)


@pytest.mark.parametrize(
    ("says", "why", "fix"),
    [
        ("Host key verification failed.", "does not know its host key", "Log in once"),
        ("me@board: Permission denied (publickey,password).", "let this user in", "ssh-copy-id"),
        ("ssh: Could not resolve hostname board: x", "Nothing has that name", "Check the address"),
        ("ssh: connect to host b port 22: No route to host", "cannot be reached", "switched on"),
        ("rkzoo: error: argument VERB: invalid choice: 'serve' (choose", "too old", "board setup"),
        ("something \x1b[31modd", "It says: something [31modd", "by hand"),
    ],
)
def test_why_ssh_failed(cable: Cable, says: str, why: str, fix: str) -> None:
    cable.says(says)
    with pytest.raises(RkzooError, match=f"{ADDRESS} cannot be used") as caught:
        board(ADDRESS)
    assert why in caught.value.why
    assert fix in caught.value.fix


@pytest.mark.parametrize(
    ("ssh", "code"),
    [
        ("echo Connection to b closed by remote host. >&2; exit 255", 1),
        ("exit 255", 1),  # what ran there was killed
        ("kill -9 $$", 1),
        ("echo Permission denied '(publickey).' >&2; exit 255", 2),
        ("exit 3", 2),
    ],
)
def test_a_cut_has_one_exit_code(
    cable: Cable, monkeypatch: pytest.MonkeyPatch, ssh: str, code: int
) -> None:
    """Before the server answers as later (`test_a_board_that_dies_is_one_error`)."""
    monkeypatch.setenv("RKZOO_SSH", shlex.join(["sh", "-c", ssh]))
    with pytest.raises(RkzooError) as caught:
        board(ADDRESS)
    assert caught.value.code == code
    assert (caught.value.why == "The connection was cut.") == (code == 1)


def test_a_board_without_rkzoo(
    cable: Cable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RKZOO_BOARD_COMMAND")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    uname = tmp_path / "bin/uname"
    uname.parent.mkdir()
    for machine, command in (
        ("aarch64", f"rkzoo board setup {ADDRESS}"),
        ("x86_64", 'pip install "rkzoo[serve]"'),  # what board setup refuses
    ):
        uname.write_text(f"#!/bin/sh\necho {machine}")
        uname.chmod(0o755)
        with pytest.raises(RkzooError, match="cannot be used") as caught:
            board(ADDRESS)
        assert caught.value.why == "There is no rkzoo there."
        assert command in caught.value.fix
    # As `rkzoo board setup` leaves it.
    place = tmp_path / ".local/share/rkzoo/bin/rkzoo"
    place.parent.mkdir(parents=True)
    place.write_text(f'#!/bin/sh\nexec {sys.executable} {Path(__file__).parent}/fake_board.py "$@"')
    place.chmod(0o755)
    assert board(ADDRESS).hello.chip == "rk3588"


def test_no_ssh(cable: Cable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RKZOO_SSH", "/nowhere/ssh")
    with pytest.raises(RkzooError, match="/nowhere/ssh cannot be started"):
        board(ADDRESS)


@pytest.mark.parametrize("shell", SHELLS)
def test_folders_of_killed_servers_are_swept_on_the_board(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shell: str
) -> None:
    """And no other: not one whose server runs, a link, or what is called otherwise."""
    monkeypatch.setenv("RKZOO_BOARD_COMMAND", "true")
    left, used, other, target = (tmp_path / f"rkzoo-{digit * 32}" for digit in "abcd")
    short = tmp_path / "rkzoo-0123456789ab"
    for folder in (left, used, short, tmp_path / "target"):
        folder.mkdir()
        (folder / "s").touch()
    target.symlink_to(tmp_path / "target")
    words = ["sh", "-c", "read end; :", "serve", "--socket", f"{used}/s"]
    with subprocess.Popen(words, stdin=subprocess.PIPE):
        done = subprocess.run(
            [*shell.split(), "-c", remote_script(str(other))], capture_output=True, text=True
        )
    assert (done.returncode, done.stderr) == (0, "")
    names = {used.name, target.name, short.name, "target"}
    assert {path.name for path in tmp_path.iterdir()} == names
    assert (tmp_path / "target" / "s").exists()


def test_nothing_is_swept_where_processes_cannot_be_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RKZOO_BOARD_COMMAND", "true")
    left = tmp_path / f"rkzoo-{'a' * 32}"
    left.mkdir()
    script = remote_script(str(tmp_path / f"rkzoo-{'b' * 32}"))
    for blind in (script.replace("/proc/", "/nowhere/"), script.replace("grep -q", "nogrep")):
        assert subprocess.run(["sh", "-c", blind], capture_output=True).returncode == 0
        assert left.exists()


def test_what_a_killed_shell_left_on_the_board_goes_with_the_next(
    cable: Cable, small: Small
) -> None:
    client = board(ADDRESS).client
    left = Path(os.readlink(client.endpoint.socket)).parent
    (shell,) = (
        pid
        for pid in descendants(os.getpid())
        if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"sh\0-c\0")
    )
    os.kill(shell, signal.SIGKILL)
    boards.close_boards()
    assert left.exists()
    board(ADDRESS)
    assert not left.exists()


def test_a_folder_that_exists_is_not_used(tmp_path: Path) -> None:
    """Somebody on the board may have made it."""
    done = subprocess.run(["sh", "-c", remote_script(str(tmp_path))], capture_output=True)
    assert done.returncode == 73
    assert tmp_path.exists()
