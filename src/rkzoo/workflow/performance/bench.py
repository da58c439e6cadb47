"""How long a model takes, stage by stage, on the machine at hand.

What is timed is what `run` does: the file's bytes to a picture, the picture to the model's
input, the model, its output to a result. The vendor's published table times the model alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Any, Literal, Protocol, runtime_checkable

import cv2
import numpy as np
from numpy.typing import NDArray

from rkzoo.contract.model import Contract
from rkzoo.contract.schema_base import Strict
from rkzoo.errors import RkzooError
from rkzoo.files import explained, write_text
from rkzoo.plain import plain
from rkzoo.progress import SILENT, Reporter
from rkzoo.runtime.npu import NpuSession
from rkzoo.runtime.npu_context import Context
from rkzoo.runtime.pool import Pool
from rkzoo.session import Array, Closing, Label, Session
from rkzoo.soc import clocks
from rkzoo.soc.chips import chips
from rkzoo.soc.machine import Machine, read_machine
from rkzoo.speed.clock_rates import Clock, clocks_of
from rkzoo.speed.timing import Times, growth, times
from rkzoo.speed.usage import Usage, usage
from rkzoo.tasks.detect.task import HeadTask
from rkzoo.tasks.voice.result import Spoken
from rkzoo.vision.image import decode
from rkzoo.workflow.inference.inputs import PICTURE, Medium, medium_of
from rkzoo.workflow.inference.load import task_of
from rkzoo.workflow.inference.model import Image
from rkzoo.workflow.inference.plan import (
    Asked,
    Plan,
    check_pictures,
    in_floats,
    npu_workers,
    on_core,
    open_part,
    plan,
)

Affinity = Literal["all", "big", "little"]

FRAMES: dict[Label, int] = {"onnx": 50, "simulator": 10, "board": 200}
WARM_UP = 3
WORKERS = 2
"""Frames in flight when pipelined: while one is inside the model, another is prepared. On a
board as many for each core of its NPU."""

LABELS: dict[Label, str] = {
    "onnx": "Not NPU times: ONNX Runtime in float on the processor of this machine.",
    "simulator": "Not NPU times: the toolkit's emulation on a PC, far slower than any NPU.",
    "board": "NPU times, measured on this board.",
}
PUBLISHED = (
    "The vendor's table of speeds times inference alone: compare it with that stage, not with"
    " the total."
)
NO_FLOATS = (
    "The way with floats in and out is left out: the NPU library of RV1103 and RV1106 makes none."
)
ANSWERS = 5
PUBLISHED_RTF = (
    "The vendor's real-time factors cannot be compared with this one: they divide by a whole chunk"
    " (20 s for wav2vec2, 3 s for yamnet), by 6.4 s for mms_tts, and by the sound itself for"
    " whisper alone."
)


class Board(Strict, frozen=True):
    """The machine. `npu_users` are other processes that have the NPU open, as "name (pid)";
    `celsius` the hottest thermometer at the end."""

    model: str
    chip: str | None
    kernel: str
    npu_driver: str
    affinity: Affinity
    cores: tuple[int, ...]
    clocks_locked: bool
    clocks: tuple[Clock, ...]
    npu_users: tuple[str, ...]
    celsius: float | None


class Measured(Strict, frozen=True):
    """The model and what it was fed. `picture` is a path, or "made" for one made here."""

    name: str
    inputs: tuple[tuple[int, ...], ...]
    picture: str
    width: int
    height: int


class Memory(Strict, frozen=True):
    """In MiB, and KiB a frame, of this process and its children; None where the system does
    not tell."""

    peak_mib: float | None
    growth_kib_per_frame: float | None


class Throughput(Strict, frozen=True):
    """Frames a second. `inference` is what the published table would call FPS; `pipelined`
    has `workers` frames in flight. `cores_busy` of the processor while pipelined."""

    inference: float
    sequential: float
    pipelined: float
    workers: int
    cores_busy: float
    cores_busy_sequential: float


class Way(Strict, frozen=True):
    """One way of running the same model on the same picture, from the decoded picture to the
    result: milliseconds a frame (the middle), frames a second, and what it kept busy.

    `floats`: the processor makes floats of the picture, the NPU's library of all outputs, and
    every cell is decoded, as the vendor's Python demos do (not on RV1103 and RV1106, whose library
    makes no floats). `rkzoo`: what `run` does. `pool`:
    the same with `workers` over all cores of the NPU, as `stream` does.
    """

    name: Literal["floats", "rkzoo", "pool"]
    ms: float
    fps: float
    workers: int
    cores_busy: float


class BenchReport(Strict, frozen=True):
    """`time_cost_ms` by stage: decode, preprocess, inference, postprocess and total; a pipeline
    of several models has `around` in place of pre- and postprocess, for they alternate. `ways`
    are compared on a board only."""

    label: str
    runtime: Label
    published: str
    date: str
    rkzoo: str
    frames: int
    warm_up: int
    board_info: Board
    model_info: Measured
    memory_info: Memory
    time_cost_ms: dict[str, Times]
    throughput_fps: Throughput
    ways: tuple[Way, ...] = ()
    format: Literal[1] = 1

    def to_json(self) -> dict[str, Any]:
        """As plain data, times to a microsecond."""
        document: dict[str, Any] = rounded(plain(self))
        return document


class Answered(Strict, frozen=True):
    """The model, what it was given (a path, or the text), and the seconds of the sound that it
    heard or made; None where it did neither."""

    name: str
    given: str
    sound_seconds: float | None


class AnswerReport(Strict, frozen=True):
    """Of a model that answers sounds or texts: `time_cost_ms` of a whole answer by stage, which
    are decode (the file read), inference, around, and total. `real_time_factor` is the middle
    total by the seconds of sound; below 1 it keeps up."""

    label: str
    runtime: Label
    published: str
    date: str
    rkzoo: str
    answers: int
    warm_up: int
    board_info: Board
    model_info: Answered
    memory_info: Memory
    time_cost_ms: dict[str, Times]
    real_time_factor: float | None
    format: Literal[1] = 1

    def to_json(self) -> dict[str, Any]:
        """As plain data, times to a microsecond."""
        document: dict[str, Any] = rounded(plain(self))
        return document


@runtime_checkable
class Staged(Protocol):
    """A task whose stages can be called one by one. What comes back to the place that it had in
    the picture is prepared as a pair: the arrays, and how they lay in it."""

    session: Session

    def preprocess(self, image: Image) -> list[NDArray[Any]] | tuple[list[NDArray[Any]], Any]: ...

    def decode(self, outputs: list[NDArray[Any]], *place: Any) -> Any: ...


Work = Callable[[Image], "Stages"]
Stages = dict[str, float]
"""Seconds by the name of the stage."""


def bench_any(
    model: str | os.PathLike[str],
    source: str | None = None,
    *,
    asked: Asked | None = None,
    count: int | None = None,
    warm_up: int | None = None,
    affinity: Affinity = "all",
    lock_clocks: bool = False,
    report: Reporter = SILENT,
) -> BenchReport | AnswerReport:
    """`bench` or `bench_answers`, by what the model takes; `count` frames or answers. Raises
    RkzooError."""
    if medium_of(os.fspath(model)).name == PICTURE.name:
        return bench(
            model,
            asked=asked,
            picture=source,
            frames=count,
            warm_up=WARM_UP if warm_up is None else warm_up,
            affinity=affinity,
            lock_clocks=lock_clocks,
            report=report,
        )
    return bench_answers(
        model,
        source,
        asked=asked,
        answers=count,
        warm_up=1 if warm_up is None else warm_up,
        affinity=affinity,
        lock_clocks=lock_clocks,
        report=report,
    )


def bench(
    model: str | os.PathLike[str],
    *,
    asked: Asked | None = None,
    picture: str | os.PathLike[str] | None = None,
    frames: int | None = None,
    warm_up: int = WARM_UP,
    affinity: Affinity = "all",
    lock_clocks: bool = False,
    report: Reporter = SILENT,
) -> BenchReport:
    """Times a card's model, an `.onnx` or a `.rknn` that rkzoo made.

    `asked` as for `run`: the runtime and how the model is fed. Without `picture` one is made.
    `affinity` pins the work to the fast or the slow cores of a board. `lock_clocks` holds the
    clocks at their highest meanwhile (needs root). Raises RkzooError.
    """
    _check_counts(frames, warm_up)
    data, path = _picture(picture)
    shot = decode(data, path)
    machine, cores = _machine(affinity, lock_clocks)
    planned = plan(model, asked or Asked(), report)
    check_pictures(planned, "bench --image")
    count = frames or FRAMES[planned.label]
    with ExitStack() as stack:
        machine, threads = _settled(stack, machine, cores, affinity, lock_clocks)
        opened = _open(planned, stack, threads, report)
        picture_of = partial(decode, data, path)
        sequential = _sequential(_task(planned, opened), picture_of, count, warm_up, report)
        workers = npu_workers(planned)
        # An NPU session is for one frame at a time: its memory is the NPU's.
        many = [_open(on_core(planned, n), stack, threads, report) for n in range(workers)]
        tasks = [_task(planned, one) for one in many or [opened] * WORKERS]
        pipelined = _pipelined(tasks, picture_of, count, report)
        ways: tuple[Way, ...] = ()
        if workers:
            mine, still = _task(planned, opened), partial(_same, shot)
            ways = (
                _way("rkzoo", _sequential(mine, still, count, warm_up, report), 1),
                _way("pool", _pipelined(tasks, still, count, report), workers),
            )
            if any(context.library.small for context in _contexts(opened)):
                report.note(NO_FLOATS)
            else:
                floats = _open(in_floats(planned), stack, threads, report)
                plainly = _task(planned, floats, plainly=True)
                run = _sequential(plainly, still, count, warm_up, report)
                ways = (_way("floats", run, 1), *ways)
        ended = usage()
        after = read_machine()
        inputs = tuple(spec.shape for _, session in opened.values() for spec in session.inputs)
        label = _label(planned.label, opened)
    summary = {name: times(values) for name, values in sequential.stages.items()}
    return BenchReport(
        label=label,
        runtime=planned.label,
        published=PUBLISHED,
        date=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        rkzoo=version("rkzoo"),
        frames=count,
        warm_up=warm_up,
        board_info=_board(machine, after, affinity, cores, lock_clocks),
        model_info=Measured(
            name=planned.name,
            inputs=inputs,
            picture="made" if picture is None else str(picture),
            width=shot.shape[1],
            height=shot.shape[0],
        ),
        memory_info=_memory(ended, sequential.resident),
        time_cost_ms=summary,
        throughput_fps=Throughput(
            inference=_rate(1, summary["inference"].mean / 1000),
            sequential=_rate(1, summary["total"].mean / 1000),
            pipelined=_rate(count, pipelined.seconds),
            workers=len(tasks),
            cores_busy=round(_rate(pipelined.cpu, pipelined.seconds), 2),
            cores_busy_sequential=round(_rate(sequential.cpu, sequential.seconds), 2),
        ),
        ways=ways,
    )


def bench_answers(
    model: str | os.PathLike[str],
    source: str | None,
    *,
    asked: Asked | None = None,
    answers: int | None = None,
    warm_up: int = 1,
    affinity: Affinity = "all",
    lock_clocks: bool = False,
    report: Reporter = SILENT,
) -> AnswerReport:
    """As `bench`, for a model that answers sounds or texts: whole answers, one after another, to
    `source` (a sound's file; a text, or its file). Raises RkzooError."""
    _check_counts(answers, warm_up)
    medium = medium_of(os.fspath(model))
    given = _given(medium, source, os.fspath(model))
    machine, cores = _machine(affinity, lock_clocks)
    planned = plan(model, asked or Asked(), report)
    count = answers or ANSWERS
    with ExitStack() as stack:
        machine, threads = _settled(stack, machine, cores, affinity, lock_clocks)
        opened = _open(planned, stack, threads, report)
        task = task_of(planned, opened)
        found: list[Any] = []
        work = partial(_whole, partial(_answer, task, found), _sessions(opened))
        timed = _sequential(work, partial(medium.read, given), count, warm_up, report)
        ended, after = usage(), read_machine()
        label = _label(planned.label, opened)
    summary = {name: times(values) for name, values in timed.stages.items()}
    sound = getattr(medium.read(given), "seconds", None)
    if isinstance(found[-1], Spoken):
        sound = found[-1].sound.seconds
    return AnswerReport(
        label=label,
        runtime=planned.label,
        published=PUBLISHED_RTF if sound else PUBLISHED,
        date=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        rkzoo=version("rkzoo"),
        answers=count,
        warm_up=warm_up,
        board_info=_board(machine, after, affinity, cores, lock_clocks),
        model_info=Answered(name=planned.name, given=str(source), sound_seconds=sound),
        memory_info=_memory(ended, timed.resident),
        time_cost_ms=summary,
        real_time_factor=summary["total"].p50 / 1000 / sound if sound else None,
    )


def _answer(task: Callable[[Any], Any], last: list[Any], given: Any) -> None:
    last[:] = [task(given)]


def _given(medium: Medium, source: str | None, model: str) -> Any:
    """The one thing that is answered."""
    found = medium.expand([source]) if source is not None else ()
    if len(found) != 1:
        raise RkzooError(
            f"{model} answers one {medium.name} here, and was given {len(found) or 'none'}.",
            "One is answered again and again.",
            f"Give one {medium.name} with --input.",
        )
    return found[0]


def _check_counts(frames: int | None, warm_up: int) -> None:
    if (frames is not None and frames < 1) or warm_up < 0:
        raise RkzooError(
            "There is nothing to measure.", "It takes one frame at least.", "Give --frames 50."
        )


def _machine(affinity: Affinity, lock_clocks: bool) -> tuple[Machine, tuple[int, ...]]:
    """The machine, and the cores to work on. Raises RkzooError for what it cannot do."""
    machine = read_machine()
    cores = chosen_cores(machine, affinity)
    if lock_clocks and not machine.clocks and machine.npu_rate is None:
        raise RkzooError(
            "There is no clock here that can be held.",
            "The kernel shows neither CPU nor NPU clocks under /sys, as on most PCs.",
            "Leave --lock-clocks out.",
        )
    return machine, cores


def _settled(
    stack: ExitStack,
    machine: Machine,
    cores: tuple[int, ...],
    affinity: Affinity,
    lock_clocks: bool,
) -> tuple[Machine, int]:
    """Keeps to the cores and holds the clocks until `stack` ends; the machine as it is then,
    and how many threads ONNX Runtime may have."""
    stack.enter_context(pinned(cores) if affinity != "all" else nullcontext())
    if lock_clocks:
        stack.enter_context(clocks.held(machine))
        machine = read_machine()
    # ONNX Runtime places its own threads unless it is told how many.
    return machine, 0 if affinity == "all" else len(cores)


def _same(shot: Image) -> Image:
    return shot


def _way(name: Literal["floats", "rkzoo", "pool"], run: Run, workers: int) -> Way:
    return Way(
        name=name,
        ms=times(run.stages["total"]).p50,
        fps=_rate(len(run.stages["total"]), run.seconds),
        workers=workers,
        cores_busy=round(_rate(run.cpu, run.seconds), 2),
    )


def _contexts(opened: Opened) -> list[Context]:
    """What is open on an NPU, through Rockchip's C library."""
    inner = (session.inner for _, session in opened.values())
    return [session.context for session in inner if isinstance(session, NpuSession)]


def _label(label: Label, opened: Opened) -> str:
    if any(context.stand_in for context in _contexts(opened)):
        return "A stand-in for the NPU's library: these times say nothing about a board."
    return LABELS[label]


def write_report(path: Path, report: BenchReport | AnswerReport) -> None:
    """report.yml, whole or not at all. Raises RkzooError."""
    import yaml

    write_text(path, yaml.safe_dump(report.to_json(), sort_keys=False, allow_unicode=True))


def rounded(value: Any) -> Any:
    """Plain data with its numbers to a microsecond, which no measurement here goes below."""
    if isinstance(value, float):
        return round(value, 3)
    if isinstance(value, dict):
        return {key: rounded(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(one) for one in value]
    return value


# ---- measuring ----------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """`stages` has one number a frame; `resident` the memory after each frame (empty where it
    is not known); `cpu` and `seconds` of the whole run."""

    stages: dict[str, list[float]]
    resident: list[int]
    cpu: float
    seconds: float


class Watched(Closing):
    """A session that adds up the time spent in it."""

    def __init__(self, session: Session) -> None:
        self.inner = session
        self.label, self.inputs, self.outputs = session.label, session.inputs, session.outputs
        self.canvas = getattr(session, "canvas", None)
        self.spent = 0.0

    def run(self, arrays: Sequence[Array]) -> list[Array]:
        start = perf_counter()
        try:
            return self.inner.run(arrays)
        finally:
            self.spent += perf_counter() - start

    def close(self) -> None:
        self.inner.close()


Opened = dict[str, tuple[Contract, Watched]]


def _open(planned: Plan, stack: ExitStack, threads: int, report: Reporter) -> Opened:
    return {
        role: (
            part.answers,
            Watched(stack.enter_context(open_part(part, threads=threads, report=report))),
        )
        for role, part in planned.parts.items()
    }


def _task(planned: Plan, opened: Opened, *, plainly: bool = False) -> Work:
    """A picture in, the seconds of its stages out. Each has buffers of its own, so several can
    work at once on the same sessions. `plainly` decodes every cell, where there are cells."""
    task = task_of(planned, opened)
    if isinstance(task, Staged):
        decode: Callable[..., Any] = task.decode
        if plainly and isinstance(task, HeadTask):
            decode = task.decode_plainly
        return partial(_staged, task, decode)
    return partial(_whole, task, _sessions(opened))


def _sessions(opened: Opened) -> list[Watched]:
    return [session for _, session in opened.values()]


def _staged(task: Staged, decode: Callable[..., Any], image: Image) -> Stages:
    began = perf_counter()
    prepared = task.preprocess(image)
    arrays, *place = prepared if isinstance(prepared, tuple) else (prepared,)
    fed = perf_counter()
    outputs = task.session.run(arrays)
    ran = perf_counter()
    decode(outputs, *place)
    return {
        "preprocess": fed - began,
        "inference": ran - fed,
        "postprocess": perf_counter() - ran,
    }


def _whole(task: Callable[[Any], Any], sessions: Sequence[Watched], image: Any) -> Stages:
    """Several models, or one called several times: their time apart from all around them."""
    before = sum(session.spent for session in sessions)
    began = perf_counter()
    task(image)
    total = perf_counter() - began
    inside = sum(session.spent for session in sessions) - before
    return {"inference": inside, "around": total - inside}


def _sequential(
    work: Work,
    picture: Callable[[], Image],
    frames: int,
    warm_up: int,
    report: Reporter,
) -> Run:
    """One frame after another."""
    for _ in range(warm_up):
        work(picture())
    stages: dict[str, list[float]] = {}
    resident: list[int] = []
    start, before = perf_counter(), usage()
    with report.task("One frame after another", frames, unit="frames") as bar:
        for index in range(frames):
            began = perf_counter()
            image = picture()
            decoded = perf_counter() - began
            spent = {"decode": decoded, **work(image)}
            for name, seconds in (*spent.items(), ("total", sum(spent.values()))):
                stages.setdefault(name, []).append(seconds)
            if (now := usage()).resident is not None:
                resident.append(now.resident)
            bar.update(index + 1)
    seconds, after = perf_counter() - start, usage()
    return Run(stages, resident, max(after.cpu - before.cpu, 0.0), seconds)


def _pipelined(
    tasks: Sequence[Work], picture: Callable[[], Image], frames: int, report: Reporter
) -> Run:
    """As many frames in flight as there are tasks, each in a worker of its own."""

    @contextmanager
    def opened(number: int) -> Iterator[Callable[[int], Any]]:
        yield lambda frame: tasks[number](picture())

    worked: list[float] = []
    with report.task(f"{len(tasks)} frames in flight", frames), Pool(opened, len(tasks)) as pool:
        start, before = perf_counter(), usage()
        for outcome in pool.map(range(frames)):
            outcome.value()
            worked.append(outcome.worked)
        seconds, after = perf_counter() - start, usage()
    return Run({"total": worked}, [], max(after.cpu - before.cpu, 0.0), seconds)


def _rate(count: float, seconds: float) -> float:
    return count / seconds if seconds > 0 else 0.0


def _memory(ended: Usage, resident: Sequence[int]) -> Memory:
    return Memory(
        peak_mib=None if ended.peak is None else ended.peak / 2**20,
        growth_kib_per_frame=growth(resident) / 1024 if resident else None,
    )


# ---- the machine --------------------------------------------------------------------


def chosen_cores(machine: Machine, affinity: Affinity) -> tuple[int, ...]:
    """The processor cores to work on. Raises RkzooError where a machine has no two kinds."""
    if affinity == "all":
        return tuple(sorted(os.sched_getaffinity(0))) if _can_pin() else ()
    chip = chips().get(machine.chip or "")
    big = chip.big_cores if chip else ()
    every = tuple(core for cluster in chip.clusters for core in cluster.cores) if chip else ()
    cores = big if affinity == "big" else tuple(core for core in every if core not in big)
    there = tuple(core for core in cores if not machine.online or core in machine.online)
    if not big or not there or not _can_pin():
        raise RkzooError(
            "This machine has no fast and slow cores that rkzoo knows of.",
            f"It is {machine.chip or 'no Rockchip board'}.",
            "Leave --affinity out.",
        )
    return there


def _can_pin() -> bool:
    return hasattr(os, "sched_setaffinity")


@contextmanager
def pinned(cores: Sequence[int]) -> Iterator[None]:
    """All threads of this process on `cores` inside the block, and as before after it.
    Threads and processes that are begun inside stay there."""
    before: dict[int, set[int]] = {}
    try:
        for thread in _threads():
            with explained("The work cannot be kept to some of the cores."):
                before[thread] = os.sched_getaffinity(thread)
                os.sched_setaffinity(thread, cores)
        yield
    finally:
        for thread, had in before.items():
            try:
                os.sched_setaffinity(thread, had)
            except OSError:
                continue  # it has ended


def _threads() -> list[int]:
    try:
        return [int(name) for name in os.listdir("/proc/self/task")]
    except OSError:
        return [0]


def _board(
    before: Machine, after: Machine, affinity: Affinity, cores: tuple[int, ...], locked: bool
) -> Board:
    users = {
        f"{holder.name} ({holder.pid})"
        for holder in (*before.holders, *after.holders)
        if holder.pid != os.getpid()
    }
    return Board(
        model=before.model or before.machine,
        chip=before.chip,
        kernel=before.kernel,
        npu_driver=before.driver,
        affinity=affinity,
        cores=cores,
        clocks_locked=locked,
        clocks=clocks_of(before, after),
        npu_users=tuple(sorted(users)),
        celsius=max((zone.celsius for zone in after.zones), default=None),
    )


# ---- the picture --------------------------------------------------------------------


def _picture(path: str | os.PathLike[str] | None) -> tuple[bytes, Path]:
    """A picture file's bytes; without a path, a JPEG of 1280x720 made here: noise, some shapes
    and lines of writing, so that it is as hard to decode as a photograph."""
    if path is not None:
        file = Path(path)
        with explained(f"The picture {file} cannot be read."):
            return file.read_bytes(), file
    random = np.random.default_rng(0)
    canvas = cv2.resize(random.integers(60, 196, (45, 80, 3), np.uint8), (1280, 720))
    for index in range(6):
        corner = (60 + 200 * index, 80 + 60 * (index % 3))
        shade = [int(value) for value in random.integers(0, 256, 3)]
        cv2.rectangle(canvas, corner, (corner[0] + 120, corner[1] + 240), shade, -1)
        place = (80, 500 + 32 * index)
        text = f"rkzoo bench, line {index + 1} of 6"
        cv2.putText(canvas, text, place, cv2.FONT_HERSHEY_SIMPLEX, 1.0, (20, 20, 20), 2)
    noise = random.integers(-8, 9, canvas.shape)
    noisy = np.clip(canvas + noise, 0, 255).astype(np.uint8)
    _, encoded = cv2.imencode(".jpg", noisy)
    return encoded.tobytes(), Path("made.jpg")
