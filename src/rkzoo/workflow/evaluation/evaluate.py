"""Evaluation of a model on a dataset, in batches, with the metrics of the upstream projects."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rkzoo.accuracy import answers
from rkzoo.accuracy.agreement import agreement
from rkzoo.accuracy.dataset import Dataset, open_dataset, require_data
from rkzoo.accuracy.metric import Drop, Metric, drop_of
from rkzoo.accuracy.tensors import UserMetric
from rkzoo.contract.detect import DetectHead
from rkzoo.contract.model import Contract, Head
from rkzoo.errors import RkzooError
from rkzoo.files import cache_dir, os_errors_explained
from rkzoo.json_values import to_json_value
from rkzoo.kept import drop, kept_folder
from rkzoo.progress import SILENT, Failure, ProgressReporter
from rkzoo.session import Label
from rkzoo.tasks.detect.task import DetectOptions
from rkzoo.tasks.registry import spec_of
from rkzoo.workflow.evaluation.jobs import (
    Done,
    EvaluationJob,
    ImageReadOptions,
    Piece,
    Records,
    Send,
    check_send,
    run_inline,
)
from rkzoo.workflow.evaluation.plain_samples import AGREEMENT, TENSORS, as_metric, open_samples
from rkzoo.workflow.evaluation.process_pool import run_in_processes
from rkzoo.workflow.inference.backend import runtime_of
from rkzoo.workflow.inference.inputs import PICTURE, input_kind_of_head
from rkzoo.workflow.inference.onnx_backend import OnnxBackend
from rkzoo.workflow.inference.plan import Plan, npu_workers, plan, plan_of
from rkzoo.workflow.request.calibration import evenly, from_files
from rkzoo.workflow.request.calibration_sampling import picked
from rkzoo.workflow.request.pipeline_file import is_pipeline_file
from rkzoo.workflow.request.request import Request
from rkzoo.zoo.schema import Int8Recipe

if TYPE_CHECKING:
    from collections.abc import Iterator

STANDARD = DetectOptions(
    confidence=0.001, iou=0.65, limit=300, multi_label=True, suppression="class"
)
"""Settings of Ultralytics, YOLOv5 to v9 and YOLOX for evaluation, whose IoU is 0.6 to 0.7."""

Runner = Callable[[EvaluationJob, Sequence[Piece], ProgressReporter], Done]
"""Executes a job: in this process, in several, or on a cluster."""

_PIECE = 8  # images per batch, which an interrupted run loses per worker
_MOST_WORKERS = 256
_KEPT = 200  # most recently used evaluations kept in the cache; about 1 MB each
_CALIBRATION = 20  # images, as in the toolkit's examples


@dataclass(frozen=True)
class Evaluation:
    """Result of an evaluation.

    Attributes:
        images: number of images evaluated.
        reused: number of them whose results came from an earlier run.
        items: what they are (pictures or sounds).
        failed: files that could not be used, and are no part of the figures.
        dtype: number format; "" where a .rknn does not tell it.
        hardware: chip, driver and library of the NPU that answered; "" where none did.
        protocol: postprocessing options.
        departures: deviations from the standard protocol, one sentence each.
        drop: how far the main metric lies below float's, where float's answers are kept.
    """

    model: str
    dataset: str
    images: int
    runtime: Label
    dtype: str
    toolkit: str
    protocol: dict[str, Any]
    departures: tuple[str, ...]
    metrics: tuple[Metric, ...]
    seconds: float
    reused: int
    rkzoo: str
    items: str = "pictures"
    failed: tuple[Failure, ...] = ()
    hardware: str = ""
    drop: Drop | None = None

    @property
    def main(self) -> Metric:
        """The main metric."""
        return next((metric for metric in self.metrics if metric.main), self.metrics[0])

    def to_json(self) -> dict[str, Any]:
        """Result as JSON types; values that are not finite become null."""
        document: dict[str, Any] = to_json_value(replace(self, metrics=(), drop=None))
        document["metrics"] = [metric.to_json() for metric in self.metrics]
        document["drop"] = self.drop and self.drop.points
        document["drop_interval"] = self.drop and to_json_value(self.drop.interval)
        return document


def refuse_classes(request: Request) -> None:
    """Raises RkzooError where only some classes are asked for."""
    if request.classes is not None:
        raise RkzooError(
            "classes does not go with an evaluation.",
            "A score counts every class of the data, and those left out would count as missed.",
            "Leave it out, or give data of these classes alone.",
        )


def refuse_cluster(request: Request, scheduler: str | None) -> None:
    """Raises RkzooError where a cluster should run what one board runs."""
    if request.on is not None and scheduler is not None:
        raise RkzooError(
            "--scheduler does not go with --on.",
            "The machines of a cluster do not have this one's connection to the board.",
            "Leave one of them out.",
        )


def evaluate(
    model: str,
    data: str,
    *,
    request: Request | None = None,
    limit: int | None = None,
    options: DetectOptions | None = None,
    workers: int | None = None,
    scheduler: str | None = None,
    fresh: bool = False,
    metric: str | UserMetric | None = None,
    send: Send = "tensors",
    report: ProgressReporter = SILENT,
) -> Evaluation:
    """Evaluate a card's model, an `.onnx` or a `.rknn` on a dataset.

    `options` None is the standard protocol with the thresholds of `request` in their place.
    `limit` counts the first pictures only. `workers` processes, or the Dask cluster at
    `scheduler`: the figures are the same, to the last digit. A run that was stopped goes on
    where it was, unless `fresh`. Without calibration pictures INT8 is calibrated on some of the
    data set, which `departures` says. Plain tensors are scored by `metric` (a function, or the
    FILE.py:FUNCTION that is then imported), or else against the float model's own outputs. `send`
    "files" has the board of `request.on` read and decode the files itself, for slow networks.
    Raises RkzooError.
    """
    own = as_metric(metric)
    request = request or Request()
    refuse_classes(request)
    refuse_cluster(request, scheduler)
    options = options or replace(STANDARD, **request.thresholds)
    departures: list[str] = []
    if (request.on or request.runtime == "simulator") and is_source(model):
        from rkzoo.workflow.request.models import find_models

        # The data can be calibrated on, so it is opened before anything is built.
        models = find_models(model, request, report)
        task = task_of(models.answers, len(models.roles), models.head)
        dataset = _opened(data, task, models.prompts or models.answers.labels, own)
        departures += _departures(options, models.answers)
        request = calibrated_on(dataset, request, limit, departures, models.first.tuned)
        planned = plan_of(models, runtime_of(request, "simulator"), request, report)
    else:
        if request.on:
            require_data(data)  # before a board is waited for
        planned = plan(model, request, report)
        contract = next(iter(planned.parts.values())).answers
        task = task_of(contract, len(planned.parts), planned.head)
        dataset = _opened(data, task, planned.prompts or contract.labels, own)
        departures += _departures(options, contract)
    if task == TENSORS and own is None:
        runner = spread(workers, scheduler)
        dataset = against_float(dataset, float_plan(planned), limit, runner, fresh, report)
        report.note(f"{dataset.name}: {AGREEMENT}.")
    return evaluate_plan(
        planned,
        dataset,
        limit=limit,
        options=options,
        departures=departures,
        workers=workers,
        scheduler=scheduler,
        fresh=fresh,
        send=send,
        floating=_floating(model, planned, request),
        report=report,
    )


def _floating(model: str, planned: Plan, request: Request) -> Plan | None:
    """The float model that another runtime's figures are held against; None for float itself, or
    where it is not at hand."""
    if planned.label == "onnx":
        return None
    try:
        if is_source(model):
            return plan(model, replace(request, runtime="onnx", on=None))
        return float_plan(planned)
    except RkzooError:
        return None


def evaluate_plan(
    planned: Plan,
    dataset: Dataset,
    *,
    limit: int | None = None,
    options: DetectOptions = STANDARD,
    reading: ImageReadOptions | None = None,
    departures: Sequence[str] = (),
    workers: int | None = None,
    scheduler: str | None = None,
    runner: Runner | None = None,
    fresh: bool = False,
    send: Send = "tensors",
    floating: Plan | None = None,
    report: ProgressReporter = SILENT,
) -> Evaluation:
    """As `evaluate`, for an existing plan and dataset. `reading` changes how images are read,
    `runner` who executes the job. The drop below the model `floating` is told where its answers
    are kept from before; nothing is measured for it.
    """
    check_send(planned, send)
    start = time.perf_counter()
    if dataset.kind == "pairs":  # of each picture the best face counts, so no other is embedded
        options = replace(options, limit=1)
    items = dataset.items[:limit]
    job = EvaluationJob(planned, options, reading=reading or ImageReadOptions(), send=send)
    runner = runner or spread(workers, scheduler)
    answered, reused = answer_all(job, dataset.digest, items, runner, fresh, report)
    missing = tuple(
        Failure(str(path), "The data names it, and it is not there.") for path in dataset.missing
    )
    for failure in missing:
        report.failed(failure)
    dataset, records, failures = usable(dataset, answered, report)
    labels = planned.prompts or next(iter(planned.parts.values())).answers.labels
    with report.task("Scoring"):
        metrics = dataset.score(records, labels)
    if not metrics:
        raise RkzooError(
            f"There is nothing to score in {dataset.name}.",
            "The files that could be used hold nothing that is looked for.",
            "Check the files, and what --data names.",
        )
    drop = None
    if floating is not None and not failures:
        drop = _kept_drop(replace(job, plan=floating, send="tensors"), dataset, items, metrics)
    first = next(iter(planned.parts.values())).backend
    recipe = first.recipe
    things = _things(planned)
    left = len(dataset.items) + len(failures)
    part = f"the first {len(items)} of {left} {things}"
    return Evaluation(
        model=planned.name,
        dataset=dataset.name,
        images=len(records),
        runtime=planned.label,
        dtype=recipe.dtype if recipe else "float32" if planned.label == "onnx" else "",
        toolkit=recipe.toolkit if recipe else "",
        protocol={name: value for name, value in asdict(options).items() if value is not None},
        departures=(*departures, *([part] if len(items) < left else [])),
        metrics=metrics,
        seconds=time.perf_counter() - start,
        reused=reused,
        rkzoo=version("rkzoo"),
        items=things,
        failed=(*missing, *failures),
        hardware=first.hardware,
        drop=drop,
    )


def _kept_drop(
    job: EvaluationJob, dataset: Dataset, items: Sequence[Path], metrics: Sequence[Metric]
) -> Drop | None:
    """How far the main metric lies below that of the float model's job, if its answers are kept."""
    folder = cache_dir("evals") / _key(job, dataset.digest, items)
    kept: list[answers.Record] = []
    for index, paths in _pieces(items):
        piece = answers.load(_kept_file(folder, index, paths))
        if piece is None or len(piece) != len(paths):
            return None
        kept += piece
    labels = job.plan.prompts or next(iter(job.plan.parts.values())).answers.labels
    floats = {metric.name: metric for metric in dataset.score(kept, labels) if metric.main}
    main = next((metric for metric in metrics if metric.main), None)
    return drop_of(floats[main.name], main) if main and main.name in floats else None


