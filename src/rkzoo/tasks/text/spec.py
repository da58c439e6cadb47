"""OCR task specifications: the pipeline and its three models."""

from __future__ import annotations

from rkzoo.tasks.spec import THRESHOLDS, Opened, Task, TaskOptions, TaskSpec, always, as_it_is


def _open_page(opened: Opened, options: TaskOptions) -> Task:
    from rkzoo.tasks.text.open import page_reader

    return page_reader(opened.parts, options.page, options.detect)


def _open_detector(opened: Opened, options: TaskOptions) -> Task:
    from rkzoo.tasks.text.detect_text import TextDetector

    return TextDetector(*opened.parts["model"])


def _open_angle(opened: Opened, options: TaskOptions) -> Task:
    from rkzoo.tasks.text.classify_angle import AngleClassifier

    angle = AngleClassifier(*opened.parts["model"])
    return lambda image: angle([image])


def _open_line(opened: Opened, options: TaskOptions) -> Task:
    from rkzoo.tasks.text.page import SingleLine
    from rkzoo.tasks.text.read_line import LineReader

    return SingleLine(LineReader(*opened.parts["model"]))


PAGE = TaskSpec(name="text", open=_open_page, options=THRESHOLDS | {"language"}, things=as_it_is)
DETECT = TaskSpec(
    name="text-det", open=_open_detector, things=as_it_is, outputs="text map", bounded=always
)
ANGLE = TaskSpec(
    name="text-cls",
    open=_open_angle,
    part="only classifies the orientation of a text line",
    outputs="angles",
    bounded=always,
)
LINE = TaskSpec(
    name="text-rec", open=_open_line, things=as_it_is, outputs="characters", bounded=always
)
