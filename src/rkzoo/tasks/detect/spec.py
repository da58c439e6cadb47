"""Object detection task specification."""

from __future__ import annotations

from rkzoo.contract.detect import DetectHead
from rkzoo.contract.query_detect import QueryDetectHead
from rkzoo.tasks.spec import (
    THRESHOLDS,
    DefaultLabels,
    Task,
    TaskOptions,
    TaskParts,
    TaskSpec,
    check_label_count,
    identity,
)

_CODINGS = {
    "dfl": "boxes as distributions (reg_max {})",
    "distance": "boxes as plain distances",
    "log_distance": "boxes as logarithms of distances",
    "anchor": "boxes relative to anchors",
    "exponent": "boxes as offset and log size",
    "middle_exponent": "boxes as offset and log size",
}


def _open(parts: TaskParts, options: TaskOptions) -> Task:
    from rkzoo.tasks.detect.task import Detector

    return Detector(*parts.parts["model"], options.detect)


def _describe(head: DetectHead) -> list[tuple[str, str]]:
    sigmoid = "after" if head.activated else "before"
    parts = [
        f"{head.classes} class{'es' * (head.classes > 1)}",
        f"strides {' '.join(f'{stride:g}' for stride in head.strides)}",
        _CODINGS[head.coding].format(head.reg_max),
    ]
    if head.keypoint_values == 1:
        parts.append(f"a pose vector of {head.coefficients} numbers a box")
        parts.append(f"visibilities of {head.keypoints} key points")
    elif head.coefficients:
        parts.append(f"{head.coefficients} mask coefficients a box")
    if head.keypoints and head.keypoint_values > 1:
        parts.append(f"{head.keypoints} key points of {head.keypoint_values} numbers")
    if head.rotated:
        parts.append("an angle a box")
    if head.suppression == "none":
        parts.append("one box an object, so no suppression")
    gives = ", ".join((*parts, f"scores {sigmoid} the sigmoid"))
    return [("gives", gives), ("heads", ", ".join(f"{o.name} ({o.role})" for o in head.outputs))]


def _assumed_labels(head: DetectHead | QueryDetectHead) -> DefaultLabels | None:
    if head.classes == 80:
        return DefaultLabels(label_set="coco80", why="its 80 classes: the names of COCO are")
    if isinstance(head, DetectHead) and head.classes == 1 and head.keypoints == 17:
        return DefaultLabels(("person",), why="its class: with 17 key points, person is")
    return None


def _open_queries(parts: TaskParts, options: TaskOptions) -> Task:
    from rkzoo.tasks.detect.query import QueryDetector

    return QueryDetector(*parts.parts["model"], options.detect)


_ACTIVATIONS = {
    "sigmoid": "scores before the sigmoid",
    "softmax": "scores before a softmax with no object in the last column",
    "none": "scores",
}


def _describe_queries(head: QueryDetectHead) -> list[tuple[str, str]]:
    classes = f"{head.classes} class{'es' * (head.classes > 1)}"
    gives = f"{classes}, a box a query, so no suppression, {_ACTIVATIONS[head.activation]}"
    return [("gives", gives), ("heads", ", ".join(f"{o.name} ({o.role})" for o in head.outputs))]


DETECT = TaskSpec(
    name="detect",
    open=_open,
    options=THRESHOLDS | {"multi_label", "classes"},
    describe=_describe,
    default_labels=_assumed_labels,
    check_labels=check_label_count,
    native_layout=True,
    to_matchable=identity,
    thresholded=True,
    has_bounded_scores=lambda head: head.activated,
)

QUERY_DETECT = TaskSpec(
    name="detect",
    open=_open_queries,
    options=THRESHOLDS - {"iou"} | {"classes"},
    describe=_describe_queries,
    default_labels=_assumed_labels,
    check_labels=check_label_count,
    to_matchable=identity,
    thresholded=True,
    has_bounded_scores=lambda head: head.activation == "none",
)
