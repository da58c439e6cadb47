"""Benchmark of a model, stage by stage, on this machine.

Timed is what `run` does: image decoding, preprocessing, inference, postprocessing. The vendor's
published table times inference alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import partial
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

import numpy as np

from rkzoo.contract.model import Contract
from rkzoo.contract.schema_base import StrictStruct
from rkzoo.errors import RkzooError
from rkzoo.files import write_text
from rkzoo.json_values import to_json_value
from rkzoo.progress import SILENT, ProgressReporter
from rkzoo.remote.session import RemoteSession
from rkzoo.runtime.npu import NpuSession
from rkzoo.runtime.npu_context import SMALL
from rkzoo.runtime.pool import Pool
from rkzoo.session import Array, Closeable, Label, Session
from rkzoo.speed.timing import Times, growth, times
from rkzoo.speed.usage import ProcessUsage, usage
from rkzoo.tasks.detect.task import HeadTask
from rkzoo.tasks.prompt.prompted import PromptedSession
from rkzoo.tasks.tensors.feed import made
from rkzoo.tasks.voice.result import SynthesizedSpeech
from rkzoo.vision.image import decode
from rkzoo.workflow.inference.inputs import (
    PICTURE,
    TENSORS,
    InputKind,
    input_kind_of_model,
    of_plan,
)
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
from rkzoo.workflow.inference.remote_backend import machine_on
from rkzoo.workflow.inference.stages import StagedTask, run_stages
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
"""Frames in flight when pipelined: one is preprocessed while another is in the model. On a board
this many per NPU core."""

LABELS: dict[Label, str] = {
    "onnx": "Not NPU times: ONNX Runtime in float on the processor of this machine.",
    "simulator": "Not NPU times: the toolkit's emulation on a PC, far slower than any NPU.",
    "board": "NPU times, measured on this board.",
}
ELSEWHERE = (
    "NPU times, measured on {on}: inference is timed there, and the network is a stage of its own."
)
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


class ModelInfo(StrictStruct, frozen=True):
    """The model and its input. `picture` is a path (what was given for each input of plain
    tensors), or "made" for a generated one; `width` and `height` are None if it is no picture."""

    name: str
    inputs: tuple[tuple[int, ...], ...]
    picture: str
    width: int | None
    height: int | None


class MemoryInfo(StrictStruct, frozen=True):
    """Memory of this process and its children: peak in MiB, growth in KiB per frame; None where the
    system does not tell.
    """

    peak_mib: float | None
    growth_kib_per_frame: float | None


class Throughput(StrictStruct, frozen=True):
    """Frames per second.

    Attributes:
        inference: inference alone, as in the published table.
        sequential: all stages, one frame at a time.
        pipelined: all stages, `workers` frames in flight.
        workers: frames in flight.
        cores_busy, cores_busy_sequential: CPU cores in use while pipelined and sequential.
    """

    inference: float
    sequential: float
    pipelined: float
    workers: int
    cores_busy: float
    cores_busy_sequential: float


class ExecutionMode(StrictStruct, frozen=True):
    """One way to run the model on the same decoded image: median milliseconds per frame, frames per
    second, and CPU cores in use.

    `floats`: float input and output tensors, every cell decoded, as the vendor's Python demos do
    (not on RV1103 and RV1106, whose library has no float tensors). `rkzoo`: as `run`. `pool`: the
    same with `workers` over all NPU cores, as `stream`.
    """

    name: Literal["floats", "rkzoo", "pool"]
    ms: float
    fps: float
    workers: int
    cores_busy: float


class BenchReport(StrictStruct, frozen=True):
    """Benchmark report of an image model.

    `time_cost_ms` by stage: decode, preprocess, inference, postprocess and total; a pipeline of
    several models has `around` instead of pre- and postprocess, since they alternate. `ways` on a
    board only. Of a board over a cable `inference` was measured there, without sending, and
    `network` is what this machine waited beyond that.
    """

    label: str
    runtime: Label
    published: str
    date: str
    rkzoo: str
    frames: int
    warm_up: int
    board_info: Board
    model_info: ModelInfo
    memory_info: MemoryInfo
    time_cost_ms: dict[str, Times]
    throughput_fps: Throughput
    ways: tuple[ExecutionMode, ...] = ()
    format: Literal[1] = 1

    def to_json(self) -> dict[str, Any]:
        """Report as JSON types, times rounded to microseconds."""
        document: dict[str, Any] = rounded(to_json_value(self))
        return document


class AnsweredModel(StrictStruct, frozen=True):
    """The model, its input (a path, or the text), and the seconds of sound read or generated; None
    for neither.
    """

    name: str
    given: str
    sound_seconds: float | None


class AnswerReport(StrictStruct, frozen=True):
    """Benchmark report of an audio or text model.

    `time_cost_ms` of a whole result by stage: decode (reading the file), inference, around, and
    total. `real_time_factor` is the median total over the seconds of sound; below 1 is faster than
    real time.
    """

    label: str
    runtime: Label
    published: str
    date: str
    rkzoo: str
    answers: int
    warm_up: int
    board_info: Board
    model_info: AnsweredModel
    memory_info: MemoryInfo
    time_cost_ms: dict[str, Times]
    real_time_factor: float | None
    format: Literal[1] = 1

    def to_json(self) -> dict[str, Any]:
        """Report as JSON types, times rounded to microseconds."""
        document: dict[str, Any] = rounded(to_json_value(self))
        return document


Work = Callable[[Any], "Stages"]
Stages = dict[str, float]
"""Seconds by stage."""


def bench_any(
    model: str | os.PathLike[str],
    source: str | Sequence[str] | None = None,
    *,
    request: Request | None = None,
    count: int | None = None,
    warm_up: int | None = None,
    affinity: Affinity = "all",
    lock_clocks: bool = False,
    report: ProgressReporter = SILENT,
) -> BenchReport | AnswerReport:
    """Run `bench` or `bench_answers`, by the input kind of the model; `count` frames or results.
    Raises RkzooError.
    """
    inputs = [source] if isinstance(source, str) else list(source or ())
    if input_kind_of_model(os.fspath(model)).name in (PICTURE.name, TENSORS.name):
        return bench(
            model,
            request=request,
            picture=inputs,
            frames=count,
            warm_up=WARM_UP if warm_up is None else warm_up,
            affinity=affinity,
            lock_clocks=lock_clocks,
            report=report,
        )
    if len(inputs) > 1:
        raise RkzooError(
            f"{model} answers one thing here, and was given {len(inputs)}.",
            "One is answered again and again.",
            "Give one with --input.",
        )
    return bench_answers(
        model,
        inputs[0] if inputs else None,
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
    report: ProgressReporter = SILENT,
) -> BenchReport:
    """Benchmark an image model: a card, an `.onnx`, or a `.rknn` made by rkzoo.

    `request` as for `run`: the runtime and how the model is fed. `picture` is a picture's file, or
    of a model with plain inputs what `run` takes (.npy, .npz, NAME=FILE ...); without it one is
    made.
    `affinity` pins the work to the fast or the slow cores of a board. `lock_clocks` holds the
    clocks at their highest meanwhile (needs root). Raises RkzooError.
    """
    _check_counts(frames, warm_up)
    setup = machine_setup(affinity, lock_clocks, request.on if request else None)
    planned = plan(model, request, report)
    check_pictures(planned, "bench --image")
    named = [picture] if isinstance(picture, str | os.PathLike) else picture or ()
    sources = [os.fspath(file) for file in named]
    picture_of = _reader(planned, sources)
    shot = picture_of()
    count = frames or FRAMES[planned.label]
    with ExitStack() as stack:
        setup = stack.enter_context(applied(setup))
        open_plan = partial(_open, stack=stack, threads=setup.threads, report=report)
        opened = open_plan(planned)
        sequential = _sequential(_task(planned, opened), picture_of, count, warm_up, report)
        sequential = _with_network(sequential, _sessions(opened))
        # An NPU session handles one frame at a time, in its own buffers.
        workers = npu_workers(planned)
        many = [open_plan(on_core(planned, number)) for number in range(workers)]
        tasks = [_task(planned, sessions) for sessions in many or [opened] * WORKERS]
        pipelined = _pipelined(tasks, picture_of, count, report)
        ways: tuple[ExecutionMode, ...] = ()
        if workers:
            still = partial(_same, shot)
            one_by_one = partial(_sequential, picture=still, frames=count, warm_up=warm_up)
            ways = (
                _way("rkzoo", one_by_one(_task(planned, opened), report=report), 1),
                _way("pool", _pipelined(tasks, still, count, report), workers),
            )
            if _small(opened):
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
        model_info=ModelInfo(
            name=planned.name,
            inputs=inputs,
            picture=" ".join(sources) or "made",
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
    report: ProgressReporter = SILENT,
) -> AnswerReport:
    """Benchmark an audio or text model: whole results, one after another.

    Args:
        model: card name or file.
        source: audio file; or a text or its file.
        answers: number of results; None for the default.

    The other arguments are as for `bench`.

    Raises:
        RkzooError: the model cannot be run, or there is not exactly one input.
    """
    _check_counts(answers, warm_up)
    input_kind = input_kind_of_model(os.fspath(model))
    source_input = _sample_input(input_kind, source, os.fspath(model))
    setup = machine_setup(affinity, lock_clocks, request.on if request else None)
    planned = plan(model, request, report)
    count = answers or ANSWERS
    with ExitStack() as stack:
        setup = stack.enter_context(applied(setup))
        opened = _open(planned, stack, setup.threads, report)
        task = task_of(planned, opened)
        last: list[Any] = []
        work = partial(_whole, partial(_answer, task, last), _sessions(opened))
        timed = _sequential(work, partial(input_kind.read, source_input), count, warm_up, report)
        timed = _with_network(timed, _sessions(opened))
        measured = _measured(planned, opened, setup, timed, warm_up)
    sound = getattr(input_kind.read(source_input), "seconds", None)
    if isinstance(last[-1], SynthesizedSpeech):
        sound = last[-1].sound.seconds
    total: Times = measured["time_cost_ms"]["total"]
    return AnswerReport(
        **measured,
        published=PUBLISHED_RTF if sound else PUBLISHED,
        answers=count,
        model_info=AnsweredModel(name=planned.name, given=str(source), sound_seconds=sound),
        real_time_factor=total.p50 / 1000 / sound if sound else None,
    )


def _measured(
    planned: Plan, opened: Opened, setup: MachineSetup, run: RunTimes, warm_up: int
) -> dict[str, Any]:
    """Fields common to both reports."""
    ended = usage()
    return {
        "label": _label(planned.label, opened, setup.on),
        "runtime": planned.label,
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "rkzoo": version("rkzoo"),
        "warm_up": warm_up,
        "board_info": setup.board(machine_on(setup.on), _library(planned)),
        "memory_info": _memory(ended, run.resident),
        "time_cost_ms": {name: times(values) for name, values in run.stages.items()},
    }


def _answer(task: Callable[[Any], Any], last: list[Any], source: Any) -> None:
    last[:] = [task(source)]


def _reader(planned: Plan, inputs: list[str]) -> Callable[[], Any]:
    """What reads the one picture, or the one sample of plain inputs, again and again. Raises
    RkzooError."""
    input_kind = of_plan(planned)
    if input_kind.name == TENSORS.name:
        if not inputs:
            return partial(_same, made(planned.parts["model"].contract))
        sources = input_kind.expand(inputs)
    else:
        sources = inputs
    if len(sources) > 1:
        raise RkzooError(
            f"One frame is timed again and again, and {len(sources)} were given.",
            "Which of them counts is not said.",
            "Give one picture with --image, or one .npz or NAME=FILE for each input.",
        )
    if input_kind.name == TENSORS.name:
        return partial(input_kind.read, sources[0])
    return partial(decode, *picture_bytes(sources[0] if sources else None))


def _picture_size(shot: Any) -> tuple[int | None, int | None]:
    """(height, width) of what is one picture, as an array or by the name of its input."""
    image = next(iter(shot.values())) if isinstance(shot, dict) and len(shot) == 1 else shot
    pixels = isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3
    return (image.shape[0], image.shape[1]) if pixels else (None, None)


def _sample_input(input_kind: InputKind, source: str | None, model: str) -> Any:
    """The one input."""
    sources = input_kind.expand([source]) if source is not None else ()
    if len(sources) != 1:
        raise RkzooError(
            f"{model} takes one {input_kind.name} here, and was given {len(sources) or 'none'}.",
            "It is run repeatedly.",
            f"Give one {input_kind.name} with --input.",
        )
    return sources[0]


def _check_counts(frames: int | None, warm_up: int) -> None:
    if (frames is not None and frames < 1) or warm_up < 0:
        raise RkzooError(
            "There is nothing to measure.", "It takes one frame at least.", "Give --frames 50."
        )


def _same(shot: Any) -> Any:
    return shot


def _way(name: Literal["floats", "rkzoo", "pool"], run: RunTimes, workers: int) -> ExecutionMode:
    return ExecutionMode(
        name=name,
        ms=times(run.stages["total"]).p50,
        fps=_rate(len(run.stages["total"]), run.seconds),
        workers=workers,
        cores_busy=round(_rate(run.cpu, run.seconds), 2),
    )


def _on_npu(session: TimedSession) -> NpuSession | RemoteSession | None:
    """The session on an NPU behind one that was opened, if there is one."""
    inner: object = session.inner
    inner = inner.inner if isinstance(inner, PromptedSession) else inner
    return inner if isinstance(inner, NpuSession | RemoteSession) else None


def _small(opened: Opened) -> bool:
    """Whether a model runs on the library of RV1103 and RV1106."""
    for found in map(_on_npu, _sessions(opened)):
        if isinstance(found, NpuSession) and found.context.library.small:
            return True
        if isinstance(found, RemoteSession) and SMALL in found.opened.library:
            return True
    return False


def _label(label: Label, opened: Opened, on: str | None) -> str:
    for found in map(_on_npu, _sessions(opened)):
        if found is not None and (
            found.context.stand_in if isinstance(found, NpuSession) else found.stand_in
        ):
            return "A stand-in for the NPU's library: these times say nothing about a board."
    return ELSEWHERE.format(on=on) if on else LABELS[label]


def _library(planned: Plan) -> str:
    """The NPU's library with its version, where one is used."""
    told = next((part.backend.hardware for part in planned.parts.values()), "")
    return told.partition("library ")[2]


