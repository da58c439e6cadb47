"""`rkzoo.load`: a name or a file to a model that answers pictures."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from rkzoo.contract.detect import DetectHead
from rkzoo.contract.model import Contract
from rkzoo.errors import RkzooError
from rkzoo.progress import SILENT, ProgressReporter
from rkzoo.runtime.batched import BatchedSession
from rkzoo.session import Session
from rkzoo.tasks.detect.task import DetectOptions, HeadTask
from rkzoo.tasks.image_task import ImageTask
from rkzoo.tasks.plate.task import PlateReader
from rkzoo.tasks.registry import spec_of
from rkzoo.tasks.spec import TaskOptions, TaskParts, identity
from rkzoo.tasks.text.page import PageReader, SingleLine
from rkzoo.tasks.text.result import TextLines
from rkzoo.workflow.inference.font import font
from rkzoo.workflow.inference.inputs import of_plan
from rkzoo.workflow.inference.model import (
    Answer,
    Batch,
    Draw,
    Image,
    Model,
    Prediction,
    draw_prediction,
)
from rkzoo.workflow.inference.plan import Plan, models_digest, open_part, plan
from rkzoo.workflow.inference.rga_preprocess import attach_rga
from rkzoo.workflow.inference.sanity import run_many_with_checks, run_with_checks
from rkzoo.workflow.request.request import ModelOptions, Request, request_of

if TYPE_CHECKING:
    from typing_extensions import Unpack


def load(
    model: str | os.PathLike[str],
    request: Request | None = None,
    *,
    report: ProgressReporter = SILENT,
    **options: Unpack[ModelOptions],
) -> Model:
    """Loads a model that answers pictures, sounds or texts.

    Args:
        model: A card's name, a model file, a .rknn that rkzoo made, or the .json of a pipeline.
        request: How it is run and what is wanted of its answers.
        report: Where notes and progress go.
        options: Fields of `Request`, in place of those of `request`.

    Returns:
        The model, a callable and a context manager.

    Raises:
        RkzooError: The model cannot be found, read or run here, or an option does not go
            with it.
    """
    return open_model(model, request_of(request, options), report)


def open_model(
    model: str | os.PathLike[str], request: Request | None = None, report: ProgressReporter = SILENT
) -> Model:
    """As `load`, with the request in one piece."""
    return open_planned(plan(model, request, report), report)


def open_planned(planned: Plan, report: ProgressReporter = SILENT) -> Model:
    """As `open_model`, for a plan."""
    with ExitStack() as stack:
        task = open_task(planned, stack, report=report)
        painter, kind = painter_of(task, report), of_plan(planned)
        answer, many = checked(task), checked_batch(task)
        return Model(planned.name, planned.label, answer, stack.pop_all(), painter, kind, many)


def open_task(
    planned: Plan,
    stack: ExitStack,
    *,
    options: TaskOptions | None = None,
    threads: int = 0,
    quick: bool = True,
    report: ProgressReporter = SILENT,
) -> Callable[[Any], Prediction]:
    """Opens a plan as one callable.

    Args:
        planned: What is run.
        stack: Closes what is opened.
        options: In place of the plan's own.
        threads: As for OnnxSession.
        quick: Let hardware beside the NPU prepare pictures, whose pixels then depend on it a
            little.
        report: Where notes and progress go.

    Returns:
        A callable: a BGR picture (or a sound, or a text) in, the result out.

    Raises:
        RkzooError: A part cannot be opened.
    """
    opened = {
        role: (part.answers, stack.enter_context(open_part(part, threads=threads, report=report)))
        for role, part in planned.parts.items()
    }
    for _, session in opened.values() if quick else ():
        attach_rga(session, stack, report)
    return task_of(planned, opened, options, report)


def task_of(
    planned: Plan,
    opened: Mapping[str, tuple[Contract, Session]],
    options: TaskOptions | None = None,
    report: ProgressReporter = SILENT,
) -> Callable[[Any], Prediction]:
    """As `open_task`, of parts that are open."""
    head = planned.head
    if head is None and "model" in opened:
        head = opened["model"][0].head
    digest = partial(models_digest, planned)
    parts = TaskParts(head, opened, planned.files, digest, report)
    return _opened(parts, options or planned.options)


def _opened(parts: TaskParts, options: TaskOptions) -> Callable[[Any], Prediction]:
    spec = spec_of(parts.head)
    if spec.part:
        raise RkzooError(
            f"{next(iter(parts.parts.values()))[0].family} {spec.part}.",
            "It is one part of a pipeline.",
            "Run the pipeline, for example rkzoo run ppocr PICTURE: see rkzoo list.",
        )
    if len(parts.parts) == 1:
        batched = {role: (c, _by_sample(c, s)) for role, (c, s) in parts.parts.items()}
        parts = replace(parts, parts=batched)
    return spec.open(parts, options)


def _by_sample(contract: Contract, session: Session) -> Session:
    """A session of a batch of pictures, as one that takes them one by one or together."""
    first = session.inputs[0].shape if session.inputs else ()
    pictures = contract.picture is not None and not contract.others
    return BatchedSession(session) if pictures and first and first[0] > 1 else session


def checked(task: Callable[[Image], Prediction]) -> Answer:
    """The task with a second look at doubtful answers, which gives warnings."""
    return (
        partial(run_with_checks, task)
        if isinstance(task, HeadTask)
        else lambda image: (task(image), ())
    )


def checked_batch(task: Callable[[Image], Prediction]) -> Batch | None:
    """What answers several pictures by one run; None where the model takes one at a time."""
    session = task.session if isinstance(task, ImageTask) else None
    if not isinstance(session, BatchedSession):
        return None
    if isinstance(task, HeadTask):
        return Batch(session.batch, partial(run_many_with_checks, task))
    many: Callable[[Any], list[Prediction]] = task.many  # type: ignore[attr-defined]
    return Batch(session.batch, lambda images: [(found, ()) for found in many(images)])


def painter_of(task: object, report: ProgressReporter = SILENT) -> Draw:
    """What draws the task's answers: texts need a font."""
    reads_text = isinstance(task, PageReader | SingleLine | PlateReader)
    return partial(_paint, report) if reads_text else draw_prediction


