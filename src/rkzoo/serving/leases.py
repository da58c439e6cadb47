"""Leases: what a client has opened on a board, given back when the client is gone."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from pathlib import Path
from threading import Lock, RLock

from rkzoo.errors import RkzooError
from rkzoo.soc import clocks
from rkzoo.soc.machine import read_machine

MOST = 64
"""Leases at one time: each is a connection that stays open."""


class NoLease(RkzooError):
    """A lease that is not there, or has ended."""


class Lease:
    """What belongs to one client, each thing by its key. For several threads.

    Attributes:
        name: Its name, which nobody guesses.
        opening: Held, in the event loop, by who opens something for it.
    """

    def __init__(self, name: str) -> None:
        self.name, self.opening = name, asyncio.Lock()
        self._lock = Lock()
        self._held: dict[str, Callable[[], None]] | None = {}

    def keep(self, key: str, give_back: Callable[[], None]) -> None:
        """Call `give_back` when the lease ends, or at once where it has. Raises NoLease then."""
        with self._lock:
            if self._held is not None:
                self._held[key] = give_back
                return
        give_back()
        raise _none(self.name)

    def give_back(self, key: str) -> bool:
        """Give back one thing now; False where it is not there."""
        with self._lock:
            held = self._held.pop(key, None) if self._held else None
        if held is not None:
            held()
        return held is not None

    def holds(self, key: str) -> bool:
        """Whether it is there."""
        with self._lock:
            return self._held is not None and key in self._held

    def check(self) -> None:
        """Raises NoLease where it has ended."""
        if self._held is None:
            raise _none(self.name)

    def end(self) -> None:
        """Give everything back, the last first, whatever fails of it."""
        with self._lock:
            held, self._held = self._held or {}, None
        failed: BaseException | None = None
        for give_back in reversed(list(held.values())):
            try:
                give_back()
            except Exception as error:
                failed = failed or error
        if failed is not None:
            raise failed


class Leases:
    """The leases of a server."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._leases: dict[str, Lease] = {}
        self._closed = False

    def begin(self) -> Lease:
        """A new lease. Raises RkzooError where there are too many, or the server stops."""
        lease = Lease(secrets.token_hex(16))
        with self._lock:
            if self._closed or len(self._leases) >= MOST:
                raise RkzooError(
                    "The board takes no more clients.",
                    "The server stops." if self._closed else f"{MOST} hold a lease.",
                    "Try again later.",
                )
            self._leases[lease.name] = lease
        return lease

    def of(self, name: str) -> Lease:
        """The lease of this name. Raises NoLease."""
        with self._lock:
            lease = self._leases.get(name)
        if lease is None:
            raise _none(name)
        return lease

    def end(self, lease: Lease) -> None:
        """End a lease, and give back what belongs to it."""
        with self._lock:
            self._leases.pop(lease.name, None)
        lease.end()

    def close(self) -> None:
        """End all of them, and take no more."""
        with self._lock:
            self._closed = True
            leases = list(self._leases.values())
        for lease in leases:
            self.end(lease)

    def __len__(self) -> int:
        with self._lock:
            return len(self._leases)


def _none(name: str) -> NoLease:
    return NoLease(
        "The lease has ended." if name else "A lease is needed for this.",
        "Its client was gone, or the server was started anew." if name else "",
        "Connect again.",
    )


class HeldClocks:
    """The clocks of the machine below `root`, locked from the first client that wants it until the
    last gives them back."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root, self._lock = root, RLock()
        self._holders: set[str] = set()

    def hold(self, lease: Lease) -> tuple[clocks.Write, ...]:
        """Lock them for a lease. Raises RkzooError where that cannot be."""
        machine = read_machine(self._root)
        if not machine.clocks and machine.npu_rate is None:
            raise RkzooError(
                "There is no clock on the board that can be held.",
                "Its kernel shows neither CPU nor NPU clocks under /sys.",
                "Leave --lock-clocks out.",
            )
        with self._lock:
            writes = () if self._holders else clocks.lock(machine)
            self._holders.add(lease.name)
        lease.keep("clocks", lambda: self._release(lease.name))
        return writes

    def _release(self, name: str) -> None:
        with self._lock:
            self._holders.discard(name)
            if not self._holders:
                clocks.restore(self._root)
