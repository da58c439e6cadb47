"""Semantic segmentation ground truth and metrics."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rkzoo.accuracy.answers import Record, class_map
from rkzoo.accuracy.folders import check_size, pictures
from rkzoo.accuracy.metric import Metric, confusion_matrix, mean_iou
from rkzoo.accuracy.resampling import of_sums
from rkzoo.accuracy.truth_files import TruthFiles
from rkzoo.errors import RkzooError
from rkzoo.vision.maps import read_map

# Folder names of PASCAL VOC, Cityscapes and others.
_PICTURES = ("JPEGImages", "leftImg8bit", "images", "img")
_MAPS = ("SegmentationClass", "gtFine", "labels", "masks", "annotations")
_TRUTH = ("_gtFine_labelTrainIds", "_labelTrainIds", "_mask", "")
_PICTURE = "_leftImg8bit"
_VOID = 255


@dataclass(frozen=True)
class SegmentationTruth(TruthFiles):
    """Ground truth of semantic segmentation. `files`: class map of each image; 255, and classes
    that the model lacks, are not counted.
    """

    def score(
        self, records: Sequence[Record], labels: tuple[str, ...], names: Sequence[str]
    ) -> tuple[Metric, ...]:
        """Mean IoU and pixel accuracy over all images.

        Raises:
            RkzooError: a map differs in size from its image.
        """
        if not records:
            return ()
        counts = np.zeros((_VOID, _VOID), np.int64)
        classes = len(labels) or _VOID
        areas = []
        for record, file in zip(records, self.files, strict=False):
            of_picture = confusion_matrix(_fitting(file, record), class_map(record), _VOID)
            of_picture[classes:] = 0  # ground-truth classes that the model lacks are void
            counts += of_picture
            areas.append([np.diag(of_picture), of_picture.sum(axis=1), of_picture.sum(axis=0)])
        right = float(np.trace(counts) / max(counts.sum(), 1))
        return (
            Metric("mIoU", mean_iou(counts), "", True, 0.01, True, of_sums(areas, _mean_ious)),
            Metric("pixel accuracy", right, "", True, 0.01),
        )


def _mean_ious(areas: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean IoUs (R,) of the areas (R, 3, C) of each class: shared, true and found."""
    both, truth, found = np.moveaxis(areas, 1, 0)
    union = truth + found - both
    total = np.divide(both, union, out=np.zeros_like(both), where=union > 0).sum(axis=1)
    return np.asarray(total / (union > 0).sum(axis=1))


def _fitting(file: Path, record: Record) -> NDArray[np.uint8]:
    truth = read_map(file)
    check_size(file, truth.shape, record["size"].tolist(), "map")
    return truth


def folders_of(path: Path, images: Path | None) -> tuple[Path, Path] | None:
    """Find (images, maps): `images` and the folder itself, or two subfolders with the usual names.
    None where there is no such layout.
    """
    if not path.is_dir():
        return None
    if images is not None:
        return images, path
    pairs = ((path / a, path / b) for a, b in product(_PICTURES, _MAPS))
    for image_folder, map_folder in pairs:
        if image_folder.is_dir() and any(file.suffix == ".png" for file in pictures(map_folder)):
            return image_folder, map_folder
    return None


def read(path: Path, images: Path | None) -> tuple[tuple[Path, ...], SegmentationTruth]:
    """Read images that have a class map of the same name. Raises RkzooError where there is none."""
    paths = folders_of(path, images)
    pairs = list(_pairs(*paths)) if paths else []
    if not pairs:
        raise RkzooError(
            f"{path} has no picture with a map of its classes.",
            "A map is a .png that is called as its picture is.",
            "Give a folder with images/ and labels/, or MAPS@PICTURES.",
        )
    return tuple(picture for picture, _ in pairs), SegmentationTruth(
        tuple(file for _, file in pairs)
    )


def _pairs(images: Path, maps: Path) -> Iterator[tuple[Path, Path]]:
    there = {file.stem: file for file in pictures(maps) if file.suffix.lower() == ".png"}
    for picture in pictures(images):
        stem = picture.stem.removesuffix(_PICTURE)
        named = next((stem + end for end in _TRUTH if stem + end in there), None)
        if named is not None and there[named] != picture:
            yield picture, there[named]
