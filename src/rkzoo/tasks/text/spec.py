"""OCR task specifications: the pipeline and its three models."""

from __future__ import annotations

from collections.abc import Sequence

from rkzoo.contract.text import TextRecHead, characters
from rkzoo.errors import RkzooError
from rkzoo.tasks.spec import (
    THRESHOLDS,
    DefaultLabels,
    Task,
    TaskOptions,
    TaskParts,
    TaskSpec,
    always_bounded,
    identity,
)


def _open_page(parts: TaskParts, options: TaskOptions) -> Task:
    from rkzoo.tasks.text.open import page_reader

    return page_reader(parts.parts, options.page, options.detect)


def _open_detector(parts: TaskParts, options: TaskOptions) -> Task:
    from rkzoo.tasks.text.detect_text import TextDetector

    return TextDetector(*parts.parts["model"])


def _open_angle(parts: TaskParts, options: TaskOptions) -> Task:
    from rkzoo.tasks.text.classify_angle import AngleClassifier, SingleAngle

    return SingleAngle(AngleClassifier(*parts.parts["model"]))


def _open_line(parts: TaskParts, options: TaskOptions) -> Task:
    from rkzoo.tasks.text.page import SingleLine
    from rkzoo.tasks.text.read_line import LineReader

    return SingleLine(LineReader(*parts.parts["model"]))


# How many characters the dictionaries of the zoo's recognizers have, blank and space included.
_DICTIONARIES = {6625: "ppocr-v4-rec", 18385: "ppocr-v5-rec", 18710: "ppocr-v6-rec"}


def _assumed_characters(head: TextRecHead) -> DefaultLabels | None:
    card = _DICTIONARIES.get(head.classes)
    if card is None:
        return None
    return DefaultLabels(card=card, why=f"its {head.classes} characters: those of {card} are")


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


PAGE = TaskSpec(
    name="text", open=_open_page, options=THRESHOLDS | {"language"}, to_matchable=identity
)
DETECT = TaskSpec(
    name="text-det",
    open=_open_detector,
    to_matchable=identity,
    outputs="text map",
    has_bounded_scores=always_bounded,
)
ANGLE = TaskSpec(
    name="text-cls",
    open=_open_angle,
    to_matchable=identity,
    outputs="angles",
    has_bounded_scores=always_bounded,
)
LINE = TaskSpec(
    name="text-rec",
    open=_open_line,
    default_labels=_assumed_characters,
    name_classes=_named,
    check_labels=_check_characters,
    to_matchable=identity,
    outputs="characters",
    has_bounded_scores=always_bounded,
)
