"""The functions of `import rkzoo` beside load and convert: paths and a `Request` in, a frozen
result out.

What does the work is imported when a function is called.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rkzoo.progress import SILENT, ProgressReporter

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from rkzoo.accuracy.tensors import UserMetric
    from rkzoo.workflow.advice.advise import Advice
    from rkzoo.workflow.apps.stream import StreamSummary
    from rkzoo.workflow.comparison.inspect import Inspection
    from rkzoo.workflow.comparison.result import Comparison
    from rkzoo.workflow.evaluation.evaluate import Evaluation
    from rkzoo.workflow.evaluation.jobs import Send
    from rkzoo.workflow.performance.bench import AnswerReport, BenchReport
    from rkzoo.workflow.performance.estimate import Estimate
    from rkzoo.workflow.performance.machine_setup import Affinity
    from rkzoo.workflow.request.request import ModelOptions, Request
    from rkzoo.workflow.tuning.tune import TuningResult, TuningTrial

PathName = str | os.PathLike[str]


def evaluate(
    model: PathName,
    data: PathName,
    request: Request | None = None,
    *,
    limit: int | None = None,
    workers: int | None = None,
    scheduler: str | None = None,
    fresh: bool = False,
    metric: str | UserMetric | None = None,
    send: Send = "tensors",
    report: ProgressReporter = SILENT,
    **options: Unpack[ModelOptions],
) -> Evaluation:
    """Scores a model on data with known answers, as the upstream projects do.

    Args:
        model: A card's name, an .onnx or a .rknn.
        data: COCO json, YOLO data.yaml, class folders, a csv, a list of texts or sounds; for plain
            tensors a folder of pictures, .npy or .npz.
        request: How the model is run; its thresholds take the place of the standard protocol's
            (confidence 0.001, IoU 0.65, 300 boxes, every class of a cell).
        limit: Only so many pictures, from the first on.
        workers: Processes; None is as many as are of use. The figures do not depend on it.
        scheduler: tcp://HOST:PORT of a Dask cluster that does the work.
        fresh: Do not go on from an earlier run.
        metric: Of plain tensors: a function that gets the outputs by name (numpy arrays) and the
            path of the sample and returns a number, higher is better; or FILE.py:FUNCTION, whose
            file is then imported. None: the cosine similarity with the float model's outputs.
        send: What goes to the board that `on` names: "tensors" that were prepared here, or the
            "files", which is less on a slow network and more work for the board.
        report: Where progress goes.
        options: Fields of `Request`, in place of those of `request`.

    Returns:
        The metrics with all that they depend on; `main` is the figure that counts.

    Raises:
        RkzooError: The model or the data cannot be used, or an option does not go with them.
    """
    from rkzoo.workflow.evaluation import evaluate as evaluation
    from rkzoo.workflow.request.request import request_of

    evaluation.check_limit(limit)
    evaluation.check_workers(workers)
    return evaluation.evaluate(
        os.fspath(model),
        os.fspath(data),
        request=request_of(request, options),
        limit=limit,
        workers=workers,
        scheduler=scheduler,
        fresh=fresh,
        metric=metric,
        send=send,
        report=report,
    )


def compare(
    model: PathName,
    request: Request | None = None,
    *,
    soc: str = "",
    images: Sequence[PathName] = (),
    layers: bool = True,
    report: ProgressReporter = SILENT,
    **options: Unpack[ModelOptions],
) -> Comparison:
    """Runs a model in float and on the simulator on the same pictures, and says what changes.

    Args:
        model: A card's name, an .onnx or a .rknn.
        request: How the model is run and what is wanted of its answers.
        soc: The chip it is for; "" is that of the .rknn, or rk3588.
        images: Pictures, folders or globs, of a model with plain inputs .npy, .npz or NAME=FILE
            too; none are three of the calibration samples.
        layers: Compare INT8 layer by layer too, which takes longer.
        report: Where progress goes.
        options: Fields of `Request`, in place of those of `request`.

    Returns:
        Tensor differences, what is lost and found, the likely causes and a verdict.

    Raises:
        RkzooError: The model cannot be used, or there is no picture to compare on.
    """
    from rkzoo.workflow.comparison.compare import compare
    from rkzoo.workflow.request.request import request_of

    return compare(
        os.fspath(model),
        request=request_of(request, options),
        soc=soc,
        images=images,
        layers=layers,
        report=report,
    )


def tune(
    model: PathName,
    data: PathName,
    soc: str,
    request: Request | None = None,
    *,
    max_drop: float = 1.0,
    limit: int | None = None,
    workers: int = 1,
    stages: Sequence[str] | None = None,
    on_trial: Callable[[TuningTrial], None] | None = None,
    report: ProgressReporter = SILENT,
    **options: Unpack[ModelOptions],
) -> TuningResult:
    """Searches a way to INT8 that costs no more accuracy than is allowed.

    Args:
        model: A card's name or an .onnx.
        data: As for `evaluate`; or a folder of pictures without answers: then what the float
            model says of them counts as right.
        soc: The chip it is for.
        request: What convert would be asked; its number format is INT8.
        max_drop: How far below float INT8 may lie, in points (1.0 is 0.01 mAP, or 1 %).
        limit: Score only so many pictures, from the first on.
        workers: Processes, a build each.
        stages: Only these stages of the search; None is all.
        on_trial: Called with each trial as soon as it is measured.
        report: Where progress goes.
        options: Fields of `Request`, in place of those of `request`.

    Returns:
        All trials and the best one. Its `save` writes the recipe that `convert` takes.

    Raises:
        RkzooError: The model or the data cannot be used, or there is nothing to tune.
    """
    from rkzoo.workflow.evaluation.evaluate import check_limit, check_workers
    from rkzoo.workflow.request.request import request_of
    from rkzoo.workflow.tuning.tune import tune

    check_limit(limit)
    check_workers(workers)
    return tune(
        os.fspath(model),
        os.fspath(data),
        soc,
        request=request_of(request, options),
        max_drop=max_drop,
        limit=limit,
        workers=workers,
        stages=stages,
        tell=on_trial or (lambda trial: None),
        report=report,
    )


def estimate(
    model: PathName,
    soc: str | Sequence[str],
    request: Request | None = None,
    *,
    report: ProgressReporter = SILENT,
    **options: Unpack[ModelOptions],
) -> list[Estimate]:
    """Estimates speed and memory on each chip, without a board.

    Args:
        model: A card's name or an .onnx.
        soc: One chip, several, or "all".
        request: Its dtype, toolkit, size and anchors count; None of a dtype is the model's first
            that the chip can do.
        report: Where progress goes.
        options: Fields of `Request`, in place of those of `request`.

    Returns:
        One estimate a chip, in the order given. They are no measurements.

    Raises:
        RkzooError: The model cannot be built for the one chip asked for. Of several chips, the
            estimate of one that it cannot be built for says so in `problem`.
    """
    from rkzoo.workflow.performance.estimate import estimate, every_chip
    from rkzoo.workflow.request.request import request_of

    names = [soc] if isinstance(soc, str) else list(soc)
    return estimate(
        model,
        every_chip() if "all" in names else names,
        request_of(request, options),
        report=report,
    )


def advise(
    model: PathName,
    soc: str,
    request: Request | None = None,
    *,
    data: PathName | None = None,
    limit: int | None = None,
    apply: int | None = None,
    output: PathName | None = None,
    report: ProgressReporter = SILENT,
    **options: Unpack[ModelOptions],
) -> Advice:
    """Says what costs most on a chip, and which change would help: each is built and estimated.

    Args:
        model: A card's name or a model file that is no .rknn.
        soc: The chip.
        request: How the model is converted.
        data: As for `evaluate`, or a folder of pictures without answers; the accuracy of the
            changes is then measured in the simulator.
        limit: Only so many samples, from the first on.
        apply: Number of a proposal that is written, where it keeps the model's numbers; it is held
            to the original in ONNX Runtime first.
        output: The file for it; None is named after the model.
        report: Where progress goes.
        options: Fields of `Request`, in place of those of `request`.

    Returns:
        The costs now, by layer, and the proposals, the best first. The times are estimates.

    Raises:
        RkzooError: The model cannot be built for the chip, or a proposal not be applied.
    """
    from rkzoo.workflow.advice.advise import advise
    from rkzoo.workflow.request.request import request_of

    return advise(
        os.fspath(model),
        soc,
        request_of(request, options),
        data=os.fspath(data) if data is not None else None,
        limit=limit,
        apply=apply,
        output=Path(output) if output is not None else None,
        report=report,
    )


def bench(
    model: PathName,
    source: PathName | Sequence[str] | None = None,
    request: Request | None = None,
    *,
    count: int | None = None,
    warm_up: int | None = None,
    affinity: Affinity = "all",
    lock_clocks: bool = False,
    report: ProgressReporter = SILENT,
    **options: Unpack[ModelOptions],
) -> BenchReport | AnswerReport:
    """Times a model on this machine, stage by stage.

    Args:
        model: A card's name, an .onnx or a .rknn that rkzoo made.
        source: The picture, sound or text that it is fed, or of a model with plain inputs an
            .npy, an .npz or NAME=FILE for each; without one a picture or sample is made.
        request: How the model is run and what is wanted of its answers.
        count: Frames (None: 50, or 10 on the simulator, 200 on a board), or answers (5).
        warm_up: Frames before that do not count (None: 3), or answers (1).
        affinity: "big" or "little" pins the work to the fast or slow cores of a board.
        lock_clocks: Hold the clocks at their highest meanwhile; needs root.
        report: Where progress goes.
        options: Fields of `Request`, in place of those of `request`.

    Returns:
        A BenchReport for a model of pictures, an AnswerReport for one of sounds or texts. Its
        `label` says what kind of times they are.

    Raises:
        RkzooError: The model or the source cannot be used, or the machine cannot do that.
    """
    from rkzoo.workflow.performance.bench import bench_any
    from rkzoo.workflow.request.request import request_of

    return bench_any(
        model,
        os.fspath(source) if isinstance(source, os.PathLike) else source,
        request=request_of(request, options),
        count=count,
        warm_up=warm_up,
        affinity=affinity,
        lock_clocks=lock_clocks,
        report=report,
    )


def inspect(
    file: PathName,
    request: Request | None = None,
    *,
    images: Sequence[PathName] = (),
    report: ProgressReporter = SILENT,
    **options: Unpack[ModelOptions],
) -> Inspection:
    """Tells what a model's file holds, and whether it will work.

    Args:
        file: An .onnx, .tflite, .pb, .torchscript, .rknn, .rknn.json or a pipeline's .json.
        request: Its size and anchors count.
        images: Pictures, folders or globs that a detector is tried on in other colour orders
            and ranges.
        report: Where progress goes.
        options: Fields of `Request`, in place of those of `request`.

    Returns:
        The content by kind of file, the checks, and the command that goes on from there.

    Raises:
        RkzooError: The file cannot be read, or is none that rkzoo knows.
    """
    from rkzoo.vision.image import expand
    from rkzoo.workflow.comparison.inspect import inspect
    from rkzoo.workflow.request.request import request_of

    pictures = expand([os.fspath(image) for image in images]) if images else ()
    return inspect(file, request=request_of(request, options), pictures=pictures, report=report)


def stream(
    model: PathName,
    source: PathName,
    request: Request | None = None,
    *,
    save: PathName | None = None,
    jsonl: PathName | None = None,
    http: str | None = None,
    show: bool = False,
    track: bool = False,
    reid: PathName | None = None,
    reid_classes: Sequence[str] | None = None,
    every_frame: bool | None = None,
    frames: int | None = None,
    workers: int | None = None,
    give_up: float | None = None,
    on_figures: Callable[[dict[str, Any]], None] | None = None,
    report: ProgressReporter = SILENT,
    **options: Unpack[ModelOptions],
) -> StreamSummary:
    """Runs a model on video until it ends, `frames` are answered, or Ctrl-C.

    Args:
        model: A card's name, an .onnx or a .rknn.
        source: A camera (0, /dev/video0), a video file, rtsp:// or http://, or a folder.
        request: How the model is run and what is wanted of its answers.
        save: A video file with what was found drawn on it.
        jsonl: A file with one JSON object a frame; "-" is stdout.
        http: [HOST:]PORT of a live page.
        show: A window; q ends.
        track: Number things across frames.
        reid: An embedding model that tells them apart by their looks.
        reid_classes: Classes that it is asked about; None is people for an upright input, else
            all.
        every_frame: True answers every frame, False the newest; None is by the source.
        frames: Stop after so many answered frames.
        workers: Models at work at the same time; None is as many as are of use.
        give_up: Seconds after which a lost source is given up; None is never.
        on_figures: Called once a second with the figures so far.
        report: Where progress goes.
        options: Fields of `Request`, in place of those of `request`.

    Returns:
        Frames answered, dropped and failed, the stages' times, and what was written.

    Raises:
        RkzooError: The model, the source or an output cannot be used.
    """
    from rkzoo.workflow.apps.stream import StreamOptions, StreamOutputs, stream
    from rkzoo.workflow.request.request import request_of

    return stream(
        os.fspath(model),
        os.fspath(source),
        StreamOutputs(
            save=Path(save) if save else None,
            jsonl=Path(jsonl) if jsonl else None,
            http=http,
            show=show,
        ),
        request=request_of(request, options),
        options=StreamOptions(
            track=track,
            reid=None if reid is None else os.fspath(reid),
            reid_classes=None if reid_classes is None else tuple(reid_classes),
            every_frame=every_frame,
            frames=frames,
            workers=workers,
            give_up=give_up,
        ),
        watch=on_figures,
        report=report,
    )
