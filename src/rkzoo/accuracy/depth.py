"""Depth estimation ground truth and metrics, computed after alignment of scale and shift."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rkzoo.accuracy.answers import Record
from rkzoo.accuracy.folders import check_size, pictures
from rkzoo.accuracy.metric import Metric
from rkzoo.accuracy.resampling import of_mean
from rkzoo.accuracy.truth_files import TruthFiles
from rkzoo.errors import RkzooError
from rkzoo.files import open_file, os_errors_explained, read_bytes

F64 = NDArray[np.float64]
_PICTURES = ("images", "rgb", "img")
_DEPTHS = ("depth", "depths", "gt")
_DELTA = 1.25


@dataclass(frozen=True)
class DepthTruth(TruthFiles):
    """Ground truth of depth. `files`: depth map of each image, in any unit; values that are 0 or
    not finite are unknown and not counted.
    """

    def score(
        self, records: Sequence[Record], labels: tuple[str, ...], names: Sequence[str]
    ) -> tuple[Metric, ...]:
        """AbsRel and delta < 1.25, averaged over the images with any known depth.

        Raises:
            RkzooError: a depth map differs in size from its image.
        """
        rows = [
            errors(_answer(record), truth, inverse="disparity" in record)
            for record, file in zip(records, self.files, strict=False)
            if (truth := _fitting(file, record)).any()
        ]
        if not rows:
            return ()
        relative, within = np.mean(rows, axis=0).tolist()
        return (
            Metric("delta<1.25", within, "", True, 0.01, True, of_mean([w for _, w in rows])),
            Metric("AbsRel", relative, "", False, 0.01),
        )


def errors(actual: F64, truth: F64, *, inverse: bool) -> tuple[float, float]:
    """AbsRel and share of pixels with delta < 1.25 of one image, after alignment.

    AbsRel = mean(|d - d*| / d*), delta = max(d / d*, d* / d), with true depth d* and predicted
    depth d, over the pixels with known depth (Eigen et al. 2014, https://arxiv.org/abs/1406.2283).
    The prediction is aligned by least-squares scale and shift, in inverse depth where it is that
    (Ranftl et al. 2020, https://arxiv.org/abs/1907.01341), then clipped to the cap, which is one
    per dataset there and the largest true depth of the image here, and to a thousandth of it.

    Args:
        actual: (H, W), depth up to scale and shift, or inverse depth.
        truth: (H, W) depth > 0, or 0 where unknown; at least one pixel is known.
        inverse: whether `found` is inverse depth.
    """
    known = truth > 0
    values, right = actual[known], truth[known]
    expected = 1 / right if inverse else right
    placed = _aligned(values, expected)
    largest = right.max()
    limits = (largest / 1000, largest)
    if inverse:
        depth = 1 / np.clip(placed, 1 / limits[1], 1 / limits[0])
    else:
        depth = np.clip(placed, *limits)
    ratio = np.maximum(depth / right, right / depth)
    return float((np.abs(depth - right) / right).mean()), float((ratio < _DELTA).mean())


def _aligned(values: F64, expected: F64) -> F64:
    """Least-squares scale * values + shift; the mean of `wanted` for constant values."""
    centred = values - values.mean()
    spread = float(centred @ centred)
    scale = float(centred @ (expected - expected.mean())) / spread if spread else 0.0
    return np.asarray(scale * centred + expected.mean())


def _answer(record: Record) -> F64:
    height, width = record["size"].tolist()
    steps = record["disparity" if "disparity" in record else "depth"]
    return steps.astype(np.float64).reshape(height, width)


def _fitting(file: Path, record: Record) -> F64:
    truth = read_depth(file)
    check_size(file, truth.shape, record["size"].tolist(), "depth map")
    return truth


def read_depth(path: Path) -> F64:
    """Read a depth map (H, W) float64 from a .npy or a 16-bit .png; 0 where unknown, not finite or
    negative. Raises RkzooError for another file.
    """
    values = _npy(path) if path.suffix.lower() == ".npy" else _png(path)
    if values is None or values.ndim != 2 or values.dtype.kind not in "fui":
        raise RkzooError(
            f"{path} is not a depth map.",
            "Depth is a .npy with one number a pixel, (height, width), or a grey .png of 16 bits.",
            "Write it with numpy.save.",
        )
    depth = values.astype(np.float64)
    return np.where(np.isfinite(depth) & (depth > 0), depth, 0.0)


def _npy(path: Path) -> NDArray[np.generic] | None:
    try:
        with os_errors_explained(f"{path} cannot be read."), open_file(path) as file:
            depth = np.load(file, allow_pickle=False)
    except (ValueError, EOFError):
        return None
    return depth if isinstance(depth, np.ndarray) else None


def _png(path: Path) -> NDArray[np.generic] | None:
    import cv2

    with os_errors_explained(f"{path} cannot be read."):
        data = np.frombuffer(read_bytes(path), np.uint8)
    depth = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if data.size else None
    return depth if depth is not None and depth.dtype == np.uint16 else None


def folders_of(path: Path, images: Path | None) -> tuple[Path, Path] | None:
    """Find (images, depth maps): `images` and the folder itself; two subfolders, images/ and
    depth/; or one folder of both, with matching names. None where there is no such layout.
    """
    if not path.is_dir():
        return None
    if images is not None:
        return images, path
    pairs = [(path / picture, path / other) for picture in _PICTURES for other in _DEPTHS]
    there = next((pair for pair in pairs if all(folder.is_dir() for folder in pair)), None)
    return there or ((path, path) if any(_pairs(path, path)) else None)


def read(path: Path, images: Path | None) -> tuple[tuple[Path, ...], DepthTruth]:
    """Read images that have a depth map of the same name. Raises RkzooError where there is none."""
    paths = folders_of(path, images)
    pairs = list(_pairs(*paths)) if paths else []
    if not pairs:
        raise RkzooError(
            f"{path} has no picture with its depth.",
            "Depth is a .npy or a .png of 16 bits that is called as its picture is.",
            "Give a folder with images/ and depth/, or DEPTHS@PICTURES.",
        )
    return tuple(picture for picture, _ in pairs), DepthTruth(tuple(file for _, file in pairs))


def _pairs(images: Path, depths: Path) -> Iterator[tuple[Path, Path]]:
    files = [file for file in sorted(depths.iterdir()) if file.suffix.lower() in (".npy", ".png")]
    # A .npy takes precedence over a .png of the same name.
    there = {file.stem: file for file in sorted(files, key=lambda file: file.suffix == ".npy")}
    for picture in pictures(images):
        depth = there.get(picture.stem)
        if depth is not None and depth != picture:
            yield picture, depth
