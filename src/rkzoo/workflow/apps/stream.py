"""Video stream: sources, a pool of models and sinks.

A thread for each source reads it into a lane of the pool; lanes take turns. The workers
preprocess, run and postprocess; the calling thread takes the results in order, tracks, draws and
passes them to the sinks. The slowest stage throttles the others, or, when frames may be dropped,
the oldest frames are dropped.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from math import inf
from pathlib import Path
from time import perf_counter
from types import FrameType
from typing import Any

from rkzoo.contract.faces import FaceRecognitionHead
from rkzoo.contract.model import BoxHead, TensorsHead
from rkzoo.contract.pose import PeoplePoseHead
from rkzoo.errors import RkzooError
from rkzoo.files import refuse_overwriting_inputs
from rkzoo.json_values import to_json_value
from rkzoo.progress import SILENT, ProgressReporter
from rkzoo.remote.client import ConnectionLost
from rkzoo.runtime.pool import Outcome, Pool, PoolStats
from rkzoo.session import Label
from rkzoo.soc.machine import npu_load
from rkzoo.soc.tree import Tree
from rkzoo.streaming.appearance import AppearanceOptions, CropEmbedder
from rkzoo.streaming.live import LivePage, parse_address
from rkzoo.streaming.meter import StreamMeter
from rkzoo.streaming.sinks import JsonLines, RenderedFrame, Sink, VideoFile, Window, check_window
from rkzoo.streaming.sources import (
    CameraFormat,
    Frame,
    FrameSource,
    PacedSource,
    is_camera,
    open_source,
)
from rkzoo.streaming.tracking import TrackedStream, TrackOptions
from rkzoo.tasks.detect.task import DetectOptions, HeadTask
from rkzoo.tasks.tensors.feed import input_specs
from rkzoo.tasks.text.result import TextLines
from rkzoo.workflow.apps.reid import open_reid, reid_plan
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
# A lost track is remembered by its looks so many times as long as by its place.
_REMEMBERED = 5
# Number of first frames whose results are checked for plausibility.
_DOUBTED = 3
# A live stream ends after this many consecutive failed frames.
_FAILURES = 3
# How long the reader may block on a silent source after the end, seconds.
_READER_GRACE = 6.0


@dataclass(frozen=True)
class StreamOutputs:
    """Output sinks. `jsonl` Path("-") is stdout. `http` is an address as taken by `parse_address`.
    Without any sink only statistics are reported. With several sources `save` becomes a file for
    each: film.mp4 -> film-0.mp4, film-1.mp4. `http_password`: asked of whoever looks.
    """

    save: Path | None = None
    jsonl: Path | None = None
    http: str | None = None
    show: bool = False
    http_password: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class StreamOptions:
    """Options of a stream.

    Attributes:
        confidence, iou: thresholds; None for the task's defaults.
        track: add track ids.
        reid: card name or file of an embedding model that says what tracked things look like;
            None: boxes alone decide.
        reid_classes: classes of the detector whose boxes it is asked about; None: people where
            its input is upright, as people are cut out, else all.
        every_frame: True processes every frame, False drops frames (a file is then played at its
            own frame rate); None: True for files, False for live sources.
        frames: stop after this many results, of each source.
        workers: number of models in parallel; None: by backend.
        give_up: seconds after which a lost source is given up; None: never.
        camera: size, rate and pixel format that cameras are asked for.
    """

    track: bool = False
    reid: str | None = None
    reid_classes: tuple[str, ...] | None = None
    every_frame: bool | None = None
    frames: int | None = None
    workers: int | None = None
    give_up: float | None = None
    camera: CameraFormat | None = None


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

    @property
    def files(self) -> list[str]:
        """Of the places, the files."""
        shown = ("stdout", "a window")
        return [one for one in self.places if one not in shown and not one.startswith("http")]

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
    plain attribute, since a handler must not wait for a lock that its own thread may hold. `number`
    is that of the signal which set it, or 0.
    """

    is_set: bool = False
    number: int = 0


Watch = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class FrameResult:
    """Result of a frame, with seconds by stage."""

    prediction: Prediction
    seconds: dict[str, float]
    warnings: tuple[str, ...] = ()


