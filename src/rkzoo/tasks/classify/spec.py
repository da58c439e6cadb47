"""Image classification task specification."""

from __future__ import annotations

from collections.abc import Sequence

from rkzoo.contract.classify import ClassifyHead, ClassOutput
from rkzoo.tasks.spec import (
    AssumedLabels,
    Opened,
    Task,
    TaskOptions,
    TaskSpec,
    a_name_for_each_class,
    as_it_is,
)


def _open(opened: Opened, options: TaskOptions) -> Task:
    from rkzoo.tasks.classify.task import TOP, Classifier

    contract, session = opened.parts["model"]
    head, usual = contract.head, TOP
    if isinstance(head, ClassifyHead) and head.multi_label:
        usual = head.classes + 1  # all: each says something of its own
    top = min(options.detect.limit, usual) if options.detect else usual
    return Classifier(contract, session, top)


def _describe(head: ClassifyHead) -> list[tuple[str, str]]:
    def said(one: ClassOutput) -> str:
        kind = "labels, each by itself" if one.multi_label else "classes"
        of = f"{one.name}, {one.classes}" if one.name else f"{one.classes}"
        return (
            f"scores of {of} {kind}"
            if one.classes > 1
            else f"the score of {one.name or 'one'} class"
        )

    return [("gives", "; ".join(map(said, head.each)))]


def _check_labels(head: ClassifyHead, labels: Sequence[str], model: str) -> None:
    """One class may have a name for what does not hold, too."""
    if head.classes != 1 or len(labels) > 2:
        a_name_for_each_class(head, labels, model)


def _assumed_labels(head: ClassifyHead) -> AssumedLabels | None:
    if head.classes not in (1000, 1001) or head.multi_label or head.outputs:
        return None
    background = ("background",) if head.classes == 1001 else ()
    why = f"its {head.classes} classes: the names of ImageNet are"
    return AssumedLabels(background, "imagenet1k", why)


CLASSIFY = TaskSpec(
    name="classify",
    open=_open,
    options=frozenset({"max_boxes"}),
    describe=_describe,
    assumed_labels=_assumed_labels,
    check_labels=_check_labels,
    legalize=True,
    things=as_it_is,
    outputs="classes",
    bounded=lambda head: all(one.activated for one in head.each),
)