def _opened(
    data: str, task: str, labels: tuple[str, ...], metric: tuple[str, UserMetric] | None
) -> Dataset:
    """The dataset of a model of this task. Raises RkzooError."""
    if task == TENSORS:
        return open_samples(data, metric)
    if metric is not None:
        raise RkzooError(
            "--metric does not go with this model.",
            f"It is a model of the task {task!r}, which has metrics of its own.",
            "Leave it out, or add --raw to get its outputs as plain tensors.",
        )
    return open_dataset(data, task, labels)


def task_of(contract: Contract, parts: int = 1, together: Head | None = None) -> str:
    """Name of the task for datasets. `together` is the head of a pipeline."""
    if together is None and parts == 1:
        together = contract.head
    spec = spec_of(together)
    return spec.dataset_task or spec.name


def is_source(model: str) -> bool:
    """Whether a model is built here, and no .rknn nor a pipeline of them."""
    return Path(model).suffix.lower() != ".rknn" and not is_pipeline_file(model)


def calibrated_on(
    dataset: Dataset,
    request: Request,
    limit: int | None,
    departures: list[str],
    tuned: Int8Recipe | None = None,
) -> Request:
    """What is asked of the simulator for a model that is not built yet: where no calibration
    pictures are given, some of the data set's, which `departures` then says; those that the
    card's recipe `tuned` would take."""
    rounded = request.dtype == "w4a16" and request.algorithm != "gdq"
    if dataset.kind == "speech" or request.dtype == "fp16" or rounded or request.pictures:
        return request
    rest = dataset.items[limit:] if limit else ()
    pool = rest or dataset.items
    if tuned is not None and tuned.pictures:
        chosen = [row[0] for row in picked(tuned, from_files(pool)).rows]
    else:
        chosen = evenly(pool, _CALIBRATION)
    whose = "not scored" if rest else "scored too"
    things = "samples" if dataset.kind == "tensors" else "pictures"
    departures.append(f"calibrated on {len(chosen)} {things} of the same data, {whose}")
    return replace(request, calibration=from_files(chosen))


