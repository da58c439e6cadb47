"""This board for clients: what they opened on its NPU, and what the machine tells of itself.

A session is a slot of a worker process. There is a process for each file of a lease, so sessions
of one file share its weights, and what kills the process costs that client its sessions of that
file only. One that is not needed any more waits for the client's next file, since starting it takes
seconds on a board. Everything here blocks: board_api.py calls it in threads.
"""

from __future__ import annotations

import asyncio
import platform
import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec

from rkzoo.errors import RkzooError, printable
from rkzoo.files import os_errors_explained, temporary_folder
from rkzoo.json_values import json_text
from rkzoo.protocol.board import (
    VERSION,
    ClocksSet,
    ClockWrite,
    Hello,
    LibraryFacts,
    ModelMemory,
    Opened,
    OpenSession,
    SetClocks,
)
from rkzoo.serving.calls import SessionArguments
from rkzoo.serving.errors import ServingError
from rkzoo.serving.file_store import FileStore
from rkzoo.serving.leases import HeldClocks, Lease, Leases
from rkzoo.serving.worker_process import SlotClient, WorkerProcess
from rkzoo.soc import clocks
from rkzoo.soc.capture import write_capture
from rkzoo.soc.library import examine
from rkzoo.soc.machine import machine_to_json, read_machine
from rkzoo.soc.npu_cores import usable_cores
from rkzoo.workflow.diagnostics.doctor import diagnose
from rkzoo.workflow.inference.board import find_library

SLOT = "npu"
"""What a session is among `worker.SLOTS`."""
MOST_SESSIONS = 64
"""Of one lease."""
MOST_WAITING = 16
"""Calls of one session."""
_LONGEST_NAME = 128
_IDLE = "idle"  # what a lease keeps the process by that waits


@dataclass(eq=False)
class _Process:
    """A worker process with one file, and the names of its sessions."""

    worker: WorkerProcess
    file: Path
    stack: ExitStack
    sessions: set[str] = field(default_factory=set)


@dataclass(eq=False)
class Session:
    """An open session. Calls take turns, which the event loop gives, so that those that wait take
    no thread; `waiting` counts them and the one that is worked on."""

    name: str
    lease: Lease
    process: _Process
    slot: SlotClient
    opened: Opened
    asked: OpenSession
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    waiting: int = 0
    busy: threading.Lock = field(default_factory=threading.Lock)


