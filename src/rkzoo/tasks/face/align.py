"""Faces turned upright and scaled alike, as recognisers such as ArcFace want them."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

# Where eyes, nose and corners of the mouth lie in ArcFace's 112x112 picture
# (https://arxiv.org/abs/1801.07698).
REFERENCE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655],
     [70.7299, 92.2041]]
)  # fmt: skip
_SIDE = 112


def aligned(image: NDArray[np.uint8], points: NDArray[Any], size: int = _SIDE) -> NDArray[np.uint8]:
    """BGR (H, W, 3) and points (N, 5, 2) in its pixels to (N, size, size, 3) uint8. What lies
    outside the picture is black."""
    faces = np.zeros((len(points), size, size, 3), np.uint8)
    for face, five in zip(faces, points, strict=True):
        matrix = similarity(five, REFERENCE * (size / _SIDE))
        cv2.warpAffine(image, matrix, (size, size), dst=face, flags=cv2.INTER_LINEAR)
    return faces


def similarity(source: NDArray[Any], target: NDArray[Any]) -> NDArray[np.float64]:
    """The 2x3 matrix of turning, scaling and moving that brings points (K, 2) nearest to others
    in the mean of squares. It never mirrors. Points that all fall together are only moved."""
    # In complex numbers turning and scaling are one factor, and least squares is one division.
    a, b = (np.asarray(p, np.float64) @ np.array([1, 1j]) for p in (source, target))
    from_middle, to_middle = a - a.mean(), b - b.mean()
    power = float(np.vdot(from_middle, from_middle).real)
    factor = complex(np.vdot(from_middle, to_middle)) / power if power > 1e-12 else 1.0 + 0j
    shift = complex(b.mean()) - factor * complex(a.mean())
    return np.array(
        [[factor.real, -factor.imag, shift.real], [factor.imag, factor.real, shift.imag]]
    )
