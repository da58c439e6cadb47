"""Anchors of YOLOv5 and YOLOv7: defaults, user-given ones, and what follows from them.

https://docs.ultralytics.com/yolov5: xy = (2 s - 0.5 + cell) * stride, wh = (2 s)^2 * anchor, where
s is the sigmoid of a raw value. The recognizers are `yolov5_decoded` and `yolov5_raw`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import msgspec
import numpy as np

from rkzoo.contract.detect import DetectHead
from rkzoo.contract.faces import FaceHead
from rkzoo.contract.model import Contract
from rkzoo.errors import RkzooError
from rkzoo.graph.families.recognition import Recognition
from rkzoo.graph.families.retinaface import with_sides

Anchors = tuple[tuple[tuple[float, float], ...], ...]


def _table(*rows: tuple[float, ...]) -> Anchors:
    return tuple(tuple(zip(row[::2], row[1::2], strict=True)) for row in rows)


# From upstream's configurations, (w, h) in pixels, the finest level first.
YOLOV5 = _table(
    (10, 13, 16, 30, 33, 23), (30, 61, 62, 45, 59, 119), (116, 90, 156, 198, 373, 326)
)  # fmt: skip
YOLOV5_P6 = _table(
    (19, 27, 44, 40, 38, 94), (96, 68, 86, 152, 180, 137),
    (140, 301, 303, 264, 238, 542), (436, 615, 739, 380, 925, 792),
)  # fmt: skip
YOLOV7 = _table(
    (12, 16, 19, 36, 40, 28), (36, 75, 76, 55, 72, 146), (142, 110, 192, 243, 459, 401)
)  # fmt: skip
USUAL: dict[tuple[int, ...], Anchors] = {(8, 16, 32): YOLOV5, (8, 16, 32, 64): YOLOV5_P6}
# Anchors learned from a data set have fractions; files keep about four digits.
_SAME_ANCHOR = 0.01


# ---- given by the user --------------------------------------------------------------


def check_anchors(values: Anchors, pairs: Sequence[tuple[float, float]]) -> None:
    """Check that user-given anchors are those of the graph.

    Args:
        values: Anchors read from the graph, (w, h) in pixels per level.
        pairs: The user's, (w, h) in pixels, the finest level first.

    Raises:
        RkzooError: They differ; the message holds both lists.
    """
    flat = np.array([pair for level in values for pair in level], np.float64)
    other = np.array(pairs, np.float64).reshape(-1, 2)
    if flat.shape == other.shape and np.allclose(flat, other, rtol=0, atol=_SAME_ANCHOR):
        return
    raise RkzooError(
        "The anchors given are not those of the model.",
        f"The graph holds {format_anchors(flat.tolist())}; given were "
        f"{format_anchors(other.tolist())}.",
        "Leave --anchors out: they are read from the graph.",
    )


def with_anchors(recognition: Recognition, pairs: Sequence[tuple[float, float]]) -> Recognition:
    """Set user-given anchors where the graph holds none; where it does, only compare.

    Args:
        recognition: The recognized head.
        pairs: (w, h) in pixels, the finest level first. For a RetinaFace sides of squares, two per
            pair.

    Returns:
        The head with these anchors.

    Raises:
        RkzooError: They do not fit the head, or differ from the graph's.
    """
    head = recognition.contract.head
    if isinstance(head, FaceHead):
        return with_sides(recognition, pairs)
    if not isinstance(head, DetectHead) or head.coding != "anchor":
        raise RkzooError(
            "This model has no anchors.",
            f"It was recognised as {recognition.family}, which is anchor-free.",
            "Leave --anchors out.",
        )
    if recognition.anchors_known:
        check_anchors(head.anchors, pairs)
        return recognition
    levels = len(head.strides)
    each = len(pairs) // levels
    whole = next(
        head_tensor for head_tensor in recognition.head_tensors if head_tensor.role == "anchors"
    )
    channels = len(whole.channels) or whole.shape[1]
    fixed = recognition.uncut is not None or head.coefficients
    if (
        len(pairs) % levels
        or channels % each
        or channels // each < 6
        or (fixed and each != len(head.anchors[0]))
    ):
        raise RkzooError(
            f"{len(pairs)} anchors do not fit this model.",
            f"It has {levels} levels, each with {channels} channels, which are "
            f"{len(head.anchors[0])} anchors of {channels // len(head.anchors[0])} numbers.",
            f"Give {levels * len(head.anchors[0])} anchors, width and height of each.",
        )
    anchors = tuple(tuple(pairs[i * each : (i + 1) * each]) for i in range(levels))
    classes = channels // each - 5
    kept = tuple(s for s in recognition.evidence if s not in (ASSUMED, *_SCORE_OF.values()))
    return replace(
        recognition,
        family=family_of(anchors),
        contract=_changed(recognition.contract, anchors, classes),
        uncut=_changed(recognition.uncut, anchors, classes) if recognition.uncut else None,
        evidence=(
            *kept,
            f"The anchors are those given: {format_anchors(pairs)}.",
            *describe_scores(anchors, classes),
        ),
    )


def _changed(old: Contract, anchors: Anchors, classes: int) -> Contract:
    head = msgspec.structs.replace(
        old.head, anchors=anchors, classes=classes, objectness=scored_by(anchors, classes)
    )
    labels = old.labels if len(old.labels) == classes else ()
    return msgspec.structs.replace(old, family=family_of(anchors), head=head, labels=labels)


# ---- what follows from anchors ------------------------------------------------------

ASSUMED = (
    "THE ANCHORS ARE NOT IN THIS GRAPH: those of YOLOv5 are assumed, and with others every box "
    "has a wrong size. If the model has its own (YOLOv7, or trained on your data) give them with "
    "--anchors, or convert the upstream export, which holds them."
)
_SCORE_OF = {
    "alone": (
        "One class and YOLOv7's own anchors: the score is the objectness alone, since YOLOv7 "
        "does not train the class score of a single class."
    ),
    "product": (
        "One class: the score is objectness times class, as YOLOv5 trains it. YOLOv7-tiny has the "
        "same anchors as YOLOv5 and cannot be distinguished; it would need the objectness alone."
    ),
}


def scored_by(anchors: Anchors, classes: int) -> Literal["product", "alone"]:
    """The score: objectness times class, or objectness alone (YOLOv7 with one class)."""
    return "alone" if classes == 1 and _close(anchors, YOLOV7) else "product"


def family_of(anchors: Anchors) -> str:
    """ "yolov7" or "yolov5", by the anchors."""
    return "yolov7" if _close(anchors, YOLOV7) else "yolov5"


def _close(a: Anchors, b: Anchors) -> bool:
    left, right = (np.array([pair for level in x for pair in level]) for x in (a, b))
    return left.shape == right.shape and bool(np.allclose(left, right, rtol=0, atol=_SAME_ANCHOR))


def describe_scores(anchors: Anchors, classes: int) -> tuple[str, ...]:
    """A sentence on how the score of a one-class head is formed; none for more classes."""
    if classes > 1:
        return ()
    return (_SCORE_OF[scored_by(anchors, classes)],)


def format_anchors(anchors: Sequence[Sequence[float]]) -> str:
    """Anchors as text: "10,13 16,30"."""
    return " ".join(",".join(f"{number:g}" for number in pair) for pair in anchors)
