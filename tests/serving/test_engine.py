"""Models in worker processes, under load and under misfortune; with the stand-in for Rockchip's
library, which takes as long as it is told."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import numpy as np
import pytest

from npu_standin import build
from rkzoo.protocol.tensors import Body, decode_response, encode_request
from rkzoo.serving import engine as engine_module
from rkzoo.serving.engine import Engine, Limits, ServedModel
from rkzoo.serving.errors import ServingError
from rkzoo.serving.model_slot import PredictOptions
from rkzoo.workflow.inference.board import LIBRARY
from serving.npu_models import CLASSES, SIZE, classifier, picture

SHOT = picture()


@pytest.fixture(scope="module", autouse=True)
def library(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(LIBRARY, str(build.compiled(tmp_path_factory.mktemp("standin"))))
        yield


@contextmanager
def running(*served: ServedModel, **limits: Any) -> Iterator[Engine]:
    """An engine with its models loaded; afterwards no process of it is left."""
    engine = Engine(served, Limits(**limits))
    engine.load_all()
    try:
        yield engine
    finally:
        pids = [pid for name in engine.names() if (pid := engine.status(name).pid)]
        engine.stop(20)
        assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def worker_of(engine: Engine, name: str = "tiny") -> int:
    pid = engine.status(name).pid
    assert pid is not None
    return pid


async def best(engine: Engine, name: str = "tiny", timeout: float | None = None) -> int:
    """The class that the model finds."""
    reply = await engine.predict(name, SHOT, PredictOptions(), timeout=timeout)
    found: int = json.loads(reply.body)["results"][0]["class_id"]
    return found


async def outcome(engine: Engine, name: str = "tiny", timeout: float | None = None) -> Any:
    """The class, or the error."""
    try:
        return await best(engine, name, timeout)
    except ServingError as error:
        return error


def until(met: Callable[[], bool], seconds: float = 20) -> None:
    end = monotonic() + seconds
    while not met():
        assert monotonic() < end, "it did not happen"
        sleep(0.01)


async def soon(met: Callable[[], bool], seconds: float = 20) -> None:
    await asyncio.to_thread(until, met, seconds)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return classifier(tmp_path_factory.mktemp("models") / "tiny.rknn", ms=30)


# ---- workers that die ---------------------------------------------------------------------


def test_a_killed_worker_costs_what_it_worked_on(tiny: Path) -> None:
    async def body(engine: Engine) -> list[Any]:
        asked = [asyncio.create_task(outcome(engine)) for _ in range(60)]
        await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
        os.kill(worker_of(engine), signal.SIGKILL)
        return await asyncio.gather(*asked)

    with running(ServedModel("tiny", str(tiny), slots=2)) as engine:
        outcomes = asyncio.run(body(engine))
        failed = [one for one in outcomes if isinstance(one, ServingError)]
        assert 1 <= len(failed) <= 2  # one a slot
        assert {error.status for error in failed} == {502}
        assert all("The process that ran tiny ended." in error.message for error in failed)
        assert all("SIGKILL" in error.message for error in failed)
        assert [one for one in outcomes if not isinstance(one, ServingError)] == [3] * (
            60 - len(failed)
        )
        assert engine.restarts == {"tiny": 1}
        assert engine.status("tiny").state == "ready"


def test_a_worker_that_dies_idle_is_started_again_unasked(tiny: Path) -> None:
    with running(ServedModel("tiny", str(tiny), slots=1)) as engine:
        first = worker_of(engine)
        os.kill(first, signal.SIGKILL)
        until(lambda: engine.status("tiny").pid not in (None, first))
        until(lambda: engine.ready)
        assert asyncio.run(best(engine)) == 3


def test_a_worker_that_dies_each_time_is_given_up(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "_FIRST_PAUSE", 0.01)
    monkeypatch.setattr(engine_module, "_MOST_DEATHS", 2)

    async def body(engine: Engine) -> None:
        for deaths in range(3):
            asked = asyncio.create_task(outcome(engine))
            await soon(lambda n=deaths: engine.restarts.get("tiny", 0) == n and engine.ready)
            await soon(lambda: engine.scheduler.working("tiny") == 1)
            os.kill(worker_of(engine), signal.SIGKILL)
            assert (await asked).status == 502
            await soon(lambda: engine.scheduler.working("tiny") == 0)
        await soon(lambda: engine.status("tiny").state == "failed")
        refused = await outcome(engine)
        assert refused.status == 503
        assert "ended 3 times" in refused.message
        assert not engine.ready
        # A person who has mended it loads it again.
        await engine.load("tiny")
        assert await best(engine) == 3
        assert engine.ready

    slow = classifier(tiny.with_name("dying.rknn"), ms=2000)
    with running(ServedModel("tiny", str(slow), slots=1)) as engine:
        asyncio.run(body(engine))


# ---- time and room ------------------------------------------------------------------------


def test_a_request_that_is_late_costs_no_slot(tiny: Path) -> None:
    async def body(engine: Engine) -> None:
        began = monotonic()
        late = await asyncio.gather(*(outcome(engine, timeout=0.1) for _ in range(5)))
        assert monotonic() - began < 0.9
        assert {error.status for error in late} == {504}
        assert "within 0.1 s" in late[0].message
        assert await best(engine) == 3
        # The slot had the first of them, and the others were never begun.
        assert monotonic() - began < 4

    slow = classifier(tiny.with_name("slow.rknn"), ms=1000)
    with running(ServedModel("tiny", str(slow), slots=1)) as engine:
        asyncio.run(body(engine))
        until(lambda: engine.scheduler.working("tiny") == 0)


def test_a_worker_that_hangs_is_ended(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver can keep a call for good. Nobody waits for the answer any more by then."""
    monkeypatch.setattr(engine_module, "_POLL", 0.05)
    file = classifier(tiny.with_name("hangs.rknn"), ms=60_000)

    async def body(engine: Engine) -> None:
        assert (await outcome(engine)).status == 504
        classifier(file, ms=1)  # what is started next does not hang
        await soon(lambda: engine.restarts == {"tiny": 1} and engine.ready)
        assert await best(engine) == 3

    with running(ServedModel("tiny", str(file), slots=1), deadline=0.5) as engine:
        first = worker_of(engine)
        engine._models["tiny"].stamp = None  # it is not the new file that brings a new process
        threading.Thread(target=engine.watch, daemon=True).start()
        asyncio.run(body(engine))
        assert not Path(f"/proc/{first}").exists()


