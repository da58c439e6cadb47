"""The functions of `import rkzoo` beside load and convert: paths and plain options in, a frozen
result out.

What does the work is imported when a function is called.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from rkzoo.progress import SILENT, Reporter

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from rkzoo.toolkit.recipe import Dtype
    from rkzoo.workflow.apps.stream import Summary
    from rkzoo.workflow.comparison.inspect import Inspection
    from rkzoo.workflow.comparison.result import Comparison
    from rkzoo.workflow.evaluation.evaluate import Evaluation
    from rkzoo.workflow.inference.plan import Asked
    from rkzoo.workflow.performance.bench import AnswerReport, BenchReport
    from rkzoo.workflow.performance.estimate import Estimate
    from rkzoo.workflow.performance.machine_setup import Affinity
    from rkzoo.workflow.tuning.tune import Trial, Tuned

PathName = str | os.PathLike[str]
Triple = tuple[float, float, float]
Anchors = str | tuple[tuple[float, float], ...]


class ModelOptions(TypedDict, total=False):
    """What can be said about a model, the same for every function; all of it may be left out.

    Attributes:
        labels: Class names in place of the model's own.
        size: (height, width) of an input that the model leaves free.
        color: Colour order that the model was trained with, "RGB" or "BGR".
        mean: What is taken from the pixels of 0..255, one number a colour.
        std: What they are divided by then.
        anchors: Of a YOLOv5 or v7 whose graph does not hold them: (width, height) pairs in
            input pixels, or text or a file with the numbers.
        calibration: Pictures that set the INT8 ranges: a folder, a glob or a list in a file.
        dtype: "int8" or "fp16", for the simulator.
        toolkit: Version of RKNN-Toolkit2, for the simulator.
        cut: False leaves a detection head on.
        recipe: A file that `Tuned.save` or `rkzoo tune` wrote.
        prompts: What a model that takes texts is to look for, in words.
        text_model: What makes embeddings of the prompts: a card's name or an .onnx.
        embeddings: The prompts embedded already: an .npy of (number of texts, width).
        language: Code of the language of a page of text, for example "de".
    """

    labels: Sequence[str] | None
    size: tuple[int, int] | None
    color: Literal["RGB", "BGR"] | None
    mean: Triple | None
    std: Triple | None
    anchors: Anchors | None
    calibration: str | None
    dtype: str | None
    toolkit: str | None
    cut: bool
    recipe: PathName | None
    prompts: Sequence[str] | None
    text_model: PathName | None
    embeddings: PathName | None
    language: str | None


def evaluate(
    model: PathName,
    data: PathName,
    *,
    runtime: str | None = None,
    limit: int | None = None,
    confidence: float | None = None,
    iou: float | None = None,
    max_boxes: int | None = None,
    multi_label: bool = True,
    workers: int | None = None,
    scheduler: str | None = None,
    fresh: bool = False,
    report: Reporter = SILENT,
    **how: Unpack[ModelOptions],
) -> Evaluation:
    """Scores a model on data with known answers, as the upstream projects do.

    Args:
        model: A card's name, an .onnx or a .rknn.
        data: COCO json, YOLO data.yaml, class folders, a csv, a list of texts or sounds.
        runtime: "onnx", "simulator" or "board"; None is the usual one of the model.
        limit: Only so many pictures, from the first on.
        confidence: Confidence threshold in 0..1; the standard protocol has 0.001.
        iou: IoU threshold for NMS in 0..1; the standard protocol has 0.65.
        max_boxes: Most boxes of a picture; the standard protocol has 300.
        multi_label: One box for every class of a cell, as the standard protocol has it.
        workers: Processes; None is as many as are of use. The figures do not depend on it.
        scheduler: tcp://HOST:PORT of a Dask cluster that does the work.
        fresh: Do not go on from an earlier run.
        report: Where progress goes.
        how: See ModelOptions.

    Returns:
        The metrics with all that they depend on; `main` is the figure that counts.

    Raises:
        RkzooError: The model or the data cannot be used, or an option does not go with them.
    """
    from dataclasses import replace

    from rkzoo.workflow.evaluation import evaluate as evaluation

    evaluation.check_limit(limit)
    evaluation.check_workers(workers)
    given = {"confidence": confidence, "iou": iou, "limit": max_boxes, "multi_label": multi_label}
    options: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    return evaluation.evaluate(
        os.fspath(model),
        os.fspath(data),
        asked=_asked(runtime, how),
        limit=limit,
        options=replace(evaluation.STANDARD, **options),
        workers=workers,
        scheduler=scheduler,
        fresh=fresh,
        report=report,
    )


def compare(
    model: PathName,
    *,
    soc: str = "",
    images: Sequence[PathName] = (),
    confidence: float | None = None,
    layers: bool = True,
    report: Reporter = SILENT,
    **how: Unpack[ModelOptions],
) -> Comparison:
    """Runs a model in float and on the simulator on the same pictures, and says what changes.

    Args:
        model: A card's name, an .onnx or a .rknn.
        soc: The chip it is for; "" is that of the .rknn, or rk3588.
        images: Pictures, folders or globs; none are three of the calibration pictures.
        confidence: Confidence threshold of objects in 0..1; None is 0.25.
        layers: Compare INT8 layer by layer too, which takes longer.
        report: Where progress goes.
        how: See ModelOptions.

    Returns:
        Tensor differences, what is lost and found, the likely causes and a verdict.

    Raises:
        RkzooError: The model cannot be used, or there is no picture to compare on.
    """
    from rkzoo.vision.image import expand
    from rkzoo.workflow.comparison.compare import compare

    return compare(
        os.fspath(model),
        asked=_asked(None, how),
        soc=soc,
        images=expand([os.fspath(image) for image in images]) if images else (),
        confidence=confidence,
        layers=layers,
        report=report,
    )


def tune(
    model: PathName,
    data: PathName,
    soc: str,
    *,
    max_drop: float = 1.0,
    limit: int | None = None,
    workers: int = 1,
    stages: Sequence[str] | None = None,
    on_trial: Callable[[Trial], None] | None = None,
    report: Reporter = SILENT,
    **how: Unpack[ModelOptions],
) -> Tuned:
    """Searches a way to INT8 that costs no more accuracy than is allowed.

    Args:
        model: A card's name or an .onnx.
        data: As for `evaluate`; or a folder of pictures without answers: then what the float
            model says of them counts as right.
        soc: The chip it is for.
        max_drop: How far below float INT8 may lie, in points (1.0 is 0.01 mAP, or 1 %).
        limit: Score only so many pictures, from the first on.
        workers: Processes, a build each.
        stages: Only these stages of the search; None is all.
        on_trial: Called with each trial as soon as it is measured.
        report: Where progress goes.
        how: See ModelOptions.

    Returns:
        All trials and the best one. Its `save` writes the recipe that `convert` takes.

    Raises:
        RkzooError: The model or the data cannot be used, or there is nothing to tune.
    """
    from rkzoo.workflow.evaluation.evaluate import check_limit, check_workers
    from rkzoo.workflow.tuning.tune import tune

    check_limit(limit)
    check_workers(workers)
    return tune(
        os.fspath(model),
        os.fspath(data),
        soc,
        asked=_asked(None, how),
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
    *,
    dtype: Dtype | None = None,
    toolkit: str | None = None,
    size: tuple[int, int] | None = None,
    anchors: Anchors | None = None,
    report: Reporter = SILENT,
) -> list[Estimate]:
    """Estimates speed and memory on each chip, without a board.

    Args:
        model: A card's name or an .onnx.
        soc: One chip, several, or "all".
        dtype: "int8" or "fp16"; None is the model's first that the chip can do.
        toolkit: Version of RKNN-Toolkit2.
        size: (height, width) of an input that the model leaves free.
        anchors: Of a YOLOv5 or v7 whose graph does not hold them, as in ModelOptions.
        report: Where progress goes.

    Returns:
        One estimate a chip, in the order given. They are no measurements.

    Raises:
        RkzooError: The model cannot be built for the one chip asked for. Of several chips, the
            estimate of one that it cannot be built for says so in `problem`.
    """
    from rkzoo.workflow.performance.estimate import estimate, every_chip

    names = [soc] if isinstance(soc, str) else list(soc)
    return estimate(
        model,
        every_chip() if "all" in names else names,
        dtype=dtype,
        toolkit=toolkit,
        size=size,
        anchors=_pairs(anchors),
        report=report,
    )


def bench(
    model: PathName,
    source: PathName | None = None,
    *,
    runtime: str | None = None,
    count: int | None = None,
    warm_up: int | None = None,
    affinity: Affinity = "all",
    lock_clocks: bool = False,
    report: Reporter = SILENT,
    **how: Unpack[ModelOptions],
) -> BenchReport | AnswerReport:
    """Times a model on this machine, stage by stage.

    Args:
        model: A card's name, an .onnx or a .rknn that rkzoo made.
        source: The picture, sound or text that it is fed; without one a picture is made.
        runtime: "onnx", "simulator" or "board"; None is the usual one of the model.
        count: Frames (None: 50, or 10 on the simulator, 200 on a board), or answers (5).
        warm_up: Frames before that do not count (None: 3), or answers (1).
        affinity: "big" or "little" pins the work to the fast or slow cores of a board.
        lock_clocks: Hold the clocks at their highest meanwhile; needs root.
        report: Where progress goes.
        how: See ModelOptions.

    Returns:
        A BenchReport for a model of pictures, an AnswerReport for one of sounds or texts. Its
        `label` says what kind of times they are.

    Raises:
        RkzooError: The model or the source cannot be used, or the machine cannot do that.
    """
    from rkzoo.workflow.performance.bench import bench_any

    return bench_any(
        model,
        None if source is None else os.fspath(source),
        asked=_asked(runtime, how),
        count=count,
        warm_up=warm_up,
        affinity=affinity,
        lock_clocks=lock_clocks,
        report=report,
    )


def inspect(
    file: PathName,
    *,
    size: tuple[int, int] | None = None,
    anchors: str | None = None,
    images: Sequence[PathName] = (),
    report: Reporter = SILENT,
) -> Inspection:
    """Tells what a model's file holds, and whether it will work.

    Args:
        file: An .onnx, .tflite, .pb, .torchscript, .rknn, .rknn.json or a pipeline's .json.
        size: (height, width) of an input that the model leaves free.
        anchors: Of a YOLOv5 or v7 that lost its own: text or a file with the numbers.
        images: Pictures, folders or globs that a detector is tried on in other colour orders
            and ranges.
        report: Where progress goes.

    Returns:
        The content by kind of file, the checks, and the command that goes on from there.

    Raises:
        RkzooError: The file cannot be read, or is none that rkzoo knows.
    """
    from rkzoo.vision.image import expand
    from rkzoo.workflow.comparison.inspect import inspect

    pictures = expand([os.fspath(image) for image in images]) if images else ()
    return inspect(file, size=size, anchors=anchors, pictures=pictures, report=report)


def stream(
    model: PathName,
    source: PathName,
    *,
    save: PathName | None = None,
    jsonl: PathName | None = None,
    http: str | None = None,
    show: bool = False,
    runtime: str | None = None,
    confidence: float | None = None,
    iou: float | None = None,
    track: bool = False,
    every_frame: bool | None = None,
    frames: int | None = None,
    workers: int | None = None,
    give_up: float | None = None,
    on_figures: Callable[[dict[str, Any]], None] | None = None,
    report: Reporter = SILENT,
    **how: Unpack[ModelOptions],
) -> Summary:
    """Runs a model on video until it ends, `frames` are answered, or Ctrl-C.

    Args:
        model: A card's name, an .onnx or a .rknn.
        source: A camera (0, /dev/video0), a video file, rtsp:// or http://, or a folder.
        save: A video file with what was found drawn on it.
        jsonl: A file with one JSON object a frame; "-" is stdout.
        http: [HOST:]PORT of a live page.
        show: A window; q ends.
        runtime: "onnx", "simulator" or "board"; None is the usual one of the model.
        confidence: Confidence threshold in 0..1; None is 0.25, of text 0.5.
        iou: IoU threshold for NMS in 0..1; None is 0.45.
        track: Number things across frames.
        every_frame: True answers every frame, False the newest; None is by the source.
        frames: Stop after so many answered frames.
        workers: Models at work at the same time; None is as many as are of use.
        give_up: Seconds after which a lost source is given up; None is never.
        on_figures: Called once a second with the figures so far.
        report: Where progress goes.
        how: See ModelOptions.

    Returns:
        Frames answered, dropped and failed, the stages' times, and what was written.

    Raises:
        RkzooError: The model, the source or an output cannot be used.
    """
    from rkzoo.workflow.apps.stream import Outputs, StreamOptions, stream

    return stream(
        os.fspath(model),
        os.fspath(source),
        Outputs(
            save=Path(save) if save else None,
            jsonl=Path(jsonl) if jsonl else None,
            http=http,
            show=show,
        ),
        asked=_asked(runtime, how),
        options=StreamOptions(
            confidence=confidence,
            iou=iou,
            track=track,
            every_frame=every_frame,
            frames=frames,
            workers=workers,
            give_up=give_up,
        ),
        watch=on_figures,
        report=report,
    )


def _pairs(anchors: Anchors | None) -> tuple[tuple[float, float], ...] | None:
    from rkzoo.workflow.request.options import parse_anchors

    return parse_anchors(anchors) if isinstance(anchors, str) else anchors


def _asked(runtime: str | None, how: ModelOptions) -> Asked:
    """The options as the workflow takes them. Raises RkzooError, and TypeError for an option
    that there is none of."""
    from rkzoo.tasks.prompt.words import words
    from rkzoo.workflow.inference.plan import Asked
    from rkzoo.workflow.request.calibration import find
    from rkzoo.workflow.request.options import Feed
    from rkzoo.workflow.request.quantization import choose

    for name in how.keys() - ModelOptions.__annotations__:
        raise TypeError(f"unexpected keyword argument {name!r}: see rkzoo.ModelOptions")
    choice = choose(how.get("cut", True), how.get("recipe"))
    calibration = how.get("calibration")
    return Asked(
        runtime=runtime,
        size=how.get("size"),
        labels=how.get("labels"),
        feed=Feed(how.get("color"), how.get("mean"), how.get("std")),
        anchors=_pairs(how.get("anchors")),
        pictures=find(calibration) if calibration else choice.pictures(),
        dtype=how.get("dtype"),
        toolkit=how.get("toolkit"),
        choice=choice,
        words=words(how.get("prompts"), how.get("text_model"), how.get("embeddings")),
        language=how.get("language"),
    )
