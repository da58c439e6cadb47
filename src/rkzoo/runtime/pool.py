"""Many workers on one stream of items: answers in order, a bounded queue, no hang.

A worker is a thread with something opened of its own (a session, a task). The pool knows
nothing of models: it takes any way of opening one callable for each worker. Threads are
enough, since ONNX Runtime, the NPU's library and OpenCV let go of Python while they work.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from time import perf_counter
from typing import Generic, TypeVar

from rkzoo.errors import RkzooError
from rkzoo.session import Closing

Item = TypeVar("Item")
Answer = TypeVar("Answer")

# Opens what worker number N (from 0) works with; called in that worker's own thread, again
# when it has to be replaced. What it gives is closed there too.
Opener = Callable[[int], AbstractContextManager[Callable[[Item], Answer]]]

# How long `close` waits for a worker that is at work; one that hangs longer is left behind
# (a daemon thread: it cannot be ended, and does not keep the program alive).
_GRACE = 30.0


@dataclass(frozen=True)
class Outcome(Generic[Item, Answer]):
    """What became of the item that was submitted as number `number` (from 0): an answer, or
    the error that its worker met. `waited` and `worked` are seconds."""

    number: int
    item: Item
    result: Answer | None = None
    error: BaseException | None = None
    waited: float = 0.0
    worked: float = 0.0

    def value(self) -> Answer:
        """The answer. Raises the error where there is one."""
        if self.error is not None:
            raise self.error
        return self.result  # type: ignore[return-value]


@dataclass(frozen=True)
class Tally:
    """What became of the submitted items: each is in exactly one of these, or still inside."""

    submitted: int
    delivered: int
    dropped: int
    cancelled: int
    waiting: int
    working: int


class Pool(Generic[Item, Answer], Closing):
    """`workers` threads, each with its own opened callable.

    - Outcomes come out in the order of submission, whoever finishes first.
    - At most `waiting` items (default: as many as workers) wait for a worker. When they are
      that many, `submit` blocks, or with `drop_oldest` lets go of the one that waited longest.
    - At most twice as many items as workers are begun and not yet taken out, so a slow
      consumer stops the workers instead of filling memory.
    - An exception is the outcome of its item and never ends the pool. An RkzooError leaves
      the worker as it is; any other exception means that nothing is known of its state, so
      it is closed and opened anew. A worker that cannot be opened again retires; when the
      last has, what waits and what is submitted later gets that error as its outcome.
    - `cancel` forgets what waits; what is at work is still delivered.

    `submit` and `results` may be used from two threads; `map` does both in one.
    Opens all workers at once. Raises what opening one of them raises, after closing the rest.
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
        self._space = threading.Condition(lock)  # for those who submit
        self._work = threading.Condition(lock)  # for the workers
        self._ready = threading.Condition(lock)  # for those who take outcomes
        self._queue: deque[tuple[int, Item, float]] = deque()
        self._order: deque[int] = deque()  # begun and not delivered, oldest first
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

    # --- putting in -------------------------------------------------------------------

    def submit(self, item: Item) -> bool:
        """Puts an item in; blocks while there is no room, unless the oldest is dropped.

        False when the pool takes nothing any more (`finish`, `cancel` or `close`).
        """
        with self._space:
            if not self._drop_oldest:
                self._space.wait_for(lambda: self._ended or len(self._queue) < self._room)
            if self._ended:
                return False
            if len(self._queue) >= self._room:
                self._queue.popleft()
                self._dropped += 1
            self._queue.append((self._submitted, item, perf_counter()))
            self._submitted += 1
            if self._alive:
                self._work.notify()
            else:
                self._fail_waiting()
            return True

    def finish(self) -> None:
        """Nothing more will be submitted: `results` ends after the last outcome."""
        with self._space:
            self._ended = True
            self._wake()

    def cancel(self) -> None:
        """Forgets what waits and takes nothing more; what is at work is still delivered."""
        with self._space:
            self._forget_waiting()

    # --- taking out -------------------------------------------------------------------

    def take(self, timeout: float | None = None) -> Outcome[Item, Answer] | None:
        """The next outcome in order; None when `timeout` seconds passed or there will be none
        (`over` tells which)."""
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
        """Whether no outcome will come any more."""
        with self._ready:
            return self._is_over()

    def results(self) -> Iterator[Outcome[Item, Answer]]:
        """Outcomes in order until the pool is finished or cancelled and empty."""
        while (outcome := self.take()) is not None:
            yield outcome

    def map(self, items: Iterable[Item]) -> Iterator[Outcome[Item, Answer]]:
        """Submits from and delivers to one thread, and finishes the pool."""
        for item in items:
            while not self._drop_oldest and self.tally.waiting >= self._room:
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

    # --- looking at it and ending it ----------------------------------------------------

    @property
    def tally(self) -> Tally:
        with self._space:
            return Tally(
                submitted=self._submitted,
                delivered=self._delivered,
                dropped=self._dropped,
                cancelled=self._cancelled,
                waiting=len(self._queue),
                working=self._working,
            )

    def close(self) -> None:
        """Cancels, waits for those at work, closes what the workers opened. Twice is harmless."""
        with self._space:
            self._closing = True
            self._forget_waiting()
        end = perf_counter() + _GRACE
        for thread in self._threads:
            thread.join(max(0.0, end - perf_counter()))

    # --- the workers --------------------------------------------------------------------

    def _live(self, number: int) -> None:
        """A worker's whole life: open, work, open anew after a crash, retire."""
        try:
            while self._serve(number):
                pass
        except BaseException as error:  # it cannot be opened, or not be closed
            self._retire(error)
        else:
            self._retire(None)

    def _serve(self, number: int) -> bool:
        """Works with one opening; True when it has to be opened again."""
        with self._opener(number) as call:
            with self._ready:
                self._opened += 1
                self._ready.notify_all()
            while (entry := self._begin()) is not None:
                if self._answer(call, entry):
                    return True
        return False

    def _answer(self, call: Callable[[Item], Answer], entry: tuple[int, Item, float]) -> bool:
        """Whether the callable crashed on the item."""
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
        """The oldest that waits; None when there will be no more."""
        with self._work:
            self._work.wait_for(self._may_begin_or_end)
            if self._closing or not self._queue:
                return None
            entry = self._queue.popleft()
            self._order.append(entry[0])
            self._working += 1
            self._space.notify()
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
        """No worker is left: what waits gets the error that ended the last one."""
        for index, item, since in self._queue:
            self._order.append(index)
            waited = perf_counter() - since
            self._done[index] = Outcome(index, item, None, self._broken, waited)
        self._queue.clear()
        self._wake()

    def _forget_waiting(self) -> None:
        self._ended = True
        self._cancelled += len(self._queue)
        self._queue.clear()
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
