"""The server's handle of a worker process."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import msgspec

from rkzoo.errors import RkzooError
from rkzoo.serving.channel import Buffer, Channel, Closed
from rkzoo.serving.errors import error_of
from rkzoo.serving.worker import Answered, Call

_LAST_LINES = 20
_LONGEST_LINE = 4096
_GRACE = 8.0


class WorkerDied(RkzooError):
    """The worker process ended under a call. `why` has what it printed last."""


class WorkerProcess:
    """A worker process. Its slots are used by a thread each; it ends with `close`, and with the
    server in any case.

    Args:
        name: What it is called in messages.
        log: Is given each line that it prints.

    Attributes:
        ended: Is called once when it ends, however it does.
    """

    def __init__(self, name: str, log: Callable[[str], None] = lambda line: None) -> None:
        self.name, self._log = name, log
        self.ended: Callable[[], None] = lambda: None
        self._lines: deque[str] = deque(maxlen=_LAST_LINES)
        self._control, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "rkzoo.serving.worker", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=[theirs.fileno()],
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )
        self._reader = threading.Thread(target=self._read_lines, name=f"log-{name}", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """Its process number."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process.poll() is None

    def slot(self, kind: str, arguments: Any) -> SlotClient:
        """Opens a slot, one of worker.SLOTS. Raises RkzooError, WorkerDied where the worker
        ended meanwhile."""
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                socket.send_fds(self._control, [b"s"], [theirs.fileno()])
            except OSError:
                ours.close()
                raise self.died() from None
        slot = SlotClient(self, Channel(ours))
        try:
            slot.open(kind, arguments)
        except BaseException:
            slot.close()
            raise
        return slot

    def died(self) -> WorkerDied:
        """The error for a call that it was ended in."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(2)
        self._reader.join(1)
        code = self._process.poll()
        how = "" if code is None else f" It ended {_how(code)}."
        last = next((line for line in reversed(self._lines) if line.strip()), "")
        said = f" Its last line: {last}" if last else " It printed nothing."
        return WorkerDied(
            f"The process that ran {self.name} ended.",
            (how + said).strip(),
            "Ask again: it is started anew. If it happens each time, look at the model with"
            " rkzoo doctor and rkzoo inspect.",
            code=1,
        )

    def close(self) -> None:
        """Lets it close what it opened, and ends it."""
        self._control.close()
        try:
            self._process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(1)

    def end(self) -> None:
        """Ends it at once; whoever waits for it gets WorkerDied."""
        self._process.kill()

    def kill(self) -> None:
        """Ends it at once, and waits for that."""
        self._process.kill()
        self.close()

    def _read_lines(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as stream:
            while line := stream.readline(_LONGEST_LINE):
                text = line.decode("utf-8", "replace").rstrip()
                self._lines.append(text)
                self._log(text)
        self.ended()


def _how(code: int) -> str:
    if code >= 0:
        return f"with code {code}"
    import signal

    try:
        return f"by {signal.Signals(-code).name}"
    except ValueError:
        return f"by signal {-code}"


class SlotClient:
    """The server's end of a slot, for one thread. `opened` is what it told when it was opened."""

    def __init__(self, worker: WorkerProcess, channel: Channel) -> None:
        self._worker, self._channel = worker, channel
        self.opened = msgspec.Raw(b"null")

    def open(self, kind: str, arguments: Any) -> None:
        """Opens it. Raises RkzooError."""
        self.opened = self._exchange(Call("open", _raw(arguments), kind), ())[0]

    def call(
        self,
        kind: str,
        arguments: Any = None,
        data: Sequence[Buffer] = (),
        seconds: float = 0.0,
    ) -> tuple[msgspec.Raw, list[bytes]]:
        """Asks, and waits for the answer, which somebody wants within `seconds` (0 whenever it
        comes). Raises RkzooError, WorkerDied where the worker ended."""
        return self._exchange(Call(kind, _raw(arguments), seconds=seconds), data)

    def close(self) -> None:
        """Closes the slot."""
        self._channel.close()

    def _exchange(self, call: Call, data: Sequence[Buffer]) -> tuple[msgspec.Raw, list[bytes]]:
        try:
            self._channel.send(msgspec.json.encode(call), data)
            header, buffers = self._channel.receive()
        except Closed:
            raise self._worker.died() from None
        answered = msgspec.json.decode(header, type=Answered)
        if answered.problem is not None:
            raise error_of(answered.problem)
        return answered.value, buffers


def _raw(value: Any) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))
