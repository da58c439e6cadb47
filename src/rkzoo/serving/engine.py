"""The models that are served: loaded in worker processes, asked through one scheduler.

Each model has a process of its own with a slot for each NPU context, so that what kills one costs
its own requests only: those that it was working on. What waits is answered by the next process.
Here is no HTTP: every front end calls `infer` and `predict`.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import monotonic, perf_counter
from typing import Any, Literal

import msgspec

from rkzoo.errors import RkzooError
from rkzoo.protocol.board import Problem
from rkzoo.serving.calls import (
    InferArguments,
    InferReply,
    ModelArguments,
    OpenedModel,
    PartSpecs,
    Predicted,
    PredictOptions,
)
from rkzoo.serving.errors import ServingError, of_error, of_problem
from rkzoo.serving.scheduler import Job, Scheduler, Taker
from rkzoo.serving.trace import TRACE
from rkzoo.serving.worker_process import SlotClient, WorkerDied, WorkerProcess

State = Literal["unloaded", "loading", "ready", "failed"]
Outcome = Literal["ok", "wrong", "refused", "late", "failed"]

_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0  # seconds before a worker that died is started again
_MOST_DEATHS = 5  # without an answer in between
_POLL = 1.0  # seconds between two looks at the files
_LOAD_AT_ONCE = 4
_LONG = 10  # times the deadline: sounds and texts may take minutes
_HANGS = 4.0  # deadlines after which a call counts as one that never ends


@dataclass(frozen=True)
class ServedModel:
    """A model that may be loaded: its name here, and what `rkzoo run` calls it. `request` are
    fields of `Request`."""

    name: str
    model: str
    request: Mapping[str, Any] = field(default_factory=dict)
    slots: int = 0


@dataclass(frozen=True)
class ModelStatus:
    """What is known of a model. `opened` is None until it was loaded once, `pid` while no process
    holds it; `restarts` counts the processes that died."""

    name: str
    state: State
    version: str
    path: str
    reason: str = ""
    opened: OpenedModel | None = None
    waiting: int = 0
    working: int = 0
    restarts: int = 0
    pid: int | None = None


@dataclass(frozen=True)
class Reply:
    """The body of an answer. `header_size` is the JSON part of one with binary tensors,
    `seconds` what the model took, `duration` that of a sound that was given."""

    body: bytes
    media_type: str = "application/json"
    header_size: int | None = None
    seconds: float = 0.0
    duration: float | None = None


@dataclass(frozen=True)
class Event:
    """A request that was answered, for logs and metrics; each is told once.

    Attributes:
        model: Whom it was for; "" where it reached no model.
        call: What was asked: infer, predict ...
        status: The HTTP status that says how it went, whatever protocol it came by.
        waited: Seconds until a slot took it.
        worked: Seconds in the slot, 0 for one that no slot answered.
        size: Bytes of its body.
        message: What went wrong.
        request: Its identifier, where the protocol has one.
        client: The address that it came from.
    """

    model: str
    call: str
    status: int = 200
    waited: float = 0.0
    worked: float = 0.0
    size: int = 0
    message: str = ""
    request: str = ""
    client: str = ""

    @property
    def outcome(self) -> Outcome:
        """`status` in a word."""
        usual: Outcome = "ok" if self.status < 400 else "wrong" if self.status < 500 else "failed"
        return _OUTCOMES.get(self.status, usual)


_OUTCOMES: dict[int, Outcome] = {503: "refused", 504: "late"}
Observer = Callable[[Event], None]


@dataclass(frozen=True)
class Limits:
    """Bounds. `waiting`: requests of a model; `memory`: bytes of all requests; `deadline`:
    seconds until a request is given up, ten times that where it is a sound or a text."""

    waiting: int = 256
    memory: int = 256 << 20
    deadline: float = 30.0


MEDIA_TYPES = {
    "json": "application/json",
    ".txt": "text/plain; charset=utf-8",
    ".srt": "application/x-subrip",
    ".vtt": "text/vtt",
    ".json": "application/json",
    ".csv": "text/csv",
    ".wav": "audio/wav",
    ".flac": "audio/flac",
    ".ogg": "audio/ogg",
    ".mp3": "audio/mpeg",
    ".opus": "audio/ogg",
    ".pcm": "audio/pcm",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".png": "image/png",
    ".bmp": "image/bmp",
    ".webp": "image/webp",
    ".npy": "application/octet-stream",
    ".npz": "application/octet-stream",
}


class _Generation:
    """One process of a model, and its slots' threads."""

    def __init__(self, worker: WorkerProcess, opened: OpenedModel, number: int) -> None:
        self.worker, self.opened, self.number = worker, opened, number
        self.takers: list[Taker] = []
        self.threads: list[threading.Thread] = []