class Board:
    """What clients use of this board.

    Args:
        root: Of the machine that is described and whose clocks are set.
        log: Is given each line that a worker prints, after the name of its model.
    """

    def __init__(
        self,
        root: Path = Path("/"),
        log: Callable[[str, str], None] = lambda name, line: None,
    ) -> None:
        self.files, self.leases = FileStore(), Leases()
        self._root, self._log, self._held = root, log, HeldClocks(root)
        self._lock = threading.Lock()
        self._processes: dict[tuple[str, str], _Process] = {}
        self._idle: dict[str, WorkerProcess] = {}  # by lease
        self._sessions: dict[str, Session] = {}

    def close(self) -> None:
        """Give back what clients have."""
        self.leases.close()

    # ---- sessions -----------------------------------------------------------------------

    def open(self, lease_name: str, asked: OpenSession) -> Opened:
        """Open a file that was sent, for a lease; one at a time for each.

        Raises:
            NoLease: The lease has ended.
            RkzooError: The file is not there, or cannot be opened.
        """
        lease = self.leases.of(lease_name)
        with self._lock:
            if sum(one.lease is lease for one in self._sessions.values()) >= MOST_SESSIONS:
                raise ServingError(503, f"{MOST_SESSIONS} sessions are open already.", 5.0)
        name = f"session-{secrets.token_hex(12)}"
        process = self._process(lease, asked)
        process.sessions.add(name)
        # Before it is opened, since that may take for ever.
        lease.keep(name, lambda: self._end(lease, process, name))
        try:
            slot = process.worker.slot(SLOT, SessionArguments(str(process.file), asked))
        except BaseException:
            lease.give_back(name)
            raise
        opened = msgspec.json.decode(slot.opened, type=Opened)
        opened = msgspec.structs.replace(opened, session=name)
        with self._lock:
            self._sessions[name] = Session(name, lease, process, slot, opened, asked)
        if not lease.holds(name):  # it ended meanwhile
            self._end(lease, process, name)
            lease.check()
        return opened

    def close_session(self, name: str) -> None:
        """Close a session. Raises ServingError (404)."""
        self.session(name).lease.give_back(name)

    def call(
        self, name: str, kind: str, arguments: Any = None, data: Sequence[bytes] = ()
    ) -> tuple[msgspec.Raw, list[bytes]]:
        """Ask a session.

        Args:
            name: The session.
            kind: A call of BoardSlot.
            arguments: Its arguments.
            data: Its buffers.

        Raises:
            ServingError: There is no such session.
            RkzooError: It was refused; WorkerDied where the library ended its process.
        """
        session = self.session(name)
        with session.busy:
            return session.slot.call(kind, arguments, data)

    def memory(self, name: str) -> ModelMemory:
        """Memory of a session's model, asked in a process of its own: some versions of the library
        fail afterwards. Raises as `call`."""
        session = self.session(name)
        asked = msgspec.structs.replace(session.asked, profile=False)
        worker = self._worker(asked.name)
        try:
            slot = worker.slot(SLOT, SessionArguments(str(session.process.file), asked))
            value, _ = slot.call("memory")
            slot.close()
            return msgspec.json.decode(value, type=ModelMemory)
        finally:
            worker.close()

    def session(self, name: str) -> Session:
        """A session. Raises ServingError (404)."""
        with self._lock:
            session = self._sessions.get(name)
        if session is None:
            raise ServingError(404, f"There is no session {name[:_LONGEST_NAME]!r}.")
        return session

    def _worker(self, name: str) -> WorkerProcess:
        return WorkerProcess(name, lambda line: self._log(name, line))

    def _process(self, lease: Lease, asked: OpenSession) -> _Process:
        """The process of this file; another where there is none, or it has ended."""
        key = lease.name, asked.sha256
        process = self._processes.get(key)
        if process is not None and process.worker.alive:
            return process
        with ExitStack() as stack:
            file = stack.enter_context(self._named(asked.sha256, asked.name))
            worker = self._idle_worker(lease) or self._worker(asked.name)
            process = _Process(worker, file, stack.pop_all())
        with self._lock:
            self._processes[key] = process
        return process

    def _idle_worker(self, lease: Lease) -> WorkerProcess | None:
        """The process that waits for a file of this lease."""
        if not lease.holds(_IDLE):
            lease.keep(_IDLE, lambda: self._close_idle(lease))
        with self._lock:
            worker = self._idle.pop(lease.name, None)
        if worker is not None and not worker.alive:
            worker.close()
            return None
        return worker

    def _close_idle(self, lease: Lease) -> None:
        with self._lock:
            worker = self._idle.pop(lease.name, None)
        if worker is not None:
            worker.close()

    def _end(self, lease: Lease, process: _Process, name: str) -> None:
        """Close a session; its process waits after the last one, or ends."""
        with self._lock:
            session = self._sessions.pop(name, None)
            process.sessions.discard(name)
            last = not process.sessions
            for key in [key for key, one in self._processes.items() if last and one is process]:
                del self._processes[key]
        if session is not None:
            session.slot.close()
        if not last:
            return
        process.stack.close()
        # It may be hung where the session never opened.
        if session is not None and process.worker.alive and lease.holds(_IDLE):
            with self._lock:
                if self._idle.setdefault(lease.name, process.worker) is process.worker:
                    return
        process.worker.close()

    @contextmanager
    def _named(self, sha256: str, name: str) -> Iterator[Path]:
        """The file under the name that its owner knows, which stands in messages."""
        shown = printable(PurePosixPath(name).name)[:_LONGEST_NAME] or "model.rknn"
        with self.files.used(sha256) as kept, temporary_folder() as folder:
            link = folder / ("model.rknn" if shown in (".", "..") else shown)
            with os_errors_explained(f"{shown} cannot be opened."):
                link.symlink_to(kept)
            yield link

    # ---- the machine --------------------------------------------------------------------

    def hello(self) -> Hello:
        """Versions, and what the machine is."""
        machine = read_machine(self._root)
        library = fault = ""
        try:
            library = find_library() or ""
        except RkzooError as error:
            fault = error.what
        libraries = machine.libraries
        if Path(library).is_file() and library not in (one.path for one in libraries):
            libraries += (examine(Path(library), library),)  # named, and in no usual folder
        return Hello(
            rkzoo=version("rkzoo"),
            protocol=VERSION,
            python=platform.python_version(),
            machine=machine.machine,
            kernel=machine.kernel,
            board=machine.model,
            chip=machine.chip,
            npu_cores=usable_cores(machine) or 0,
            driver=machine.driver,
            library=library,
            libraries=tuple(
                LibraryFacts(one.path, one.name, one.version, one.fault) for one in libraries
            ),
            memory_free=machine.free,
            memory_total=machine.total,
            library_fault=fault,
        )

    def machine(self) -> bytes:
        """The machine as JSON."""
        return machine_to_json(read_machine(self._root))

    def doctor(self, sha256: str = "", name: str = "") -> bytes:
        """What `rkzoo doctor --json` prints, for a file too. Raises RkzooError."""
        with ExitStack() as stack:
            model = stack.enter_context(self._named(sha256, name)) if sha256 else None
            text = json_text(diagnose(self._root, model=model).to_json())
        # The folder that it was given a name in means nothing to its owner.
        return (text.replace(f"{model.parent}/", "") if model else text).encode()

    def capture(self) -> bytes:
        """The .tar that `rkzoo doctor --capture` writes. Raises RkzooError."""
        with temporary_folder() as folder:
            target = folder / "capture.tar"
            write_capture(target, self._root)
            return target.read_bytes()

    def set_clocks(self, lease_name: str, asked: SetClocks) -> ClocksSet:
        """Show, hold, lock or restore the clocks; `hold` and `release` need a lease. Raises
        RkzooError."""
        try:
            return _CLOCKS[asked.action](self, lease_name, asked.apply)
        except (clocks.NeedsRoot, clocks.NoClocks) as error:
            raise RkzooError(error.what, error.why, _CLOCK_FIXES[type(error)]) from error

    def _hold(self, lease_name: str, apply: bool) -> ClocksSet:
        lease = self.leases.of(lease_name)
        return self._told("hold", True, self._held.hold(lease))

    def _release(self, lease_name: str, apply: bool) -> ClocksSet:
        self.leases.of(lease_name).give_back("clocks")
        return self._told("release", True, ())

    def _lock_clocks(self, lease_name: str, apply: bool) -> ClocksSet:
        machine = clocks.settable(read_machine(self._root))
        writes = clocks.lock(machine) if apply else clocks.lock_plan(machine)
        return self._told("lock", apply, writes)

    def _restore(self, lease_name: str, apply: bool) -> ClocksSet:
        root = self._root
        writes = clocks.restore(root) if apply else clocks.restore_plan(root)
        return self._told("restore", apply, writes)

    def _told(self, action: str, applied: bool, writes: Sequence[clocks.Write]) -> ClocksSet:
        machine = read_machine(self._root)
        return ClocksSet(
            action,
            applied,
            tuple(ClockWrite(one.path, one.value, one.old) for one in writes),
            tuple(clock.name for clock in machine.clocks if clock.throttled),
        )


# For who is at the other end of the cable.
_CLOCK_FIXES: dict[type[RkzooError], str] = {
    clocks.NeedsRoot: "Reach the board as root, for example with --on ssh://root@BOARD.",
    clocks.NoClocks: "See what that machine is: rkzoo doctor",
}

_CLOCKS: dict[str, Callable[[Board, str, bool], ClocksSet]] = {
    "show": lambda board, lease, apply: board._told("show", False, ()),
    "hold": Board._hold,
    "release": Board._release,
    "lock": Board._lock_clocks,
    "restore": Board._restore,
}
