"""Objects in pictures: boxes, masks and key points, scored as COCO does."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rkzoo.accuracy import answers, categories, rle
from rkzoo.accuracy.answers import Record
from rkzoo.accuracy.metric import Metric
from rkzoo.errors import RkzooError

F64 = NDArray[np.float64]
Measure = Literal["bbox", "segm", "keypoints"]
Shape = list[list[float]] | bytes
"""An outline: polygons x1, y1, x2, y2, ..., or a COCO mask code."""


@dataclass(frozen=True)
class Objects:
    """The truth of all pictures, one row an object.

    `picture` (N,) int64, ascending, the number of its picture; `category` (N,) int64 into
    `names`; `xywh` (N, 4), left, top, width, height; `area` (N,); `crowd` (N,) bool, a group
    that is neither hit nor miss; `shapes`, for each its outline, empty where there are none;
    `keypoints` (N, K, 3), x, y and 0 (not marked), 1 (hidden) or 2. In pixels, or where
    `relative` as shares of width and height. `sizes` (P, 2): height and width of the
    pictures, 0 where they are not known before the picture is read. `ids` are the
    categories' numbers in the file. `measures`: what is scored, the first is the main one.
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
        """Raises RkzooError when a model with these labels cannot be scored."""
        categories.match(self.names, self.ids, labels)

    def digest(self) -> bytes:
        """Of everything that the score depends on."""
        found = hashlib.sha256(repr((self.names, self.ids, self.measures, self.relative)).encode())
        for array in (self.picture, self.category, self.xywh, self.area, self.crowd, self.sizes):
            found.update(np.ascontiguousarray(array).tobytes())
        found.update(b"" if self.keypoints is None else self.keypoints.tobytes())
        for shape in self.shapes:
            found.update(repr(shape).encode())
        return found.digest()

    def score(
        self, records: Sequence[Record], labels: tuple[str, ...], names: Sequence[str]
    ) -> tuple[Metric, ...]:
        """Figures of the first len(records) pictures. `names` of the pictures, for errors.

        A figure that has nothing to count (no large object) is left out.
        """
        found: list[Metric] = []
        for number, measure in enumerate(self.measures):
            stats = coco_stats(self, records, labels, measure, names)
            title = _TITLES[measure] + " " if len(self.measures) > 1 else ""
            rows = _ROWS[measure] if number == 0 else _ROWS[measure][:3]
            found += [
                Metric(title + name, float(value), "", True, gate, main=number + place == 0)
                for place, ((name, gate), value) in enumerate(zip(rows, stats, strict=False))
                if value >= 0
            ]
        return tuple(found)


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
    truth: Objects,
    records: Sequence[Record],
    labels: tuple[str, ...],
    measure: Measure,
    names: Sequence[str] = (),
) -> F64:
    """COCO's twelve numbers (ten for key points) of the first len(records) pictures, in its
    order; -1 where there is nothing to count."""
    from faster_coco_eval.core.coco import COCO
    from faster_coco_eval.core.faster_eval_api import COCOeval_faster

    sizes = _sizes(truth, records, names)
    images = [
        {"id": number, "height": height, "width": width}
        for number, (height, width) in enumerate(sizes.tolist())
    ]
    kinds = [{"id": number, "name": name} for number, name in enumerate(truth.names)]
    class_of = categories.match(truth.names, truth.ids, labels)
    marked = COCO()
    marked.dataset = {
        "images": images,
        "categories": kinds,
        "annotations": _marked(truth, sizes, measure),
    }
    marked.createIndex()
    found = COCO()
    found.dataset = {
        "images": images,
        "categories": kinds,
        "annotations": _found(truth, records, sizes, class_of, measure),
    }
    found.createIndex()
    sigmas = _sigmas(truth) if measure == "keypoints" else None
    judge = COCOeval_faster(
        marked, found, measure, print_function=_quiet, kpt_oks_sigmas=sigmas, separate_eval=True
    )
    if not judge.params.catIds or not images:
        return np.full(len(_ROWS[measure]), -1.0)
    judge.evaluate()
    judge.accumulate()
    judge.summarize()
    return np.asarray(judge.all_stats, np.float64)[: len(_ROWS[measure])]


def _quiet(*_: object) -> None:
    pass


def _sigmas(truth: Objects) -> list[float] | None:
    """COCO's own for its 17 points; 1 / K for each of another number of points."""
    points = 0 if truth.keypoints is None else truth.keypoints.shape[1]
    return None if points == 17 else [1 / points] * points


def _sizes(truth: Objects, records: Sequence[Record], names: Sequence[str]) -> NDArray[np.int64]:
    """(R, 2): the sizes that the truth names, else those of the pictures that were read."""
    read = np.array([record["size"] for record in records], np.int64).reshape(-1, 2)
    named = truth.sizes[: len(read)]
    known = np.asarray((named > 0).all(axis=1), bool)
    # A picture that its EXIF turns has its sides exchanged; COCO has a few of them.
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
    return np.where(known[:, None], named, read)


