"""Who is served next, without a clock: what a request costs is told, not measured."""

from __future__ import annotations

import gc
import heapq
import random
import threading
import weakref
from collections import Counter
from time import monotonic
from typing import Any

import pytest

from rkzoo.serving.errors import ServingError
from rkzoo.serving.scheduler import Job, Scheduler, Taker


def job(kind: str = "predict", size: int = 0, part: str = "") -> Job:
    return Job(kind, None, bytes(size), monotonic() + 1000, part)


class Simulation:
    """Slots in a time of its own. `costs`: seconds that a request of each model takes."""

    def __init__(self, costs: dict[str, float], slots: int) -> None:
        self.scheduler = Scheduler(1000, 1 << 30)
        self.costs = costs
        self.used = dict.fromkeys(costs, 0.0)
        self.most_at_once = 0
        self._now = 0.0
        self._asking: list[Taker] = []
        self._working: list[tuple[float, int, Taker, list[Job]]] = []  # by their end
        for taker in [Taker(model) for model in costs for _ in range(slots)]:
            self.scheduler.enter(taker)
            self.scheduler.ask(taker)
            self._asking.append(taker)

    def put(self, model: str, count: int) -> None:
        for _ in range(count):
            self.scheduler.put(model, job())

    def run(self, count: int) -> list[str]:
        """The models of the next requests that are answered."""
        order: list[str] = []
        while len(order) < count:
            for taker in [one for one in self._asking if one.ready.is_set()]:
                self._asking.remove(taker)
                end = self._now + self.costs[taker.model]
                jobs = self.scheduler.taken(taker)
                heapq.heappush(self._working, (end, id(taker), taker, jobs))
            self.most_at_once = max(self.most_at_once, len(self._working))
            self._now, _, taker, jobs = heapq.heappop(self._working)
            self.used[taker.model] += self.costs[taker.model]
            order.append(taker.model)
            self.scheduler.done(taker, jobs, self.costs[taker.model])
            self.scheduler.ask(taker)
            self._asking.append(taker)
        return order


@pytest.mark.parametrize("slots", [1, 2, 6])
def test_time_is_shared_not_turns(slots: int) -> None:
    """Of two models that always have something to do each gets half of the time, though one
    takes ten times as long for a request."""
    simulation = Simulation({"slow": 0.1, "quick": 0.01}, slots)
    for model in simulation.costs:
        simulation.put(model, 900)
    simulation.run(800)
    share = simulation.used["slow"] / sum(simulation.used.values())
    assert 0.45 < share < 0.55
    assert simulation.most_at_once == slots


@pytest.mark.parametrize("slots", [1, 2, 6])
def test_a_flood_does_not_starve_another_model(slots: int) -> None:
    """Ten requests after a flood of a thousand are answered among the next."""
    simulation = Simulation({"flooded": 0.01, "quiet": 0.01}, slots)
    simulation.put("flooded", 1000)
    simulation.run(100)
    simulation.put("quiet", 10)
    assert simulation.run(40).count("quiet") == 10


def test_who_was_idle_is_not_owed_the_time() -> None:
    simulation = Simulation({"busy": 0.01, "late": 0.01}, 1)
    simulation.put("busy", 600)
    simulation.run(200)
    simulation.put("late", 200)
    assert 28 <= simulation.run(60).count("busy") <= 32


def test_the_queue_is_bounded_and_says_when_to_come_back() -> None:
    scheduler = Scheduler(3, 1 << 20)
    for _ in range(3):
        scheduler.put("a", job())
    with pytest.raises(ServingError) as refused:
        scheduler.put("a", job())
    assert refused.value.status == 503
    assert refused.value.retry_after is not None
    assert refused.value.retry_after >= 1
    scheduler.put("b", job())  # which has a queue of its own


def test_what_would_be_late_is_refused_at_once() -> None:
    """A queue that is short in numbers can be long in time."""
    simulation = Simulation({"slow": 5.0}, 2)
    simulation.put("slow", 50)
    simulation.run(40)  # it has learned what a request takes
    late = Job("predict", None, b"", monotonic() + 10)
    with pytest.raises(ServingError) as refused:
        simulation.scheduler.put("slow", late)
    assert refused.value.status == 503
    assert 5 < (refused.value.retry_after or 0) < 25
    simulation.run(8)
    simulation.scheduler.put("slow", late)


def test_bytes_are_bounded_over_all_models_and_given_back() -> None:
    scheduler = Scheduler(10, 100)
    first = job(size=60)
    scheduler.put("a", first)
    with pytest.raises(ServingError) as refused:
        scheduler.put("b", job(size=60))
    assert refused.value.status == 503
    assert first.future.cancel()
    scheduler.put("b", job(size=60))


