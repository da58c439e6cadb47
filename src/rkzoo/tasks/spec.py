"""Task specification: the record by which the rest of rkzoo knows a task.

Each task has its record in `tasks/<task>/spec.py`, which imports only this module and the
contract; the task itself is imported when it is opened. `tasks/registry.py` lists the records.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rkzoo.contract.model import Contract, Head
from rkzoo.errors import RkzooError
from rkzoo.progress import SILENT, ProgressReporter
from rkzoo.session import Session

if TYPE_CHECKING:
    from rkzoo.tasks.detect.task import DetectOptions
    from rkzoo.tasks.text.page import PageOptions


@dataclass(frozen=True)
class TaskParts:
    """An opened model.

    Attributes:
        head: the head; None for a pipeline without one.
        parts: contract and session by role ("model" where there is only one).
        files: further files by role: `decoder.vocabulary` is the file `vocabulary` of the part
            `decoder`.
        digest: of all that makes the models' numbers, under which what was made with them can be
            kept; "" where that is not known.
        report: where notes and progress of the opening go.
    """

    head: Head | None
    parts: Mapping[str, tuple[Contract, Session]]
    files: Mapping[str, Path]
    digest: Callable[[], str] = lambda: ""
    report: ProgressReporter = SILENT


Task = Callable[[Any], Any]
"""Maps one input (image, sound, text) to the task's result."""


@dataclass(frozen=True)
class TaskOptions:
    """What is wanted of the answers; each task takes what it knows.

    Attributes:
        language: of a speech, a voice or a page (a code such as en), None for the model's own
            guess or its default.
        translate: speech to English text.
        speed: of a voice, 1 as trained.
        points: x, y, label (1 the object, 0 beside it) in source pixels, for promptable masks.
        boxes: x1, y1, x2, y2 in source pixels, likewise.
        prompts: class names that the user gives.
        against: names of pictures (files, folders, globs) that an embedding is compared with.
        known: folder of pictures of faces whose names are known.
        detect: thresholds of a detection head; None: the defaults.
        page: thresholds of a text reader; None: the defaults.
    """

    language: str | None = None
    translate: bool = False
    speed: float = 1.0
    points: tuple[tuple[float, float, int], ...] = ()
    boxes: tuple[tuple[float, float, float, float], ...] = ()
    prompts: tuple[str, ...] = ()
    against: tuple[str, ...] = ()
    known: str | None = None
    detect: DetectOptions | None = None
    page: PageOptions | None = None


@dataclass(frozen=True)
class DefaultLabels:
    """Default class names for a file without labels.

    Attributes:
        names: class names that come first.
        label_set: label set of the zoo, appended to `names`.
        why: states the assumption to the user; empty where it is certain.
        card: card of the zoo whose labels are taken instead.
    """

    names: tuple[str, ...] = ()
    label_set: str = ""
    why: str = ""
    card: str = ""


InputName = Literal["picture", "sound", "text", "tensors"]
OutputName = Literal["picture", "transcript", "timeline", "output", "sound", "tensors", "vector"]


@dataclass(frozen=True)
class TaskSpec:
    """One task, for one kind of head (or one variant of it).

    Callbacks on a head get the head that the registry maps to this record.

    Attributes:
        name: what a card, a report and the command line call the task.
        open: the open parts and the options to a callable, what `takes` reads in, result out.
        takes: what goes in.
        gives: the file that is written for each.
        options: the optional arguments of a request that it uses, of those that only some tasks
            know (`registry.OPTIONS`); another that is given is refused.
        scored: the task under which data sets know it; `name` where empty.
        part: what it does as a part of a pipeline, for a model that is not run by itself.
        usage: examples of arguments to `rkzoo run`; one of what it takes where None.
        describe: a head to rows (title, text) of what the model gives.
        assumed_labels: a head to the names of its classes where nothing gives them.
        name_classes: a head and the labels that a user gives to a name for each class.
        check_labels: raises RkzooError where labels (given or none) do not fit the head; takes
            the model's name for the message.
        legalize: rewrite the graph to operators that the toolkit converts correctly.
        native: read outputs in the NPU's native layout; else in the graph's.
        things: converts a result to items that can be matched one by one between two backends;
            None where only tensors are compared.
        thresholded: the items have a confidence, which the comparison takes into account.
        outputs: what the raw outputs hold, for a comparison of tensors.
        languages: a head to the codes of the languages that it hears or speaks; empty where it
            does not tell.
        bounded: whether the outputs of a head are scores in 0..1, whose scale can collapse in INT8.
    """

    name: str
    open: Callable[[TaskParts, TaskOptions], Task]
    input_kind: InputName = "picture"
    output_kind: OutputName = "picture"
    options: frozenset[str] = frozenset()
    dataset_task: str = ""
    part: str = ""
    usage: tuple[str, ...] | None = None
    describe: Callable[[Any], list[tuple[str, str]]] = lambda head: []
    default_labels: Callable[[Any], DefaultLabels | None] = lambda head: None
    name_classes: Callable[[Any, Sequence[str]], tuple[str, ...]] = lambda head, labels: tuple(
        labels
    )
    check_labels: Callable[[Any, Sequence[str], str], None] = lambda head, labels, model: None
    legalize: bool = False
    native_layout: bool = False
    to_matchable: Callable[[Any], Any] | None = None
    thresholded: bool = False
    outputs: str = ""
    has_bounded_scores: Callable[[Any], bool] = lambda head: False
    languages: Callable[[Any], tuple[str, ...]] = lambda head: ()


def check_box(box: tuple[float, float, float, float]) -> None:
    """Raises RkzooError for a box x1, y1, x2, y2 with nothing in it."""
    left, top, right, bottom = box
    if right <= left or bottom <= top:
        raise RkzooError(
            f"The box {','.join(f'{side:g}' for side in box)} is empty.",
            "A box is its left, top, right and bottom side.",
            "Give for example --box 100,50,300,200.",
        )


THRESHOLDS = frozenset({"confidence", "iou", "max_boxes"})


def identity(prediction: Any) -> Any:
    """`things` of a result that can be matched directly."""
    return prediction


def always_bounded(head: Any) -> bool:
    """`bounded` of a task whose outputs are always scores."""
    return True


def check_label_count(head: Any, labels: Sequence[str], model: str) -> None:
    """`check_labels` of a head with `classes`. Raises RkzooError when the counts differ."""
    if labels and len(labels) != head.classes:
        raise RkzooError(
            f"{model} has {head.classes} classes but {len(labels)} labels were given.",
            "Every class needs its name, in the order of training.",
            "Give the labels of this very model with --labels, or none at all.",
        )