def stream(
    model: str,
    source: str | Sequence[str],
    outputs: StreamOutputs,
    *,
    request: Request | None = None,
    options: StreamOptions | None = None,
    stop: StopSignal | None = None,
    watch: Watch | None = None,
    report: ProgressReporter = SILENT,
) -> StreamSummary:
    """Run a model on sources until they end, `options.frames` results are reached, or `stop` is set
    (by Ctrl-C and SIGTERM in the main thread).

    Several sources share the workers in turns, so that none starves; where one fails, the others
    go on, and its error is raised at the end. Output files are complete however a live source
    ends, where there are several sources, and where the connection to a board is cut; another
    error removes them.

    Args:
        model: card name or file.
        source: camera, URL, video or images (see `open_source`), or several of these.
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
    reid = reid_plan(planned, options.reid, options.reid_classes, options.track, request, report)
    names = [source] if isinstance(source, str) else list(source)
    if options.camera is not None and not any(map(is_camera, names)):
        raise RkzooError(
            f"--camera {options.camera} has nobody to ask.",
            "None of the sources is a camera.",
            "Leave it out, or name a camera: 0 or /dev/video0.",
        )
    saved = _save_paths(outputs.save, len(names))
    refuse_overwriting_inputs([*saved, *filter(None, [outputs.jsonl])], map(Path, names))
    with ExitStack() as stack:
        workers = options.workers or npu_workers(planned) or _WORKERS[planned.label]
        looks = open_reid(reid, planned, options.reid_classes, workers, stack, report)
        feeds = [
            stack.enter_context(_feed(number, name, planned, options, looks, report))
            for number, name in enumerate(names)
        ]
        run = _Run(planned, feeds, options, workers, stop, watch, report)
        page = (
            LivePage(
                address,
                run.figures,
                title=f"{planned.name} · rkzoo stream",
                sources=len(feeds),
                password=outputs.http_password,
            )
            if address
            else None
        )
        if page is not None:
            stack.enter_context(page)
            report.note(f"The live page is at {' and '.join(page.places)}")
            if not page.local_only:
                who = "and knows the password " if outputs.http_password else ""
                report.note(f"Everyone who reaches this machine {who}can look at it.")
        late = any(feed.drop for feed in feeds)
        with Pool(
            partial(_opened, planned, options, workers, report),
            workers,
            waiting=max(1, workers // 2) if late else workers,
        ) as pool:
            run.go(pool, _sinks(outputs, saved, planned.name, feeds, report), page)
    return run.summary()


@dataclass
class _Feed:
    """One source and what is known of it. `drop`: frames may be left out."""

    number: int
    source: FrameSource
    drop: bool
    follow: TrackedStream | None
    meter: StreamMeter = field(default_factory=StreamMeter)
    answered: int = 0
    failed: int = 0
    failed_in_a_row: int = 0
    dropped: int = 0

    def figures(self) -> dict[str, Any]:
        """Its part of the statistics, as JSON types."""
        rates = self.meter.figures()
        return {
            "source": self.source.name,
            "frames": self.answered,
            "fps": rates["fps"].get("answered", 0.0),
            "mean_fps": rates["mean_fps"].get("answered", 0.0),
            "dropped": self.dropped,
            "failed": self.failed,
            "reconnects": self.source.reconnects,
        }


@contextmanager
def _feed(
    number: int,
    name: str,
    planned: Plan,
    options: StreamOptions,
    looks: CropEmbedder | None,
    report: ProgressReporter,
) -> Iterator[_Feed]:
    """Open a source. Raises RkzooError."""
    source = open_source(name, give_up=options.give_up, camera=options.camera, report=report)
    with closing(source):
        drop = source.live if options.every_frame is None else not options.every_frame
        if drop and not source.live:
            source = PacedSource(source)
        follow = _follower(planned, source, looks) if options.track else None
        yield _Feed(number, source, drop, follow)


def _follower(planned: Plan, source: FrameSource, looks: CropEmbedder | None) -> TrackedStream:
    sure = (planned.options.detect or DetectOptions()).confidence
    patience = round(min(source.fps or 30.0, 120.0))
    options = TrackOptions(
        high_threshold=sure, low_threshold=min(_UNSURE, sure), track_buffer=patience
    )
    if looks is None:
        return TrackedStream(options)
    remembered = AppearanceOptions(buffer=_REMEMBERED * patience)
    return TrackedStream(options, looks, looks.names, remembered)


def _save_paths(save: Path | None, sources: int) -> list[Path]:
    """The video of each source; none where nothing is saved."""
    if save is None or sources == 1:
        return [save] if save else []
    return [save.with_name(f"{save.stem}-{number}{save.suffix}") for number in range(sources)]


def _sinks(
    outputs: StreamOutputs,
    saved: Sequence[Path],
    model: str,
    feeds: Sequence[_Feed],
    report: ProgressReporter,
) -> Iterator[tuple[int | None, Sink]]:
    """The sinks, each with the source that it is for, or None for all."""
    for feed, path in zip(feeds, saved, strict=False):
        yield feed.number, VideoFile(path, feed.source.fps, live=feed.source.live, report=report)
    if outputs.jsonl:
        yield None, JsonLines(None if str(outputs.jsonl) == "-" else outputs.jsonl)
    if outputs.show:
        for feed in feeds:
            yield feed.number, Window(f"{model} · {feed.source.name}")


class _Run:
    """State of one stream, shared by main loop, readers and live page."""

    def __init__(
        self,
        planned: Plan,
        feeds: Sequence[_Feed],
        options: StreamOptions,
        workers: int,
        stop: StopSignal,
        watch: Watch | None,
        report: ProgressReporter,
    ) -> None:
        self.planned, self.feeds, self.options = planned, feeds, options
        self.workers, self.stop = workers, stop
        self.watch, self.report = watch, report
        self.meter = StreamMeter()
        self.pool: Pool[Frame, FrameResult] | None = None
        self.places: tuple[str, ...] = ()
        self.warnings: dict[str, None] = {}

    def go(
        self,
        pool: Pool[Frame, FrameResult],
        opened: Iterator[tuple[int | None, Sink]],
        page: LivePage | None,
    ) -> None:
        self.pool, self.meter = pool, StreamMeter()
        for feed in self.feeds:
            feed.meter = StreamMeter()
        failure: Exception | None = None
        readers = _Readers(self.feeds, pool, self.meter, self.options.frames, self.report)
        with ExitStack() as stack, _gently(self.stop):
            sinks = [(number, stack.enter_context(sink)) for number, sink in opened]
            sinks += [(None, page)] if page else []
            try:
                with readers:
                    self._loop(pool, sinks)
                    pool.cancel()
                if readers.errors:
                    raise readers.errors[0]
            except Exception as error:
                # What comes after a signal is its consequence, as everywhere.
                if not self.stop.number or error in readers.errors:
                    # Keep the recordings of a live source that was lost at the end, of the others
                    # where one of several sources fails, and of a board that was lost.
                    lost = (
                        isinstance(error, ConnectionLost)
                        or all(feed.source.live for feed in self.feeds)
                        or (len(self.feeds) > 1 and error in readers.errors)
                    )
                    if not lost or not any(feed.answered for feed in self.feeds):
                        raise
                    failure = error
        self.places = tuple(sink.place for _, sink in sinks if sink.place)
        if failure is not None:
            raise _with_kept(failure, self.summary())

    def _loop(
        self, pool: Pool[Frame, FrameResult], sinks: Sequence[tuple[int | None, Sink]]
    ) -> None:
        last_report = perf_counter()
        while not self.stop.is_set and not pool.over:
            # Short timeout, since a signal only sets a flag.
            outcome = pool.take(0.1)
            if outcome is not None and self._deliver(outcome, sinks):
                return
            if self.watch and perf_counter() - last_report >= 1:
                last_report = perf_counter()
                self.watch(self.figures())

    def _deliver(
        self, outcome: Outcome[Frame, FrameResult], sinks: Sequence[tuple[int | None, Sink]]
    ) -> bool:
        """Pass a result to the sinks; True when the stream ends with this frame."""
        feed = self.feeds[outcome.item.source]
        if self._enough(feed):
            return False
        if outcome.error is not None:
            self._excuse(feed, outcome.error)
            return False
        feed.failed_in_a_row = 0
        answer = outcome.value()
        self._warn(answer.warnings)
        seconds = dict(answer.seconds)
        prediction: Any = answer.prediction
        if feed.follow is not None:
            start = perf_counter()
            prediction = feed.follow(prediction, outcome.item.image)
            seconds["track"] = perf_counter() - start
        shown = RenderedFrame(outcome.item, prediction, self._paint, feed.source.name)
        for number, sink in sinks:
            if number in (None, feed.number):
                sink.take(shown)
        feed.answered += 1
        self.meter.stages(seconds | shown.seconds)
        self.meter.event("answered")
        feed.meter.event("answered")
        self.meter.latency(perf_counter() - outcome.item.taken)
        return all(map(self._enough, self.feeds)) or any(sink.over for _, sink in sinks)

    def _enough(self, feed: _Feed) -> bool:
        return self.options.frames is not None and feed.answered >= self.options.frames

    def _excuse(self, feed: _Feed, error: BaseException) -> None:
        """Handle a failed frame: ends the stream of a file at once, of a live source only when
        repeated."""
        feed.failed += 1
        feed.failed_in_a_row += 1
        hopeless = not feed.source.live or isinstance(error, ConnectionLost)
        if hopeless or feed.failed_in_a_row >= _FAILURES:
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

    def figures(self) -> dict[str, Any]:
        """Statistics for the live page and the summary, as JSON types; thread-safe."""
        tally = self.pool.stats if self.pool else PoolStats(0, 0, 0, 0, 0, 0)
        for feed in self.feeds:
            feed.dropped = self.pool.dropped_in(feed.number) if self.pool else 0
        return {
            "runtime": self.planned.label,
            "source": ", ".join(feed.source.name for feed in self.feeds),
            "sources": [feed.figures() for feed in self.feeds],
            "workers": self.workers,
            "waiting": tally.waiting,
            "working": tally.working,
            "dropped": tally.dropped,
            "failed": sum(feed.failed for feed in self.feeds),
            "reconnects": sum(feed.source.reconnects for feed in self.feeds),
            "npu_load": list(npu_load(Tree(Path("/")))),
        } | self.meter.figures()

    def summary(self) -> StreamSummary:
        """Summary of the stream."""
        figures = self.figures()
        return StreamSummary(
            self.planned.label,
            sum(feed.answered for feed in self.feeds),
            figures.pop("dropped"),
            figures.pop("failed"),
            self.stop.is_set,
            figures,
            self.places,
            tuple(self.warnings),
        )


def _with_kept(failure: Exception, summary: StreamSummary) -> Exception:
    """The error that ended a stream; the user's says also what is kept of it."""
    if not isinstance(failure, RkzooError) or not summary.files:
        return failure
    kept = f"It ended after {summary.frames} frames, which are kept: {', '.join(summary.files)}."
    why = f"{failure.why} {kept}".strip()
    return type(failure)(**vars(failure) | {"why": why})