def _departures(options: DetectOptions, contract: Contract) -> Iterator[str]:
    if not isinstance(contract.head, DetectHead):
        return
    for name, usual in asdict(STANDARD).items():
        value = getattr(options, name)
        if value != usual:
            yield f"{name} {value}, not {usual}"


def answer_all(
    job: EvaluationJob,
    data: str,
    items: Sequence[Path],
    runner: Runner,
    fresh: bool = False,
    report: ProgressReporter = SILENT,
) -> tuple[Records, int]:
    """Run or resume a job.

    Args:
        job: the job.
        data: digest of the dataset.
        items: files.
        runner: executes the job.
        fresh: ignore results of earlier runs.
        report: receives progress.

    Returns:
        One record (or why there is none) per item, in order, and the number of items from
        earlier runs.
    """
    folder = _folder(job, data, items, fresh)
    pieces = _pieces(items)
    names = {index: _kept_file(folder, index, paths) for index, paths in pieces}
    there = {index for index, _ in pieces if os.path.lexists(names[index])}
    records: dict[int, Records] = {
        index: list(whole)
        for index, paths in pieces
        if (whole := answers.load(names[index])) is not None and len(whole) == len(paths)
    }
    missing = [(index, paths) for index, paths in pieces if index not in records]
    reused = sum(map(len, records.values()))
    things = _things(job.plan)
    label = f"{job.plan.name} [{job.plan.label}]"
    if damaged := len(there - set(records)):
        report.note(
            f"{label}: {damaged} of the {len(there)} records kept in {folder} were damaged; what "
            "they held is measured again."
        )
    if reused:
        report.note(
            f"{label}: {reused} of {len(items)} {things} are kept from before; --fresh of eval, or "
            "`rkzoo cache clear evals`, has all measured again."
        )
    sizes = {index: len(paths) for index, paths in pieces}
    completed = reused
    with report.task(label, len(items), unit=things) as bar:
        bar.update(completed)
        for index, piece_records in runner(job, missing, report) if missing else ():
            records[index] = _kept(names[index], piece_records)
            completed += sizes[index]
            bar.update(completed)
    return [record for index, _ in pieces for record in records[index]], reused


