"""`rkzoo.load`: a name or a file to a model that answers pictures."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from rkzoo.contract.detect import DetectHead
from rkzoo.contract.model import Contract
from rkzoo.errors import RkzooError
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
from rkzoo.workflow.inference.inputs import medium_of, seen_by
from rkzoo.workflow.inference.model import Answer, Found, Image, Model, plainly
from rkzoo.workflow.inference.plan import Asked, Plan, open_part, plan
from rkzoo.workflow.inference.rga_preprocess import quicken
from rkzoo.workflow.inference.sanity import watched
from rkzoo.workflow.request import calibration as calib
from rkzoo.workflow.request.options import Anchors, Color, Feed, Triple, parse_anchors
from rkzoo.workflow.request.quantization import choose

if TYPE_CHECKING:
    from rkzoo.workflow.request.resolve import Resolved


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
    """Loads a model that answers pictures, sounds or texts.

    Args:
        model: A card's name, an .onnx, a .rknn that rkzoo made, or the .json of a pipeline.
        runtime: "onnx" (the usual one for cards and .onnx), "board" (this machine's NPU: the
            usual one for a .rknn where there is one) or "simulator" (what the NPU will compute,
            emulated on this PC: the usual one for a .rknn elsewhere).
        labels: Class names in place of the model's own.
        size: (height, width) of an input that the model leaves free.
        confidence: Confidence threshold in 0..1; None is 0.25, of text 0.5.
        iou: IoU threshold for NMS in 0..1; None is 0.45.
        limit: Most boxes of a picture; None is 300.
        multi_label: One box for every class of a cell that reaches the confidence.
        color: Colour order that the model was trained with, where that is not as recognised.
        mean: What is taken from the pixels of 0..255, one number a colour.
        std: What they are divided by then.
        anchors: Of a YOLOv5 or v7 whose graph does not hold them: (width, height) pairs in
            input pixels, or text or a file with the numbers.
        calibration: Pictures that set the INT8 ranges, for the simulator where the model is not
            a .rknn: a folder, a glob or a list in a file.
        dtype: "int8" or "fp16", for the simulator likewise.
        toolkit: Version of RKNN-Toolkit2, for the simulator likewise.
        cut: False leaves a detection head on.
        recipe: A file that `Tuned.save` or `rkzoo tune` wrote.
        prompts: What a YOLO-World is to look for, in words.
        text_model: What makes embeddings of the prompts: a card's name or an .onnx.
        embeddings: The prompts embedded already: an .npy of (number of texts, width).
        language: Code of the language of a page, for example "de": brings the reader that knows
            its letters.
        report: Where progress goes.

    Returns:
        The model, a callable and a context manager.

    Raises:
        RkzooError: The model cannot be found, read or run here.
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
        contracts = (part.contract for part in planned.parts.values())
        medium = seen_by(medium_of(os.fspath(model)), contracts)
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