def test_what_does_not_fit_into_the_queue_is_refused(tiny: Path) -> None:
    async def body(engine: Engine) -> list[Any]:
        return await asyncio.gather(*(outcome(engine) for _ in range(30)))

    with running(ServedModel("tiny", str(tiny), slots=1), waiting=4) as engine:
        outcomes = asyncio.run(body(engine))
        refused = [one for one in outcomes if isinstance(one, ServingError)]
        assert len(refused) in (25, 26)  # the first may have been taken before the last came
        assert {error.status for error in refused} == {503}
        assert all(error.retry_after is not None and error.retry_after >= 1 for error in refused)


def test_bodies_and_answers_share_the_memory() -> None:
    engine = Engine((), Limits(memory=100))
    with engine.admit(60):
        with pytest.raises(ServingError) as refused, engine.admit(60):
            pass
        assert refused.value.status == 503
    with engine.holding(1000), pytest.raises(ServingError), engine.admit(1):
        pass
    with engine.admit(100):
        pass


def test_a_flood_does_not_starve_another_model(tiny: Path) -> None:
    async def body(engine: Engine) -> list[str]:
        order: list[str] = []

        async def ask(name: str) -> None:
            assert await best(engine, name) == 3
            order.append(name)

        flood = [asyncio.create_task(ask("a")) for _ in range(30)]
        await asyncio.wait(flood, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.gather(*(ask("b") for _ in range(5)), *flood)
        return order

    with running(*(ServedModel(name, str(tiny), slots=1) for name in "ab")) as engine:
        order = asyncio.run(body(engine))
    last = max(place for place, name in enumerate(order) if name == "b")
    assert last < 20


# ---- files that are replaced --------------------------------------------------------------


def test_a_replaced_file_is_loaded_under_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "_POLL", 0.05)
    file = classifier(tmp_path / "tiny.rknn", ms=5, best=3)

    async def body(engine: Engine) -> Counter[Any]:
        seen: Counter[Any] = Counter()
        over = asyncio.Event()

        async def client() -> None:
            while not over.is_set():
                answer = await outcome(engine)
                seen[answer if isinstance(answer, int) else answer.message] += 1

        clients = [asyncio.create_task(client()) for _ in range(6)]
        await soon(lambda: seen[3] > 20)
        classifier(file, ms=5, best=7)
        await soon(lambda: seen[7] > 20)
        assert engine.status("tiny").version == "2"
        file.write_bytes(b"no model")
        await soon(lambda: bool(engine.status("tiny").reason))
        before = seen[7]
        await soon(lambda: seen[7] > before + 20)
        over.set()
        await asyncio.gather(*clients)
        return seen

    with running(ServedModel("tiny", str(file), slots=2)) as engine:
        watching = threading.Thread(target=engine.watch, daemon=True)
        watching.start()
        seen = asyncio.run(body(engine))
        assert set(seen) == {3, 7}, "a request failed"
        status = engine.status("tiny")
        assert (status.state, status.version) == ("ready", "2")
        assert "tiny.rknn" in status.reason
        # And a good one is taken again.
        classifier(file, ms=5, best=5)
        until(lambda: engine.status("tiny").version == "3")
        assert asyncio.run(best(engine)) == 5
        assert engine.status("tiny").reason == ""
    watching.join(5)
    assert not watching.is_alive()