@dataclass
class _Readers:
    """A thread for each source, which reads it into its lane of the pool. `errors` are the
    exceptions that ended sources."""

    feeds: Sequence[_Feed]
    pool: Pool[Frame, FrameResult]
    meter: StreamMeter
    most: int | None
    report: ProgressReporter
    errors: list[Exception] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __enter__(self) -> _Readers:
        self._reading = len(self.feeds)
        self._threads = [
            threading.Thread(target=self._read, args=(feed,), name="stream-reader", daemon=True)
            for feed in self.feeds
        ]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: Any) -> None:
        self._stop.set()
        self.pool.cancel()  # unblocks readers that wait for room
        end = perf_counter() + _READER_GRACE
        for thread in self._threads:
            thread.join(max(0.0, end - perf_counter()))

    def _read(self, feed: _Feed) -> None:
        try:
            with closing(feed.source.frames(self._stop)) as frames:  # type: ignore[type-var]
                for count, frame in enumerate(frames, 1):
                    self.meter.stages({"read": frame.reading})
                    self.meter.event("read")
                    mine = replace(frame, source=feed.number) if feed.number else frame
                    taken = self.pool.submit(mine, lane=feed.number, drop_oldest=feed.drop)
                    if not taken or self._last(feed, count):
                        return
        except Exception as error:
            self.errors.append(error)
            if len(self.feeds) > 1:
                self.report.note(f"{feed.source.name} has ended, the others go on: {error}")
        finally:
            with self._lock:
                self._reading -= 1
                if not self._reading:
                    self.pool.finish()

    def _last(self, feed: _Feed, count: int) -> bool:
        if self.most is None:
            return False
        return feed.answered >= self.most if feed.drop else count >= self.most


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
    if not isinstance(planned.head, BoxHead | FaceRecognitionHead | PeoplePoseHead):
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
            usual = before[signal.Signals(number)]
            if callable(usual):
                usual(number, frame)
            raise KeyboardInterrupt
        asked_at[0] = asked_at[0] if stop.is_set else perf_counter()
        stop.is_set, stop.number = True, stop.number or number

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
