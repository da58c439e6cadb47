"""Object detection, instance segmentation and pose ground truth, with COCO metrics."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rkzoo.accuracy import answers, categories, rle
from rkzoo.accuracy import average_precision as ap
from rkzoo.accuracy.answers import Record
from rkzoo.accuracy.metric import Metric
from rkzoo.accuracy.resampling import Resampled
from rkzoo.errors import RkzooError

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
Measure = Literal["bbox", "segm", "keypoints"]
Shape = list[list[float]] | bytes
"""A segmentation: polygons x1, y1, x2, y2, ..., or a COCO RLE code."""


@dataclass(frozen=True)
class ObjectTruth:
    """Ground truth of all images, one row per object. In pixels, or, where `relative`, as fractions
    of width and height.

    Attributes:
        picture: (N,) int64, ascending, index of the image.
        category: (N,) int64, index into `names`.
        xywh: (N, 4) left, top, width, height.
        area: (N,).
        crowd: (N,) bool, a group that counts neither as hit nor as miss.
        sizes: (P, 2) height and width of the images, 0 where unknown before the image is read.
        names, ids: category names, and their ids in the file.
        measures: what is evaluated; the first is the main one.
        shapes: segmentation of each object; empty where there are none.
        keypoints: (N, K, 3) x, y and visibility: 0 not labelled, 1 occluded, 2 visible.
        relative: see above.
    """

    picture: NDArray[np.int64]
    category: NDArray[np.int64]
    xywh: F64
    area: F64
    crowd: NDArray[np.bool_]
    sizes: NDArray[np.int64]
    names: tuple[str, ...]
    ids: tuple[int, ...]
    measures: tuple[Measure, ...] = ("bbox",)
    shapes: tuple[Shape, ...] = ()
    keypoints: F64 | None = None
    relative: bool = False

    def __len__(self) -> int:
        return len(self.picture)

    def check(self, labels: tuple[str, ...]) -> None:
        """Raise RkzooError when a model with these labels cannot be evaluated."""
        categories.match(self.names, self.ids, labels)

    def take(self, kept: Sequence[int]) -> ObjectTruth:
        """The ground truth of some of the items, in their order."""
        rows, picture = categories.rows_of(self.picture, kept)
        return replace(
            self,
            picture=picture,
            category=self.category[rows],
            xywh=self.xywh[rows],
            area=self.area[rows],
            crowd=self.crowd[rows],
            sizes=self.sizes[list(kept)],
            shapes=tuple(self.shapes[row] for row in rows) if self.shapes else (),
            keypoints=None if self.keypoints is None else self.keypoints[rows],
        )

    def digest(self) -> bytes:
        """Digest of everything that the metrics depend on."""
        hasher = hashlib.sha256(repr((self.names, self.ids, self.measures, self.relative)).encode())
        for array in (self.picture, self.category, self.xywh, self.area, self.crowd, self.sizes):
            hasher.update(np.ascontiguousarray(array).tobytes())
        hasher.update(b"" if self.keypoints is None else self.keypoints.tobytes())
        for shape in self.shapes:
            hasher.update(repr(shape).encode())
        return hasher.digest()

    def score(
        self, records: Sequence[Record], labels: tuple[str, ...], names: Sequence[str]
    ) -> tuple[Metric, ...]:
        """Compute the COCO metrics of the first len(records) images. `names` are image names, for
        errors.

        Metrics without anything to count (no large object, for example) are left out.
        """
        metrics: list[Metric] = []
        for number, measure in enumerate(self.measures):
            curves = coco_curves(self, records, labels, measure, names) if records else None
            stats = _SUMMARIES[measure](curves) if curves else ()
            resampled = Resampled(len(records), curves.resampled) if curves else None
            title = _TITLES[measure] + " " if len(self.measures) > 1 else ""
            rows = _ROWS[measure] if number == 0 else _ROWS[measure][:3]
            metrics += [
                Metric(
                    title + name,
                    float(value),
                    "",
                    True,
                    gate,
                    main=number + place == 0,
                    resampled=resampled if number + place == 0 else None,
                )
                for place, ((name, gate), value) in enumerate(zip(rows, stats, strict=False))
                if value >= 0
            ]
        return tuple(metrics)


_TITLES: dict[Measure, str] = {"bbox": "box", "segm": "mask", "keypoints": "keypoint"}

_MEAN = (("mAP50-95", 0.01), ("mAP50", 0.01), ("mAP75", 0.015))
_BOXES = (
    *_MEAN,
    ("mAP small", 0.02),
    ("mAP medium", 0.02),
    ("mAP large", 0.02),
    ("recall of the best", 0.02),
    ("recall of 10", 0.02),
    ("recall of 100", 0.02),
    ("recall small", 0.03),
    ("recall medium", 0.03),
    ("recall large", 0.03),
)
_POINTS = (
    *_MEAN,
    ("mAP medium", 0.02),
    ("mAP large", 0.02),
    ("recall", 0.02),
    ("recall50", 0.02),
    ("recall75", 0.02),
    ("recall medium", 0.03),
    ("recall large", 0.03),
)
_ROWS: dict[Measure, tuple[tuple[str, float], ...]] = {
    "bbox": _BOXES,
    "segm": _BOXES,
    "keypoints": _POINTS,
}


def coco_stats(
    truth: ObjectTruth,
    records: Sequence[Record],
    labels: tuple[str, ...],
    measure: Measure,
    names: Sequence[str] = (),
) -> F64:
    """COCO's twelve summary numbers (ten for keypoints) of the first len(records) images, in its
    order; -1 where there is nothing to count. Raises RkzooError where records and data do not
    match.
    """
    if not records:
        return np.full(len(_ROWS[measure]), -1.0)
    curves = coco_curves(truth, records, labels, measure, names)
    return np.array(_SUMMARIES[measure](curves), np.float64)


def coco_curves(
    truth: ObjectTruth,
    records: Sequence[Record],
    labels: tuple[str, ...],
    measure: Measure,
    names: Sequence[str] = (),
) -> ap.Curves:
    """Precision and recall of the first len(records) images. Raises RkzooError where records and
    data do not match."""
    sizes = _sizes(truth, records, names)
    some = _first(truth, sizes)
    predictions = _predictions(truth, records, labels)
    ignored = some.crowd
    if measure == "keypoints" and some.keypoints is not None:
        ignored = ignored | ~(some.keypoints[..., 2] > 0).any(axis=1)
    marked = ap.GroundTruths(some.picture, some.category, some.area, ignored, some.crowd)
    area, overlap = _MEASURES[measure](some, predictions, sizes)
    answered = ap.Predictions(predictions.picture, predictions.category, predictions.score, area)
    return ap.curves(marked, answered, overlap, len(truth.names), _PROTOCOLS[measure])


_ALL, _SMALL, _MEDIUM, _LARGE = (0.0, 1e10), (0.0, 32.0**2), (32.0**2, 96.0**2), (96.0**2, 1e10)
_OF_BOXES = ap.MatchProtocol((1, 10, 100), (_ALL, _SMALL, _MEDIUM, _LARGE))
_PROTOCOLS: dict[Measure, ap.MatchProtocol] = {
    "bbox": _OF_BOXES,
    "segm": _OF_BOXES,
    "keypoints": ap.MatchProtocol((20,), (_ALL, _MEDIUM, _LARGE)),
}


def _twelve(curves: ap.Curves) -> list[float]:
    return [
        *(curves.ap(iou=iou) for iou in (None, 0.5, 0.75)),
        *(curves.ap(area) for area in (1, 2, 3)),
        *(curves.ar(most=most) for most in (0, 1, 2)),
        *(curves.ar(area) for area in (1, 2, 3)),
    ]


def _ten(curves: ap.Curves) -> list[float]:
    return [
        *(curves.ap(iou=iou) for iou in (None, 0.5, 0.75)),
        *(curves.ap(area) for area in (1, 2)),
        *(curves.ar(iou=iou) for iou in (None, 0.5, 0.75)),
        *(curves.ar(area) for area in (1, 2)),
    ]


_SUMMARIES: dict[Measure, Callable[[ap.Curves], list[float]]] = {
    "bbox": _twelve,
    "segm": _twelve,
    "keypoints": _ten,
}


def _sizes(truth: ObjectTruth, records: Sequence[Record], names: Sequence[str]) -> I64:
    """Image sizes (R, 2), from the ground truth, else from the images."""
    read = np.array([record["size"] for record in records], np.int64).reshape(-1, 2)
    named = truth.sizes[: len(read)]
    known = np.asarray((named > 0).all(axis=1), bool)
    # An image rotated by EXIF has its sides swapped; COCO has a few of them.
    fits = (read == named).all(axis=1) | (read[:, ::-1] == named).all(axis=1)
    wrong = np.flatnonzero(known & ~fits)
    if len(wrong):
        first = int(wrong[0])
        (h, w), (height, width) = read[first].tolist(), named[first].tolist()
        name = names[first] if first < len(names) else f"number {first + 1}"
        raise RkzooError(
            f"The picture {name} is {w}x{h}, where the data says {width}x{height}.",
            "The boxes of the data belong to another version of the picture.",
            "Point at the original pictures: DATA@FOLDER.",
        )
    return np.asarray(np.where(known[:, None], named, read), np.int64)


def _first(truth: ObjectTruth, sizes: I64) -> ObjectTruth:
    """Ground truth of the first images, in pixels."""
    count = int(np.searchsorted(truth.picture, len(sizes)))
    some = replace(
        truth,
        picture=truth.picture[:count],
        category=truth.category[:count],
        xywh=truth.xywh[:count],
        area=truth.area[:count],
        crowd=truth.crowd[:count],
        shapes=truth.shapes[:count],
        keypoints=None if truth.keypoints is None else truth.keypoints[:count],
    )
    if not truth.relative:
        return some
    scale = sizes[some.picture][:, ::-1].astype(np.float64)
    points = some.keypoints
    return replace(
        some,
        xywh=some.xywh * np.tile(scale, 2),
        area=some.area * scale.prod(axis=1),
        keypoints=None if points is None else points * np.insert(scale, 2, 1, axis=1)[:, None],
        shapes=tuple(
            shape
            if isinstance(shape, bytes)
            else [(np.reshape(part, (-1, 2)) * factor).ravel().tolist() for part in shape]
            for shape, factor in zip(some.shapes, scale, strict=False)
        ),
        relative=False,
    )


@dataclass(frozen=True)
class _Predictions:
    """Detections of all images, restricted to classes of the dataset. `row` is the row in the
    concatenated records.
    """

    picture: I64
    category: I64
    score: F64
    row: I64
    records: Sequence[Record]

    def column(self, key: str) -> F64:
        """One array of the records, concatenated over all images."""
        # Records without objects may lack the number of keypoints.
        parts = [record[key] for record in self.records if len(record[key])]
        whole = np.concatenate(parts or [self.records[0][key]])
        return np.asarray(whole[self.row], np.float64)


def _predictions(
    truth: ObjectTruth, records: Sequence[Record], labels: tuple[str, ...]
) -> _Predictions:
    counts = [len(record["score"]) for record in records]
    picture = np.repeat(np.arange(len(records)), counts).astype(np.int64)
    classes = np.concatenate([np.zeros(0, np.int64), *(r["class_id"] for r in records)])
    score = np.concatenate([np.zeros(0), *(record["score"] for record in records)])
    class_of = categories.match(truth.names, truth.ids, labels)
    category = categories.of_classes(class_of, classes.astype(np.int64))
    row = np.flatnonzero((category >= 0) & np.isfinite(score))
    return _Predictions(picture[row], category[row], score[row], row.astype(np.int64), records)


Measured = tuple[F64, ap.Overlap]
"""Areas of the detections, and their overlap with the objects."""


def _boxes(truth: ObjectTruth, predictions: _Predictions, sizes: I64) -> Measured:
    xyxy = predictions.column("xyxy")
    side = xyxy[:, 2:] - xyxy[:, :2]
    start, stop = xyxy[:, :2], xyxy[:, :2] + side
    area = side.prod(axis=1)
    left, right = truth.xywh[:, :2], truth.xywh[:, :2] + truth.xywh[:, 2:]
    size = truth.xywh[:, 2:].prod(axis=1)

    def overlap(a: I64, b: I64) -> F64:
        common = np.minimum(stop[a], right[b]) - np.maximum(start[a], left[b])
        shared = np.maximum(common, 0).prod(axis=1)
        union = np.where(truth.crowd[b], area[a], area[a] + size[b] - shared)
        return np.asarray(np.divide(shared, union, out=np.zeros(len(a)), where=shared > 0), float)

    return area, overlap


def _masks(truth: ObjectTruth, predictions: _Predictions, sizes: I64) -> Measured:
    mask = _mask_library()
    codes = [code for record in predictions.records for code in answers.codes_of(record)]
    area = np.concatenate(
        [_mask_areas(record, size) for record, size in zip(predictions.records, sizes, strict=True)]
    )[predictions.row]
    coded = [
        {"size": sizes[picture].tolist(), "counts": codes[row]}
        for row, picture in zip(predictions.row.tolist(), predictions.picture.tolist(), strict=True)
    ]
    marked = [
        _marked_code(shape, *sizes[picture].tolist())
        for shape, picture in zip(truth.shapes, truth.picture.tolist(), strict=True)
    ]

    def overlap(a: I64, b: I64) -> F64:
        shared = np.zeros(len(a))
        # All objects of one detection at once.
        for some in np.split(np.arange(len(a)), np.flatnonzero(np.diff(a)) + 1):
            if len(some):
                objects = [marked[number] for number in b[some].tolist()]
                crowd = truth.crowd[b[some]].astype(int).tolist()
                shared[some] = np.ravel(mask.iou([coded[a[some[0]]]], objects, crowd))
        return shared

    return area, overlap


def _mask_areas(record: Record, size: I64) -> F64:
    """Area of each mask of an image. The codes come from a file: invalid ones must not reach the
    library.
    """
    try:
        inside, whole = rle.areas(record["rle"], record["rle_length"])
    except ValueError:
        inside, whole = np.zeros(0, np.int64), np.full(1, -1)
    if (whole != size.prod()).any():
        raise RkzooError(
            "A mask among the results has another size than its picture.",
            "The results were kept from another run.",
            "Delete them and start again.",
        )
    return inside.astype(np.float64)


def _mask_library() -> Any:
    """COCO's mask library, which defines how polygons are rasterized."""
    try:
        from faster_coco_eval.core import mask
    except ImportError as error:
        raise RkzooError(
            "Masks cannot be scored here.",
            "The package faster-coco-eval is not installed.",
            "Install it: pip install faster-coco-eval.",
        ) from error
    return mask