def write_report(path: Path, report: BenchReport | AnswerReport) -> None:
    """Write report.yml atomically. Raises RkzooError when it cannot be written."""
    import yaml

    write_text(path, yaml.safe_dump(report.to_json(), sort_keys=False, allow_unicode=True))


def rounded(value: Any) -> Any:
    """Round all numbers in JSON data to three decimals (microseconds)."""
    if isinstance(value, float):
        return round(value, 3)
    if isinstance(value, dict):
        return {key: rounded(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(entry) for entry in value]
    return value


# ---- measuring ----------------------------------------------------------------------


@dataclass(frozen=True)
class RunTimes:
    """Measurements of one run. `stages`: seconds per frame; `resident`: memory after each frame
    (empty where unknown); `cpu` and `seconds` of the whole run.
    """

    stages: dict[str, list[float]]
    resident: list[int]
    cpu: float
    seconds: float
    warm_up: int = 0


class TimedSession(Closeable):
    """Session wrapper that accumulates the time spent in it, and the number of runs."""

    def __init__(self, session: Session) -> None:
        self.inner = session
        self.label, self.inputs, self.outputs = session.label, session.inputs, session.outputs
        self.canvas = getattr(session, "canvas", None)
        self.spent, self.runs = 0.0, 0

    def run(self, arrays: Sequence[Array]) -> list[Array]:
        start = perf_counter()
        try:
            return self.inner.run(arrays)
        finally:
            self.spent += perf_counter() - start
            self.runs += 1

    def close(self) -> None:
        self.inner.close()


Opened = dict[str, tuple[Contract, TimedSession]]


def _open(planned: Plan, stack: ExitStack, threads: int, report: ProgressReporter) -> Opened:
    return {
        role: (
            part.answers,
            TimedSession(stack.enter_context(open_part(part, threads=threads, report=report))),
        )
        for role, part in planned.parts.items()
    }


def _task(planned: Plan, opened: Opened, *, plainly: bool = False) -> Work:
    """Return a function from an image to the seconds by stage. Each has its own buffers, so several
    can run concurrently on the same sessions. `plainly` uses the reference decoder, where there is
    one.
    """
    task = task_of(planned, opened)
    if isinstance(task, StagedTask):
        decode: Callable[..., Any] = task.postprocess
        if plainly and isinstance(task, HeadTask):
            decode = task.postprocess_unsuppressed
        return partial(_staged, task, decode)
    return partial(_whole, task, _sessions(opened))


def _sessions(opened: Opened) -> list[TimedSession]:
    return [session for _, session in opened.values()]


def _staged(task: StagedTask, decode: Callable[..., Any], image: Any) -> Stages:
    return run_stages(task, image, decode)[1]._asdict()


def _whole(task: Callable[[Any], Any], sessions: Sequence[TimedSession], image: Any) -> Stages:
    """Time of the models, and of everything around them, for tasks with several models or calls."""
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
    report: ProgressReporter,
) -> RunTimes:
    """One frame at a time."""
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
    return RunTimes(stages, resident, max(after.cpu - before.cpu, 0.0), seconds, warm_up)


