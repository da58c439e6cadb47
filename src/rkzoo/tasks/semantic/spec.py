"""Semantic segmentation task specification."""

from __future__ import annotations

from typing import Any

from rkzoo.contract.segmentation import SemanticHead
from rkzoo.tasks.spec import (
    AssumedLabels,
    Opened,
    Task,
    TaskOptions,
    TaskSpec,
    a_name_for_each_class,
)

_KNOWN = {21: ("PASCAL VOC", "voc21"), 19: ("Cityscapes", "cityscapes19")}


def _open(opened: Opened, options: TaskOptions) -> Task:
    from rkzoo.tasks.semantic.task import SemanticSegmenter

    return SemanticSegmenter(*opened.parts["model"])


def _assumed_labels(head: SemanticHead) -> AssumedLabels | None:
    if head.classes not in _KNOWN:
        return None
    owner, label_set = _KNOWN[head.classes]
    why = f"its {head.classes} classes: those of {owner} are"
    return AssumedLabels(label_set=label_set, why=why)


def _masks(found: Any) -> Any:
    return found.masks()


SEMANTIC = TaskSpec(
    name="semantic",
    open=_open,
    describe=lambda head: [("gives", f"the class of each pixel, of {head.classes}")],
    assumed_labels=_assumed_labels,
    check_labels=a_name_for_each_class,
    legalize=True,
    things=_masks,
    outputs="maps of classes",
)