def _pieces(items: Sequence[Path]) -> list[Piece]:
    return [
        (start // _PIECE, items[start : start + _PIECE]) for start in range(0, len(items), _PIECE)
    ]


def _kept_file(folder: Path, index: int, paths: Sequence[Path]) -> Path:
    return folder / f"{index:06d}-{_state(paths)}.npz"


def _kept(path: Path, records: Records) -> Records:
    """The records of a piece as a later run reads them, so that both have the same figures. What
    holds a file that could not be used is not kept, since the file may be mended by then."""
    whole = [record for record in records if not isinstance(record, Failure)]
    if len(whole) < len(records):
        return records
    answers.save(path, whole)
    return list(answers.load(path) or whole)


def usable(
    dataset: Dataset, records: Records, report: ProgressReporter
) -> tuple[Dataset, list[answers.Record], tuple[Failure, ...]]:
    """The data without the files that could not be used, among the first of which there are
    `records`. Raises RkzooError where none is left."""
    failures = tuple(record for record in records if isinstance(record, Failure))
    whole = [record for record in records if not isinstance(record, Failure)]
    if not whole and failures:
        first = failures[0]
        raise RkzooError(
            f"None of the {len(failures):,} files of {dataset.name} can be used.",
            f"{first.file}: {first.why}",
            "Check the files, and what --data names.",
        )
    for failure in failures:
        report.failed(failure)
    if failures:
        dataset = dataset.without({Path(failure.file) for failure in failures})
    return dataset, whole, failures


def _state(paths: Sequence[Path]) -> str:
    """Changes with the files, so that a picture which was replaced is answered anew."""
    states = []
    for path in paths:
        with suppress(OSError):  # one that is missing is told where it is read
            status = path.stat()
            states.append((path.name, status.st_size, status.st_mtime_ns))
    return hashlib.sha256(repr(states).encode()).hexdigest()[:16]


def _things(planned: Plan) -> str:
    input_kind = input_kind_of_head(planned.head)
    return "pictures" if input_kind is PICTURE else input_kind.several


def against_float(
    dataset: Dataset,
    floating: Plan,
    limit: int | None,
    runner: Runner,
    fresh: bool = False,
    report: ProgressReporter = SILENT,
) -> Dataset:
    """The samples with what the float model gives for them as ground truth. Raises RkzooError."""
    items = dataset.items[:limit]
    answered, _ = answer_all(EvaluationJob(floating), dataset.digest, items, runner, fresh, report)
    dataset, records, failures = usable(dataset, answered, report)
    items = dataset.items[: len(records)]
    evaluation = agreement(dataset.name, items, records, TENSORS, ())
    # With a limit the rest can still be calibrated on.
    return evaluation if failures else replace(evaluation, items=dataset.items)


def float_plan(planned: Plan) -> Plan:
    """The same model in float on ONNX Runtime. Raises RkzooError where its graph is not at hand."""
    if planned.label == "onnx":
        return planned
    origins = {role: part.backend.origin for role, part in planned.parts.items()}
    if None in origins.values():
        raise RkzooError(
            f"{planned.name} cannot be compared with its float model here.",
            "A .rknn on a board does not hold the float model.",
            "Run it on a PC with --runtime simulator, or measure it with --metric "
            "FILE.py:FUNCTION.",
        )
    with os_errors_explained("The model's graph cannot be read from the cache."):
        parts = {
            role: replace(planned.parts[role], backend=OnnxBackend(origin.onnx.read_bytes()))
            for role, origin in origins.items()
            if origin is not None
        }
    return replace(planned, label="onnx", parts=parts)


def spread(workers: int | None = None, scheduler: str | None = None) -> Runner:
    """Runner on this many processes (None: a sensible number), or on a Dask cluster."""

    def run(job: EvaluationJob, pieces: Sequence[Piece], report: ProgressReporter) -> Done:
        if scheduler is not None:
            from rkzoo.workflow.evaluation.dask_cluster import run_on_dask

            return run_on_dask(job, pieces, scheduler)
        # The simulator is multi-threaded itself, up to a point.
        usual = _cores() if job.plan.label == "onnx" else max(1, _cores() // 4)
        if any(part.backend.on for part in job.plan.parts.values()):
            usual = min(_cores(), npu_workers(job.plan))  # several on the way at once
        count = min(workers or usual, len(pieces))
        return (
            run_inline(job, pieces, report) if count == 1 else run_in_processes(job, pieces, count)
        )

    return run


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _folder(job: EvaluationJob, data: str, items: Sequence[Path], fresh: bool) -> Path:
    """Cache folder of this job on this data."""
    root = cache_dir("evals")
    key = _key(job, data, items)
    if fresh:
        drop(root / key)
    folder = kept_folder("evals", key)
    with os_errors_explained("The answers so far cannot be kept in the cache."):
        folder.touch()
        old = sorted(root.iterdir(), key=lambda path: path.stat().st_mtime)[:-_KEPT]
    for path in old:
        shutil.rmtree(path, ignore_errors=True)
    return folder


def _key(job: EvaluationJob, data: str, items: Sequence[Path]) -> str:
    where = str(items[0].resolve().parent) if items else ""
    key = hashlib.sha256(f"{job.digest} {data} {where} {_PIECE}".encode()).hexdigest()
    return key[:32]


def check_limit(limit: int | None) -> None:
    """Raise RkzooError for a limit below 1."""
    if limit is not None and limit < 1:
        raise RkzooError(f"--limit {limit} leaves no picture.", "", "Give at least 1.")


def check_workers(workers: int | None) -> None:
    """Raise RkzooError for fewer than 1 or too many workers."""
    if workers is not None and workers < 1:
        raise RkzooError(
            f"--workers {workers} is too few.",
            "",
            "Give at least 1, or leave it out.",
        )
    if workers is not None and workers > _MOST_WORKERS:
        raise RkzooError(
            f"--workers {workers} is too many.",
            f"Each is a process that opens the model anew; the maximum is {_MOST_WORKERS}.",
            "Give about as many as this machine has cores, or spread the work with --scheduler.",
        )
