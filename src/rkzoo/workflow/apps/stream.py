"""Video stream: a source, a pool of models and sinks.

One thread reads the source into the pool; the workers preprocess, run and postprocess; the calling
thread takes the results in order, tracks, draws and passes them to the sinks. The slowest stage
throttles the others, or, when frames may be dropped, the oldest frames are dropped.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from math import inf
from pathlib import Path
from time import perf_counter
from types import FrameType
from typing import Any

from rkzoo.contract.detect import DetectHead
from rkzoo.contract.model import TensorsHead
from rkzoo.errors import RkzooError
from rkzoo.files import refuse_overwriting_inputs
from rkzoo.json_values import to_json_value
from rkzoo.progress import SILENT, ProgressReporter
from rkzoo.runtime.pool import Outcome, Pool, PoolStats
from rkzoo.session import Label
from rkzoo.soc.machine import npu_load
from rkzoo.soc.tree import Tree
from rkzoo.streaming.live import LivePage, parse_address
from rkzoo.streaming.meter import StreamMeter
from rkzoo.streaming.sinks import JsonLines, RenderedFrame, Sink, VideoFile, Window, check_window
from rkzoo.streaming.sources import Frame, FrameSource, PacedSource, open_source
from rkzoo.streaming.tracking import TrackedStream, TrackOptions
from rkzoo.tasks.detect.task import DetectOptions, HeadTask
from rkzoo.tasks.tensors.feed import input_specs
from rkzoo.tasks.text.result import TextLines
from rkzoo.workflow.inference.load import open_task
from rkzoo.workflow.inference.model import Image, Prediction
from rkzoo.workflow.inference.plan import Plan, check_pictures, npu_workers, on_core, plan
from rkzoo.workflow.inference.sanity import run_with_checks
from rkzoo.workflow.inference.stages import run_stages
from rkzoo.workflow.request.request import Request

# Default workers; the simulator is a process of its own and far from real time.
_WORKERS: dict[Label, int] = {"onnx": 2, "simulator": 1}
# Low score threshold of the tracker.
_UNSURE = 0.1
# Number of first frames whose results are checked for plausibility.
_DOUBTED = 3
# A live stream ends after this many consecutive failed frames.
_FAILURES = 3
# How long the reader may block on a silent source after the end, seconds.
_READER_GRACE = 6.0


@dataclass(frozen=True)
class StreamOutputs:
    """Output sinks. `jsonl` Path("-") is stdout. `http` is an address as taken by `parse_address`.
    Without any sink only statistics are reported.
    """

    save: Path | None = None
    jsonl: Path | None = None
    http: str | None = None
    show: bool = False


@dataclass(frozen=True)
class StreamOptions:
    """Options of a stream.

    Attributes:
        confidence, iou: thresholds; None for the task's defaults.
        track: add track ids.
        every_frame: True processes every frame, False drops frames (a file is then played at its
            own frame rate); None: True for files, False for live sources.
        frames: stop after this many results.
        workers: number of models in parallel; None: by backend.
        give_up: seconds after which a lost source is given up; None: never.
    """

    track: bool = False
    every_frame: bool | None = None
    frames: int | None = None
    workers: int | None = None
    give_up: float | None = None


@dataclass(frozen=True)
class StreamSummary:
    """Summary of a stream. `stopped`: ended by the user. `figures`: as in /stats.json."""

    runtime: Label
    frames: int
    dropped: int
    failed: int
    stopped: bool
    figures: dict[str, Any]
    places: tuple[str, ...]
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Summary as JSON types."""
        document: dict[str, Any] = to_json_value(self._document())
        return document

    def _document(self) -> dict[str, Any]:
        return {
            "frames": self.frames,
            "dropped": self.dropped,
            "failed": self.failed,
            "stopped": self.stopped,
            "outputs": list(self.places),
            "warnings": list(self.warnings),
        } | self.figures


@dataclass
class StopSignal:
    """Stop flag: set `asked` from anywhere, also a signal handler, to end the stream cleanly. A
    plain attribute, since a handler must not wait for a lock that its own thread may hold.
    """

    is_set: bool = False


