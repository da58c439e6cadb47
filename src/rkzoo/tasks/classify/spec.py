"""Image classification task specification."""

from __future__ import annotations

from collections.abc import Sequence

from rkzoo.contract.classify import ClassifyHead, ClassOutput
from rkzoo.tasks.spec import (
    DefaultLabels,
    Task,
    TaskOptions,
    TaskParts,
    TaskSpec,
    check_label_count,
    identity,
)


def _open(parts: TaskParts, options: TaskOptions) -> Task:
    from rkzoo.tasks.classify.task import TOP, Classifier

    contract, session = parts.parts["model"]
    head, usual = contract.head, TOP
    if isinstance(head, ClassifyHead) and head.multi_label:
        usual = head.classes + 1  # all: each says something of its own
    top = min(options.detect.limit, usual) if options.detect else usual
    return Classifier(contract, session, top)


def _describe(head: ClassifyHead) -> list[tuple[str, str]]:
    def said(class_output: ClassOutput) -> str:
        kind = "labels, each by itself" if class_output.multi_label else "classes"
        of = (
            f"{class_output.name}, {class_output.classes}"
            if class_output.name
            else f"{class_output.classes}"
        )
        return (
            f"scores of {of} {kind}"
            if class_output.classes > 1
            else f"the score of {class_output.name or 'one'} class"
        )

    return [("gives", "; ".join(map(said, head.each)))]


def _check_labels(head: ClassifyHead, labels: Sequence[str], model: str) -> None:
    """One class may have a name for what does not hold, too."""
    if head.classes != 1 or len(labels) > 2:
        check_label_count(head, labels, model)


def _assumed_labels(head: ClassifyHead) -> DefaultLabels | None:
    if head.classes not in (1000, 1001) or head.multi_label or head.outputs:
        return None
    background = ("background",) if head.classes == 1001 else ()
    why = f"its {head.classes} classes: the names of ImageNet are"
    return DefaultLabels(background, "imagenet1k", why)


CLASSIFY = TaskSpec(
    name="classify",
    open=_open,
    options=frozenset({"max_boxes"}),
    describe=_describe,
    default_labels=_assumed_labels,
    check_labels=_check_labels,
    legalize=True,
    to_matchable=identity,
    outputs="classes",
    has_bounded_scores=lambda head: all(output.activated for output in head.each),
)
