"""Image classification task specification."""

from __future__ import annotations

from rkzoo.contract.classify import ClassifyHead
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

    top = min(options.detect.limit, TOP) if options.detect else TOP
    return Classifier(*opened.parts["model"], top)


def _assumed_labels(head: ClassifyHead) -> AssumedLabels | None:
    if head.classes not in (1000, 1001):
        return None
    background = ("background",) if head.classes == 1001 else ()
    why = f"its {head.classes} classes: the names of ImageNet are"
    return AssumedLabels(background, "imagenet1k", why)


CLASSIFY = TaskSpec(
    name="classify",
    open=_open,
    options=frozenset({"max_boxes"}),
    describe=lambda head: [("gives", f"scores of {head.classes} classes")],
    assumed_labels=_assumed_labels,
    check_labels=a_name_for_each_class,
    legalize=True,
    things=as_it_is,
    outputs="classes",
    bounded=lambda head: head.activated,
)
