"""What was found, in the files that other tools read: YOLO's text files and COCO's results.

YOLO text is what Ultralytics writes with save_txt: a line an object, its class and then shares of
the picture's width and height: cx cy w h; of a mask its outline x1 y1 x2 y2 ...; of a pose the box
and x y visibility a point; of a turned box its four corners.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from shutil import copyfileobj
from tempfile import TemporaryFile
from typing import Any

import numpy as np

from rkzoo.contract.model import Contract
from rkzoo.errors import RkzooError
from rkzoo.files import atomic_output, check_folder, write_text
from rkzoo.json_values import json_text
from rkzoo.tasks.obb.result import OrientedBoxes
from rkzoo.tasks.pose.result import Poses
from rkzoo.tasks.registry import spec_of
from rkzoo.tasks.segment.result import Masks
from rkzoo.workflow.inference.model import Result
from rkzoo.workflow.inference.plan import Plan

Export = Callable[[Result, Path], None]
"""Takes a result, and the picture's file."""

_TASKS = ("detect", "segment", "pose", "obb")


@contextmanager
def exports(
    planned: Plan, *, txt: Path | None, json: Path | None, confidences: bool = False
) -> Iterator[Export]:
    """What writes the results of a run, and is done at the end of the block.

    Args:
        planned: what is run.
        txt: folder of YOLO's text files, one a picture, called after it.
        json: file of COCO's results, for pycocotools' `loadRes`.
        confidences: whether a line of text ends with the confidence.

    Raises:
        RkzooError: the model finds no objects, or nothing can be written there.
    """
    contract = next(iter(planned.parts.values())).answers
    if (txt or json) and spec_of(planned.head).name not in _TASKS:
        raise RkzooError(
            f"{'--save-txt' if txt else '--save-json'} does not go with this model.",
            f"These files hold objects, as models of {', '.join(_TASKS)} find them.",
            "Leave it out, or use --json.",
        )
    with ExitStack() as stack:
        every = []
        if txt:
            check_folder(txt)
            every.append(_yolo(txt, confidences))
        if json:
            every.append(stack.enter_context(_coco(json, _category_ids(contract))))

        def export(result: Result, file: Path) -> None:
            for one in every:
                one(result, file)

        yield export


# ---- YOLO -----------------------------------------------------------------------------


def _stems() -> Callable[[Path], str]:
    """Names files without their suffix; a second x becomes x-1, as its drawn picture does."""
    taken: set[str] = set()

    def name(file: Path) -> str:
        stem, number = file.stem, 0
        while stem in taken:
            number += 1
            stem = f"{file.stem}-{number}"
        taken.add(stem)
        return stem

    return name


def _yolo(folder: Path, confidences: bool) -> Export:
    name = _stems()

    def write(result: Result, file: Path) -> None:
        stem = name(file)
        lines = "".join(f"{line}\n" for line in yolo_lines(result, confidences))
        write_text(folder / f"{stem}.txt", lines)

    return write


def yolo_lines(result: Result, confidences: bool = False) -> list[str]:
    """A line for each object of a result of detection, segmentation, pose or oriented boxes."""
    found: Any = result.prediction
    height, width = result.image.shape[:2]
    scale = np.array([width, height], np.float64)
    lines = []
    for index, (kind, score) in enumerate(zip(found.class_ids, found.scores, strict=True)):
        numbers = _shares(found, index, scale)
        if numbers is None:
            continue
        words = [*numbers, *([float(score)] if confidences else [])]
        lines.append(" ".join([str(int(kind)), *(f"{word:.6g}" for word in words)]))
    return lines


def _shares(found: Any, index: int, scale: np.ndarray[Any, Any]) -> list[float] | None:
    if isinstance(found, OrientedBoxes):
        corners: list[float] = (found[index].quads()[0] / scale).ravel().tolist()
        return corners
    if isinstance(found, Masks):
        # One outline an object: the longest, where a mask has several parts.
        outlines = found[index].polygons[0]
        if not outlines:
            return None
        outline: list[float] = (max(outlines, key=len) / scale).ravel().tolist()
        return outline
    first, last = found.xyxy[index].reshape(2, 2) / scale
    box: list[float] = [*((first + last) / 2).tolist(), *(last - first).tolist()]
    if isinstance(found, Poses):
        points = found.keypoints[index] / np.array([*scale, 1.0])
        box += points.ravel().tolist()
    return box


# ---- COCO -----------------------------------------------------------------------------


def _category_ids(contract: Contract) -> Callable[[int], int]:
    """COCO's own ids for COCO's 80 classes, 1 and on for others."""
    from rkzoo.accuracy.categories import COCO_IDS, normalize_name
    from rkzoo.zoo.labels import label_set

    def names(labels: tuple[str, ...]) -> list[str]:
        return [normalize_name(label) for label in labels]

    if names(contract.labels) == names(label_set("coco80")):
        return lambda kind: COCO_IDS[kind]
    return lambda kind: kind + 1


@contextmanager
def _coco(path: Path, category: Callable[[int], int]) -> Iterator[Export]:
    check_folder(path.parent)
    if path.is_dir():
        raise RkzooError(f"{path} is a folder.", "COCO's results are one file.", "Name a file.")
    # Aside until the end: an error of the run is none of this file.
    with TemporaryFile("w+", encoding="utf-8") as out:
        before, name = "[\n", _stems()

        def write(result: Result, file: Path) -> None:
            nonlocal before
            for record in coco_records(result, name(file), category):
                out.write(before + json_text(record))
                before = ",\n"

        yield write
        out.write("[]\n" if before == "[\n" else "\n]\n")
        out.seek(0)
        with atomic_output(path) as temporary, temporary.open("w", encoding="utf-8") as target:
            copyfileobj(out, target)


def coco_records(
    result: Result, stem: str, category: Callable[[int], int]
) -> Iterator[dict[str, Any]]:
    """A record for each object, as COCO's format of results has it; `image_id` is the file's name
    without its suffix, as a number where it is one."""
    from rkzoo.accuracy import rle

    found: Any = result.prediction
    image_id = int(stem) if stem.isascii() and stem.isdigit() else stem
    for index, (box, kind, score) in enumerate(
        zip(found.xyxy.tolist(), found.class_ids, found.scores, strict=True)
    ):
        record: dict[str, Any] = {
            "image_id": image_id,
            "category_id": category(int(kind)),
            "bbox": [round(v, 4) for v in (box[0], box[1], box[2] - box[0], box[3] - box[1])],
            "score": round(float(score), 6),
        }
        if isinstance(found, Masks):
            x, y = found.corners[index].tolist()
            code = rle.encode(found.crops[index], (x, y), found.size)
            record["segmentation"] = {"size": list(found.size), "counts": code.decode("ascii")}
        elif isinstance(found, OrientedBoxes):
            corners = found[index].quads()[0].ravel().tolist()
            record["segmentation"] = [[round(v, 4) for v in corners]]
        elif isinstance(found, Poses):
            record["keypoints"] = [round(v, 4) for v in found.keypoints[index].ravel().tolist()]
        yield record