def _marked_code(shape: Shape, height: int, width: int) -> dict[str, Any]:
    if isinstance(shape, bytes):
        return {"size": [height, width], "counts": shape}
    mask = _mask_library()
    merged: dict[str, Any] = mask.merge(mask.frPyObjects(shape, height, width))
    return merged


def _points(truth: ObjectTruth, predictions: _Predictions, sizes: I64) -> Measured:
    points = predictions.column("keypoints")
    marked = truth.keypoints if truth.keypoints is not None else np.zeros((len(truth), 0, 3))
    if len(points) and points.shape[1] != marked.shape[1]:
        raise RkzooError(
            f"The model finds {points.shape[1]} key points where the data marks {marked.shape[1]}.",
            "They cannot be compared.",
            "Choose data with the same key points.",
        )
    count = marked.shape[1]
    sigmas = _SIGMAS if count == len(_SIGMAS) else np.full(count, 1 / max(count, 1))
    spread = (2 * sigmas) ** 2
    seen = np.asarray(marked[..., 2] > 0, bool)
    any_seen = np.asarray(seen.any(axis=1), bool)
    # An object without labelled keypoints matches detections within twice its box.
    low = truth.xywh[:, :2] - truth.xywh[:, 2:]
    high = truth.xywh[:, :2] + 2 * truth.xywh[:, 2:]
    around = np.ptp(points[..., :2], axis=1) if len(points) and count else np.zeros((0, 2))

    def overlap(a: I64, b: I64) -> F64:
        at = points[a][..., :2]
        beyond = np.maximum(low[b][:, None] - at, 0) + np.maximum(at - high[b][:, None], 0)
        away = np.where(any_seen[b][:, None, None], at - marked[b][..., :2], beyond)
        error = (away**2).sum(axis=2) / spread / (truth.area[b] + np.spacing(1))[:, None] / 2
        used = seen[b] | ~any_seen[b][:, None]
        total: F64 = (np.exp(-error) * used).sum(axis=1) / np.maximum(used.sum(axis=1), 1)
        return total

    return around.prod(axis=1), overlap


# COCO's OKS sigmas of its 17 keypoints, nose to ankles.
_SIGMAS = (
    np.array([26, 25, 25, 35, 35, 79, 79, 72, 72, 62, 62, 107, 107, 87, 87, 89, 89], np.float64)
    / 1000
)
_MEASURES: dict[Measure, Callable[[ObjectTruth, _Predictions, I64], Measured]] = {
    "bbox": _boxes,
    "segm": _masks,
    "keypoints": _points,
}
