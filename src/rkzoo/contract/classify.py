"""Heads of image classifiers."""

from __future__ import annotations

from typing import Annotated

import msgspec

from rkzoo.contract.schema_base import Strict


class ClassifyHead(Strict, frozen=True, tag="classify", tag_field="kind"):
    """Image classification: 1xC (or 1xCx1x1), the first output of the graph.

    `activated`: probabilities, after a softmax inside the graph; otherwise logits.
    """

    classes: Annotated[int, msgspec.Meta(ge=2)]
    activated: bool = False
