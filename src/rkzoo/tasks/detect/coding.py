"""The four ways a box is written in a cell, all to x1, y1, x2, y2 in model pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from rkzoo.tasks.detect.planes import F32, Array, Cells, Plane, Stack, sigmoid


@dataclass(frozen=True)
class Grid:
    """Where the cells of a level lie: stride in pixels, columns, and the anchor's (w, h) in
    pixels where there is one. `activated`: the numbers passed a sigmoid in the graph."""

    stride: int
    columns: int
    bins: int = 1
    anchor: tuple[float, float] = (1.0, 1.0)
    activated: bool = True

    def corners(self, cells: Cells) -> F32:
        """(K, 2): x, y of the cells' top-left corners, in cells."""
        found = np.empty((len(cells), 2), np.float32)
        np.floor_divide(cells, self.columns, out=found[:, 1], casting="unsafe")
        np.subtract(cells, found[:, 1] * self.columns, out=found[:, 0], casting="unsafe")
        return found

    def strides(self, cells: Cells) -> F32:
        """Broadcasts against (K, n, 2)."""
        return np.full((1, 1, 1), self.stride, np.float32)

    def spread(self, size: tuple[int, int]) -> Spread:
        """The same, cell by cell, for an input of `size` (height, width)."""
        whole = Spread.over(size, [self.stride])
        count = len(whole.stride_of)
        anchors = np.broadcast_to(np.array(self.anchor, np.float32), (count, 2))
        return Spread(whole.corner, whole.stride_of, self.bins, anchors, self.activated)

    def sizes(self, cells: Cells) -> F32:
        """The anchors, (w, h) in pixels; broadcasts against (K, 2)."""
        return np.array(self.anchor, np.float32)


@dataclass(frozen=True)
class Spread:
    """The cells of all levels (or anchors) one after another: their corners (N, 2), strides
    (N,) and anchors (N, 2) where they have any."""

    corner: F32
    stride_of: F32
    bins: int = 1
    anchor_of: F32 | None = None
    activated: bool = True

    @classmethod
    def over(cls, size: tuple[int, int], strides: Sequence[int]) -> Spread:
        corners, widths = [], []
        for stride in strides:
            rows, columns = size[0] // stride, size[1] // stride
            y, x = np.divmod(np.arange(rows * columns), max(columns, 1))
            corners.append(np.stack((x, y), axis=1))
            widths.append(np.full(rows * columns, stride))
        if not corners:
            return cls(np.empty((0, 2), np.float32), np.empty(0, np.float32))
        return cls(
            np.concatenate(corners).astype(np.float32), np.concatenate(widths).astype(np.float32)
        )

    @classmethod
    def joined(cls, parts: Sequence[Spread]) -> Spread:
        """One after another."""
        anchors = [part.anchor_of for part in parts if part.anchor_of is not None]
        return cls(
            np.concatenate([part.corner for part in parts]),
            np.concatenate([part.stride_of for part in parts]),
            parts[0].bins,
            np.concatenate(anchors) if len(anchors) == len(parts) else None,
            parts[0].activated,
        )

    def corners(self, cells: Cells) -> F32:
        return self.corner.take(cells, axis=0)

    def strides(self, cells: Cells) -> F32:
        return self.stride_of.take(cells)[:, None, None]

    def sizes(self, cells: Cells) -> F32:
        return np.ones((1, 2), np.float32) if self.anchor_of is None else self.anchor_of[cells]

    def for_each(self, anchors: Sequence[tuple[float, float]], *, activated: bool) -> Spread:
        """These cells once for each anchor, one anchor after another."""
        count = len(anchors)
        return Spread(
            np.tile(self.corner, (count, 1)),
            np.tile(self.stride_of, count),
            anchor_of=np.repeat(np.array(anchors, np.float32), len(self.corner), axis=0),
            activated=activated,
        )


@lru_cache
def _steps(bins: int) -> F32:
    """(bins, 2): one product with it gives the sum of weights, and of weight times bin."""
    return np.column_stack((np.ones(bins), np.arange(bins))).astype(np.float32)