def test_a_request_is_gone_without_the_collector() -> None:
    """Its bytes would fill the memory until the collector comes by."""
    scheduler = Scheduler(10, 1 << 20)
    taker = Taker("a")
    scheduler.enter(taker)
    gc.disable()
    try:
        one: Any = job(size=1000)
        gone = weakref.ref(one)
        scheduler.put("a", one)
        jobs = scheduler.take(taker)
        assert jobs == [one]
        one.future.set_result(None)
        scheduler.done(taker, jobs, 0.01)
        del one, jobs
        assert gone() is None
    finally:
        gc.enable()


def test_what_nobody_waits_for_is_passed_over() -> None:
    scheduler = Scheduler(10, 1 << 20)
    jobs = [job() for _ in range(4)]
    for one in jobs:
        scheduler.put("a", one)
    assert jobs[0].future.cancel()
    assert jobs[1].future.cancel()
    taker = Taker("a")
    scheduler.enter(taker)
    assert scheduler.take(taker) == [jobs[2]]
    assert scheduler.waiting("a") == 1
    assert scheduler.working("a") == 1


def test_a_batch_is_of_one_kind_and_part_in_order() -> None:
    scheduler = Scheduler(20, 1 << 20)
    kinds = [("infer", "x"), ("infer", "x"), ("infer", "y"), ("predict", ""), ("predict", "")]
    kinds += [("infer", "y")] * 5
    for kind, part in kinds:
        scheduler.put("a", job(kind, part=part))
    taker = Taker("a", batch=4)
    scheduler.enter(taker)
    taken = []
    while scheduler.waiting("a"):
        jobs = scheduler.take(taker)
        scheduler.done(taker, jobs, 0.01)
        taken.append([(one.kind, one.part) for one in jobs])
    assert [len(jobs) for jobs in taken] == [2, 1, 1, 1, 4, 1]
    assert [one for jobs in taken for one in jobs] == kinds


def test_draining_waits_for_what_is_worked_on() -> None:
    scheduler = Scheduler(10, 1 << 20)
    scheduler.put("a", job())
    assert not scheduler.drain(0.01)
    assert scheduler.drain(0.01, "b")
    taker = Taker("a")
    scheduler.enter(taker)
    jobs = scheduler.take(taker)
    assert not scheduler.drain(0.01)
    scheduler.done(taker, jobs, 0.01)
    assert scheduler.drain(0.01)


def test_a_slot_that_leaves_makes_room_for_others() -> None:
    """A slot of one model dies while the other's waits for the NPU."""
    scheduler = Scheduler(10, 1 << 20)
    dying, other = Taker("a"), Taker("b")
    for taker in (dying, other):
        scheduler.enter(taker)
    scheduler.put("a", job())
    jobs = scheduler.take(dying)
    scheduler.put("b", job())
    got: list[list[Job]] = []
    thread = threading.Thread(target=lambda: got.append(scheduler.take(other)), daemon=True)
    thread.start()
    thread.join(0.05)
    assert not got  # no more at once than the model with the most slots has
    scheduler.done(dying, jobs, 0.01)
    scheduler.leave(dying)
    thread.join(5)
    assert len(got[0]) == 1


def test_a_retired_slot_is_given_nothing_though_its_thread_has_not_woken() -> None:
    scheduler = Scheduler(10, 1 << 30)
    former, new = Taker("a"), Taker("a")
    for taker in (former, new):
        scheduler.enter(taker)
    scheduler.ask(former)
    scheduler.retire(former)
    request = job()
    scheduler.put("a", request)
    scheduler.ask(new)
    assert scheduler.taken(former) == []
    assert scheduler.taken(new) == [request]


def test_nothing_is_lost_or_given_twice() -> None:
    """Threads that put, cancel, take, retire and come back, by chance."""
    chance = random.Random(0)
    scheduler = Scheduler(10_000, 1 << 30)
    models = ("a", "b", "c")
    jobs = [(chance.choice(models), job(chance.choice(("infer", "predict")))) for _ in range(3000)]
    answered: Counter[int] = Counter()
    lock = threading.Lock()

    def serve(model: str, batch: int, patience: int) -> None:
        while True:
            taker = Taker(model, batch)
            scheduler.enter(taker)
            for _ in range(patience):
                taken = scheduler.take(taker)
                if not taken:
                    return
                with lock:
                    answered.update(id(one) for one in taken)
                for one in taken:
                    one.future.set_result(None)
                scheduler.done(taker, taken, 0.001)
            scheduler.leave(taker)

    for model in models:
        for number in range(3):
            arguments = (model, number + 1, 20 + number)
            threading.Thread(target=serve, args=arguments, daemon=True).start()
    cancelled = set()
    for model, one in jobs:
        scheduler.put(model, one)
        if chance.random() < 0.1 and one.future.cancel():
            cancelled.add(id(one))
    end = monotonic() + 20
    while not scheduler.drain(0.5):
        assert monotonic() < end, {model: scheduler.waiting(model) for model in models}
    assert set(answered) == {id(one) for _, one in jobs} - cancelled
    assert set(answered.values()) == {1}