def _marked(truth: Objects, sizes: NDArray[np.int64], measure: Measure) -> list[dict[str, Any]]:
    """The truth of the first len(sizes) pictures as the library wants it."""
    count = int(np.searchsorted(truth.picture, len(sizes)))
    picture = truth.picture[:count]
    scale = sizes[picture][:, ::-1] if truth.relative else np.ones((count, 2))
    xywh = truth.xywh[:count] * np.tile(scale, 2)
    area = truth.area[:count] * scale.prod(axis=1)
    found: list[dict[str, Any]] = [
        {
            "id": number,
            "image_id": image,
            "category_id": category,
            "bbox": box,
            "area": size,
            "iscrowd": int(crowd),
        }
        for number, (image, category, box, size, crowd) in enumerate(
            zip(
                picture.tolist(),
                truth.category[:count].tolist(),
                xywh.tolist(),
                area.tolist(),
                truth.crowd[:count].tolist(),
                strict=True,
            ),
            1,
        )
    ]
    if measure == "segm":
        for row, shape, factor, image in zip(
            found, truth.shapes, scale.tolist(), picture.tolist(), strict=False
        ):
            row["segmentation"] = _shape(shape, factor, sizes[image].tolist())
    if measure == "keypoints" and truth.keypoints is not None:
        points = truth.keypoints[:count] * np.insert(scale, 2, 1, axis=1)[:, None]
        seen = (points[..., 2] > 0).sum(axis=1).tolist()
        for row, flat, number in zip(found, points.reshape(count, -1).tolist(), seen, strict=True):
            row["keypoints"], row["num_keypoints"] = flat, number
    return found


def _shape(
    shape: Shape, factor: list[float], size: list[int]
) -> list[list[float]] | dict[str, Any]:
    if isinstance(shape, bytes):
        return {"size": size, "counts": shape}
    return [(np.reshape(part, (-1, 2)) * factor).ravel().tolist() for part in shape]


def _found(
    truth: Objects,
    records: Sequence[Record],
    sizes: NDArray[np.int64],
    class_of: NDArray[np.int64],
    measure: Measure,
) -> list[dict[str, Any]]:
    """The answers as the library wants them, those of classes that the data has."""
    if not records:
        return []
    category_of = _inverse(class_of, records)
    need = {"bbox": _box_rows, "segm": _mask_rows, "keypoints": _point_rows}[measure]
    rows: list[dict[str, Any]] = []
    for image, record in enumerate(records):
        category = category_of[record["class_id"]]
        kept = np.flatnonzero(category >= 0)
        start = len(rows) + 1
        rows += [
            {"id": number, "image_id": image, "category_id": kind, "score": score, **extra}
            for number, (kind, score, extra) in enumerate(
                zip(
                    category[kept].tolist(),
                    record["score"][kept].tolist(),
                    need(truth, record, kept, sizes[image].tolist()),
                    strict=True,
                ),
                start,
            )
        ]
    return rows


def _inverse(class_of: NDArray[np.int64], records: Sequence[Record]) -> NDArray[np.int64]:
    """For each class the category, -1 where the data has none."""
    most = max((int(r["class_id"].max()) for r in records if len(r["class_id"])), default=-1)
    found = np.full(max(most, int(class_of.max(initial=-1))) + 1, -1, np.int64)
    known = class_of >= 0
    found[class_of[known]] = np.flatnonzero(known)
    return found


def _box_rows(
    truth: Objects, record: Record, kept: NDArray[np.intp], size: list[int]
) -> list[dict[str, Any]]:
    xyxy = record["xyxy"][kept].astype(np.float64)
    side = xyxy[:, 2:] - xyxy[:, :2]
    boxes = np.concatenate((xyxy[:, :2], side), axis=1).tolist()
    areas = side.prod(axis=1).tolist()
    return [{"bbox": box, "area": area} for box, area in zip(boxes, areas, strict=True)]


def _mask_rows(
    truth: Objects, record: Record, kept: NDArray[np.intp], size: list[int]
) -> list[dict[str, Any]]:
    codes = answers.codes_of(record)
    rows = []
    for number in kept.tolist():
        lengths = rle.from_bytes(codes[number])
        if lengths.sum() != size[0] * size[1]:
            raise RkzooError(
                "A mask among the results has another size than its picture.",
                "The results were kept from another run.",
                "Delete them and start again.",
            )
        rows.append(
            {
                "segmentation": {"size": size, "counts": codes[number]},
                "area": float(rle.area(lengths)),
                "bbox": [0.0, 0.0, 0.0, 0.0],
            }
        )
    return rows


def _point_rows(
    truth: Objects, record: Record, kept: NDArray[np.intp], size: list[int]
) -> list[dict[str, Any]]:
    points = record["keypoints"][kept].astype(np.float64)
    wanted = 0 if truth.keypoints is None else truth.keypoints.shape[1]
    if len(kept) and points.shape[1] != wanted:
        raise RkzooError(
            f"The model finds {points.shape[1]} key points where the data marks {wanted}.",
            "They cannot be compared.",
            "Choose data with the same key points.",
        )
    if not len(kept):
        return []
    around = np.ptp(points[..., :2], axis=1)
    left_top = points[..., :2].min(axis=1)
    return [
        {"keypoints": flat, "bbox": box, "area": box[2] * box[3]}
        for flat, box in zip(
            points.reshape(len(points), -1).tolist(),
            np.concatenate((left_top, around), axis=1).tolist(),
            strict=True,
        )
    ]
