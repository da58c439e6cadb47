"""Evaluation without ground truth: the float model's results serve as reference.

This measures how much of the float model an INT8 model keeps, not how correct either is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from rkzoo.accuracy.answers import Record, codes_of, texts_of
from rkzoo.accuracy.classes import ClassTruth
from rkzoo.accuracy.dataset import Dataset, Kind, Truth
from rkzoo.accuracy.lines import LineTruth
from rkzoo.accuracy.objects import Measure, ObjectTruth
from rkzoo.accuracy.regions import TextRegion, TextRegionTruth
from rkzoo.accuracy.tensors import Outputs
from rkzoo.errors import RkzooError
from rkzoo.tasks.tensors.result import Tensors

CONFIDENCE = 0.25
"""Confidence threshold of reference objects; the default of `rkzoo run`."""


def check_agreement(task: str) -> None:
    """Raise RkzooError where models of the task are not compared with their float selves."""
    if task not in _TRUTHS:
        raise RkzooError(
            f"Models of the task {task!r} are not compared with their float selves.",
            f"That is offered for {', '.join(_TRUTHS)}.",
            "Give data with known answers, or take the outputs as plain tensors, with --raw.",
        )


def agreement(
    name: str,
    items: Sequence[Path],
    records: Sequence[Record],
    task: str,
    labels: tuple[str, ...],
) -> Dataset:
    """Create a dataset whose ground truth is the float model's results.

    Args:
        name: name of the data.
        items: image files.
        records: the float model's results, one per item.
        task: task of the model.
        labels: class names.

    Raises:
        RkzooError: the task has no such comparison, or nothing was detected anywhere.
    """
    check_agreement(task)
    kind, make = _TRUTHS[task]
    truth = make(records, labels)
    digest = hashlib.sha256(truth.digest())
    for item in items:
        digest.update(item.name.encode("utf-8", "surrogateescape") + b"\0")
    title = f"{name}, as the float model sees it"
    return Dataset(title, kind, tuple(items), truth, digest.hexdigest(), labels, "float model")


def _lines(records: Sequence[Record], labels: tuple[str, ...]) -> Truth:
    return LineTruth(tuple("".join(texts_of(record)) for record in records))


def _regions(records: Sequence[Record], labels: tuple[str, ...]) -> Truth:
    return TextRegionTruth(
        tuple(
            tuple(TextRegion(tuple(map(tuple, quad)), True) for quad in record["quads"].tolist())
            for record in records
        )
    )


def _classes(records: Sequence[Record], labels: tuple[str, ...]) -> Truth:
    return ClassTruth(tuple(str(int(record["class_id"][0])) for record in records))


def _outputs(records: Sequence[Record], labels: tuple[str, ...]) -> Truth:
    return Outputs(tuple(map(Tensors.of_record, records)))


def _objects(measures: tuple[Measure, ...]) -> Callable[..., Truth]:
    def make(records: Sequence[Record], labels: tuple[str, ...]) -> Truth:
        sure = [record["score"] >= CONFIDENCE for record in records]
        counts = [int(keep.sum()) for keep in sure]
        if not sum(counts):
            raise RkzooError(
                "The float model finds nothing in these pictures.",
                f"No object reaches the confidence {CONFIDENCE}.",
                "Give pictures of what it was trained for.",
            )

        def kept(key: str) -> np.ndarray:
            return np.concatenate([r[key][keep] for r, keep in zip(records, sure, strict=True)])

        boxes = kept("xyxy").astype(np.float64)
        boxes[:, 2:] -= boxes[:, :2]
        classes = kept("class_id").astype(np.int64)
        names = labels or tuple(str(n) for n in range(int(classes.max()) + 1))
        shapes: tuple[bytes, ...] = ()
        if "segm" in measures:
            shapes = tuple(
                code
                for record, keep in zip(records, sure, strict=True)
                for code, use in zip(codes_of(record), keep.tolist(), strict=True)
                if use
            )
        points = None
        if "keypoints" in measures:
            points = kept("keypoints").astype(np.float64)
            points[..., 2] = 2  # all are visible
        return ObjectTruth(
            picture=np.repeat(np.arange(len(records)), counts),
            category=classes,
            xywh=boxes,
            area=boxes[:, 2] * boxes[:, 3],
            crowd=np.zeros(len(boxes), bool),
            sizes=np.array([record["size"] for record in records], np.int64),
            names=names,
            ids=tuple(range(len(names))),
            measures=measures,
            shapes=shapes,
            keypoints=points,
        )

    return make


_TRUTHS: dict[str, tuple[Kind, Callable[..., Truth]]] = {
    "detect": ("boxes", _objects(("bbox",))),
    "segment": ("masks", _objects(("segm", "bbox"))),
    "pose": ("keypoints", _objects(("keypoints", "bbox"))),
    "text-rec": ("lines", _lines),
    "plate": ("plates", _lines),
    "text-det": ("regions", _regions),
    "classify": ("classes", _classes),
    "tensors": ("tensors", _outputs),
}
