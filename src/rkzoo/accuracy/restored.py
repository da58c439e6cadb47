"""Ground truth and metrics of super-resolution and restoration: pictures in pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from rkzoo.accuracy.answers import Record
from rkzoo.accuracy.folders import pictures
from rkzoo.accuracy.metric import Metric
from rkzoo.accuracy.resampling import of_mean
from rkzoo.accuracy.truth_files import TruthFiles
from rkzoo.errors import RkzooError
from rkzoo.vision.image import read

F64 = NDArray[np.float64]
U8 = NDArray[np.uint8]
_GIVEN = ("lr", "LR", "noisy", "input")
_WANTED = ("hr", "HR", "clean", "gt")
_BEST = 100.0  # dB, of equal pictures, whose PSNR has no bound
# ITU-R BT.601 as MATLAB's rgb2ycbcr has it (16..235), by which super-resolution is measured.
_LUMA_BGR = np.array([24.966, 128.553, 65.481]) / 255


@dataclass(frozen=True)
class RestoreTruth(TruthFiles):
    """Ground truth: the picture that should be made of each."""

    def score(
        self, records: Sequence[Record], labels: tuple[str, ...], names: Sequence[str]
    ) -> tuple[Metric, ...]:
        """PSNR and SSIM, averaged over the pictures: of the luma without as many pixels at the
        border as the picture got larger where it did (as in https://arxiv.org/abs/1707.02921),
        else of the colours.

        Raises:
            RkzooError: A picture has another size than its truth.
        """
        if not records:
            return ()
        pairs = [_planes(record, file) for record, file in zip(records, self.files, strict=False)]
        luma = all(made.shape[2] == 1 for made, _ in pairs)
        ratios = [psnr(made, truth) for made, truth in pairs]
        likeness = [ssim(made, truth) for made, truth in pairs]
        name = "-Y" if luma else ""
        return (
            Metric(f"PSNR{name}", float(np.mean(ratios)), "dB", True, 0.5, True, of_mean(ratios)),
            Metric(f"SSIM{name}", float(np.mean(likeness)), "", True, 0.01),
        )


def psnr(made: F64, truth: F64) -> float:
    """Peak signal-to-noise ratio of two pictures (H, W, C) of 0..255, in dB; 100 at the most."""
    error = float(np.square(made - truth).mean())
    return min(_BEST, 10 * np.log10(255**2 / error)) if error else _BEST


def ssim(made: F64, truth: F64) -> float:
    """Structural similarity of two pictures (H, W, C) of 0..255, the mean over channels: windows of
    11x11, weighted by a Gaussian of 1.5 pixels, that lie inside
    (https://doi.org/10.1109/TIP.2003.819861). 1 where a picture is smaller than a window and both
    are equal, else 0."""
    if min(made.shape[:2]) < 11:
        return float((made == truth).all())
    kernel = cv2.getGaussianKernel(11, 1.5)

    def local(plane: F64) -> F64:
        blurred = cv2.sepFilter2D(plane, cv2.CV_64F, kernel, kernel)
        return np.asarray(blurred, np.float64).reshape(plane.shape)[5:-5, 5:-5]

    a, b = local(made), local(truth)
    aa, bb, ab = (local(x) for x in (made * made, truth * truth, made * truth))
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    above = (2 * a * b + c1) * (2 * (ab - a * b) + c2)
    below = (a * a + b * b + c1) * (aa - a * a + bb - b * b + c2)
    return float((above / below).mean())


def _planes(record: Record, file: Path) -> tuple[F64, F64]:
    """What was made and what was wanted, (H, W, 1) of luma or (H, W, 3) BGR."""
    truth = read(file)
    height, width = truth.shape[:2]
    pixels = record["pixels"]
    source = record["size"].tolist()
    scale = max(1, height // max(1, source[0]))
    if pixels.size != truth.size or [side * scale for side in source] != [height, width]:
        raise RkzooError(
            f"{file.name} is {width}x{height}, which is not what the model makes.",
            f"Its picture is {source[1]}x{source[0]}, and {pixels.size // 3:,} pixels were made.",
            "Give pairs of which the second is as many times larger as the model makes it.",
        )
    made = pixels.reshape(truth.shape)
    if scale == 1:
        return made.astype(np.float64), truth.astype(np.float64)
    inside = (slice(scale, -scale), slice(scale, -scale))
    planes = (np.rint(x[inside] @ _LUMA_BGR + 16)[..., None] for x in (made, truth))
    first, second = planes
    return first, second


def folders_of(path: Path, images: Path | None) -> tuple[Path, Path] | None:
    """Find (pictures, what should be made of them): `images` and the folder itself, or two
    subfolders, lr/ and hr/ or noisy/ and clean/. None where there is no such layout."""
    if not path.is_dir():
        return None
    if images is not None:
        return images, path
    pairs = [(path / given, path / wanted) for given in _GIVEN for wanted in _WANTED]
    return next((pair for pair in pairs if all(folder.is_dir() for folder in pair)), None)


def read_pairs(path: Path, images: Path | None) -> tuple[tuple[Path, ...], RestoreTruth]:
    """Read pictures that have another of the same name, or of the name without DIV2K's x2, x3 or
    x4. Raises RkzooError where there is none."""
    folders = folders_of(path, images)
    wanted = {file.stem: file for file in pictures(folders[1])} if folders else {}
    given = pictures(folders[0]) if folders else []
    pairs = [
        (file, wanted[stem])
        for file in given
        for stem in [file.stem if file.stem in wanted else file.stem[:-2]]
        if stem in wanted
    ]
    if not pairs:
        raise RkzooError(
            f"{path} has no pairs of pictures.",
            "A picture and what should be made of it have the same name in two folders.",
            "Give a folder with lr/ and hr/, or LARGE@SMALL.",
        )
    return tuple(file for file, _ in pairs), RestoreTruth(tuple(file for _, file in pairs))
