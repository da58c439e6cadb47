"""Oriented object detection ground truth, with mAP on the exact rotated IoU."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from rkzoo.accuracy import average_precision as ap
from rkzoo.accuracy import categories
from rkzoo.accuracy.answers import Record
from rkzoo.accuracy.metric import Metric
from rkzoo.accuracy.resampling import Resampled
from rkzoo.vision.rotated import intersection

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

# Aerial images have many objects: no limit but the model's own.
_PROTOCOL = ap.MatchProtocol((1_000_000,), ((0.0, float("inf")),))


@dataclass(frozen=True)
class OrientedTruth:
    """Ground truth of all images, one row per box.

    Attributes:
        picture: (N,) int64, ascending, index of the image.
        category: (N,) int64, index into `names`.
        quads: (N, 4, 2) corners as fractions of width and height.
        names, ids: category names and ids.
    """

    picture: I64
    category: I64
    quads: F64
    names: tuple[str, ...]
    ids: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.picture)

    def check(self, labels: tuple[str, ...]) -> None:
        """Raise RkzooError when a model with these labels cannot be evaluated."""
        categories.match(self.names, self.ids, labels)

    def take(self, kept: Sequence[int]) -> OrientedTruth:
        """The ground truth of some of the items, in their order."""
        rows, picture = categories.rows_of(self.picture, kept)
        return replace(self, picture=picture, category=self.category[rows], quads=self.quads[rows])

    def digest(self) -> bytes:
        """Digest of everything that the metrics depend on."""
        hasher = hashlib.sha256(repr((self.names, self.ids)).encode())
        for array in (self.picture, self.category, self.quads):
            hasher.update(np.ascontiguousarray(array).tobytes())
        return hasher.digest()

    def score(
        self, records: Sequence[Record], labels: tuple[str, ...], names: Sequence[str]
    ) -> tuple[Metric, ...]:
        """mAP50-95, mAP50 and mAP75 of rotated boxes, counted as COCO does."""
        if not records:
            return ()
        count = int(np.searchsorted(self.picture, len(records)))
        picture = self.picture[:count]
        sizes = np.array([record["size"] for record in records], np.float64)
        corners = self.quads[:count] * sizes[picture][:, None, ::-1]
        truth = np.array([_rectangle(quad) for quad in corners]).reshape(-1, 5)
        none = np.zeros(count, bool)
        area = truth[:, 2] * truth[:, 3]
        marked = ap.GroundTruths(picture, self.category[:count], area, none, none)

        counts = [len(record["score"]) for record in records]
        boxes = np.concatenate([record["xywhr"] for record in records]).astype(np.float64)
        score = np.concatenate([record["score"] for record in records]).astype(np.float64)
        classes = np.concatenate([record["class_id"] for record in records]).astype(np.int64)
        category = categories.of_classes(categories.match(self.names, self.ids, labels), classes)
        of_picture = np.repeat(np.arange(len(records)), counts).astype(np.int64)
        kept = np.flatnonzero((category >= 0) & np.isfinite(boxes).all(axis=1))
        boxes = boxes[kept]
        size = boxes[:, 2] * boxes[:, 3]

        def overlap(a: I64, b: I64) -> F64:
            # Most pairs are disjoint by their circumscribed circles.
            away = np.hypot(*(boxes[a, :2] - truth[b, :2]).T)
            reach = np.hypot(*boxes[a, 2:4].T) + np.hypot(*truth[b, 2:4].T)
            near = np.flatnonzero(away * 2 < reach)
            shared = np.zeros(len(a))
            a, b = a[near], b[near]
            common = intersection(boxes[a], truth[b])
            shared[near] = common / np.maximum(size[a] + area[b] - common, 1e-12)
            return shared

        answered = ap.Predictions(of_picture[kept], category[kept], score[kept], size)
        curves = ap.curves(marked, answered, overlap, len(self.names), _PROTOCOL)
        rows = (("mAP50-95", None, 0.01), ("mAP50", 0.5, 0.01), ("mAP75", 0.75, 0.015))
        values = [(name, curves.ap(iou=iou), gate) for name, iou, gate in rows]
        resampled = Resampled(len(records), curves.resampled)
        return tuple(
            Metric(
                name,
                value,
                "",
                True,
                gate,
                main=name == "mAP50-95",
                resampled=resampled if name == "mAP50-95" else None,
            )
            for name, value, gate in values
            if value >= 0
        )


def _rectangle(quad: F64) -> tuple[float, float, float, float, float]:
    """Minimum-area rectangle around four corners: cx, cy, w, h, radians."""
    (x, y), (w, h), degrees = cv2.minAreaRect(quad.astype(np.float32))
    return x, y, w, h, np.radians(degrees)
