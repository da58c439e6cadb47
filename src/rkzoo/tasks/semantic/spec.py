"""Semantic segmentation task specification."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rkzoo.contract.segmentation import SemanticHead
from rkzoo.tasks.spec import (
    DefaultLabels,
    Task,
    TaskOptions,
    TaskParts,
    TaskSpec,
    check_label_count,
)

_KNOWN = {21: ("PASCAL VOC", "voc21"), 19: ("Cityscapes", "cityscapes19")}


def _open(parts: TaskParts, options: TaskOptions) -> Task:
    from rkzoo.tasks.semantic.task import MultiLabelSegmenter, SemanticSegmenter

    contract, session = parts.parts["model"]
    if isinstance(contract.head, SemanticHead) and contract.head.multi_label:
        return MultiLabelSegmenter(contract, session)
    return SemanticSegmenter(contract, session)


def _assumed_labels(head: SemanticHead) -> DefaultLabels | None:
    if head.classes == 2 and not head.multi_label:
        names = ("background", "object")
        return DefaultLabels(names, why="its 2 classes: background and object are")
    if head.classes not in _KNOWN or head.multi_label:
        return None
    owner, label_set = _KNOWN[head.classes]
    why = f"its {head.classes} classes: those of {owner} are"
    return DefaultLabels(label_set=label_set, why=why)


def _named(head: SemanticHead, labels: Sequence[str]) -> tuple[str, ...]:
    """The object's name alone does for one map: the background has no other."""
    alone = head.classes == 2 and len(labels) == 1
    return ("background", *labels) if alone else tuple(labels)


def _describe(head: SemanticHead) -> list[tuple[str, str]]:
    if head.multi_label:
        return [("gives", f"the pixels of each of {head.classes} classes, which may overlap")]
    return [("gives", f"the class of each pixel, of {head.classes}")]


def _masks(prediction: Any) -> Any:
    return prediction.masks()


SEMANTIC = TaskSpec(
    name="semantic",
    open=_open,
    describe=_describe,
    name_classes=_named,
    default_labels=_assumed_labels,
    check_labels=check_label_count,
    legalize=True,
    to_matchable=_masks,
    outputs="maps of classes",
)
