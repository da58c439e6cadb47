"""Pictures with a map of classes each: what every pixel shows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rkzoo.accuracy.answers import Record, class_map
from rkzoo.accuracy.folders import check_size, digest_of, pictures
from rkzoo.accuracy.metric import Metric, confusion, mean_iou
from rkzoo.errors import RkzooError
from rkzoo.vision.maps import read_map

# Of PASCAL VOC, of Cityscapes, and as people name them.
_PICTURES = ("JPEGImages", "leftImg8bit", "images", "img")
_MAPS = ("SegmentationClass", "gtFine", "labels", "masks", "annotations")
_TRUTH = ("_gtFine_labelTrainIds", "_labelTrainIds", "_mask", "")
_PICTURE = "_leftImg8bit"
_VOID = 255


@dataclass(frozen=True)
class Maps:
    """`files`: for each picture the map of its classes; 255, and numbers that the model has
    not, are not counted."""

    files: tuple[Path, ...]

    def check(self, labels: tuple[str, ...]) -> None:
        """Any number of classes can be compared."""

    def digest(self) -> bytes:
        return digest_of(self.files)

    def score(
        self, records: Sequence[Record], labels: tuple[str, ...], names: Sequence[str]
    ) -> tuple[Metric, ...]:
        """The mean over the classes of intersection over union, and the share of right pixels,
        of all pictures together. Raises RkzooError for a map of another size than its picture."""
        if not records:
            return ()
        counts = np.zeros((_VOID, _VOID), np.int64)
        for record, file in zip(records, self.files, strict=False):
            counts += confusion(_fitting(file, record), class_map(record), _VOID)
        classes = len(labels) or _VOID
        counts[classes:] = 0  # truths that the model does not know are void
        right = float(np.trace(counts) / max(counts.sum(), 1))
        return (
            Metric("mIoU", mean_iou(counts), "", True, 0.01, main=True),
            Metric("pixel accuracy", right, "", True, 0.01),
        )


def _fitting(file: Path, record: Record) -> NDArray[np.uint8]:
    truth = read_map(file)
    check_size(file, truth.shape, record["size"].tolist(), "map")
    return truth


def folders_of(path: Path, images: Path | None) -> tuple[Path, Path] | None:
    """(pictures, maps): the folder of maps itself where the pictures' was named, else two folders
    in it, as VOC, Cityscapes and most others call them."""
    if not path.is_dir():
        return None
    if images is not None:
        return images, path
    pairs = ((path / a, path / b) for a, b in product(_PICTURES, _MAPS))
    for one, other in pairs:
        if one.is_dir() and any(file.suffix == ".png" for file in pictures(other)):
            return one, other
    return None


def read(path: Path, images: Path | None) -> tuple[tuple[Path, ...], Maps]:
    """Pictures that have a map, by the names of the files. Raises RkzooError for none."""
    found = folders_of(path, images)
    pairs = list(_pairs(*found)) if found else []
    if not pairs:
        raise RkzooError(
            f"{path} has no picture with a map of its classes.",
            "A map is a .png that is called as its picture is.",
            "Give a folder with images/ and labels/, or MAPS@PICTURES.",
        )
    return tuple(picture for picture, _ in pairs), Maps(tuple(file for _, file in pairs))


def _pairs(images: Path, maps: Path) -> Iterator[tuple[Path, Path]]:
    there = {file.stem: file for file in pictures(maps) if file.suffix.lower() == ".png"}
    for picture in pictures(images):
        stem = picture.stem.removesuffix(_PICTURE)
        named = next((stem + end for end in _TRUTH if stem + end in there), None)
        if named is not None and there[named] != picture:
            yield picture, there[named]
