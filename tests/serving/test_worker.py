"""Worker processes, and what goes between them and the server."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from time import monotonic, sleep

import msgspec
import numpy as np
import pytest

from rkzoo.errors import RkzooError
from rkzoo.serving.channel import Channel, Closed
from rkzoo.serving.model_slot import ModelArguments
from rkzoo.serving.worker_process import WorkerDied, WorkerProcess


@pytest.fixture
def ends() -> Iterator[tuple[Channel, Channel]]:
    ours, theirs = map(Channel, socket.socketpair())
    yield ours, theirs
    ours.close()
    theirs.close()


def test_messages_arrive_as_they_were_sent(ends: tuple[Channel, Channel]) -> None:
    ours, theirs = ends
    large = np.random.default_rng(0).integers(0, 256, 9_000_001, np.uint8)
    pieces = [b"head", large[:70_000].data, b"", large[70_000:].data]
    messages = [(b"", []), (b"{}", [b""]), (b"x" * 100_000, [b"a", pieces, large.data, []])]

    def send() -> None:
        for header, buffers in messages:
            ours.send(header, buffers)

    thread = threading.Thread(target=send)
    thread.start()
    assert theirs.receive() == (b"", [])
    assert theirs.receive() == (b"{}", [b""])
    header, received = theirs.receive()
    thread.join()
    whole = large.tobytes()
    assert header == b"x" * 100_000
    assert received == [b"a", b"head" + whole, whole, b""]


@pytest.mark.parametrize("cut", [0, 3, 4, 12, 40])
def test_an_end_in_the_middle_is_told(cut: int) -> None:
    a, b = socket.socketpair()
    c, d = socket.socketpair()
    Channel(a).send(b"header", [b"body" * 10])
    whole = b.recv(1000)
    c.sendall(whole[:cut])
    c.close()
    with pytest.raises(Closed):
        Channel(d).receive()
    for one in (a, b, d):
        one.close()


def test_a_channel_that_is_closed_frees_who_waits_at_it(ends: tuple[Channel, Channel]) -> None:
    ours, _ = ends
    seen: list[BaseException] = []

    def wait() -> None:
        try:
            ours.receive()
        except Closed as error:
            seen.append(error)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    sleep(0.05)
    ours.close()
    thread.join(5)
    assert len(seen) == 1
    with pytest.raises(Closed):
        ours.send(b"more")


def test_a_worker_says_what_is_wrong_and_goes_on(tmp_path: Path) -> None:
    """Slots that cannot be opened, calls that there are not, and then its end."""
    lines: list[str] = []
    worker = WorkerProcess("tiny", lines.append)
    try:
        with pytest.raises(RkzooError) as error:
            worker.slot("model", ModelArguments(str(tmp_path / "none.onnx")))
        assert not isinstance(error.value, WorkerDied)
        assert "none.onnx" in str(error.value)
        with pytest.raises(RkzooError, match="An error of rkzoo's own"):
            worker.slot("no such slot", None)
        with pytest.raises(RkzooError, match="An error of rkzoo's own"):
            worker.slot("model", ["not", "its", "arguments"])
        assert worker.alive
        os.kill(worker.pid, signal.SIGKILL)
        with pytest.raises(WorkerDied) as died:
            worker.slot("model", ModelArguments("x"))
        assert "It ended by SIGKILL." in str(died.value)
        assert "The process that ran tiny ended." in str(died.value)
    finally:
        worker.close()
    assert not worker.alive
    assert any("KeyError" in line for line in lines)  # its own fault, in the log
    worker.close()  # twice is once


def test_a_worker_ends_with_its_server() -> None:
    """However that ends."""
    script = (
        "from rkzoo.serving.worker_process import WorkerProcess; import time\n"
        "print(WorkerProcess('tiny').pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        worker = int(server.stdout.readline())
        sleep(0.3)
        server.kill()
    end = monotonic() + 10
    while Path(f"/proc/{worker}/exe").exists() and _running(worker):
        assert monotonic() < end, "it lives on"
        sleep(0.05)


def _running(pid: int) -> bool:
    try:
        return "zombie" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def test_signals_of_the_group_are_the_servers_to_hear() -> None:
    """A terminal sends Ctrl-C, and systemd SIGTERM, to every process of the group."""
    worker = WorkerProcess("tiny")
    try:
        with pytest.raises(RkzooError):
            worker.slot("model", msgspec.Raw(b"{}"))  # it has begun
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(worker.pid, number)
        sleep(0.3)
        assert worker.alive
    finally:
        worker.close()


def test_pictures_are_decoded_at_once_in_a_worker(tmp_path: Path) -> None:
    """Elsewhere one decodes at a time, since what libraries print on stderr is kept from users."""
    script = """
import threading
from rkzoo.native_output import leave_library_lines, without_library_lines
both = threading.Barrier(2, timeout=2)
leave_library_lines()
def decode():
    with without_library_lines():
        both.wait()
threads = [threading.Thread(target=decode) for _ in range(2)]
for thread in threads: thread.start()
for thread in threads: thread.join()
raise SystemExit(both.broken)
"""
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0
    without = script.replace("\nleave_library_lines()", "")
    assert subprocess.run([sys.executable, "-c", without], stderr=subprocess.DEVNULL).returncode
