"""Heads of text detection and recognition, and license plate recognition."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import msgspec

from rkzoo.contract.schema_base import StrictStruct

CHINESE_PLATES = 68
"""Classes of Chinese license plates: 31 provinces, 10 digits, 26 letters and the blank."""


class TextDetHead(StrictStruct, frozen=True, tag="text-det", tag_field="kind"):
    """Differentiable binarization (DB) probability map, 1x1xHxW, already in 0..1.

    https://arxiv.org/abs/1911.08947; the defaults are PaddleOCR's.
    """

    threshold: float = 0.3
    box_threshold: float = 0.6
    unclip_ratio: float = 1.5
    max_boxes: int = 1000


class TextClsHead(StrictStruct, frozen=True, tag="text-cls", tag_field="kind"):
    """Orientation of a text line: 1xN softmax scores for `angles` (degrees)."""

    angles: tuple[int, ...] = (0, 180)
    threshold: float = 0.9


class TextRecHead(StrictStruct, frozen=True, tag="text-rec", tag_field="kind"):
    """CTC text recognition: 1xTxC softmax scores; class `blank` is the CTC blank.

    The characters are the contract's labels: label i is class i, the blank included. `classes`
    is C; 0 is as many as there are labels.
    """

    blank: int = 0
    classes: Annotated[int, msgspec.Meta(ge=0)] = 0


def characters(names: Sequence[str], head: TextRecHead) -> tuple[str, ...]:
    """The label of each class, of a dictionary that leaves out what a recogniser adds to it: the
    blank, which comes first, and perhaps the space, which comes last. As it is where it has
    another number of characters."""
    missing = head.classes - len(names)
    if head.blank != 0 or missing not in (1, 2):
        return tuple(names)
    return ("", *names, " ") if missing == 2 else ("", *names)


class PlateHead(StrictStruct, frozen=True, tag="plate", tag_field="kind"):
    """CTC license plate recognition (LPRNet): 1xCxT logits; class `blank` is the CTC blank.

    The characters are the contract's labels. `layouts` are the allowed plate formats, one code per
    character: P a province (any non-ASCII character), L a letter, D a digit, A a letter or digit
    (except I and O, which plates avoid), E a letter of electric cars (A to K without I). Without
    layouts any text is accepted.
    """

    blank: Annotated[int, msgspec.Meta(ge=0)] = 67
    layouts: tuple[Annotated[str, msgspec.Meta(pattern=r"^[PLDAE]{1,32}$")], ...] = ()
