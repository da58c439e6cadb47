"""Ultralytics dataset format: images below images/, one label file each below labels/."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rkzoo.accuracy.folders import SUFFIXES, best_folder, pictures, subfolder
from rkzoo.accuracy.objects import Measure, ObjectTruth, Shape
from rkzoo.accuracy.oriented import OrientedTruth
from rkzoo.accuracy.tables import text_of, yaml_of
from rkzoo.errors import RkzooError

MAX_LABEL_BYTES = 16 << 20
_MOST_CLASSES = 100_000
_SPLITS = ("val", "test", "train")


@dataclass(frozen=True)
class YoloDataset:
    """Images, class names and keypoint shape, as given by the YAML file or the folder."""

    items: tuple[Path, ...]
    names: tuple[str, ...]
    points: tuple[int, int] | None = None


def is_yaml(path: Path) -> bool:
    """Whether the path is a YAML file."""
    return path.is_file() and path.suffix.lower() in {".yaml", ".yml"}


def is_folder(path: Path) -> bool:
    """Whether the folder has images/ and labels/."""
    return (path / "images").is_dir() and (path / "labels").is_dir()


def read(
    path: Path, images: Path | None, task: str
) -> tuple[tuple[Path, ...], ObjectTruth | OrientedTruth]:
    """Read images, sorted, and ground truth. Raises RkzooError where labels are missing or
    invalid.
    """
    layout = _from_yaml(path, images) if is_yaml(path) else _from_folder(path)
    labels = [label_file(item) for item in layout.items]
    if not any(label.is_file() for label in labels):
        raise RkzooError(
            f"None of the {len(labels)} pictures of {path} has a file of labels.",
            f"The first would be {labels[0] if labels else ''}.",
            "The labels lie in labels/, where images/ has the pictures.",
        )
    rows = [
        (number, row)
        for number, label in enumerate(labels)
        if label.is_file()
        for row in _rows(label)
    ]
    if not rows:
        raise RkzooError(
            f"The labels of {path} have no object.", "There is nothing to score.", "Check them."
        )
    reader = _READERS.get(task, _boxes)
    return layout.items, reader(rows, layout, path)


def label_file(item: Path) -> Path:
    """Label file of an image: .../images/val/1.jpg has .../labels/val/1.txt; without images/, the
    .txt is beside it.
    """
    parts = list(item.parts)
    if "images" in parts:
        parts[len(parts) - 1 - parts[::-1].index("images")] = "labels"
    return Path(*parts).with_suffix(".txt")


def _from_folder(path: Path) -> YoloDataset:
    root = path.absolute() / "images"
    for split in _SPLITS:
        some = [folder for folder in sorted(root.glob(f"{split}*")) if folder.is_dir()]
        if some:
            return YoloDataset(tuple(pictures(some[0])), ())
    return YoloDataset(tuple(pictures(root)), ())


def _from_yaml(path: Path, images: Path | None) -> YoloDataset:
    data = yaml_of(path)
    split = next((data[key] for key in _SPLITS if data.get(key)), None)
    parts = split if isinstance(split, list) else [split]
    if not all(isinstance(part, str) for part in parts):
        raise _bad(path, "It does not say with val where the pictures are.")
    base = path.absolute().parent
    stated_root = data.get("path")
    if images:
        root = images.absolute()
    elif isinstance(stated_root, str) and _stays(stated_root) and (base / stated_root).is_dir():
        root = base / stated_root
    else:
        # An absolute path of another computer, or Ultralytics' own datasets folder.
        root = base
    items = [item for part in parts for item in _items(root, str(part), path)]
    return YoloDataset(
        tuple(sorted(set(items))), _names(data.get("names"), path), _points(data, path)
    )


def _stays(name: str) -> bool:
    return not Path(name).is_absolute() and ".." not in Path(name).parts


def _items(root: Path, part: str, told_by: Path) -> list[Path]:
    # Some exporters write "../images" for a folder beside the YAML file.
    name = part.removeprefix("../")
    place = subfolder(root, name, told_by)
    if place.suffix.lower() == ".txt" and place.is_file():
        names = [line.strip() for line in text_of(place).splitlines() if line.strip()]
        _, paths = best_folder([place.parent], names, place)
        return paths
    if place.is_dir():
        return pictures(place)
    if any(path.suffix.lower() in SUFFIXES for path in root.glob("*")):
        return pictures(root)
    raise RkzooError(
        f"There is no {place}.",
        f"{told_by} names it as the place of the pictures.",
        f"Name the folder that has it: {told_by}@FOLDER.",
    )


def _names(value: Any, path: Path) -> tuple[str, ...]:
    if isinstance(value, dict):
        if not all(isinstance(key, int) and 0 <= key < _MOST_CLASSES for key in value):
            raise _bad(path, "The keys of its names are not numbers from 0.")
        return tuple(str(value.get(key, key)) for key in range(max(value, default=-1) + 1))
    return tuple(map(str, value)) if isinstance(value, list) else ()


def _points(data: dict[str, Any], path: Path) -> tuple[int, int] | None:
    shape = data.get("kpt_shape")
    if shape is None:
        return None
    if (
        not isinstance(shape, list)
        or len(shape) != 2
        or not all(isinstance(value, int) for value in shape)
        or not 1 <= shape[0] <= 1000
        or shape[1] not in (2, 3)
    ):
        raise _bad(path, "Its kpt_shape is not a number of points and 2 or 3.")
    return shape[0], shape[1]


def _rows(label: Path) -> list[list[float]]:
    """Numbers of each line, class first."""
    rows = []
    for number, line in enumerate(text_of(label, MAX_LABEL_BYTES).splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = [float(word) for word in line.split()]
        except ValueError:
            row = []
        kind = row[0] if row else -1
        if (
            len(row) < 5
            or not 0 <= kind < _MOST_CLASSES
            or kind != int(kind)
            or not all(-1 <= value <= 2 for value in row[1:])
        ):
            raise RkzooError(
                f"Line {number} of {label} is not understood.",
                "It must be a class number and then shares of the picture's width and height.",
                "Correct the line.",
            )
        rows.append(row)
    return rows


_Rows = Sequence[tuple[int, list[float]]]


def _boxes(rows: _Rows, layout: YoloDataset, path: Path) -> ObjectTruth:
    return _objects(rows, layout, [_box(row) for _, row in rows])


def _masks(rows: _Rows, layout: YoloDataset, path: Path) -> ObjectTruth:
    shapes: list[Shape] = []
    for _, row in rows:
        if len(row) >= 7 and len(row) % 2:
            shapes.append([row[1:]])
        else:
            x, y, w, h = _box(row)
            shapes.append([[x, y, x + w, y, x + w, y + h, x, y + h]])
    some = any(len(row) >= 7 for _, row in rows)
    measures: tuple[Measure, ...] = ("segm", "bbox") if some else ("bbox",)
    boxes = [_box(row) for _, row in rows]
    return _objects(rows, layout, boxes, measures=measures, shapes=tuple(shapes))


def _poses(rows: _Rows, layout: YoloDataset, path: Path) -> ObjectTruth:
    width = len(rows[0][1]) - 5
    points, values = layout.points or (width // 3, 3)
    if width != points * values or any(len(row) != 5 + width for _, row in rows):
        raise _bad(path, "Its labels do not all have the same number of key points.")
    if not points:
        return _boxes(rows, layout, path)
    flat = np.array([row[5:] for _, row in rows], np.float64).reshape(-1, points, values)
    marked = np.full((len(rows), points, 3), 2.0)
    marked[..., :values] = flat
    if values == 2:
        # A keypoint at 0, 0 is not labelled.
        marked[..., 2] *= (flat > 0).any(axis=2)
    boxes = [_centred(row) for _, row in rows]
    return _objects(rows, layout, boxes, measures=("keypoints", "bbox"), keypoints=marked)


def _oriented(rows: _Rows, layout: YoloDataset, path: Path) -> OrientedTruth:
    if any(len(row) != 9 for _, row in rows):
        raise _bad(path, "Its labels are not all a class and four corners.")
    names = _class_names(rows, layout)
    return OrientedTruth(
        picture=np.array([number for number, _ in rows], np.int64),
        category=np.array([int(row[0]) for _, row in rows], np.int64),
        quads=np.array([row[1:] for _, row in rows], np.float64).reshape(-1, 4, 2),
        names=names,
        ids=tuple(range(len(names))),
    )


_READERS: dict[str, Callable[[_Rows, YoloDataset, Path], ObjectTruth | OrientedTruth]] = {
    "segment": _masks,
    "pose": _poses,
    "obb": _oriented,
}


def _centred(row: Sequence[float]) -> tuple[float, float, float, float]:
    _, x, y, w, h = row[:5]
    return x - w / 2, y - h / 2, w, h


def _box(row: Sequence[float]) -> tuple[float, float, float, float]:
    """Left, top, width, height of a box, or of the bounding box of a polygon."""
    if len(row) < 7 or len(row) % 2 == 0:
        return _centred(row)
    x, y = row[1::2], row[2::2]
    return min(x), min(y), max(x) - min(x), max(y) - min(y)


def _class_names(rows: _Rows, layout: YoloDataset) -> tuple[str, ...]:
    most = int(max(row[0] for _, row in rows))
    return layout.names + tuple(str(number) for number in range(len(layout.names), most + 1))


def _objects(
    rows: _Rows, layout: YoloDataset, boxes: list[tuple[float, float, float, float]], **more: Any
) -> ObjectTruth:
    xywh = np.array(boxes, np.float64)
    names = _class_names(rows, layout)
    return ObjectTruth(
        picture=np.array([number for number, _ in rows], np.int64),
        category=np.array([int(row[0]) for _, row in rows], np.int64),
        xywh=xywh,
        area=xywh[:, 2] * xywh[:, 3],
        crowd=np.zeros(len(rows), bool),
        sizes=np.zeros((len(layout.items), 2), np.int64),
        names=names,
        ids=tuple(range(len(names))),
        relative=True,
        **more,
    )


def _bad(path: Path, why: str) -> RkzooError:
    return RkzooError(
        f"{path} cannot be used as truth.", why, "Correct the file, or choose other data."
    )
