"""OCR task specifications: the pipeline and its three models."""

from __future__ import annotations

from collections.abc import Sequence

from rkzoo.contract.text import TextRecHead, characters
from rkzoo.errors import RkzooError
from rkzoo.tasks.spec import (
    THRESHOLDS,
    AssumedLabels,
    Opened,
    Task,
    TaskOptions,
    TaskSpec,
    always,
    as_it_is,
)


def _open_page(opened: Opened, options: TaskOptions) -> Task:
    from rkzoo.tasks.text.open import page_reader

    return page_reader(opened.parts, options.page, options.detect)


def _open_detector(opened: Opened, options: TaskOptions) -> Task:
    from rkzoo.tasks.text.detect_text import TextDetector

    return TextDetector(*opened.parts["model"])


def _open_angle(opened: Opened, options: TaskOptions) -> Task:
    from rkzoo.tasks.text.classify_angle import AngleClassifier, SingleAngle

    return SingleAngle(AngleClassifier(*opened.parts["model"]))


def _open_line(opened: Opened, options: TaskOptions) -> Task:
    from rkzoo.tasks.text.page import SingleLine
    from rkzoo.tasks.text.read_line import LineReader

    return SingleLine(LineReader(*opened.parts["model"]))


# How many characters the dictionaries of the zoo's recognizers have, blank and space included.
_DICTIONARIES = {6625: "ppocr-v4-rec", 18385: "ppocr-v5-rec", 18710: "ppocr-v6-rec"}


def _assumed_characters(head: TextRecHead) -> AssumedLabels | None:
    card = _DICTIONARIES.get(head.classes)
    if card is None:
        return None
    return AssumedLabels(card=card, why=f"its {head.classes} characters: those of {card} are")


def _named(head: TextRecHead, labels: Sequence[str]) -> tuple[str, ...]:
    return characters(labels, head)


def _check_characters(head: TextRecHead, labels: Sequence[str], model: str) -> None:
    if head.classes and len(labels) != head.classes:
        raise RkzooError(
            f"{model} tells {head.classes} characters apart, and {len(labels)} are named.",
            "What it reads is a number for each character, in the order of its dictionary.",
            "Give that dictionary with --labels FILE, one character a line; the blank before and "
            "the space behind may be left out.",
        )


PAGE = TaskSpec(name="text", open=_open_page, options=THRESHOLDS | {"language"}, things=as_it_is)
DETECT = TaskSpec(
    name="text-det", open=_open_detector, things=as_it_is, outputs="text map", bounded=always
)
ANGLE = TaskSpec(
    name="text-cls",
    open=_open_angle,
    things=as_it_is,
    outputs="angles",
    bounded=always,
)
LINE = TaskSpec(
    name="text-rec",
    open=_open_line,
    assumed_labels=_assumed_characters,
    name_classes=_named,
    check_labels=_check_characters,
    things=as_it_is,
    outputs="characters",
    bounded=always,
)
