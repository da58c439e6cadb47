"""A worker process: holds one model open in some slots, and answers calls.

    python -m rkzoo.serving.worker DESCRIPTOR

The NPU's library can end the process that it is in, so it is in this one, and the server is not.
Over the socket DESCRIPTOR the server hands in one end of a pair of sockets for each slot. A slot
has a thread of its own: it is opened by the first message on its channel, then answers one call
after another. The worker ends when the server closes the socket, or dies.
"""

from __future__ import annotations

import importlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from time import monotonic
from typing import Any, Protocol

import msgspec

from rkzoo.errors import RkzooError
from rkzoo.native_output import leave_library_lines
from rkzoo.protocol.board import Problem
from rkzoo.serving.channel import Buffer, Channel, Closed
from rkzoo.serving.errors import problem_of

SLOTS: dict[str, str] = {
    "model": "rkzoo.serving.model_slot:ModelSlot",
    "npu": "rkzoo.serving.board_slot:BoardSlot",
}
"""What a slot can be opened as."""


class Call(msgspec.Struct, frozen=True):
    """The header of a call: what is asked, and how. The first on a channel is `open`, whose
    `arguments` open the slot as one of SLOTS. `seconds`: how long somebody waits for the answer;
    0 without an end."""

    kind: str
    arguments: msgspec.Raw = msgspec.Raw(b"null")
    slot: str = ""
    seconds: float = 0.0


class Answered(msgspec.Struct, frozen=True, omit_defaults=True):
    """The header of an answer: `value`, or what went wrong."""

    value: msgspec.Raw = msgspec.Raw(b"null")
    problem: Problem | None = None


@dataclass(frozen=True)
class Answer:
    """What a call gives: a value for the header, and buffers."""

    value: Any = None
    buffers: Sequence[Buffer] = ()


class Slot(Protocol):
    """Something open that answers calls, in one thread."""

    opened: Any
    """The value of the answer to `open`."""
    until: float
    """When nobody waits for the call's answer any more, by `time.monotonic`."""

    def call(self, kind: str, arguments: msgspec.Raw, data: list[bytes]) -> Answer:
        """Answers. Raises RkzooError."""

    def close(self) -> None: ...


def _serve(channel: Channel) -> None:
    """A slot's life."""
    slot: Slot | None = None
    try:
        while True:
            header, data = channel.receive()
            try:
                call = msgspec.json.decode(header, type=Call)
                if slot is None:
                    slot = _open(call)
                    answer = Answer(slot.opened)
                else:
                    slot.until = monotonic() + call.seconds if call.seconds else inf
                    answer = slot.call(call.kind, call.arguments, data)
                value = msgspec.Raw(msgspec.json.encode(answer.value))
                told, buffers = Answered(value), answer.buffers
            except Exception as error:
                if not isinstance(error, RkzooError):
                    sys.excepthook(type(error), error, error.__traceback__)
                told, buffers = Answered(problem=problem_of(error)), ()
            channel.send(msgspec.json.encode(told), buffers)
    except Closed:
        pass
    finally:
        if slot is not None:
            slot.close()
        channel.close()


def _open(call: Call) -> Slot:
    module, name = SLOTS[call.slot].split(":")
    slot: Slot = getattr(importlib.import_module(module), name)(call.arguments)
    return slot


def main(descriptor: int) -> None:
    """Serves slots until the server is gone."""
    # A signal may reach the whole group, as Ctrl-C does; the server says when a worker ends.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    leave_library_lines()
    control = socket.socket(fileno=descriptor)
    threads: list[threading.Thread] = []
    while True:
        try:
            data, ends, _, _ = socket.recv_fds(control, 1, 1)
        except OSError:
            break
        if not data:
            break
        for end in ends:
            channel = Channel(socket.socket(fileno=end))
            thread = threading.Thread(target=_serve, args=(channel,), daemon=True)
            thread.start()
            threads = [*(t for t in threads if t.is_alive()), thread]
    for thread in threads:
        thread.join(_GRACE)
    # A library's thread that hangs must not keep the process.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


_GRACE = 5.0
"""Seconds for a slot to close what it opened."""


if __name__ == "__main__":
    main(int(sys.argv[1]))
