"""Heads of image classifiers."""

from __future__ import annotations

from typing import Annotated

import msgspec

from rkzoo.contract.schema_base import StrictStruct

Classes = Annotated[int, msgspec.Meta(ge=1)]


class ClassOutput(StrictStruct, frozen=True):
    """One of several outputs that answer a question each: 1xC, as in `ClassifyHead`."""

    name: str
    classes: Classes
    activated: bool = False
    multi_label: bool = False


class ClassifyHead(StrictStruct, frozen=True, tag="classify", tag_field="kind"):
    """Image classification: 1xC (or 1xCx1x1), the first output of the graph.

    Attributes:
        classes: Number of classes; of all outputs together where there are several.
        activated: Probabilities, after a softmax (or sigmoids) in the graph; otherwise logits.
        multi_label: Each class has a sigmoid of its own in place of the softmax, so several apply
            or none. A single class is multi-label; of two names for it, the first is the negative.
        outputs: Where the graph has several outputs, each of them, in the order of the labels.
    """

    classes: Classes
    activated: bool = False
    multi_label: bool = False
    outputs: tuple[ClassOutput, ...] = ()

    def __post_init__(self) -> None:
        if self.outputs and sum(output.classes for output in self.outputs) != self.classes:
            raise ValueError("classes must be the sum of those of the outputs")
        if any(
            class_output.classes == 1 and not class_output.multi_label for class_output in self.each
        ):
            raise ValueError("one class takes a sigmoid: multi_label")

    @property
    def each(self) -> tuple[ClassOutput, ...]:
        """The outputs, also where there is only one."""
        only = ClassOutput(
            name="",
            classes=self.classes,
            activated=self.activated,
            multi_label=self.multi_label,
        )
        return self.outputs or (only,)
