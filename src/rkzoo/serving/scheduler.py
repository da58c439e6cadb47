"""Who is served next: a bounded queue for each model, and slots that take turns.

Models share the NPU, so what is shared fairly is time: of the models that have both a request
waiting and a slot free, the one that has used the least goes first. No more requests are worked on
at once than the model with the most slots has, for more would only wait inside the driver.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from rkzoo.serving.errors import ServingError


@dataclass(eq=False)
class Job:
    """A request that waits for a slot, or is worked on.

    Attributes:
        kind: The call of the slot.
        arguments: Its arguments.
        data: Its buffer.
        deadline: When nobody waits for it any more, by `time.monotonic`.
        future: Gets the answer.
        queued: When it came.
        worked: Seconds in a slot, once it was answered.
    """

    kind: str
    arguments: Any
    data: bytes
    deadline: float
    part: str = ""
    future: Future[Any] = field(default_factory=Future)
    queued: float = field(default_factory=monotonic)
    worked: float = 0.0


class Taker:
    """A slot that asks for work; `retire` sends it home after what it has."""

    def __init__(self, model: str, batch: int = 1) -> None:
        self.model, self.batch = model, batch
        self.ready = threading.Event()
        self.jobs: list[Job] = []
        self.retired = False
        self.guess = 0.0  # seconds that it was expected to take
        self.since: float | None = None  # when it was given what it works on


@dataclass
class _Share:
    """A model's queue, its slots (idle ones, and how many are busy with how many requests), and
    the seconds that they have worked; `mean` is what one request takes, 0 before any was seen:
    nobody is refused for a guess."""

    jobs: deque[Job] = field(default_factory=deque)
    idle: deque[Taker] = field(default_factory=deque)
    slots: int = 0
    busy: int = 0
    working: int = 0
    used: float = 0.0
    mean: float = 0.0


class Scheduler:
    """Queues and slots of all models.

    Args:
        waiting: Most requests that wait for one model.
        most_bytes: Most bytes of requests that wait or are worked on.
    """

    def __init__(self, waiting: int, most_bytes: int) -> None:
        self._room, self._most_bytes = waiting, most_bytes
        self._lock = threading.Lock()
        self._shares: dict[str, _Share] = {}
        self._bytes = 0
        self._empty = threading.Condition(self._lock)

    # ---- requests -------------------------------------------------------------------------

    def put(self, model: str, job: Job) -> None:
        """Queues a request. Raises ServingError (503) where there is no room for it, or where it
        would be late."""
        with self._lock:
            share = self._shares.setdefault(model, _Share())
            wait = share.mean * len(share.jobs) / max(1, share.slots)
            if len(share.jobs) >= self._room or monotonic() + wait > job.deadline:
                waiting = f"{len(share.jobs)} requests waiting already, for about {wait:.1f} s"
                raise ServingError(503, f"{model} has {waiting}.", max(1.0, wait / 2))
            if self._bytes + len(job.data) > self._most_bytes:
                raise ServingError(503, "The requests that wait fill the memory.", 1.0)
            # The future does not hold the job: a circle would keep its bytes until the collector
            # comes by.
            size = len(job.data)
            self._bytes += size
            job.future.add_done_callback(lambda _: self._forget(size))
            if not share.jobs and not share.working:
                # Who was idle is not owed the time: it begins where the others are.
                share.used = max(share.used, min(self._busy(), default=share.used))
            share.jobs.append(job)
            self._dispatch()

    def fail_all(self, model: str, error: Exception) -> None:
        """Answers what waits for a model with an error."""
        with self._lock:
            jobs = list(self._shares[model].jobs) if model in self._shares else []
            if jobs:
                self._shares[model].jobs.clear()
        for job in jobs:
            if job.future.set_running_or_notify_cancel():
                job.future.set_exception(error)

    def forget(self, model: str) -> None:
        """Drops a model that has no slots any more."""
        with self._lock:
            self._shares.pop(model, None)

    def waiting(self, model: str) -> int:
        """How many requests wait for a model."""
        with self._lock:
            return len(self._shares[model].jobs) if model in self._shares else 0

    def working(self, model: str) -> int:
        """How many requests of a model are worked on."""
        with self._lock:
            return self._shares[model].working if model in self._shares else 0

    def drain(self, seconds: float, model: str | None = None) -> bool:
        """Waits until nothing waits or is worked on, of one model or of all; whether it is so."""
        with self._empty:
            return self._empty.wait_for(lambda: not self._open(model), seconds)

    # ---- slots ----------------------------------------------------------------------------

    def enter(self, taker: Taker) -> None:
        """A slot is there."""
        with self._lock:
            self._shares.setdefault(taker.model, _Share()).slots += 1

    def leave(self, taker: Taker) -> None:
        """A slot is gone."""
        with self._lock:
            share = self._shares.get(taker.model, _Share())
            share.slots -= 1
            self._stop_idling(taker)
            self._dispatch()

    def retire(self, taker: Taker) -> None:
        """Sends a slot home after what it has; from here on it is given nothing more."""
        with self._lock:
            taker.retired = True
            # Its thread may not have woken yet when the next request comes.
            self._stop_idling(taker)
            taker.ready.set()

    def take(self, taker: Taker) -> list[Job]:
        """The next requests for a slot, at most its batch, all of one kind and part; waits for
        them. Empty: it is retired."""
        self.ask(taker)
        taker.ready.wait()
        return self.taken(taker)

    def ask(self, taker: Taker) -> None:
        """A slot is idle; `ready` is set when it has been given something, or is retired."""
        with self._lock:
            if not taker.retired:
                taker.ready.clear()
                self._shares[taker.model].idle.append(taker)
                self._dispatch()

    def taken(self, taker: Taker) -> list[Job]:
        """What a slot was given."""
        with self._lock:
            jobs, taker.jobs = taker.jobs, []
            return jobs

    def done(self, taker: Taker, jobs: list[Job], seconds: float) -> None:
        """A slot has answered what it took, in `seconds`. What is next is decided when it asks
        for more (or leaves), so that it has its chance, too."""
        with self._lock:
            share = self._shares[taker.model]
            taker.since = None
            share.busy -= 1
            share.working -= len(jobs)
            share.used += seconds - taker.guess
            share.mean += 0.1 * (seconds / len(jobs) - share.mean)
            self._empty.notify_all()

    # ---- under the lock -------------------------------------------------------------------

    def _dispatch(self) -> None:
        """Hands requests to idle slots while there are both."""
        most = max((share.slots for share in self._shares.values()), default=0)
        while sum(share.busy for share in self._shares.values()) < most:
            able = [share for share in self._shares.values() if share.jobs and share.idle]
            if not able:
                return
            share = min(able, key=lambda share: share.used)
            taker = share.idle.popleft()
            taker.jobs = list(_next(share.jobs, taker.batch))
            if not taker.jobs:
                share.idle.appendleft(taker)
                continue
            share.busy += 1
            share.working += len(taker.jobs)
            taker.since, taker.guess = monotonic(), share.mean * len(taker.jobs)
            share.used += taker.guess
            taker.ready.set()

    def _stop_idling(self, taker: Taker) -> None:
        share = self._shares.get(taker.model)
        if share and taker in share.idle:
            share.idle.remove(taker)

    def _busy(self) -> list[float]:
        return [share.used for share in self._shares.values() if share.jobs or share.working]

    def _open(self, model: str | None) -> bool:
        shares = self._shares.values() if model is None else [self._shares.get(model, _Share())]
        return any(share.jobs or share.working for share in shares)

    def _forget(self, size: int) -> None:
        # Futures are ended outside of the lock.
        with self._lock:
            self._bytes -= size
            self._empty.notify_all()


def _next(jobs: deque[Job], most: int) -> Iterator[Job]:
    """The first request that somebody waits for, and those of its kind right behind it."""
    first: Job | None = None
    while jobs and most:
        job = jobs[0]
        if first is not None and (job.kind, job.part) != (first.kind, first.part):
            return
        jobs.popleft()
        if job.future.set_running_or_notify_cancel():
            first = first or job
            most = most - 1 if job.kind == "infer" else 0
            yield job
