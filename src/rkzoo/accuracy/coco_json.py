"""COCO JSON annotations."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np

from rkzoo.accuracy import rle
from rkzoo.accuracy.folders import best_folder
from rkzoo.accuracy.objects import Measure, ObjectTruth, Shape
from rkzoo.errors import RkzooError
from rkzoo.files import os_errors_explained, read_bytes

# instances_train2017.json has 450 MB.
MAX_BYTES = 1 << 30
# Coordinate limit; the cost of a polygon grows with its extent.
_FAR = 1e5

_Side = Annotated[int, msgspec.Meta(ge=0, le=100_000)]


class _Image(msgspec.Struct):
    id: int
    file_name: str
    height: _Side = 0
    width: _Side = 0


class _Category(msgspec.Struct):
    id: int
    name: str


class _Rle(msgspec.Struct):
    size: tuple[int, int]
    counts: str | list[int]


class _Annotation(msgspec.Struct):
    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float] | None = None
    area: float | None = None
    iscrowd: int = 0
    segmentation: list[list[float]] | _Rle | None = None
    keypoints: list[float] | None = None


class _Truth(msgspec.Struct):
    images: list[_Image]
    annotations: list[_Annotation]
    categories: list[_Category]


def read(path: Path, images: Path | None, task: str) -> tuple[tuple[Path, ...], ObjectTruth]:
    """Read images and ground truth, ordered by image id.

    Args:
        path: the JSON file.
        images: image folder; None tries the usual places beside the file.
        task: segment also evaluates masks, pose keypoints.

    Raises:
        RkzooError: no image is found, or the file is invalid.
    """
    truth = _decoded(path)
    listed = sorted({image.id: image for image in truth.images}.values(), key=lambda i: i.id)
    folder = path.absolute().parent
    places = [images] if images else _places(folder, path.stem)
    _, paths = best_folder(places, [image.file_name for image in listed], path)
    return tuple(paths), _objects(truth, listed, task, path)


def _places(folder: Path, stem: str) -> list[Path]:
    """Usual image folders of annotations/instances_val2017.json."""
    split = re.search(r"(train|val|test)\d*", stem)
    names = ["images", *([split[0], f"images/{split[0]}"] if split else []), "."]
    # Search the parent folder only from within annotations/.
    roots = [folder, *([folder.parent] if folder.name == "annotations" else [])]
    return [root / name for root in roots for name in names]


def _decoded(path: Path) -> _Truth:
    with os_errors_explained(f"{path} cannot be read."):
        if path.stat().st_size > MAX_BYTES:
            raise RkzooError(
                f"{path} is larger than {MAX_BYTES >> 30} GB.",
                "No COCO annotation file is so large.",
                "Give the annotations of the validation pictures.",
            )
        data = read_bytes(path)
    try:
        return msgspec.json.decode(data, type=_Truth, strict=False)
    except (msgspec.DecodeError, RecursionError) as error:
        raise RkzooError(
            f"{path} is not a COCO annotation file.",
            f"Reading it fails: {error}.",
            "It must have images, annotations and categories as COCO describes them.",
        ) from error


def _objects(truth: _Truth, images: Sequence[_Image], task: str, path: Path) -> ObjectTruth:
    place = {image.id: number for number, image in enumerate(images)}
    kinds = sorted({kind.id: kind for kind in truth.categories}.values(), key=lambda k: k.id)
    category = {kind.id: number for number, kind in enumerate(kinds)}
    rows = [note for note in truth.annotations if note.image_id in place]
    rows.sort(key=lambda note: place[note.image_id])
    unknown = next((note.category_id for note in rows if note.category_id not in category), None)
    if unknown is not None:
        raise _bad(path, f"An annotation has the category {unknown}, which is not listed.")
    if not rows:
        raise _bad(path, "The pictures have no object.")
    measures = _measures(rows, task, path)
    sizes = np.array([(i.height, i.width) for i in images], np.int64).reshape(-1, 2)
    boxes = [_box(note, path) for note in rows]
    return ObjectTruth(
        picture=np.array([place[note.image_id] for note in rows], np.int64),
        category=np.array([category[note.category_id] for note in rows], np.int64),
        xywh=np.array(boxes, np.float64),
        area=np.array(
            [
                box[2] * box[3] if note.area is None else note.area
                for note, box in zip(rows, boxes, strict=True)
            ],
            np.float64,
        ),
        crowd=np.array([note.iscrowd != 0 for note in rows], bool),
        sizes=sizes,
        names=tuple(kind.name for kind in kinds),
        ids=tuple(kind.id for kind in kinds),
        measures=measures,
        shapes=_shapes(rows, sizes, place, path) if "segm" in measures else (),
        keypoints=_points(rows, path) if "keypoints" in measures else None,
    )


_OF_TASK: dict[str, tuple[Measure, ...]] = {
    "segment": ("segm", "bbox"),
    "pose": ("keypoints", "bbox"),
}


def _measures(rows: Sequence[_Annotation], task: str, path: Path) -> tuple[Measure, ...]:
    requested = _OF_TASK.get(task, ("bbox",))
    has = {
        "bbox": True,
        "segm": any(note.segmentation for note in rows),
        "keypoints": any(note.keypoints for note in rows),
    }
    # Boxes are evaluated also where masks or keypoints are missing.
    return tuple(measure for measure in requested if has[measure])


def _box(note: _Annotation, path: Path) -> tuple[float, float, float, float]:
    if note.bbox is None:
        raise _bad(path, "An annotation has no box.")
    if note.bbox[2] < 0 or note.bbox[3] < 0 or max(map(abs, note.bbox)) > _FAR:
        raise _bad(path, f"An annotation has the box {list(note.bbox)}.")
    return note.bbox


def _shapes(
    rows: Sequence[_Annotation], sizes: Any, place: dict[int, int], path: Path
) -> tuple[Shape, ...]:
    of_row = sizes[[place[note.image_id] for note in rows]].tolist()
    return tuple(
        _shape(note, height, width, path)
        for note, (height, width) in zip(rows, of_row, strict=True)
    )


def _shape(note: _Annotation, height: int, width: int, path: Path) -> Shape:
    outline = note.segmentation
    if not height or not width:
        raise _bad(path, "A picture with masks has no height and width.")
    if isinstance(outline, _Rle):
        return _code(outline, height, width, path)
    parts = [part for part in outline or [] if len(part) >= 6]
    if any(len(part) % 2 or max(map(abs, part)) > _FAR for part in parts):
        raise _bad(path, "A polygon has an odd count of numbers, or lies far outside.")
    if parts:
        return parts
    # Without a segmentation, use the box.
    x, y, w, h = _box(note, path)
    return [[x, y, x + w, y, x + w, y + h, x, y + h]]


def _code(outline: _Rle, height: int, width: int, path: Path) -> bytes:
    counts = outline.counts
    try:
        lengths = (
            rle.from_bytes(counts.encode()) if isinstance(counts, str) else np.array(counts, int)
        )
    except (ValueError, OverflowError):
        lengths = np.zeros(0, np.int64)
    if (
        outline.size != (height, width)
        or (lengths < 0).any()
        or sum(lengths.tolist()) != height * width
    ):
        raise _bad(path, "A mask does not have the size of its picture.")
    return rle.to_bytes(lengths)


def _points(rows: Sequence[_Annotation], path: Path) -> Any:
    count = max(len(note.keypoints or ()) for note in rows)
    flat = [note.keypoints or [0.0] * count for note in rows]
    if count % 3 or any(len(points) != count for points in flat):
        raise _bad(path, "Annotations differ in their number of key points.")
    return np.array(flat, np.float64).reshape(len(rows), count // 3, 3)


def _bad(path: Path, why: str) -> RkzooError:
    return RkzooError(
        f"{path} cannot be used as truth.", why, "Correct the file, or choose other data."
    )
