"""Key points from the outputs of a network that looks at one person."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
_BLUR = 11  # cells; of the Gaussian that the maps were trained with, as ViTPose publishes it
_SMALLEST, _LARGEST = 1e-3, 50.0  # of what the logarithm is taken


def from_bins(outputs: Sequence[F32], size: tuple[int, int]) -> F32:
    """Key points of SimCC: the best bin of each axis.

    https://arxiv.org/abs/2107.03332. Where neighbours are equal, as INT8 rounds them,
    their middle is taken.

    Args:
        outputs: (1, K, Bx) and (1, K, By) scores.
        size: (height, width) of the model's input in pixels.

    Returns:
        (K, 3) float32: x, y in pixels of the input, and the lesser of the two scores.
    """
    columns, rows = (array[0] for array in outputs)
    if columns.shape[1] * size[0] != rows.shape[1] * size[1]:
        columns, rows = rows, columns  # told apart by their lengths
    points = np.empty((len(columns), 3), np.float32)
    for axis, (bins, side) in enumerate(((columns, size[1]), (rows, size[0]))):
        points[:, axis] = _middle_of_best(bins) * (side / bins.shape[1])
    np.minimum(columns.max(axis=1), rows.max(axis=1), out=points[:, 2])
    return points


def _middle_of_best(bins: F32) -> NDArray[np.float64]:
    """The middle of the first run of best bins."""
    best, places = bins == bins.max(axis=1, keepdims=True), np.arange(bins.shape[1])
    first = best.argmax(axis=1)
    behind = ~best & (places > first[:, None])
    end = np.where(behind.any(axis=1), behind.argmax(axis=1), bins.shape[1])
    return np.asarray((first + end - 1) / 2)


def from_maps(maps: F32, size: tuple[int, int]) -> F32:
    """Key points of heat maps: the best cell, a quarter of a cell towards the higher neighbour, as
    https://arxiv.org/abs/1603.06937 and HRNet decode.

    Args:
        maps: (1, K, h, w).
        size: (height, width) of the model's input in pixels.

    Returns:
        (K, 3) float32: x, y in pixels of the input, and the value of the best cell.
    """
    maps, cells, values = _best_cells(maps)
    kept = np.arange(len(maps))
    for axis in (0, 1):
        last = maps.shape[2 - axis] - 1
        inside = np.flatnonzero((cells[:, axis] > 0) & (cells[:, axis] < last))
        step = np.eye(2, dtype=int)[axis]
        after, before = cells[inside].astype(int) + step, cells[inside].astype(int) - step
        index = kept[inside]
        slope = maps[index, after[:, 1], after[:, 0]] - maps[index, before[:, 1], before[:, 0]]
        cells[inside, axis] += 0.25 * np.sign(slope)
    scale = np.array([size[1] / maps.shape[2], size[0] / maps.shape[1]])
    return _joined(cells * scale, values)


def from_udp_maps(maps: F32, size: tuple[int, int]) -> F32:
    """Key points of heat maps that were made without bias: the peak of a parabola through the
    logarithm of the blurred map (DARK, https://arxiv.org/abs/1910.06278, as
    https://arxiv.org/abs/1911.07524 and ViTPose decode).

    Args:
        maps: (1, K, h, w).
        size: (height, width) of the model's input in pixels.

    Returns:
        (K, 3) float32: x, y in pixels of the input, and the value of the best cell.
    """
    maps, cells, values = _best_cells(maps)
    smooth = np.stack([_blurred(one) for one in maps])
    np.log(np.clip(smooth, _SMALLEST, _LARGEST, out=smooth), out=smooth)
    smooth = np.pad(smooth, ((0, 0), (1, 1), (1, 1)), mode="edge")
    index, (x, y) = np.arange(len(maps)), cells.astype(int).T + 1

    def at(right: int, down: int) -> NDArray[Any]:
        return np.asarray(smooth[index, y + down, x + right])

    middle = at(0, 0)
    dx, dy = (at(1, 0) - at(-1, 0)) / 2, (at(0, 1) - at(0, -1)) / 2
    dxx, dyy = at(1, 0) - 2 * middle + at(-1, 0), at(0, 1) - 2 * middle + at(0, -1)
    # The mixed derivative from the two diagonal neighbours, as UDP publishes it.
    dxy = (at(1, 1) - at(1, 0) - at(0, 1) + 2 * middle - at(-1, 0) - at(0, -1) + at(-1, -1)) / 2
    determinant = dxx * dyy - dxy * dxy
    bent = np.abs(determinant) > np.finfo(np.float32).eps
    safe = np.where(bent, determinant, 1)
    shift = np.stack([dxy * dy - dyy * dx, dxy * dx - dxx * dy], axis=1) / safe[:, None]
    cells += np.where(bent[:, None], shift, 0)
    scale = np.array([size[1] / (maps.shape[2] - 1), size[0] / (maps.shape[1] - 1)])
    return _joined(cells * scale, values)


def _best_cells(maps: F32) -> tuple[F32, NDArray[np.float64], F32]:
    """Maps (K, h, w), the x and y of the best cell of each (K, 2), and its value (K,)."""
    maps = maps[0]
    flat = maps.reshape(len(maps), -1)
    best = flat.argmax(axis=1)
    rows, columns = np.divmod(best, maps.shape[2])
    return maps, np.stack([columns, rows], axis=1).astype(np.float64), flat.max(axis=1)


def _blurred(plane: F32) -> F32:
    """A map after a Gaussian filter on zeros around it, its largest value as before."""
    border = _BLUR // 2
    wide = np.pad(plane, border)
    soft = cv2.GaussianBlur(wide, (_BLUR, _BLUR), 0)[border:-border, border:-border]
    most = soft.max()
    return np.asarray(soft * (plane.max() / most) if most > 0 else soft, np.float32)


def _joined(places: NDArray[Any], values: F32) -> F32:
    return np.concatenate([places, values[:, None]], axis=1).astype(np.float32)