class _Model:
    """A served model and what it is at."""

    def __init__(self, served: ServedModel) -> None:
        self.served = served
        self.state: State = "unloaded"
        self.reason = ""
        self.generation: _Generation | None = None
        self.number = 0
        self.deaths = 0
        self.changing = threading.Lock()
        self.stamp: object = None
        self.opened: OpenedModel | None = None


class Engine:
    """All served models.

    Args:
        served: What may be loaded.
        limits: Bounds.
        log: Is given a line: a model's name, and what happened.

    Attributes:
        observers: Are told of each request that was answered, in the event loop's thread.
    """

    def __init__(
        self,
        served: Sequence[ServedModel] = (),
        limits: Limits | None = None,
        *,
        log: Callable[[str, str], None] = lambda model, line: None,
    ) -> None:
        self.limits = limits or Limits()
        self.scheduler = Scheduler(self.limits.waiting, self.limits.memory)
        self.restarts: dict[str, int] = {}
        self._models = {one.name: _Model(one) for one in served}
        self.observers: list[Observer] = []
        self.log = log
        self._threads = ThreadPoolExecutor(8, "engine")
        self._ending = threading.Event()
        self._held = 0  # bytes of bodies that are being received, and of answers being sent
        self._lock = threading.Lock()
        self._unfinished: set[WorkerProcess] = set()

    # ---- what is there --------------------------------------------------------------------

    def names(self) -> list[str]:
        """Names of all models, loaded or not."""
        return list(self._models)

    def status(self, name: str) -> ModelStatus:
        """What is known of a model. Raises ServingError (404)."""
        model = self._model(name)
        return ModelStatus(
            name=name,
            state=model.state,
            version=str(model.generation.number if model.generation else max(1, model.number)),
            path=model.served.model,
            reason=model.reason,
            opened=model.opened,
            waiting=self.scheduler.waiting(name),
            working=self.scheduler.working(name),
            restarts=self.restarts.get(name, 0),
            pid=generation.worker.pid if (generation := model.generation) else None,
        )

    def part(self, name: str) -> tuple[str, str, PartSpecs]:
        """Model, role and specs of what the Open Inference Protocol calls `name`: a model of one
        graph, or NAME.ROLE of a pipeline. Raises ServingError: 404, and 503 where it is not
        loaded."""
        model_name, role = (name, "model") if name in self._models else _split(name)
        status = self.status(model_name)
        if status.opened is None:
            raise ServingError(503, status.reason or f"{model_name} is not loaded.", 1.0)
        if role not in status.opened.parts:
            roles = ", ".join(f"{model_name}.{role}" for role in status.opened.parts)
            raise ServingError(404, f"{name} has no tensors of its own; there are {roles}.")
        return model_name, role, status.opened.parts[role]

    @property
    def ready(self) -> bool:
        """Whether every model that should be is loaded, and requests are taken."""
        states = {model.state for model in self._models.values()}
        return not self._ending.is_set() and not states & {"loading", "failed"}

    # ---- asking ---------------------------------------------------------------------------

    def admit(self, size: int) -> AbstractContextManager[None]:
        """Room for a body of `size` bytes while it is received. Raises ServingError (503) on
        entering where there is none."""
        return self._hold(size, self.limits.memory)

    def holding(self, size: int) -> AbstractContextManager[None]:
        """An answer of `size` bytes that is being sent. It is never refused: `admit` gives less
        room meanwhile."""
        return self._hold(size, None)

    @contextmanager
    def _hold(self, size: int, most: int | None) -> Iterator[None]:
        with self._lock:
            if most is not None and self._held + size > most:
                raise ServingError(503, "What is received and sent fills the memory.", 1.0)
            self._held += size
        try:
            yield
        finally:
            with self._lock:
                self._held -= size

    async def infer(
        self, name: str, body: bytes, header_size: int | None, *, timeout: float | None = None
    ) -> Reply:
        """Answers a request of the Open Inference Protocol, with FP32 in place of quantised
        outputs.

        Args:
            name: A model of one graph, or NAME.ROLE of a pipeline.
            body: The request.
            header_size: The JSON part of a body with binary tensors.
            timeout: Seconds; None is the server's own.

        Raises:
            ServingError: It is wrong, too late, too much, or its worker died.
        """
        model, role, _ = self.part(name)
        reply, data = await self._ask(model, "infer", (name, header_size), body, timeout, role)
        media = "application/json" if reply.header_size is None else "application/octet-stream"
        return Reply(data, media, reply.header_size)

    async def predict(
        self, name: str, data: bytes, options: PredictOptions, *, timeout: float | None = None
    ) -> Reply:
        """Answers a picture, sound or text, as `rkzoo run` does.

        Args:
            name: A model.
            data: The bytes of a file, or a text in UTF-8.
            options: What is wanted of the answer.
            timeout: Seconds; None is the server's own.

        Raises:
            ServingError: As `infer`.
        """
        self._model(name)
        told, answer = await self._ask(name, "predict", options, data, timeout)
        return Reply(answer, MEDIA_TYPES[told.format], None, told.seconds, told.duration)

    async def ask(
        self, name: str, kind: str, arguments: Any, data: bytes = b"", timeout: float | None = None
    ) -> tuple[msgspec.Raw, list[bytes]]:
        """Any other call of a model's slots. Raises ServingError as `infer`."""
        answer: tuple[msgspec.Raw, list[bytes]] = await self._ask(
            name, kind, arguments, data, timeout
        )
        return answer

    async def _ask(
        self,
        name: str,
        kind: str,
        arguments: Any,
        data: bytes,
        timeout: float | None,
        part: str = "",
    ) -> Any:
        """Queues a request, waits for it, and tells of it."""
        began = monotonic()
        most = self._deadline(name)
        wait = min(timeout or most, most)
        job = Job(kind, arguments, data, began + wait, part)
        status, message = 499, "Who asked went away."
        try:
            self._check_serving(name)
            self.scheduler.put(name, job)
            answer = await asyncio.wait_for(asyncio.wrap_future(job.future), wait)
            status, message = 200, ""
            return answer
        except asyncio.TimeoutError:
            status, message = 504, f"{name} did not answer within {wait:g} s."
            raise ServingError(status, message) from None
        except ServingError as error:
            status, message = error.status, error.message
            raise
        finally:
            waited = max(0.0, monotonic() - began - job.worked)
            self.tell(Event(name, kind, status, waited, job.worked, len(data), message))

    def _deadline(self, name: str) -> float:
        """Seconds until a request for a model is given up."""
        opened = self._model(name).opened
        long = opened is not None and opened.kind in ("sound", "text")
        return self.limits.deadline * (_LONG if long else 1)

    def tell(self, event: Event) -> None:
        """Tells the observers of a request, with what is known of where it came from."""
        trace = TRACE.get()
        if trace is not None:
            trace.told = True
            event = replace(event, request=trace.request, client=trace.client)
        for observer in self.observers:
            observer(event)

    def _check_serving(self, name: str) -> None:
        model = self._model(name)
        if self._ending.is_set():
            raise ServingError(503, "The server is stopping.", 5.0)
        if model.state in ("unloaded", "failed"):
            why = model.reason or f"POST /v2/repository/models/{name}/load loads it."
            raise ServingError(503, f"{name} is not loaded. {why}", 5.0)

    # ---- loading --------------------------------------------------------------------------

    async def load(self, name: str) -> None:
        """Loads a model, or loads it again from its file; while that goes on the former one
        answers. Raises ServingError: 404, and 400 where it cannot be opened."""
        model = self._model(name)
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._threads, self._load, model)

    async def unload(self, name: str) -> None:
        """Lets a model answer what waits for it, and closes it. Raises ServingError (404)."""
        model = self._model(name)
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._threads, self._unload, model)

    def expect_all(self) -> None:
        """Says of every model that it is being loaded, before `load_all` comes to it."""
        for model in self._models.values():
            model.state = "loading"

    def load_all(self) -> None:
        """Loads every model, some at once; those that fail say so in their status."""
        self.expect_all()
        at_once = max(1, min(_LOAD_AT_ONCE, (os.cpu_count() or 1) // 2))
        with ThreadPoolExecutor(at_once, "load") as threads:
            for model in self._models.values():
                threads.submit(self._load_patiently, model)

    @property
    def hopeless(self) -> str:
        """Why no model at all could be loaded; empty where one was, or may still be."""
        models = list(self._models.values())
        lost = models and all(model.state == "failed" for model in models)
        return models[0].reason if lost else ""

    def _load_patiently(self, model: _Model) -> None:
        """Loads a model; where its process dies meanwhile, as for lack of memory, again after a
        pause, a few times."""
        while not self._ending.is_set():
            try:
                return self._load(model, again=True)
            except ServingError as error:
                if not isinstance(error.__cause__, WorkerDied) or not self._may_try_again(model):
                    return

    def _may_try_again(self, model: _Model) -> bool:
        """Counts a death, and waits; False after too many, or where the engine ends."""
        name = model.served.name
        if self._ending.is_set():
            return False
        model.deaths += 1
        if model.deaths > _MOST_DEATHS:
            with model.changing:
                model.state = "failed"
                model.reason = f"{name} ended {model.deaths} times without an answer in between."
            self.scheduler.fail_all(name, ServingError(503, model.reason))
            self.log(name, model.reason)
            return False
        pause = _FIRST_PAUSE * 2 ** (model.deaths - 1) if model.deaths > 1 else 0.0
        pause = min(_LONGEST_PAUSE, pause)
        if model.generation is None:
            model.state = "loading"
        self.log(name, f"its process ended; it is started again in {pause:g} s")
        return not self._ending.wait(pause)

    def watch(self) -> None:
        """Loads models again whose files were replaced, and ends processes that hang, until the
        engine stops."""
        seen: dict[str, object] = {}
        while not self._ending.wait(_POLL):
            for name, model in list(self._models.items()):
                self._end_if_it_hangs(model)
                stamp = _stamp(model.served.model)
                settled = seen.get(name) == stamp
                seen[name] = stamp
                changed = stamp is not None and model.stamp not in (None, stamp)
                if changed and settled and model.state in ("ready", "failed"):
                    self.log(name, "its file was replaced")
                    self._load_patiently(model)

    def _end_if_it_hangs(self, model: _Model) -> None:
        generation, now = model.generation, monotonic()
        if generation is None:
            return
        began = [taker.since for taker in generation.takers if taker.since is not None]
        if began and now - min(began) > _HANGS * self._deadline(model.served.name):
            self.log(model.served.name, f"a call takes {now - min(began):.0f} s: it is ended")
            generation.worker.kill()

    def _load(self, model: _Model, *, again: bool = False) -> None:
        """Loads a model; `again`: it is tried again where its process dies, so what waits for it
        goes on waiting. Raises ServingError."""
        with model.changing:
            if model.generation is None:
                model.state, model.reason = "loading", ""
            model.stamp = _stamp(model.served.model)
            try:
                generation = self._start(model)
            except RkzooError as error:
                model.reason = str(error)
                if model.generation is None and not (again and isinstance(error, WorkerDied)):
                    model.state = "failed"
                    self.scheduler.fail_all(model.served.name, of_error(error, 503))
                self.log(model.served.name, f"cannot be loaded: {error}")
                raise of_error(error) from error
            former = model.generation
            # Who is told of the new version is answered by it.
            for taker in former.takers if former else ():
                self.scheduler.retire(taker)
            model.generation = generation
            model.opened, model.state, model.reason = generation.opened, "ready", ""
            self.log(model.served.name, f"loaded, version {generation.number}")
        self._watch_over(model, generation)
        if former is not None:
            self._retire(former)

    def _start(self, model: _Model) -> _Generation:
        """A new process with all its slots open. Raises RkzooError."""
        served = model.served
        log = self.log
        worker = WorkerProcess(served.name, lambda line: log(served.name, line))
        with self._starting(worker):
            return self._opened(model, worker)

    @contextmanager
    def _starting(self, worker: WorkerProcess) -> Iterator[None]:
        """A process that `stop` may end before its slots are open."""
        with self._lock:
            self._unfinished.add(worker)
            ending = self._ending.is_set()
        if ending:
            worker.kill()
        try:
            yield
        finally:
            with self._lock:
                self._unfinished.discard(worker)

    def _opened(self, model: _Model, worker: WorkerProcess) -> _Generation:
        served = model.served
        asked = ModelArguments(served.model, dict(served.request), 0, served.slots)
        try:
            slots = [worker.slot("model", asked)]
            opened = msgspec.json.decode(slots[0].opened, type=OpenedModel)
            for number in range(1, opened.slots):
                more = msgspec.structs.replace(asked, number=number, slots=opened.slots)
                slots.append(worker.slot("model", more))
        except BaseException:
            worker.kill()
            raise
        model.number += 1
        generation = _Generation(worker, opened, model.number)
        batch = max(part.batch for part in opened.parts.values())
        for slot in slots:
            taker = Taker(served.name, max(1, batch))
            self.scheduler.enter(taker)
            thread = threading.Thread(
                target=self._serve,
                args=(model, generation, taker, slot),
                name=f"slot-{served.name}",
                daemon=True,
            )
            generation.takers.append(taker)
            generation.threads.append(thread)
        for thread in generation.threads:
            thread.start()
        return generation

    def _watch_over(self, model: _Model, generation: _Generation) -> None:
        """Has the model started again at once when its process dies, asked or not."""

        def ended() -> None:
            with suppress(RuntimeError):  # the engine has stopped
                self._threads.submit(self._revive, model, generation)

        generation.worker.ended = ended
        if not generation.worker.alive:
            ended()

    def _unload(self, model: _Model) -> None:
        with model.changing:
            model.state, model.reason = "unloaded", ""
            self.scheduler.drain(self.limits.deadline, model.served.name)
            former, model.generation = model.generation, None
            why = ServingError(503, f"{model.served.name} was unloaded.")
            self.scheduler.fail_all(model.served.name, why)
        if former is not None:
            self._retire(former)

    def _retire(self, generation: _Generation) -> None:
        for taker in generation.takers:
            self.scheduler.retire(taker)
        for thread in generation.threads:
            if thread is not threading.current_thread():
                thread.join(self.limits.deadline)
        generation.worker.close()

    def stop(self, seconds: float = 30.0) -> None:
        """Takes no more requests, answers those that it took, and closes everything."""
        self._ending.set()
        with self._lock:
            unfinished = list(self._unfinished)
        for worker in unfinished:
            worker.end()
        self.scheduler.drain(seconds)
        for model in list(self._models.values()):
            with model.changing:
                former, model.generation = model.generation, None
                model.state = "unloaded"
            self.scheduler.fail_all(model.served.name, ServingError(503, "The server stopped."))
            if former is not None:
                self._retire(former)
        self._threads.shutdown(wait=False)

    # ---- a slot's thread ------------------------------------------------------------------

    def _serve(
        self, model: _Model, generation: _Generation, taker: Taker, slot: SlotClient
    ) -> None:
        """Answers what the scheduler gives, until it is retired or its worker dies."""
        try:
            while jobs := self.scheduler.take(taker):
                began = perf_counter()
                dead = False
                try:
                    answers = _ask_slot(slot, jobs, str(generation.number))
                    model.deaths = 0
                except WorkerDied as error:
                    dead = True
                    answers = [ServingError(502, str(error))] * len(jobs)
                except RkzooError as error:
                    answers = [of_error(error)] * len(jobs)
                except Exception as error:  # a fault of ours must not end the slot
                    answers = [ServingError(500, f"{type(error).__name__}: {error}")] * len(jobs)
                worked = perf_counter() - began
                for job, answer in zip(jobs, answers, strict=True):
                    job.worked = worked
                    if isinstance(answer, ServingError):
                        job.future.set_exception(answer)
                    else:
                        job.future.set_result(answer)
                self.scheduler.done(taker, jobs, worked)
                del jobs, answers, job, answer  # not kept while the slot is idle
                if dead:
                    break
        finally:
            self.scheduler.leave(taker)
            slot.close()
        if not taker.retired:
            self._revive(model, generation)

    def _revive(self, model: _Model, dead: _Generation) -> None:
        """Starts a model again whose process died; the first of its slots that sees it does."""
        name = model.served.name
        with model.changing:
            if model.generation is not dead:
                return
            model.generation = None
            self.restarts[name] = self.restarts.get(name, 0) + 1
            model.state = "loading"
        for taker in dead.takers:
            self.scheduler.retire(taker)
        dead.worker.kill()
        if self._may_try_again(model):
            self._load_patiently(model)

    def _model(self, name: str) -> _Model:
        model = self._models.get(name)
        if model is None:
            known = ", ".join(self._models) or "none"
            raise ServingError(404, f"There is no model {name!r}; there are {known}.")
        return model


def _split(name: str) -> tuple[str, str]:
    model, _, role = name.rpartition(".")
    return (model, role) if model else (name, "model")


def _ask_slot(slot: SlotClient, jobs: Sequence[Job], version: str) -> list[Any]:
    """An answer for each of the requests: a pair of what is told and bytes, or a ServingError.
    Raises RkzooError."""
    data = [job.data for job in jobs]
    seconds = max(job.deadline for job in jobs) - monotonic()
    if jobs[0].kind != "infer":
        value, buffers = slot.call(jobs[0].kind, jobs[0].arguments, data, seconds)
        if jobs[0].kind != "predict":
            return [(value, buffers)]
        return [(msgspec.json.decode(value, type=Predicted), buffers[0])]
    sizes = tuple(job.arguments[1] for job in jobs)
    asked = InferArguments(sizes, jobs[0].arguments[0], version, jobs[0].part)
    value, buffers = slot.call("infer", asked, data, seconds)
    replies = msgspec.json.decode(value, type=list[InferReply])
    return [
        (reply, buffer)
        if reply.error is None
        else of_problem(msgspec.convert(reply.error, Problem))
        for reply, buffer in zip(replies, buffers, strict=True)
    ]


def _stamp(model: str) -> object:
    """What changes when one of a model's files is replaced: its own, the .json beside it, the
    parts of a pipeline. None where it is no file."""
    stamps = []
    for path in (Path(model), Path(f"{model}.json"), *_parts_of(model)):
        with suppress(OSError):
            stat = path.stat()
            stamps.append((path.name, stat.st_ino, stat.st_size, stat.st_mtime_ns))
    return tuple(stamps) or None


def _parts_of(model: str) -> list[Path]:
    if not model.endswith(".json"):
        return []
    from rkzoo.workflow.request.pipeline_file import read_pipeline

    with suppress(RkzooError):  # what is wrong with it is told when it is loaded
        return list(read_pipeline(Path(model)).parts.values())
    return []