def test_a_broken_file_fails_alone(tiny: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.rknn"
    broken.write_bytes(b"no model")
    served = (ServedModel("broken", str(broken)), ServedModel("tiny", str(tiny), slots=1))
    with running(*served) as engine:
        assert engine.status("broken").state == "failed"
        assert "broken.rknn" in engine.status("broken").reason
        refused = asyncio.run(outcome(engine, "broken"))
        assert refused.status == 503
        assert asyncio.run(best(engine)) == 3


# ---- batches ------------------------------------------------------------------------------


async def scores(engine: Engine, samples: int) -> np.ndarray:
    array = np.zeros((samples, SIZE, SIZE, 3), np.uint8)
    asked = encode_request({"images": array})
    reply = await engine.infer("four", asked.data, asked.header_size)
    return decode_response(Body(reply.body, reply.header_size))["scores"]


def test_requests_are_run_together(tmp_path: Path) -> None:
    """Each gets its own row: in the recording the rows of a batch find different classes."""

    async def body(engine: Engine) -> list[np.ndarray]:
        first = asyncio.create_task(scores(engine, 1))
        await soon(lambda: engine.scheduler.working("four") == 1)
        rest = await asyncio.gather(*(scores(engine, n) for n in (1, 1, 1, 1, 2, 2, 4, 3)))
        return [await first, *rest]

    file = classifier(tmp_path / "four.rknn", ms=100, best=0, batch=4)
    with running(ServedModel("four", str(file), slots=1)) as engine:
        answers = asyncio.run(body(engine))
    assert [answer.shape for answer in answers] == [
        (n, CLASSES) for n in (1, 1, 1, 1, 1, 2, 2, 4, 3)
    ]
    found = [answer.argmax(1).tolist() for answer in answers]
    assert found == [[0], [0], [1], [2], [3], [0, 1], [2, 3], [0, 1, 2, 3], [0, 1, 2]]


def test_a_wrong_request_costs_its_batch_nothing(tmp_path: Path) -> None:
    async def body(engine: Engine) -> list[Any]:
        first = asyncio.create_task(scores(engine, 1))
        await soon(lambda: engine.scheduler.working("four") == 1)
        asked = [scores(engine, 1), scores(engine, 5), scores(engine, 0), scores(engine, 1)]
        rest = await asyncio.gather(*asked, return_exceptions=True)
        return [await first, *rest]

    file = classifier(tmp_path / "four.rknn", ms=100, best=0, batch=4)
    with running(ServedModel("four", str(file), slots=1)) as engine:
        _, good, large, none, also_good = asyncio.run(body(engine))
    assert [good.argmax(), also_good.argmax()] == [0, 1]
    for error in (large, none):
        assert isinstance(error, ServingError)
        assert error.status == 400


# ---- loading ------------------------------------------------------------------------------


def test_unloading_answers_what_waits(tiny: Path) -> None:
    async def body(engine: Engine) -> None:
        asked = [asyncio.create_task(outcome(engine)) for _ in range(10)]
        await soon(lambda: engine.scheduler.working("tiny") == 1)
        unloading = asyncio.create_task(engine.unload("tiny"))
        await soon(lambda: engine.status("tiny").state == "unloaded")
        refused = await outcome(engine)
        assert refused.status == 503
        assert "unloaded" in refused.message or "not loaded" in refused.message
        await unloading
        assert await asyncio.gather(*asked) == [3] * 10
        assert engine.status("tiny").pid is None
        await engine.load("tiny")
        assert await best(engine) == 3

    with running(ServedModel("tiny", str(tiny), slots=1)) as engine:
        asyncio.run(body(engine))


def test_loading_and_unloading_by_chance_under_load(tiny: Path) -> None:
    """Whatever order: an answer, or a 503 that says why; and afterwards it works."""

    async def body(engine: Engine) -> set[Any]:
        seen: set[Any] = set()
        over = asyncio.Event()

        async def client() -> None:
            while not over.is_set():
                answer = await outcome(engine)
                seen.add(answer if isinstance(answer, int) else answer.status)
                await asyncio.sleep(0.01)

        clients = [asyncio.create_task(client()) for _ in range(4)]
        await asyncio.gather(engine.unload("tiny"), engine.load("tiny"), engine.unload("tiny"))
        over.set()
        await asyncio.gather(*clients)
        await engine.load("tiny")
        assert await best(engine) == 3
        return seen

    with running(ServedModel("tiny", str(tiny), slots=1)) as engine:
        assert asyncio.run(body(engine)) <= {3, 503}
        assert engine.scheduler.waiting("tiny") == 0


def test_stopping_answers_what_was_taken(tiny: Path) -> None:
    async def body(engine: Engine) -> list[Any]:
        asked = [asyncio.create_task(outcome(engine)) for _ in range(20)]
        await soon(lambda: engine.scheduler.working("tiny") == 2)
        stopping = asyncio.create_task(asyncio.to_thread(engine.stop, 20))
        await soon(lambda: not engine.ready)
        refused = await outcome(engine)
        assert refused.status == 503
        answers = await asyncio.gather(*asked)
        await stopping
        return answers

    with running(ServedModel("tiny", str(tiny), slots=2)) as engine:
        assert asyncio.run(body(engine)) == [3] * 20


def test_names_that_are_not_there(tiny: Path) -> None:
    with running(ServedModel("tiny", str(tiny), slots=1)) as engine:
        for name in ("", "other", "tiny.other", "../tiny"):
            assert asyncio.run(outcome(engine, name)).status == 404
            with pytest.raises(ServingError) as error:
                engine.part(name)
            assert error.value.status == 404


def test_a_worker_that_dies_while_it_loads_is_started_again(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for lack of memory. What waits for the model meanwhile is answered."""
    monkeypatch.setattr(engine_module, "_FIRST_PAUSE", 0.01)
    started: list[int] = []
    real = engine_module.WorkerProcess

    class Killed(real):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            started.append(self.pid)
            if len(started) in (2, 3):
                os.kill(self.pid, signal.SIGKILL)

    monkeypatch.setattr(engine_module, "WorkerProcess", Killed)

    async def body(engine: Engine) -> None:
        os.kill(worker_of(engine), signal.SIGKILL)
        await soon(lambda: len(started) > 1)
        assert await best(engine) == 3
        assert len(started) == 4

    with running(ServedModel("tiny", str(tiny), slots=1)) as engine:
        asyncio.run(body(engine))


def test_it_stops_while_a_model_is_being_loaded(tiny: Path) -> None:
    engine = Engine([ServedModel("tiny", str(tiny), slots=60)])
    loading = threading.Thread(target=engine.load_all)
    loading.start()
    until(lambda: bool(engine._unfinished))
    began = monotonic()
    engine.stop(1)
    loading.join(10)
    assert not loading.is_alive()
    assert monotonic() - began < 10
