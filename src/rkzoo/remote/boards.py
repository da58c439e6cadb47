"""The boards that this process is connected to: one connection an address, shared by all who use
it, until the process ends."""

from __future__ import annotations

import atexit
import os
import threading
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version

from rkzoo.errors import printable
from rkzoo.progress import ProgressReporter
from rkzoo.protocol.board import Hello
from rkzoo.remote.address import parse_address
from rkzoo.remote.client import Client
from rkzoo.remote.connection import Endpoint, connect
from rkzoo.remote.known_boards import KnownBoard, remember
from rkzoo.remote.remedies import install
from rkzoo.session import Closeable


@dataclass(frozen=True)
class Shared:
    """A connection of the process `owner`, which its workers use too: plain data."""

    endpoint: Endpoint
    lease: str
    owner: int


class Board(Closeable):
    """A board that is connected.

    Attributes:
        address: As it was given.
        client: Its calls.
        hello: Its greeting.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        with ExitStack() as stack:
            endpoint, last_words = connect(parse_address(address), stack)
            self.client = Client(endpoint, last_words=last_words)
            stack.callback(self.client.close)
            self.hello: Hello = self.client.hello()
            self.client.take_lease()
            remember(_known(address, self.hello))
            self._stack = stack.pop_all()

    @property
    def shared(self) -> Shared:
        """For worker processes."""
        return Shared(self.client.endpoint, self.client.lease, os.getpid())

    def close(self) -> None:
        """Ends what was started; the board gives back what was open there."""
        self._stack.close()


def _known(address: str, hello: Hello) -> KnownBoard:
    library = next((one for one in hello.libraries if one.path == hello.library), None)
    told = f"{library.path} {library.version}" if library else hello.library
    return KnownBoard(address, hello.chip or "", hello.board, hello.rkzoo, told.strip())


_boards: dict[tuple[int, str], Board] = {}
_clients: dict[tuple[int, Shared], Client] = {}
_lock = threading.Lock()


def board(address: str) -> Board:
    """The board at an address, connected once a process, and again where the connection was cut.

    Args:
        address: As for `parse_address`.

    Returns:
        The board; it stays open until the process ends.

    Raises:
        RkzooError: It cannot be reached, or its rkzoo cannot be used.
    """
    key = (os.getpid(), str(parse_address(address)))
    with _lock:
        known = _boards.get(key)
        if known is not None and not known.client.lost:
            return known
        if known is not None:
            _boards.pop(key).close()
        _boards[key] = connected = Board(key[1])
        return connected


_noted: set[str] = set()


def note_version(connected: Board, report: ProgressReporter) -> None:
    """Notes where a board's rkzoo is another version than this one, once for each board."""
    own, there = version("rkzoo"), printable(connected.hello.rkzoo)[:40]
    if there == own or connected.address in _noted:
        return
    _noted.add(connected.address)
    report.note(
        f"{connected.address} has rkzoo {there}, and this PC has {own}."
        f" {install(connected.address, connected.hello.machine)}"
    )


def client_of(address: str, shared: Shared | None) -> Client:
    """Calls of a board: over the connection of the process that this one works for, where that is
    on this machine, else over one of its own. Raises RkzooError."""
    there = shared is not None and (
        not shared.endpoint.socket or os.path.exists(shared.endpoint.socket)
    )
    if shared is None or shared.owner == os.getpid() or not there:
        return board(address).client
    with _lock:
        key = (os.getpid(), shared)
        if key not in _clients:
            _clients[key] = Client(shared.endpoint, shared.lease)
        return _clients[key]


def close_boards() -> None:
    """Closes every connection of this process."""
    with _lock:
        own = [key for key in _boards if key[0] == os.getpid()]
        boards = [_boards.pop(key) for key in own]
    for one in boards:
        one.close()


atexit.register(close_boards)
