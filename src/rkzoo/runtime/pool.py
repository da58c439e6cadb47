"""Worker pool for a stream of items: ordered results, bounded queue, no deadlock.

A worker is a thread with a resource of its own (a session, a task). The pool is independent of
models: it takes a function that opens one callable per worker. Threads are enough, since ONNX
Runtime, the NPU's library and OpenCV release the GIL while they work.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from time import perf_counter
from typing import Generic, TypeVar

from rkzoo.errors import RkzooError
from rkzoo.session import Closeable

Item = TypeVar("Item")
Answer = TypeVar("Answer")

# Opens the callable of worker number N (from 0); called in that worker's own thread, again when it
# has to be replaced. The context manager is closed there too.
Opener = Callable[[int], AbstractContextManager[Callable[[Item], Answer]]]

# Seconds that `close` waits for a busy worker; one that hangs longer is left behind (a daemon
# thread: it cannot be ended, and does not keep the program alive).
_GRACE = 30.0


@dataclass(frozen=True)
class Outcome(Generic[Item, Answer]):
    """The result of item `number` (from 0): an answer, or the exception that its worker raised.
    `waited` (in the queue) and `worked` are seconds.
    """

    number: int
    item: Item
    result: Answer | None = None
    error: BaseException | None = None
    waited: float = 0.0
    worked: float = 0.0

    def value(self) -> Answer:
        """The answer. Raises the exception, if there is one."""
        if self.error is not None:
            raise self.error
        return self.result  # type: ignore[return-value]


@dataclass(frozen=True)
class PoolStats:
    """Counts of the submitted items: each is in exactly one of these, or in the pool."""

    submitted: int
    delivered: int
    dropped: int
    cancelled: int
    waiting: int
    working: int


class _Lanes(Generic[Item]):
    """Queued items, a queue for each lane; lanes take turns."""

    def __init__(self) -> None:
        self._queues: dict[Hashable, deque[tuple[int, Item, float]]] = {}
        self._turns: deque[Hashable] = deque()  # lanes with items, the next one first

    def __len__(self) -> int:
        return sum(map(len, self._queues.values()))

    def count(self, lane: Hashable) -> int:
        return len(self._queues.get(lane, ()))

    def put(self, lane: Hashable, entry: tuple[int, Item, float]) -> None:
        queue = self._queues.setdefault(lane, deque())
        if not queue:
            self._turns.append(lane)
        queue.append(entry)

    def drop_oldest(self, lane: Hashable) -> None:
        self._queues[lane].popleft()
        if not self._queues[lane]:
            self._turns.remove(lane)

    def take(self) -> tuple[int, Item, float]:
        lane = self._turns.popleft()
        entry = self._queues[lane].popleft()
        if self._queues[lane]:
            self._turns.append(lane)
        return entry

    def take_all(self) -> list[tuple[int, Item, float]]:
        return [self.take() for _ in range(len(self))]


class Pool(Generic[Item, Answer], Closeable):
    """`workers` threads, each with its own opened callable.

    - Items may come in several lanes, which take turns, so that none starves. Outcomes come in
      the order of submission within a lane.
    - At most `waiting` items (default: as many as workers) are queued in a lane. When it is full,
      `submit` blocks, or with `drop_oldest` drops the one that waited longest there.
    - At most twice as many items as workers are started and not yet taken, so a slow consumer stops
      the workers instead of filling memory.
    - An exception is the outcome of its item and never ends the pool. An RkzooError leaves the
      worker as it is; after any other exception its state is unknown, so it is closed and opened
      again. A worker that cannot be reopened retires; when the last has, queued and later items get
      that error as their outcome.
    - `cancel` drops queued items; started ones are still delivered.

    `submit` and `results` may be used from two threads; `map` does both in one. All workers are
    opened at once; when one fails, the rest are closed and its exception is raised.
    """

    def __init__(
        self,
        opener: Opener[Item, Answer],
        workers: int,
        *,
        waiting: int | None = None,
        drop_oldest: bool = False,
    ) -> None:
        if workers < 1 or (waiting is not None and waiting < 1):
            raise RkzooError(
                f"A pool of {workers} workers and a queue of {waiting} cannot be made.",
                "Both need at least 1.",
                "Give e.g. --workers 2.",
            )
        self._opener, self._drop_oldest = opener, drop_oldest
        self._room = workers if waiting is None else waiting
        self._window = 2 * workers
        lock = threading.Lock()
        self._space = threading.Condition(lock)  # for producers
        self._work = threading.Condition(lock)  # for the workers
        self._ready = threading.Condition(lock)  # for consumers
        self._queue: _Lanes[Item] = _Lanes()
        self._dropped_in: Counter[Hashable] = Counter()
        self._order: deque[int] = deque()  # started and not delivered, oldest first
        self._done: dict[int, Outcome[Item, Answer]] = {}
        self._submitted = self._delivered = self._dropped = self._cancelled = 0
        self._working = 0
        self._ended = self._closing = False
        self._alive = workers
        self._opened = 0
        self._broken: BaseException | None = None
        self._threads = [
            threading.Thread(target=self._live, args=(n,), name=f"pool-{n}", daemon=True)
            for n in range(workers)
        ]
        for thread in self._threads:
            thread.start()
        try:
            self._wait_until_open(workers)
        except BaseException:
            self.close()
            raise

    # --- producing ----------------------------------------------------------------------

    def submit(self, item: Item, *, lane: Hashable = None, drop_oldest: bool | None = None) -> bool:
        """Queue an item; blocks while its lane is full, unless the oldest there is dropped.

        Args:
            item: what a worker is given.
            lane: its lane.
            drop_oldest: as the pool's, which is the default.

        Returns:
            False when the pool accepts nothing any more (`finish`, `cancel` or `close`).
        """
        drop = self._drop_oldest if drop_oldest is None else drop_oldest
        with self._space:
            if not drop:
                self._space.wait_for(lambda: self._ended or self._queue.count(lane) < self._room)
            if self._ended:
                return False
            if self._queue.count(lane) >= self._room:
                self._queue.drop_oldest(lane)
                self._dropped += 1
                self._dropped_in[lane] += 1
            self._queue.put(lane, (self._submitted, item, perf_counter()))
            self._submitted += 1
            if self._alive:
                self._work.notify()
            else:
                self._fail_waiting()
            return True

    def finish(self) -> None:
        """Declare the end of the input: `results` ends after the last outcome."""
        with self._space:
            self._ended = True
            self._wake()

    def cancel(self) -> None:
        """Drop queued items and accept no more; started ones are still delivered."""
        with self._space:
            self._forget_waiting()

    # --- consuming ----------------------------------------------------------------------

    def take(self, timeout: float | None = None) -> Outcome[Item, Answer] | None:
        """The next outcome in order; None after `timeout` seconds or when there will be none
        (`over` tells which).
        """
        with self._ready:
            self._ready.wait_for(lambda: self._next_is_done() or self._is_over(), timeout)
            if not self._next_is_done():
                return None
            outcome = self._done.pop(self._order.popleft())
            self._delivered += 1
            self._work.notify()  # the window has moved
            if self._is_over():
                self._wake()
            return outcome

    @property
    def over(self) -> bool:
        """Whether no more outcomes will come."""
        with self._ready:
            return self._is_over()

    def results(self) -> Iterator[Outcome[Item, Answer]]:
        """Outcomes in order until the pool is finished or cancelled and empty."""
        while (outcome := self.take()) is not None:
            yield outcome

    def map(self, items: Iterable[Item]) -> Iterator[Outcome[Item, Answer]]:
        """Submit items and yield outcomes in one thread, then finish the pool."""
        for item in items:
            while not self._drop_oldest and self.stats.waiting >= self._room:
                outcome = self.take()
                if outcome is None:
                    return
                yield outcome
            if not self.submit(item):
                break
            while (outcome := self.take(0)) is not None:
                yield outcome
        self.finish()
        yield from self.results()

    # --- state and shutdown -------------------------------------------------------------

    @property
    def stats(self) -> PoolStats:
        """A snapshot of the counts."""
        with self._space:
            return PoolStats(
                submitted=self._submitted,
                delivered=self._delivered,
                dropped=self._dropped,
                cancelled=self._cancelled,
                waiting=len(self._queue),
                working=self._working,
            )

    def dropped_in(self, lane: Hashable) -> int:
        """How many items of a lane were dropped."""
        with self._space:
            return self._dropped_in[lane]

    def close(self) -> None:
        """Cancel, wait for busy workers, close what the workers opened. May be called twice."""
        with self._space:
            self._closing = True
            self._forget_waiting()
        end = perf_counter() + _GRACE
        for thread in self._threads:
            thread.join(max(0.0, end - perf_counter()))

    # --- the workers --------------------------------------------------------------------

    def _live(self, number: int) -> None:
        """A worker's life: open, work, reopen after a crash, retire."""
        try:
            while self._serve(number):
                pass
        except BaseException as error:  # it cannot be opened or closed
            self._retire(error)
        else:
            self._retire(None)

    def _serve(self, number: int) -> bool:
        """Work with one opened callable; True when it has to be reopened."""
        with self._opener(number) as call:
            with self._ready:
                self._opened += 1
                self._ready.notify_all()
            while (entry := self._begin()) is not None:
                if self._answer(call, entry):
                    return True
        return False

    def _answer(self, call: Callable[[Item], Answer], entry: tuple[int, Item, float]) -> bool:
        """Process an item; whether the callable crashed on it."""
        index, item, since = entry
        start = perf_counter()
        result, error = None, None
        try:
            result = call(item)
        except BaseException as raised:
            error = raised
        now = perf_counter()
        with self._ready:
            self._working -= 1
            self._done[index] = Outcome(index, item, result, error, start - since, now - start)
            self._ready.notify_all()
            return error is not None and not isinstance(error, RkzooError)

    def _begin(self) -> tuple[int, Item, float] | None:
        """The oldest queued item; None when there will be no more."""
        with self._work:
            self._work.wait_for(self._may_begin_or_end)
            if self._closing or not self._queue:
                return None
            entry = self._queue.take()
            self._order.append(entry[0])
            self._working += 1
            self._space.notify_all()  # producers wait for different lanes
            return entry

    def _may_begin_or_end(self) -> bool:
        if self._closing or (self._ended and not self._queue):
            return True
        return bool(self._queue) and len(self._order) < self._window

    def _retire(self, error: BaseException | None) -> None:
        with self._ready:
            self._alive -= 1
            self._broken = self._broken or error
            if not self._alive:
                self._fail_waiting()
            self._wake()

    def _fail_waiting(self) -> None:
        """No worker is left: queued items get the error that ended the last one."""
        for index, item, since in self._queue.take_all():
            self._order.append(index)
            waited = perf_counter() - since
            self._done[index] = Outcome(index, item, None, self._broken, waited)
        self._wake()

    def _forget_waiting(self) -> None:
        self._ended = True
        self._cancelled += len(self._queue.take_all())
        self._wake()

    def _wait_until_open(self, workers: int) -> None:
        with self._ready:
            self._ready.wait_for(lambda: self._opened >= workers or self._broken is not None)
            if self._broken is not None:
                raise self._broken

    def _next_is_done(self) -> bool:
        return bool(self._order) and self._order[0] in self._done

    def _is_over(self) -> bool:
        return self._ended and not self._queue and not self._order

    def _wake(self) -> None:
        self._space.notify_all()
        self._work.notify_all()
        self._ready.notify_all()
