"""The ways a box is written in a cell, all to x1, y1, x2, y2 in model pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np

from rkzoo.tasks.detect.planes import F32, Array, Cells, Stack, sigmoid


@dataclass(frozen=True)
class Grid:
    """Where cells lie, those of all levels (or anchors) one after another: their top-left
    corners (N, 2) in cells, their strides (N, 1) and anchors (w, h) (N, 2) in pixels.
    `activated`: the numbers passed a sigmoid in the graph. `offset`: where in its cell distances
    are measured from; `pixels`: they are in pixels, not in cells."""

    corner: F32
    stride: F32
    anchor: F32
    bins: int = 1
    activated: bool = True
    offset: float = 0.5
    pixels: bool = False

    @classmethod
    def of(
        cls,
        size: tuple[int, int],
        strides: Sequence[int],
        anchors: Sequence[tuple[float, float]] = ((1.0, 1.0),),
        bins: int = 1,
        *,
        activated: bool = True,
        offset: float = 0.5,
        pixels: bool = False,
    ) -> Grid:
        """The cells of an input of `size` (height, width), all of them once for each anchor. A
        cell that lies in it in part counts, as a convolution of that stride makes it."""
        corners, widths = [np.empty((0, 2))], [np.empty((0, 1))]
        for stride in strides:
            rows, columns = (-(-side // stride) for side in size)
            y, x = np.divmod(np.arange(rows * columns), max(columns, 1))
            corners.append(np.stack((x, y), axis=1))
            widths.append(np.full((rows * columns, 1), stride))
        corner = np.concatenate(corners).astype(np.float32)
        return cls(
            np.tile(corner, (len(anchors), 1)),
            np.tile(np.concatenate(widths).astype(np.float32), (len(anchors), 1)),
            np.repeat(np.array(anchors, np.float32), len(corner), axis=0),
            bins,
            activated,
            offset,
            pixels,
        )

    @classmethod
    def joined(cls, parts: Sequence[Grid]) -> Grid:
        """One after another."""
        return replace(
            parts[0],
            corner=np.concatenate([part.corner for part in parts]),
            stride=np.concatenate([part.stride for part in parts]),
            anchor=np.concatenate([part.anchor for part in parts]),
        )

    def __len__(self) -> int:
        return len(self.corner)

    # Precomputed, so that decoding a box costs one look-up and one sum or product.

    @cached_property
    def middles(self) -> F32:
        """(N, 4): in pixels, twice, the point of the cell that distances are measured from."""
        return np.tile((self.corner + np.float32(self.offset)) * self.stride, 2)

    @cached_property
    def middle_pixels(self) -> F32:
        """(N, 2): the middle pixel of the cell, where pixels are counted by their middles."""
        return np.asarray(self.corner * self.stride + (self.stride - 1) / 2)

    @cached_property
    def outward(self) -> F32:
        """(N, 4): pixels a unit of l, t, r, b."""
        unit = np.ones_like(self.stride) if self.pixels else self.stride
        return np.asarray(unit * np.array([-1, -1, 1, 1], np.float32))

    @cached_property
    def doubled(self) -> F32:
        """Twice the stride (for x and y), twice the anchor (for w and h): (N, 4)."""
        return np.asarray(np.concatenate((np.tile(self.stride * 2, 2), self.anchor * 2), axis=1))

    @cached_property
    def before(self) -> F32:
        """(corner - 0.5) * stride in pixels: (N, 2)."""
        return np.asarray((self.corner - np.float32(0.5)) * self.stride)


@lru_cache
def _steps(bins: int) -> F32:
    """Projection (bins, 2): weights times it gives their sum, and the sum of weight times bin."""
    return np.column_stack((np.ones(bins), np.arange(bins))).astype(np.float32)


# 64 * exp(80) still fits into float32, and exp(-80) is no denormal.
_SAFE = 80
# exp of more than this is a size that no picture has.
_MOST_LOG = 20


def expectation(plane: Stack, gathered: Array, cells: Cells, bins: int) -> F32:
    """DFL: the expectation of the softmax over bins, https://arxiv.org/abs/2006.04388, formula 3.

    Args:
        plane: the box tensors.
        gathered: (K, 4 * bins) logits as stored.
        cells: (K,) cell indices.
        bins: bins per side.

    Returns:
        (K, 4) distances l, t, r, b in cells.
    """
    if plane.coded:
        weights = plane.exponents(gathered, cells).reshape(-1, bins)
    else:
        logits = plane.values(gathered, cells).reshape(-1, bins)
        if logits.size and max(logits.max(), -logits.min()) > _SAFE:
            logits = logits - logits.max(axis=1, keepdims=True)
        weights = np.exp(logits)
    sums = weights @ _steps(bins)
    return np.asarray((sums[:, 1] / sums[:, 0]).reshape(-1, 4), np.float32)


def distances(plane: Stack, gathered: Array, cells: Cells, grid: Grid) -> F32:
    """Distances l, t, r, b in cells (K, 4), by DFL or plain."""
    if grid.bins > 1:
        return expectation(plane, gathered, cells, grid.bins)
    return plane.values(gathered, cells)


def from_distances(plane: Stack, gathered: Array, cells: Cells, grid: Grid) -> F32:
    return _around(distances(plane, gathered, cells, grid), cells, grid)


def from_logarithms(plane: Stack, gathered: Array, cells: Cells, grid: Grid) -> F32:
    """l,t,r,b = exp(p), as the large RTMDet."""
    return _around(np.exp(np.minimum(plane.values(gathered, cells), _MOST_LOG)), cells, grid)


def _around(sides: F32, cells: Cells, grid: Grid) -> F32:
    boxes = sides * grid.outward.take(cells, axis=0)
    boxes += grid.middles.take(cells, axis=0)
    return boxes


def from_anchors(plane: Stack, gathered: Array, cells: Cells, grid: Grid) -> F32:
    """Decode xy = (2 p - 0.5 + cell) * stride, wh = (2 p)^2 * anchor, as YOLOv5 and YOLOv7."""
    p = plane.values(gathered, cells)
    p = p if grid.activated else sigmoid(p)
    scaled = p * grid.doubled.take(cells, axis=0)
    centre = scaled[:, :2] + grid.before.take(cells, axis=0)
    half = scaled[:, 2:] * p[:, 2:]
    return np.concatenate((centre - half, centre + half), axis=1)


def from_exponents(plane: Stack, gathered: Array, cells: Cells, grid: Grid) -> F32:
    """Decode xy = (p + cell) * stride, wh = exp(p) * stride, as YOLOX."""
    p = plane.values(gathered, cells)
    stride = grid.stride.take(cells, axis=0)
    return _sized((p[:, :2] + grid.corner.take(cells, axis=0)) * stride, p, stride)


def from_middle_exponents(plane: Stack, gathered: Array, cells: Cells, grid: Grid) -> F32:
    """Decode xy = p * stride + middle pixel of the cell, wh = exp(p) * stride, as RTMO."""
    p = plane.values(gathered, cells)
    stride = grid.stride.take(cells, axis=0)
    return _sized(p[:, :2] * stride + grid.middle_pixels.take(cells, axis=0), p, stride)


def _sized(centre: F32, p: F32, stride: F32) -> F32:
    half = np.exp(np.minimum(p[:, 2:], _MOST_LOG)) * (stride / 2)
    return np.asarray(np.concatenate((centre - half, centre + half), axis=1), np.float32)


Coding = Callable[[Stack, Array, Cells, Grid], F32]
CODINGS: dict[str, Coding] = {
    "dfl": from_distances,
    "distance": from_distances,
    "log_distance": from_logarithms,
    "anchor": from_anchors,
    "exponent": from_exponents,
    "middle_exponent": from_middle_exponents,
}


def rotated(sides: F32, angle: F32, cells: Cells, grid: Grid) -> F32:
    """Decode rotated boxes (dist2rbox of Ultralytics, https://docs.ultralytics.com/tasks/obb).

    The offset from the cell centre is half the difference of opposite sides, rotated with the
    box.

    Args:
        sides: (K, 4) l, t, r, b in cells.
        angle: (K,) radians, clockwise on the screen.
        cells: (K,) cell indices.
        grid: all cells.

    Returns:
        (K, 5) cx, cy, w, h in model pixels and the angle.
    """
    offset = (sides[:, 2:] - sides[:, :2]) / 2
    cos, sin = np.cos(angle), np.sin(angle)
    centre = grid.corner.take(cells, axis=0) + np.float32(0.5)
    boxes = np.empty((len(cells), 5), np.float32)
    boxes[:, 0] = centre[:, 0] + offset[:, 0] * cos - offset[:, 1] * sin
    boxes[:, 1] = centre[:, 1] + offset[:, 0] * sin + offset[:, 1] * cos
    boxes[:, 2:4] = sides[:, :2] + sides[:, 2:]
    boxes[:, :4] *= grid.stride.take(cells, axis=0)
    boxes[:, 4] = angle
    return boxes
