"""A cable that is cut at each stage, by a real ssh; what is at its end is this machine with the
stand-in for Rockchip's library."""

from __future__ import annotations

import getpass
import itertools
import os
import secrets
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from board_over_ssh import boards
from board_over_ssh.openssh import Missing, SshBoard
from graph.rknn_writer import Sample
from npu_standin import build
from npu_standin.recording import In, Out, Recording
from rkzoo.cli.signals import descendants
from rkzoo.errors import RkzooError
from rkzoo.protocol.board import OpenSession
from rkzoo.remote.address import parse_address
from rkzoo.remote.boards import Board, board, close_boards
from rkzoo.remote.client import Client
from rkzoo.remote.session import RemoteSession
from rkzoo.remote.setup import set_up
from rkzoo.session import Array

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")

RUN_SECONDS = 0.8
TEMPORARY = {Path("/tmp"), Path(tempfile.gettempdir())}
LARGE = 32 << 20


@pytest.fixture(scope="module")
def cable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshBoard]:
    folder = tmp_path_factory.mktemp("cable")
    library = build.compiled(folder)
    try:
        with boards.native("native-board", folder / "board", {"RKZOO_LIBRKNNRT": library}) as there:
            yield there
    except Missing as why:
        pytest.skip(str(why))


@pytest.fixture
def there(cable: SshBoard, monkeypatch: pytest.MonkeyPatch) -> Iterator[SshBoard]:
    """The board; afterwards nothing of a connection is left, on either side."""
    monkeypatch.setenv("RKZOO_SSH", cable.client)
    # Names of temporary folders that tell whose they are: other tests make some meanwhile.
    own, numbers = f"{os.getpid():06x}", itertools.count()

    def name(size: int) -> str:
        return f"{own}{next(numbers):0{2 * size - len(own)}x}"

    def nothing_left() -> bool:
        return not any([*place.glob(f"rkzoo-{own}*")] for place in TEMPORARY)

    monkeypatch.setattr(secrets, "token_hex", name)
    here = {*descendants(os.getpid())}
    yield cable
    close_boards()
    until(lambda: not cable.processes(), "processes stay on the board")
    until(lambda: {*descendants(os.getpid())} <= here, "processes stay here")
    until(nothing_left, "sockets stay")


def until(reached: Callable[[], object], what: str, seconds: float = 15) -> None:
    end = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < end, what
        time.sleep(0.02)


PICTURE = np.random.default_rng(1).integers(0, 256, (1, 8, 8, 3), np.uint8)
ANSWER = np.random.default_rng(2).integers(-128, 128, (1, 20, 4, 4)).astype(np.int8)


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that takes its time."""
    return model(tmp_path_factory.mktemp("slow") / "slow.rknn", RUN_SECONDS)


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model(tmp_path_factory.mktemp("quick") / "quick.rknn", 0)


def model(file: Path, seconds: float) -> Path:
    out = Out("out", ANSWER.shape, "int8", 0.5, 3)
    recording = Recording((In("images", PICTURE.shape, w_stride=16),), [out])
    recording.delay_us = int(seconds * 1e6)
    recording.answer([PICTURE], [ANSWER])
    file.write_bytes(recording.bytes(Sample().write()))
    return file


def opened(client: Client, file: Path) -> RemoteSession:
    wanted = OpenSession(sha256=client.put(file), name=file.name, layout="plain")
    return RemoteSession(client, client.open(wanted), file.name)


def cut_when(there: SshBoard, reached: Callable[[], object]) -> threading.Thread:
    def act() -> None:
        until(reached, "the moment to cut did not come")
        there.cut()

    thread = threading.Thread(target=act)
    thread.start()
    return thread


def told_in_sentences(error: RkzooError) -> bool:
    """The remedy may end with a command."""
    ends = all(part[-1:] in ("", ".") for part in (error.what, error.why))
    return ends and error.what != "" and "\n" not in str(error)


# ---- what works ---------------------------------------------------------------------


def test_two_clients_at_once(there: SshBoard, quick: Path) -> None:
    """Two connections of their own, and so two servers, which share what was sent; by an alias of
    ssh's configuration and by user, host and port."""

    def work(address: str) -> list[Array]:
        with Board(address) as own, opened(own.client, quick) as session:
            return [session.run([PICTURE])[0] for _ in range(20)]

    with ThreadPoolExecutor(2) as pool:
        named = f"ssh://{getpass.getuser()}@127.0.0.1:{there.port}"
        for answers in pool.map(work, (there.address, named)):
            for answer in answers:
                np.testing.assert_array_equal(answer, ANSWER)


def test_a_library_that_dies_costs_its_session_alone(
    there: SshBoard, slow: Path, quick: Path
) -> None:
    client = board(there.address).client
    with opened(client, quick) as other:
        session = opened(client, slow)
        before = {*there.processes()}
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(session.run, [PICTURE])
            time.sleep(RUN_SECONDS / 2)
            os.kill(worker_of(before, "slow"), signal.SIGKILL)
            with pytest.raises(RkzooError, match="On ssh://native-board: ") as caught:
                answer.result()
        assert told_in_sentences(caught.value)
        np.testing.assert_array_equal(other.run([PICTURE])[0], ANSWER)
        with opened(client, slow) as again:
            np.testing.assert_array_equal(again.run([PICTURE])[0], ANSWER)