def _paint(report: ProgressReporter, text_lines: TextLines, image: Image) -> Image:
    return text_lines.draw(image, font(report))


def detect_task(
    contract: Contract, session: Session, options: DetectOptions | None = None
) -> HeadTask[Any]:
    """The task of a detection head: boxes, masks, key points or oriented boxes."""
    if not isinstance(contract.head, DetectHead):
        raise RkzooError(f"{contract.family} is no detection model.", code=1)
    untyped: Any = task_with(contract, session, options)
    task: HeadTask[Any] = untyped
    return task


def task_with(
    contract: Contract, session: Session, options: DetectOptions | None = None
) -> Callable[[Image], Prediction]:
    """One open model as a callable: a BGR picture in, what was found out. Raises RkzooError for
    a model that is only one part of something."""
    parts = TaskParts(contract.head, {"model": (contract, session)}, {})
    return _opened(parts, TaskOptions(detect=options))


_NEAR = 0.5  # of the threshold: how far below it a lost object is still looked for


def answer_at(
    contract: Contract, session: Session, threshold: float
) -> tuple[Callable[[Image], Prediction] | None, float]:
    """What answers a picture so that two answers can be compared, and from which score on a thing
    counts. None for a model whose answers have no such comparison."""
    spec = spec_of(contract.head)
    things = spec.to_matchable
    if things is None:
        return None, 0.0
    options = DetectOptions(confidence=threshold * _NEAR) if spec.thresholded else None
    task = task_with(contract, session, options)
    matchable = task if things is identity else lambda image: things(task(image))
    return matchable, threshold if spec.thresholded else 0.0
