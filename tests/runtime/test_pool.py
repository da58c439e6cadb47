"""The pool: order, bounds, failures, cancellation; nothing is lost and nothing hangs."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rkzoo.errors import RkzooError
from rkzoo.runtime.pool import Pool, PoolStats


@dataclass
class Bench:
    """Opens workers that sleep and fail as they are told, and counts what is open."""

    delay: Callable[[int], float] = lambda item: 0.0
    crash: Callable[[int], bool] = lambda item: False
    refuse: Callable[[int], bool] = lambda item: False
    may_open: int = 10**9
    opened: int = 0
    open_now: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def __call__(self, number: int) -> Iterator[Callable[[int], int]]:
        with self.lock:
            if self.opened >= self.may_open:
                raise RkzooError("There is no second one.")
            self.opened += 1
            self.open_now += 1
        try:
            yield self.work
        finally:
            with self.lock:
                self.open_now -= 1

    def work(self, item: int) -> int:
        time.sleep(self.delay(item))
        if self.crash(item):
            raise ZeroDivisionError(item)
        if self.refuse(item):
            raise RkzooError(f"{item} is no good.")
        return item * 10


def threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("pool-")]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    count=st.integers(0, 40),
    workers=st.integers(1, 5),
    waiting=st.integers(1, 4),
    drop=st.booleans(),
    cancel_after=st.none() | st.integers(0, 30),
    one_thread=st.booleans(),
)
def test_order_is_kept_and_nothing_is_lost(
    seed: int,
    count: int,
    workers: int,
    waiting: int,
    drop: bool,
    cancel_after: int | None,
    one_thread: bool,
) -> None:
    chance = random.Random(seed)
    delays = [chance.choice((0, 0, 0.0005, 0.002)) for _ in range(count)]
    kinds = [chance.choice(("ok", "ok", "ok", "crash", "refuse")) for _ in range(count)]
    bench = Bench(delays.__getitem__, lambda i: kinds[i] == "crash", lambda i: kinds[i] == "refuse")
    seen = []
    with Pool(bench, workers, waiting=waiting, drop_oldest=drop) as pool:

        def feed() -> None:
            for item in range(count):
                if not pool.submit(item):
                    return
            pool.finish()

        feeder = threading.Thread(target=feed)
        if one_thread:
            outcomes = pool.map(range(count))
        else:
            feeder.start()
            outcomes = pool.results()
        for outcome in outcomes:
            seen.append(outcome)
            if cancel_after is not None and len(seen) > cancel_after:
                pool.cancel()
        if not one_thread:
            feeder.join()
        tally = pool.stats
    check(seen, tally, kinds, None if cancel_after is not None else count, drop)
    assert bench.open_now == 0
    assert threads() == []


def check(seen: list, tally: PoolStats, kinds: list[str], count: int | None, drop: bool) -> None:
    """`count`: how many were to be submitted, where nothing was cancelled."""
    numbers = [outcome.number for outcome in seen]
    assert numbers == sorted(set(numbers))
    assert tally.submitted == len(seen) + tally.dropped + tally.cancelled
    assert (tally.waiting, tally.working) == (0, 0)
    if not drop:
        assert tally.dropped == 0
    if count is not None:
        assert tally.submitted == count
        assert tally.cancelled == 0
        if not drop:
            assert numbers == list(range(count))
    for outcome in seen:
        kind = kinds[outcome.item]
        assert outcome.number == outcome.item
        if kind == "ok":
            assert outcome.value() == outcome.item * 10
        else:
            wanted = ZeroDivisionError if kind == "crash" else RkzooError
            with pytest.raises(wanted):
                outcome.value()


def test_a_crash_replaces_the_worker_and_a_refusal_does_not() -> None:
    bench = Bench(crash=lambda i: i == 1, refuse=lambda i: i == 3)
    with Pool(bench, 1) as pool:
        outcomes = list(pool.map(range(6)))
    assert [type(o.error) for o in outcomes if o.error] == [ZeroDivisionError, RkzooError]
    assert [o.result for o in outcomes] == [0, None, 20, None, 40, 50]
    assert bench.opened == 2


def test_when_no_worker_can_be_opened_again_the_rest_gets_that_error() -> None:
    bench = Bench(crash=lambda i: i == 1, may_open=1)
    with Pool(bench, 1, waiting=2) as pool:
        outcomes = list(pool.map(range(6)))
    assert [o.number for o in outcomes] == list(range(6))
    assert isinstance(outcomes[1].error, ZeroDivisionError)
    assert all("no second one" in str(o.error) for o in outcomes[2:])


def test_one_worker_less_is_slower_not_an_end() -> None:
    bench = Bench(crash=lambda i: i == 1, may_open=2)
    with Pool(bench, 2) as pool:
        outcomes = list(pool.map(range(30)))
    assert sum(o.error is not None for o in outcomes) == 1


def test_a_worker_that_cannot_be_opened_at_all_is_said_at_once() -> None:
    bench = Bench(may_open=1)
    with pytest.raises(RkzooError, match="no second one"):
        Pool(bench, 2)
    assert (bench.open_now, threads()) == (0, [])


def test_submit_blocks_while_the_consumer_sleeps() -> None:
    with Pool(Bench(), 2, waiting=3) as pool:
        feeder = threading.Thread(target=lambda: [pool.submit(i) for i in range(100)])
        feeder.start()
        time.sleep(0.2)
        # Two workers: four begun and not taken out, three waiting, the next one blocks.
        assert pool.stats.submitted == 7
        assert feeder.is_alive()
        pool.cancel()
        feeder.join(5)
        assert not feeder.is_alive()
        assert [o.result for o in pool.results()] == [0, 10, 20, 30]
        assert pool.stats.cancelled == 3


def test_drop_oldest_never_blocks_and_the_newest_come_through() -> None:
    with Pool(Bench(), 1, waiting=2, drop_oldest=True) as pool:
        began = time.perf_counter()
        for item in range(500):
            assert pool.submit(item)
        assert time.perf_counter() - began < 2
        pool.finish()
        numbers = [o.number for o in pool.results()]
        tally = pool.stats
    assert numbers[-2:] == [498, 499]
    assert len(numbers) <= 2 + 2
    assert tally.dropped == 500 - len(numbers)


def test_workers_run_at_the_same_time() -> None:
    together = threading.Barrier(3, timeout=5)

    @contextmanager
    def opener(number: int) -> Iterator[Callable[[int], int]]:
        yield lambda item: together.wait()

    with Pool(opener, 3) as pool:
        assert all(o.error is None for o in pool.map(range(6)))


def test_three_workers_give_nearly_three_times_the_rate_of_one() -> None:
    # 13.6 ms is a yolov8n on one core of an RK3588. The machine may be busy: the best of three.
    def rate(workers: int) -> float:
        with Pool(Bench(delay=lambda i: 0.0136), workers) as pool:
            start = time.perf_counter()
            count = sum(1 for _ in pool.map(range(30 * workers)))
            return count / (time.perf_counter() - start)

    assert max(rate(3) / rate(1) for _ in range(3)) >= 0.85 * 3


def test_leaving_early_leaves_nothing_behind() -> None:
    bench = Bench(delay=lambda i: 0.01)
    with Pool(bench, 3) as pool:
        for outcome in pool.map(range(1000)):
            if outcome.number == 5:
                break
    assert (bench.open_now, threads()) == (0, [])
    assert not pool.submit(1)
    assert pool.stats.submitted < 30


@pytest.mark.parametrize(("workers", "waiting"), [(0, 1), (1, 0), (-1, None)])
def test_a_pool_of_nothing_is_refused(workers: int, waiting: int | None) -> None:
    with pytest.raises(RkzooError, match="at least 1"):
        Pool(Bench(), workers, waiting=waiting)