Watch = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class FrameResult:
    """Result of a frame, with seconds by stage."""

    prediction: Prediction
    seconds: dict[str, float]
    warnings: tuple[str, ...] = ()


def stream(
    model: str,
    source: str,
    outputs: StreamOutputs,
    *,
    request: Request | None = None,
    options: StreamOptions | None = None,
    stop: StopSignal | None = None,
    watch: Watch | None = None,
    report: ProgressReporter = SILENT,
) -> StreamSummary:
    """Run a model on a source until it ends, `options.frames` results are reached, or `stop` is set
    (by Ctrl-C and SIGTERM in the main thread).

    Output files are complete however a live source ends; another error removes them.

    Args:
        model: card name or file.
        source: camera, URL, video or images (see `open_source`).
        outputs: sinks.
        request: runtime and options of the model.
        options: options of the stream.
        stop: stop flag.
        watch: called with the statistics once a second.
        report: receives progress.

    Raises:
        RkzooError: the model, the source or a sink cannot be opened, or fails.
    """
    options, stop = options or StreamOptions(), stop or StopSignal()
    address = parse_address(outputs.http) if outputs.http else None
    if outputs.show:
        check_window()
    planned = plan(model, request, report)
    check_pictures(planned, "stream", joined=True)
    _check_fed_by_frames(planned)
    if options.track:
        _check_trackable(planned)
    _check(options)
    refuse_overwriting_inputs(filter(None, (outputs.save, outputs.jsonl)), [Path(source)])
    with ExitStack() as stack:
        opened = open_source(source, give_up=options.give_up, report=report)
        stack.callback(opened.close)
        drop = opened.live if options.every_frame is None else not options.every_frame
        if drop and not opened.live:
            opened = PacedSource(opened)
        workers = options.workers or npu_workers(planned) or _WORKERS[planned.label]
        run = _Run(planned, opened, options, workers, drop, stop, watch, report)
        page = (
            LivePage(address, run.figures, title=f"{planned.name} · rkzoo stream")
            if address
            else None
        )
        if page is not None:
            stack.enter_context(page)
            report.note(f"The live page is at {page.place}")
            if not page.local_only:
                report.note("Everyone who reaches this machine can look at it.")
        with Pool(
            partial(_opened, planned, options, workers, report),
            workers,
            waiting=workers if not drop else max(1, workers // 2),
            drop_oldest=drop,
        ) as pool:
            run.go(pool, outputs, page)
    return run.summary()


class _Run:
    """State of one stream, shared by main loop, reader and live page."""

    def __init__(
        self,
        planned: Plan,
        source: FrameSource,
        options: StreamOptions,
        workers: int,
        drop: bool,
        stop: StopSignal,
        watch: Watch | None,
        report: ProgressReporter,
    ) -> None:
        self.planned, self.source, self.options = planned, source, options
        self.workers, self.drop, self.stop = workers, drop, stop
        self.watch, self.report = watch, report
        self.meter = StreamMeter()
        self.pool: Pool[Frame, FrameResult] | None = None
        self.places: tuple[str, ...] = ()
        self.warnings: dict[str, None] = {}
        self.answered = self.failed = self._in_a_row = 0
        self._follow = self._follower() if options.track else None

    def go(
        self, pool: Pool[Frame, FrameResult], outputs: StreamOutputs, page: LivePage | None
    ) -> None:
        self.pool, self.meter = pool, StreamMeter()
        failure: Exception | None = None
        reader = _Reader(self.source, pool, self.meter, None if self.drop else self.options.frames)
        with ExitStack() as stack, _gently(self.stop):
            sinks: list[Sink] = [stack.enter_context(sink) for sink in self._sinks(outputs)]
            sinks += [page] if page else []
            self.places = tuple(sink.place for sink in sinks)
            try:
                with reader:
                    self._loop(pool, sinks)
                    pool.cancel()
                if reader.error is not None:
                    raise reader.error
            except Exception as error:
                if not self.source.live or not self.answered:
                    raise
                # Keep the recording of a live source that was lost at the end.
                failure = error
        if failure is not None:
            raise failure

    def _loop(self, pool: Pool[Frame, FrameResult], sinks: list[Sink]) -> None:
        last_report = perf_counter()
        while not self.stop.is_set and not pool.over:
            # Short timeout, since a signal only sets a flag.
            outcome = pool.take(0.1)
            if outcome is not None and self._deliver(outcome, sinks):
                return
            if self.watch and perf_counter() - last_report >= 1:
                last_report = perf_counter()
                self.watch(self.figures())

    def _deliver(self, outcome: Outcome[Frame, FrameResult], sinks: list[Sink]) -> bool:
        """Pass a result to the sinks; True when the stream ends with this frame."""
        if outcome.error is not None:
            self._excuse(outcome.error)
            return False
        self._in_a_row = 0
        answer = outcome.value()
        self._warn(answer.warnings)
        seconds = dict(answer.seconds)
        prediction: Any = answer.prediction
        if self._follow is not None:
            start = perf_counter()
            prediction = self._follow(prediction)
            seconds["track"] = perf_counter() - start
        shown = RenderedFrame(outcome.item, prediction, self._paint)
        for sink in sinks:
            sink.take(shown)
        self.answered += 1
        self.meter.stages(seconds | shown.seconds)
        self.meter.event("answered")
        self.meter.latency(perf_counter() - outcome.item.taken)
        enough = self.options.frames is not None and self.answered >= self.options.frames
        return enough or any(sink.over for sink in sinks)

    def _excuse(self, error: BaseException) -> None:
        """Handle a failed frame: ends the stream of a file at once, of a live source only when
        repeated."""
        self.failed += 1
        self._in_a_row += 1
        if not self.source.live or self._in_a_row >= _FAILURES:
            raise error
        self.report.note(f"A frame was left out: {' '.join(str(error).split())[:200]}")

    def _warn(self, warnings: tuple[str, ...]) -> None:
        for text in warnings:
            if text not in self.warnings:
                self.report.note(f"warning: {text}")
                self.warnings[text] = None

    def _paint(self, prediction: Any, image: Image) -> Image:
        if isinstance(prediction, TextLines):
            from rkzoo.workflow.inference.font import font

            return prediction.draw(image, font(self.report))
        drawn: Image = prediction.draw(image)
        return drawn

    def _follower(self) -> TrackedStream:
        sure = (self.planned.options.detect or DetectOptions()).confidence
        patience = round(min(self.source.fps or 30.0, 120.0))
        return TrackedStream(
            TrackOptions(
                high_threshold=sure, low_threshold=min(_UNSURE, sure), track_buffer=patience
            )
        )

    def _sinks(self, outputs: StreamOutputs) -> Iterator[Sink]:
        if outputs.save:
            yield VideoFile(
                outputs.save, self.source.fps, live=self.source.live, report=self.report
            )
        if outputs.jsonl:
            yield JsonLines(None if str(outputs.jsonl) == "-" else outputs.jsonl)
        if outputs.show:
            yield Window(f"{self.planned.name} · {self.source.name}")

    def figures(self) -> dict[str, Any]:
        """Statistics for the live page and the summary, as JSON types; thread-safe."""
        tally = self.pool.stats if self.pool else PoolStats(0, 0, 0, 0, 0, 0)
        return {
            "runtime": self.planned.label,
            "source": self.source.name,
            "workers": self.workers,
            "waiting": tally.waiting,
            "working": tally.working,
            "dropped": tally.dropped,
            "failed": self.failed,
            "reconnects": self.source.reconnects,
            "npu_load": list(npu_load(Tree(Path("/")))),
        } | self.meter.figures()

    def summary(self) -> StreamSummary:
        """Summary of the stream."""
        figures = self.figures()
        return StreamSummary(
            self.planned.label,
            self.answered,
            figures.pop("dropped"),
            figures.pop("failed"),
            self.stop.is_set,
            figures,
            self.places,
            tuple(self.warnings),
        )


@dataclass
class _Reader:
    """Thread that reads the source into the pool. `error` is the exception that ended it."""

    source: FrameSource
    pool: Pool[Frame, FrameResult]
    meter: StreamMeter
    most: int | None
    error: BaseException | None = None
    _stop: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> _Reader:
        self._thread = threading.Thread(target=self._read, name="stream-reader", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: Any) -> None:
        self._stop.set()
        self.pool.cancel()  # unblocks a reader that waits for room
        self._thread.join(_READER_GRACE)

    def _read(self) -> None:
        try:
            with closing(self.source.frames(self._stop)) as frames:  # type: ignore[type-var]
                for count, frame in enumerate(frames, 1):
                    self.meter.stages({"read": frame.reading})
                    self.meter.event("read")
                    if not self.pool.submit(frame) or count == self.most:
                        return
        except BaseException as error:
            self.error = error
        finally:
            self.pool.finish()


@contextmanager
def _opened(
    planned: Plan, options: StreamOptions, workers: int, report: ProgressReporter, number: int
) -> Iterator[Callable[[Frame], FrameResult]]:
    """Open the models of one worker."""
    threads = max(1, (os.cpu_count() or 1) // workers)
    task_options = planned.options
    if options.track:
        detect = task_options.detect or DetectOptions()
        low = replace(detect, confidence=min(detect.confidence, _UNSURE))
        task_options = replace(task_options, detect=low)
    mine = on_core(planned, number)
    with ExitStack() as stack:
        task = open_task(mine, stack, options=task_options, threads=threads, report=report)
        yield partial(_answer, task)


def _answer(task: Callable[[Image], Prediction], frame: Frame) -> FrameResult:
    start = perf_counter()
    if not isinstance(task, HeadTask):
        prediction = task(frame.image)
        return FrameResult(prediction, {"work": perf_counter() - start})
    if frame.number < _DOUBTED:
        prediction, warnings = run_with_checks(task, frame.image)
        return FrameResult(prediction, {}, warnings)
    prediction, seconds = run_stages(task, frame.image)
    return FrameResult(prediction, dict(zip(("prepare", "infer", "decode"), seconds, strict=True)))


_MOST_WORKERS = 64  # 1000 took 110 s to open


def _check(options: StreamOptions) -> None:
    for name in ("frames", "workers"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise RkzooError(f"--{name} is {value}.", "It counts from 1.", f"Give e.g. --{name} 2.")
    if options.give_up is not None and not 0 <= options.give_up < inf:
        raise RkzooError(
            f"--give-up is {options.give_up}.",
            "It is how many seconds a lost source is tried again.",
            "Give e.g. --give-up 60, or leave it out.",
        )
    if options.workers is not None and options.workers > _MOST_WORKERS:
        raise RkzooError(
            f"--workers {options.workers} is too many.",
            f"Each opens the model anew; the maximum is {_MOST_WORKERS}.",
            "Leave it out: the default keeps the machine busy.",
        )


def _check_fed_by_frames(planned: Plan) -> None:
    """Raises RkzooError for plain tensors of which a frame is not the only input."""
    contract = next(iter(planned.parts.values())).contract
    if isinstance(contract.head, TensorsHead) and (contract.picture is None or contract.others):
        raise RkzooError(
            f"{planned.name} cannot be run on video.",
            f"It takes {', '.join(input_specs(contract))}, and a frame is one picture.",
            "Use rkzoo run with a file for each input.",
        )


def _check_trackable(planned: Plan) -> None:
    part = planned.parts.get("model")
    if part is None or not isinstance(part.contract.head, DetectHead):
        raise RkzooError(
            f"{planned.name} finds no objects to track.",
            "--track adds ids to boxes, and this model gives none.",
            "Leave --track out.",
        )


@contextmanager
def _gently(stop: StopSignal) -> Iterator[None]:
    """Ctrl-C and SIGTERM end the stream cleanly; another one, more than a second later, interrupts
    at once (they often arrive twice at the same moment: for the group and for the process).
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    asked_at = [perf_counter()]

    def ask(number: int, frame: FrameType | None) -> None:
        if stop.is_set and perf_counter() - asked_at[0] > 1:
            raise KeyboardInterrupt
        asked_at[0] = asked_at[0] if stop.is_set else perf_counter()
        stop.is_set = True

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
