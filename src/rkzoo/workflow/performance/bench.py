"""How long a model takes, stage by stage, on the machine at hand.

What is timed is what `run` does: the file's bytes to a picture, the picture to the model's
input, the model, its output to a result. The vendor's published table times the model alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

import numpy as np

from rkzoo.contract.model import Contract
from rkzoo.contract.schema_base import Strict
from rkzoo.errors import RkzooError
from rkzoo.files import write_text
from rkzoo.plain import plain
from rkzoo.progress import SILENT, Reporter
from rkzoo.runtime.npu import NpuSession
from rkzoo.runtime.npu_context import Context
from rkzoo.runtime.pool import Pool
from rkzoo.session import Array, Closing, Label, Session
from rkzoo.soc.machine import read_machine
from rkzoo.speed.timing import Times, growth, times
from rkzoo.speed.usage import Usage, usage
from rkzoo.tasks.detect.task import HeadTask
from rkzoo.tasks.tensors.feed import made
from rkzoo.tasks.voice.result import Spoken
from rkzoo.vision.image import decode
from rkzoo.workflow.inference.inputs import PICTURE, TENSORS, Medium, medium_of, of_plan
from rkzoo.workflow.inference.load import task_of
from rkzoo.workflow.inference.plan import (
    Plan,
    check_pictures,
    in_floats,
    npu_workers,
    on_core,
    open_part,
    plan,
)
from rkzoo.workflow.inference.stages import Staged, run_stages
from rkzoo.workflow.performance.machine_setup import (
    Affinity,
    Board,
    MachineSetup,
    applied,
    machine_setup,
    picture_bytes,
)
from rkzoo.workflow.request.request import Request

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


class Measured(Strict, frozen=True):
    """The model and what it was fed. `picture` is a path (of a sample: what was given for each
    input), or "made" for one made here; `width` and `height` None where it is no picture."""

    name: str
    inputs: tuple[tuple[int, ...], ...]
    picture: str
    width: int | None
    height: int | None


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


Work = Callable[[Any], "Stages"]
Stages = dict[str, float]
"""Seconds by the name of the stage."""


def bench_any(
    model: str | os.PathLike[str],
    source: str | Sequence[str] | None = None,
    *,
    request: Request | None = None,
    count: int | None = None,
    warm_up: int | None = None,
    affinity: Affinity = "all",
    lock_clocks: bool = False,
    report: Reporter = SILENT,
) -> BenchReport | AnswerReport:
    """`bench` or `bench_answers`, by what the model takes; `count` frames or answers. Raises
    RkzooError."""
    given = [source] if isinstance(source, str) else list(source or ())
    if medium_of(os.fspath(model)).name in (PICTURE.name, TENSORS.name):
        return bench(
            model,
            request=request,
            picture=given,
            frames=count,
            warm_up=WARM_UP if warm_up is None else warm_up,
            affinity=affinity,
            lock_clocks=lock_clocks,
            report=report,
        )
    if len(given) > 1:
        raise RkzooError(
            f"{model} answers one thing here, and was given {len(given)}.",
            "One is answered again and again.",
            "Give one with --input.",
        )
    return bench_answers(
        model,
        given[0] if given else None,
        request=request,
        answers=count,
        warm_up=1 if warm_up is None else warm_up,
        affinity=affinity,
        lock_clocks=lock_clocks,
        report=report,
    )


def bench(
    model: str | os.PathLike[str],
    *,
    request: Request | None = None,
    picture: str | os.PathLike[str] | Sequence[str] | None = None,
    frames: int | None = None,
    warm_up: int = WARM_UP,
    affinity: Affinity = "all",
    lock_clocks: bool = False,
    report: Reporter = SILENT,
) -> BenchReport:
    """Times a card's model, an `.onnx` or a `.rknn` that rkzoo made.

    `request` as for `run`: the runtime and how the model is fed. `picture` is a picture's file, or
    of a model with plain inputs what `run` takes (.npy, .npz, NAME=FILE ...); without it one is
    made.
    `affinity` pins the work to the fast or the slow cores of a board. `lock_clocks` holds the
    clocks at their highest meanwhile (needs root). Raises RkzooError.
    """
    _check_counts(frames, warm_up)
    setup = machine_setup(affinity, lock_clocks)
    planned = plan(model, request, report)
    check_pictures(planned, "bench --image")
    one = isinstance(picture, str | os.PathLike)
    given = [os.fspath(file) for file in ([picture] if one else picture or ())]
    picture_of = _reader(planned, given)
    shot = picture_of()
    count = frames or FRAMES[planned.label]
    with ExitStack() as stack:
        setup = stack.enter_context(applied(setup))
        open_plan = partial(_open, stack=stack, threads=setup.threads, report=report)
        opened = open_plan(planned)
        sequential = _sequential(_task(planned, opened), picture_of, count, warm_up, report)
        # An NPU session is for one frame at a time: its memory is the NPU's.
        workers = npu_workers(planned)
        many = [open_plan(on_core(planned, number)) for number in range(workers)]
        tasks = [_task(planned, one) for one in many or [opened] * WORKERS]
        pipelined = _pipelined(tasks, picture_of, count, report)
        ways: tuple[Way, ...] = ()
        if workers:
            still = partial(_same, shot)
            one_by_one = partial(_sequential, picture=still, frames=count, warm_up=warm_up)
            ways = (
                _way("rkzoo", one_by_one(_task(planned, opened), report=report), 1),
                _way("pool", _pipelined(tasks, still, count, report), workers),
            )
            if any(context.library.small for context in _contexts(opened)):
                report.note(NO_FLOATS)
            else:
                plainly = _task(planned, open_plan(in_floats(planned)), plainly=True)
                ways = (_way("floats", one_by_one(plainly, report=report), 1), *ways)
        inputs = tuple(spec.shape for _, session in opened.values() for spec in session.inputs)
        measured = _measured(planned, opened, setup, sequential, warm_up)
    stages: dict[str, Times] = measured["time_cost_ms"]
    height, width = _picture_size(shot)
    return BenchReport(
        **measured,
        published=PUBLISHED,
        frames=count,
        model_info=Measured(
            name=planned.name,
            inputs=inputs,
            picture=" ".join(given) or "made",
            width=width,
            height=height,
        ),
        throughput_fps=Throughput(
            inference=_rate(1, stages["inference"].mean / 1000),
            sequential=_rate(1, stages["total"].mean / 1000),
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
    request: Request | None = None,
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
    setup = machine_setup(affinity, lock_clocks)
    planned = plan(model, request, report)
    count = answers or ANSWERS
    with ExitStack() as stack:
        setup = stack.enter_context(applied(setup))
        opened = _open(planned, stack, setup.threads, report)
        task = task_of(planned, opened)
        found: list[Any] = []
        work = partial(_whole, partial(_answer, task, found), _sessions(opened))
        timed = _sequential(work, partial(medium.read, given), count, warm_up, report)
        measured = _measured(planned, opened, setup, timed, warm_up)
    sound = getattr(medium.read(given), "seconds", None)
    if isinstance(found[-1], Spoken):
        sound = found[-1].sound.seconds
    total: Times = measured["time_cost_ms"]["total"]
    return AnswerReport(
        **measured,
        published=PUBLISHED_RTF if sound else PUBLISHED,
        answers=count,
        model_info=Answered(name=planned.name, given=str(source), sound_seconds=sound),
        real_time_factor=total.p50 / 1000 / sound if sound else None,
    )


def _measured(
    planned: Plan, opened: Opened, setup: MachineSetup, run: Run, warm_up: int
) -> dict[str, Any]:
    """What both reports tell, as their fields."""
    ended = usage()
    return {
        "label": _label(planned.label, opened),
        "runtime": planned.label,
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "rkzoo": version("rkzoo"),
        "warm_up": warm_up,
        "board_info": setup.board(read_machine()),
        "memory_info": _memory(ended, run.resident),
        "time_cost_ms": {name: times(values) for name, values in run.stages.items()},
    }


def _answer(task: Callable[[Any], Any], last: list[Any], given: Any) -> None:
    last[:] = [task(given)]


def _reader(planned: Plan, given: list[str]) -> Callable[[], Any]:
    """What reads the one picture, or the one sample of plain inputs, again and again. Raises
    RkzooError."""
    medium = of_plan(planned)
    if medium.name == TENSORS.name:
        if not given:
            return partial(_same, made(planned.parts["model"].contract))
        found = medium.expand(given)
    else:
        found = given
    if len(found) > 1:
        raise RkzooError(
            f"One frame is timed again and again, and {len(found)} were given.",
            "Which of them counts is not said.",
            "Give one picture with --image, or one .npz or NAME=FILE for each input.",
        )
    if medium.name == TENSORS.name:
        return partial(medium.read, found[0])
    return partial(decode, *picture_bytes(found[0] if found else None))


def _picture_size(shot: Any) -> tuple[int | None, int | None]:
    """(height, width) of what is one picture, as an array or by the name of its input."""
    image = next(iter(shot.values())) if isinstance(shot, dict) and len(shot) == 1 else shot
    pixels = isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3
    return (image.shape[0], image.shape[1]) if pixels else (None, None)


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


def _same(shot: Any) -> Any:
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


def _staged(task: Staged, decode: Callable[..., Any], image: Any) -> Stages:
    return run_stages(task, image, decode)[1]._asdict()


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
    picture: Callable[[], Any],
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
    tasks: Sequence[Work], picture: Callable[[], Any], frames: int, report: Reporter
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
