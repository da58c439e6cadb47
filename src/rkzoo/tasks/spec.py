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
from rkzoo.session import Session

if TYPE_CHECKING:
    from rkzoo.tasks.detect.task import DetectOptions
    from rkzoo.tasks.text.page import PageOptions


@dataclass(frozen=True)
class Wishes:
    """Task options of a request, thresholds excluded.

    Attributes:
        language: language code (such as en) of speech or text; None for automatic detection or the
            model's default.
        translate: translate speech into English text.
        speed: speaking rate of a voice; 1 as trained.
        points: (x, y, label) in source-image pixels; label 1 foreground, 0 background.
        boxes: (x1, y1, x2, y2) in source-image pixels.
        words: class names given by the user.
    """

    language: str | None = None
    translate: bool = False
    speed: float = 1.0
    points: tuple[tuple[float, float, int], ...] = ()
    boxes: tuple[tuple[float, float, float, float], ...] = ()
    words: tuple[str, ...] = ()


NOTHING = Wishes()


@dataclass(frozen=True)
class Opened:
    """An opened model.

    Attributes:
        head: the head; None for a pipeline without one.
        parts: contract and session by role ("model" where there is only one).
        files: further files by role: `decoder.vocabulary` is the file `vocabulary` of the part
            `decoder`.
    """

    head: Head | None
    parts: Mapping[str, tuple[Contract, Session]]
    files: Mapping[str, Path]


Task = Callable[[Any], Any]
"""Maps one input (image, sound, text) to the task's result."""


@dataclass(frozen=True)
class TaskOptions:
    """Options with which a task is opened; each task uses those it knows. None: the defaults."""

    wishes: Wishes = NOTHING
    detect: DetectOptions | None = None
    page: PageOptions | None = None


@dataclass(frozen=True)
class AssumedLabels:
    """Default class names for a file without labels.

    Attributes:
        names: class names that come first.
        label_set: label set of the zoo, appended to `names`.
        why: states the assumption to the user; empty where it is certain.
    """

    names: tuple[str, ...] = ()
    label_set: str = ""
    why: str = ""


Takes = Literal["picture", "sound", "text", "numbers"]
Gives = Literal["picture", "transcript", "timeline", "output", "sound", "numbers"]


@dataclass(frozen=True)
class TaskSpec:
    """One task, for one kind of head (or one variant of it).

    Callbacks on a head get the head that the registry maps to this record.

    Attributes:
        name: the task's name in cards, in reports and on the command line.
        open: creates the task of the opened parts and the options: input in, result out.
        takes: the kind of input.
        gives: the kind of output file written per input.
        options: supported fields of `Wishes`; any other that is set is refused.
        scored: the task's name for datasets; `name` where empty.
        part: role in a pipeline, for a model that is not run by itself.
        usage: example arguments of `rkzoo run`; None for the default of the input kind.
        describe: rows (title, text) that describe the outputs of a head.
        assumed_labels: default class names of a head without labels.
        check_labels: raises RkzooError where labels (given or none) do not fit the head; takes
            the model's name for the message.
        legalize: rewrite the graph to operators that the toolkit converts correctly.
        native: read outputs in the NPU's native layout; else in the graph's.
        things: converts a result to items that can be matched one by one between two backends;
            None where only tensors are compared.
        thresholded: the items have a confidence, which the comparison takes into account.
        outputs: what the raw outputs hold, for a comparison of tensors.
        bounded: whether the outputs of a head are scores in 0..1, whose scale can collapse in INT8.
    """

    name: str
    open: Callable[[Opened, TaskOptions], Task]
    takes: Takes = "picture"
    gives: Gives = "picture"
    options: frozenset[str] = frozenset()
    scored: str = ""
    part: str = ""
    usage: tuple[str, ...] | None = None
    describe: Callable[[Any], list[tuple[str, str]]] = lambda head: []
    assumed_labels: Callable[[Any], AssumedLabels | None] = lambda head: None
    check_labels: Callable[[Any, Sequence[str], str], None] = lambda head, labels, model: None
    legalize: bool = False
    native: bool = False
    things: Callable[[Any], Any] | None = None
    thresholded: bool = False
    outputs: str = ""
    bounded: Callable[[Any], bool] = lambda head: False


def as_it_is(found: Any) -> Any:
    """`things` of a result that can be matched directly."""
    return found


def always(head: Any) -> bool:
    """`bounded` of a task whose outputs are always scores."""
    return True


def a_name_for_each_class(head: Any, labels: Sequence[str], model: str) -> None:
    """`check_labels` of a head with `classes`. Raises RkzooError when the counts differ."""
    if labels and len(labels) != head.classes:
        raise RkzooError(
            f"{model} has {head.classes} classes but {len(labels)} labels were given.",
            "Every class needs its name, in the order of training.",
            "Give the labels of this very model with --labels, or none at all.",
        )


def _no_task(opened: Opened, options: TaskOptions) -> Task:
    raise RkzooError("A single part of a pipeline is not a task.", code=1)


TENSORS = TaskSpec(
    name="tensors",
    open=_no_task,
    takes="numbers",
    gives="numbers",
    part="gives intermediate tensors only",
    usage=(),
)