_MOST_TIMED = 200  # runs on a board that are timed there


def _with_network(run: RunTimes, sessions: Sequence[TimedSession]) -> RunTimes:
    """The stage `inference` as boards at the other end of a cable time it, and `network` what was
    waited for beyond that; unchanged where all models are here.
    """
    far = [
        (session.runs, found)
        for session in sessions
        if isinstance(found := _on_npu(session), RemoteSession) and session.runs
    ]
    if not far:
        return run
    frames = len(run.stages["inference"])
    there = [0.0] * frames
    for runs, session in far:
        seconds = session.time_again(min(max(runs, 1), _MOST_TIMED)).seconds
        # Warm-up included: every frame makes as many runs.
        each = runs / (run.warm_up + frames)
        for frame in range(frames):
            there[frame] += each * seconds[frame % len(seconds)]
    waited = [
        max(seen - own, 0.0) for seen, own in zip(run.stages["inference"], there, strict=True)
    ]
    stages: dict[str, list[float]] = {}
    for name, values in run.stages.items():
        stages |= {"inference": there, "network": waited} if name == "inference" else {name: values}
    return replace(run, stages=stages)


def _pipelined(
    tasks: Sequence[Work], picture: Callable[[], Any], frames: int, report: ProgressReporter
) -> RunTimes:
    """One frame in flight per task, each in its own worker."""

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
    return RunTimes({"total": worked}, [], max(after.cpu - before.cpu, 0.0), seconds)


def _rate(count: float, seconds: float) -> float:
    return count / seconds if seconds > 0 else 0.0


def _memory(ended: ProcessUsage, resident: Sequence[int]) -> MemoryInfo:
    return MemoryInfo(
        peak_mib=None if ended.peak is None else ended.peak / 2**20,
        growth_kib_per_frame=growth(resident) / 1024 if resident else None,
    )