def worker_of(pids: set[int], name: str) -> int:
    """The youngest process that serves models; the last to be opened."""
    lines = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in sorted(pids)}
    return [pid for pid, line in lines.items() if b"rkzoo.serving.worker" in line][-1]


# ---- the cable is cut ---------------------------------------------------------------


def test_while_the_server_starts(there: SshBoard) -> None:
    cutting = cut_when(
        there, lambda: any(b"rkzoo\0serve" in _line(pid) for pid in there.processes())
    )
    with pytest.raises(RkzooError) as caught:
        board(there.address)
    cutting.join()
    assert caught.value.what.startswith(there.address)
    assert caught.value.why == "The connection was cut."
    assert told_in_sentences(caught.value)


def _line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def test_while_a_file_is_sent_which_then_goes_on(
    there: SshBoard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = tmp_path / "large.rknn"
    large.write_bytes(os.urandom(LARGE))
    sent: list[int] = []
    put = Client._put_piece

    def slowly(self: Client, path: str, stream: object, start: int, size: int) -> object:
        sent.append(start)
        time.sleep(0.05)
        return put(self, path, stream, start, size)

    monkeypatch.setattr(Client, "_put_piece", slowly)
    cutting = cut_when(there, lambda: len(sent) > 4)
    with pytest.raises(RkzooError, match="was cut") as caught:
        board(there.address).client.put(large)
    cutting.join()
    assert told_in_sentences(caught.value)
    first = [*sent]
    sent.clear()
    client = board(there.address).client
    client.put(large)
    assert sent[0] >= first[-2] > 0
    assert client._stored(client.put(large)).complete


def test_while_a_model_is_opened(
    there: SshBoard, quick: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = board(there.address).client
    before = {*there.processes()}
    wanted = OpenSession(sha256=client.put(quick), name="quick")
    # Its own process has begun, and cannot have answered yet.
    cutting = cut_when(there, lambda: {*there.processes()} - before)
    with pytest.raises(RkzooError, match="was cut") as caught:
        client.open(wanted)
    cutting.join()
    assert told_in_sentences(caught.value)


def test_while_it_runs_and_all_is_given_back(there: SshBoard, slow: Path) -> None:
    session = opened(board(there.address).client, slow)
    began = time.monotonic()
    cutting = cut_when(there, lambda: time.monotonic() > began + RUN_SECONDS / 2)
    with pytest.raises(RkzooError, match="was cut") as caught:
        session.run([PICTURE])
    cutting.join()
    assert told_in_sentences(caught.value)
    session.close()  # is no error
    # The next call finds the board again.
    with opened(board(there.address).client, slow) as session:
        np.testing.assert_array_equal(session.run([PICTURE])[0], ANSWER)


# ---- versions -----------------------------------------------------------------------


def test_another_version_is_told_with_both(there: SshBoard, cable: SshBoard) -> None:
    """The board's rkzoo speaks a later protocol: its number is patched there."""
    program = cable.home.parent / "bin/rkzoo"
    usual = program.with_name("usual")
    shutil.copy2(program, usual)
    patched = (
        "import sys; from rkzoo.protocol import board; board.VERSION = 99;"
        "from rkzoo.cli.entry import run; run()"
    )
    text = usual.read_text().replace("-m rkzoo", f'-c "{patched}"')
    try:
        program.write_text(text)
        with pytest.raises(RkzooError, match="protocol 99") as caught:
            board(there.address)
    finally:
        usual.replace(program)
    assert "protocol 1" in caught.value.why
    assert f"rkzoo board setup {there.address}" in caught.value.fix


# ---- what ssh refuses ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ("-o UserKnownHostsFile=/dev/null", "ssh does not know its host key yet."),
        ("-o UserKnownHostsFile={other}", "Its host key is another than the one that ssh knows."),
        ("-o PubkeyAuthentication=no", "It does not let this user in."),
        ("-p 9", "It cannot be reached, or no ssh server answers."),
    ],
)
def test_what_ssh_says_is_told_in_words(
    there: SshBoard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: str, why: str
) -> None:
    """For a verb and for setup; a host key that changed is never passed over."""
    other = tmp_path / "other"
    public = there.config.with_name("client.pub").read_text().strip()
    other.write_text(f"[127.0.0.1]:{there.port} {public}\n")
    monkeypatch.setenv("RKZOO_SSH", f"{there.client} {options.format(other=other)}")
    for reach in (lambda: board(there.address), lambda: set_up(parse_address(there.address))):
        with pytest.raises(RkzooError) as caught:
            reach()
        assert caught.value.why == why
        assert told_in_sentences(caught.value)


def test_a_server_that_forwards_no_sockets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cable: SshBoard
) -> None:
    setting = "AllowStreamLocalForwarding no"
    with boards.native("closed-board", tmp_path / "board", {}, setting) as closed:
        monkeypatch.setenv("RKZOO_SSH", closed.client)
        with pytest.raises(RkzooError, match=setting[:-2]):
            board(closed.address)
