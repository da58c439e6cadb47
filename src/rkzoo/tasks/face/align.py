"""Face alignment for face recognition models such as ArcFace."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

# Eyes, nose and mouth corners in ArcFace's 112x112 template
# (https://arxiv.org/abs/1801.07698).
REFERENCE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655],
     [70.7299, 92.2041]]
)  # fmt: skip
_SIDE = 112


def aligned(image: NDArray[np.uint8], points: NDArray[Any], size: int = _SIDE) -> NDArray[np.uint8]:
    """Warp faces to the ArcFace template.

    Args:
        image: BGR (H, W, 3).
        points: (N, 5, 2) x, y in image pixels.
        size: side of the square result in pixels.

    Returns:
        uint8 (N, size, size, 3) BGR; black outside the image.
    """
    faces = np.zeros((len(points), size, size, 3), np.uint8)
    for face, five in zip(faces, points, strict=True):
        align(image, five, face)
    return faces


def align(image: NDArray[np.uint8], five: NDArray[Any], face: NDArray[np.uint8]) -> None:
    """As `aligned`, of one face with the points `five` (5, 2), into `face` (size, size, 3)."""
    size = len(face)
    matrix = similarity(five, REFERENCE * (size / _SIDE))
    cv2.warpAffine(image, matrix, (size, size), dst=face, flags=cv2.INTER_LINEAR)


def similarity(source: NDArray[Any], target: NDArray[Any]) -> NDArray[np.float64]:
    """Least-squares similarity transform (rotation, scale, translation; no reflection).

    Args:
        source, target: (K, 2) points. Coincident points are only translated.

    Returns:
        (2, 3) float64 matrix.
    """
    # With complex numbers, rotation and scale are one factor, and least squares is one division.
    a, b = (np.asarray(p, np.float64) @ np.array([1, 1j]) for p in (source, target))
    from_middle, to_middle = a - a.mean(), b - b.mean()
    power = float(np.vdot(from_middle, from_middle).real)
    factor = complex(np.vdot(from_middle, to_middle)) / power if power > 1e-12 else 1.0 + 0j
    shift = complex(b.mean()) - factor * complex(a.mean())
    return np.array(
        [[factor.real, -factor.imag, shift.real], [factor.imag, factor.real, shift.imag]]
    )