# exp of it, 64 times, is a float32 yet, and exp of its negative no denormal.
_SAFE = 80


def expectation(plane: Plane | Stack, stored: Array, bins: int) -> F32:
    """(K, 4 * bins) stored logits to (K, 4) distances l,t,r,b in cells: the expectation of
    the softmax, https://arxiv.org/abs/2006.04388, formula 3."""
    table = plane.exponents
    if table is not None:
        weights = table[stored.view(np.uint8)].reshape(-1, bins)
    else:
        logits = plane.values(stored).reshape(-1, bins)
        if logits.size and max(logits.max(), -logits.min()) > _SAFE:
            logits = logits - logits.max(axis=1, keepdims=True)
        weights = np.exp(logits)
    sums = weights @ _steps(bins)
    return np.asarray((sums[:, 1] / sums[:, 0]).reshape(-1, 4), np.float32)


def distances(plane: Plane | Stack, stored: Array, bins: int) -> F32:
    """(K, 4): l,t,r,b in cells, coded by DFL or plain."""
    return expectation(plane, stored, bins) if bins > 1 else plane.values(stored)


def from_distances(plane: Plane | Stack, stored: Array, cells: Cells, grid: Grid | Spread) -> F32:
    sides = distances(plane, stored, grid.bins)
    centre = grid.corners(cells) + np.float32(0.5)
    boxes = np.empty((len(cells), 4), np.float32)
    np.subtract(centre, sides[:, :2], out=boxes[:, :2])
    np.add(centre, sides[:, 2:], out=boxes[:, 2:])
    boxes *= grid.strides(cells)[:, 0]
    return boxes


def from_anchors(plane: Plane | Stack, stored: Array, cells: Cells, grid: Grid | Spread) -> F32:
    """xy = (2 p - 0.5 + cell) * stride, wh = (2 p)^2 * anchor, as YOLOv5 and YOLOv7."""
    p = plane.values(stored)
    p = 2 * (p if grid.activated else sigmoid(p))
    centre = (p[:, :2] - 0.5 + grid.corners(cells)) * grid.strides(cells)[:, 0]
    half = p[:, 2:] ** 2 * (grid.sizes(cells) / 2)
    return np.concatenate((centre - half, centre + half), axis=1)


def from_exponents(plane: Plane | Stack, stored: Array, cells: Cells, grid: Grid | Spread) -> F32:
    """xy = (p + cell) * stride, wh = exp(p) * stride, as YOLOX."""
    p = plane.values(stored)
    stride = grid.strides(cells)[:, 0]
    centre = (p[:, :2] + grid.corners(cells)) * stride
    half = np.exp(np.minimum(p[:, 2:], 20)) * (stride / 2)
    return np.asarray(np.concatenate((centre - half, centre + half), axis=1), np.float32)


Coding = Callable[[Plane | Stack, Array, Cells, Grid | Spread], F32]
CODINGS: dict[str, Coding] = {
    "dfl": from_distances,
    "distance": from_distances,
    "anchor": from_anchors,
    "exponent": from_exponents,
}


def rotated(sides: F32, angle: F32, cells: Cells, grid: Grid | Spread) -> F32:
    """(K, 5) cx, cy, w, h in model pixels and the angle in radians, clockwise on the screen.

    The centre lies off the cell's by half the difference of opposite sides, turned with the
    box (dist2rbox of Ultralytics, https://docs.ultralytics.com/tasks/obb).
    """
    offset = (sides[:, 2:] - sides[:, :2]) / 2
    cos, sin = np.cos(angle), np.sin(angle)
    centre = grid.corners(cells) + np.float32(0.5)
    boxes = np.empty((len(cells), 5), np.float32)
    boxes[:, 0] = centre[:, 0] + offset[:, 0] * cos - offset[:, 1] * sin
    boxes[:, 1] = centre[:, 1] + offset[:, 0] * sin + offset[:, 1] * cos
    boxes[:, 2:4] = sides[:, :2] + sides[:, 2:]
    boxes[:, :4] *= grid.strides(cells)[:, 0]
    boxes[:, 4] = angle
    return boxes
