"""`rkzoo.load`: a name or a file to a model that answers pictures."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

from rkzoo.contract.detect import DetectHead
from rkzoo.contract.model import Contract
from rkzoo.errors import RkzooError
from rkzoo.graph.families.anchors import parse_anchors
from rkzoo.progress import SILENT, Reporter
from rkzoo.runtime.onnx import OnnxSession
from rkzoo.session import Session
from rkzoo.tasks.detect.task import DetectOptions, HeadTask
from rkzoo.tasks.plate.task import PlateReader
from rkzoo.tasks.prompt.words import words
from rkzoo.tasks.registry import refuse_unheard, spec_of
from rkzoo.tasks.spec import NOTHING, Opened, TaskOptions, Wishes, as_it_is
from rkzoo.tasks.text.page import PageOptions, PageReader, SingleLine
from rkzoo.tasks.text.result import TextLines
from rkzoo.workflow.inference.font import font
from rkzoo.workflow.inference.inputs import medium_of
from rkzoo.workflow.inference.model import Answer, Found, Image, Model, plainly
from rkzoo.workflow.inference.plan import Asked, Plan, open_part, plan
from rkzoo.workflow.inference.rga_preprocess import quicken
from rkzoo.workflow.inference.sanity import watched
from rkzoo.workflow.request import calibration as calib
from rkzoo.workflow.request.quantization import choose
from rkzoo.workflow.request.resolve import Anchors, Color, Feed, Resolved, Triple


def load(
    model: str | os.PathLike[str],
    *,
    runtime: str | None = None,
    labels: Sequence[str] | None = None,
    size: tuple[int, int] | None = None,
    confidence: float | None = None,
    iou: float | None = None,
    limit: int | None = None,
    multi_label: bool = False,
    color: Color | None = None,
    mean: Triple | None = None,
    std: Triple | None = None,
    anchors: str | Anchors | None = None,
    calibration: str | None = None,
    dtype: str | None = None,
    toolkit: str | None = None,
    cut: bool = True,
    recipe: str | os.PathLike[str] | None = None,
    prompts: Sequence[str] | None = None,
    text_model: str | os.PathLike[str] | None = None,
    embeddings: str | os.PathLike[str] | None = None,
    language: str | None = None,
    report: Reporter = SILENT,
) -> Model:
    """Loads a model of the zoo, an `.onnx` file, or a `.rknn` file made by rkzoo (the `.json` of
    several, for a pipeline).

    `runtime` is `onnx` (the default for cards and .onnx), `board` (this machine's NPU: the
    default for .rknn where there is one) or `simulator` (for .rknn elsewhere: what the NPU
    will compute, emulated on this PC). `labels` override those of the
    model. `size` (height, width) fixes an input the model leaves free. `confidence` and
    `iou` in 0..1; `limit` is the most boxes of a picture (300); `multi_label` gives one box
    for every class of a cell that reaches the confidence. `color`, `mean` and `std` (in units
    of 0..255) say how the model is fed, where that is not as recognised; `anchors` (numbers,
    a file of them, or pairs) those of a YOLOv5 or v7 whose graph does not hold them.
    `calibration` (folder, glob or list), `dtype` and `toolkit` count for the simulator only,
    where the model is not a .rknn. `cut=False` leaves the detection head on,
    `recipe` is a file that `rkzoo tune` wrote. `prompts` say in
    words what a YOLO-World is to look for; `text_model` (a card's name or an .onnx) makes
    embeddings of them, or they are read from `embeddings` (.npy of (number of texts, width)).
    `language` (a code such as de) brings a page the reader that knows its letters.
    Raises RkzooError.
    """
    choice = choose(cut, recipe)
    asked = Asked(
        runtime=runtime,
        size=size,
        labels=labels,
        feed=Feed(color, mean, std),
        anchors=parse_anchors(anchors) if isinstance(anchors, str) else anchors,
        pictures=calib.find(calibration) if calibration else choice.pictures(),
        dtype=dtype,
        toolkit=toolkit,
        choice=choice,
        words=words(prompts, text_model, embeddings),
        language=language,
    )
    return open_model(
        model, asked, options_of(confidence, iou, limit, multi_label), page_of(confidence), report
    )


def open_model(
    model: str | os.PathLike[str],
    asked: Asked,
    options: DetectOptions | None = None,
    page: PageOptions | None = None,
    report: Reporter = SILENT,
    wishes: Wishes = NOTHING,
) -> Model:
    """As `load`, for what was asked in one piece."""
    planned = plan(model, asked, report)
    with ExitStack() as stack:
        task = open_task(planned, stack, options=options, page=page, wishes=wishes, report=report)
        painter = partial(_paint, report) if _reads_text(task) else plainly
        medium = medium_of(os.fspath(model))
        return Model(planned.name, planned.label, _answer(task), stack.pop_all(), painter, medium)


def open_task(
    planned: Plan,
    stack: ExitStack,
    *,
    options: DetectOptions | None = None,
    page: PageOptions | None = None,
    wishes: Wishes = NOTHING,
    threads: int = 0,
    quick: bool = True,
    report: Reporter = SILENT,
) -> Callable[[Any], Found]:
    """A plan as one callable: a BGR picture (or a sound, or a text) in, what was found out.
    `stack` closes it.

    `quick` lets hardware beside the NPU prepare pictures, which then depend on it a little."""
    opened = {
        role: (part.answers, stack.enter_context(open_part(part, threads=threads, report=report)))
        for role, part in planned.parts.items()
    }
    for _, session in opened.values() if quick else ():
        quicken(session, stack, report)
    return task_of(planned, opened, options, page, wishes)


def task_of(
    planned: Plan,
    opened: Mapping[str, tuple[Contract, Session]],
    options: DetectOptions | None = None,
    page: PageOptions | None = None,
    wishes: Wishes = NOTHING,
) -> Callable[[Any], Found]:
    """As `open_task`, of parts that are open."""
    refuse_unheard(planned.head, wishes)
    wishes = replace(wishes, words=planned.words) if planned.words else wishes
    head = planned.head
    if head is None and "model" in opened:
        head = opened["model"][0].head
    return _opened(Opened(head, opened, planned.files), TaskOptions(wishes, options, page))


def _opened(opened: Opened, options: TaskOptions) -> Callable[[Any], Found]:
    spec = spec_of(opened.head)
    if spec.part:
        raise RkzooError(
            f"{next(iter(opened.parts.values()))[0].family} {spec.part}.",
            "It is one part of a pipeline.",
            "Run the pipeline, for example rkzoo run ppocr PICTURE: see rkzoo list.",
        )
    return spec.open(opened, options)


def options_of(
    confidence: float | None = None,
    iou: float | None = None,
    limit: int | None = None,
    multi_label: bool = False,
) -> DetectOptions:
    """The usual options with what is given in their place. Raises RkzooError."""
    given = {"confidence": confidence, "iou": iou, "limit": limit, "multi_label": multi_label}
    return DetectOptions(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]


def page_of(confidence: float | None) -> PageOptions | None:
    """The least score of a line of text, as an option."""
    return None if confidence is None else PageOptions(confidence)


def _answer(task: Callable[[Image], Found]) -> Answer:
    return partial(watched, task) if isinstance(task, HeadTask) else lambda image: (task(image), ())


def _reads_text(task: object) -> bool:
    return isinstance(task, PageReader | SingleLine | PlateReader)


def _paint(report: Reporter, found: TextLines, image: Image) -> Image:
    return found.draw(image, font(report))


def open_onnx(ready: Resolved) -> OnnxSession:
    """A resolved model on ONNX Runtime, cut as it would be for the NPU."""
    return OnnxSession(ready.graph().SerializeToString(), ready.contract.input)


def detect_task(
    contract: Contract, session: Session, options: DetectOptions | None = None
) -> HeadTask[Any]:
    """The task of a detection head: boxes, masks, key points or oriented boxes."""
    if not isinstance(contract.head, DetectHead):
        raise RkzooError(f"{contract.family} is no detection model.", code=1)
    found: Any = task_with(contract, session, options)
    task: HeadTask[Any] = found
    return task


def task_with(
    contract: Contract, session: Session, options: DetectOptions | None = None
) -> Callable[[Image], Found]:
    """One open model as a callable: a BGR picture in, what was found out. Raises RkzooError for
    a model that is only one part of something."""
    opened = Opened(contract.head, {"model": (contract, session)}, {})
    return _opened(opened, TaskOptions(detect=options))


_NEAR = 0.5  # of the threshold: how far below it a lost object is still looked for


def answer_at(
    contract: Contract, session: Session, threshold: float
) -> tuple[Callable[[Image], Found] | None, float]:
    """What answers a picture so that two answers can be compared, and from which score on a thing
    counts. None for a model whose answers have no such comparison."""
    spec = spec_of(contract.head)
    things = spec.things
    if things is None:
        return None, 0.0
    options = DetectOptions(confidence=threshold * _NEAR) if spec.thresholded else None
    task = task_with(contract, session, options)
    matchable = task if things is as_it_is else lambda image: things(task(image))
    return matchable, threshold if spec.thresholded else 0.0
