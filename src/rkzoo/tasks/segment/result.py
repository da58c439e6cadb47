"""Instance segmentation result: boxes, with one cropped mask each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rkzoo.tasks.collection import Rows, pick
from rkzoo.tasks.detect.result import BoxCollection, Detections, TrackIds

if TYPE_CHECKING:
    import supervision


@dataclass(frozen=True, slots=True)
class Masks(BoxCollection):
    """Objects with masks, best first.

    Attributes:
        boxes: the object boxes.
        corners: (N, 2) int32 x, y of the top-left pixel of each crop.
        crops: one mask per object, uint8 (h, w) of 0 and 1.
        size: (height, width) of the source image.
    """

    boxes: Detections
    corners: NDArray[np.int32]
    crops: tuple[NDArray[np.uint8], ...]
    size: tuple[int, int]

    def __post_init__(self) -> None:
        n = len(self.boxes)
        if self.corners.shape != (n, 2) or len(self.crops) != n:
            raise ValueError("corners must be (N, 2) and crops N, as many as boxes")
        height, width = self.size
        for (x, y), crop in zip(self.corners.tolist(), self.crops, strict=True):
            if crop.ndim != 2 or crop.dtype != np.uint8:
                raise ValueError("a crop must be uint8 (h, w)")
            h, w = crop.shape
            if crop.size and not (0 <= x <= width - w and 0 <= y <= height - h):
                raise ValueError("a crop must lie inside the picture")

    def _take(self, rows: Rows) -> Masks:
        return Masks(self.boxes[rows], self.corners[rows], pick(self.crops, rows), self.size)

    @property
    def masks(self) -> NDArray[np.bool_]:
        """Full-size masks, bool (N, H, W); same as `dense()`, computed on each access."""
        return self.dense()

    @property
    def polygons(self) -> list[list[NDArray[np.float32]]]:
        """Outer contours of each object, (P, 2) x, y each."""
        from rkzoo.vision.masks import outlines

        return [
            [np.array(line, np.float32).reshape(-1, 2) for line in outlines(corner, crop)]
            for corner, crop in zip(self.corners, self.crops, strict=True)
        ]

    def areas(self) -> NDArray[np.intp]:
        """Mask areas in pixels, (N,)."""
        return np.array([np.count_nonzero(crop) for crop in self.crops], np.intp)

    def dense(self) -> NDArray[np.bool_]:
        """Full-size masks, bool (N, H, W). Takes N times the memory of the image."""
        from rkzoo.vision.masks import dense

        return dense(self.corners, self.crops, self.size)

    def to_json(self) -> list[dict[str, Any]]:
        """The records of the boxes, each with `area` in pixels and `polygons`: outer contours as
        x1, y1, x2, y2, ...
        """
        from rkzoo.vision.masks import outlines

        masks = zip(self.areas().tolist(), self.corners, self.crops, strict=True)
        return [
            record | {"area": area, "polygons": outlines(corner, crop)}
            for record, (area, corner, crop) in zip(self.boxes.to_json(), masks, strict=True)
        ]

    def to_supervision(self) -> supervision.Detections:
        """Convert to supervision.Detections with masks (N, H, W)."""
        detections = self.boxes.to_supervision()
        detections.mask = self.dense()
        return detections

    def draw(self, image: NDArray[np.uint8], track_ids: TrackIds = None) -> NDArray[np.uint8]:
        """A copy of the BGR image with masks, boxes, names and scores, a color for each object, or
        for each track where `track_ids` (N,) are given."""
        from rkzoo.vision.draw import boxes, masks

        colors = self._colors(track_ids)
        painted = masks(image, self.corners, self.crops, colors)
        return boxes(painted, self.xyxy, self.boxes.captions(track_ids), colors)

    def lines(self) -> list[str]:
        """Text output for a terminal, one line per object."""
        return [
            f"{line}  {area} px"
            for line, area in zip(self.boxes.lines(), self.areas().tolist(), strict=True)
        ]


def masks_of(
    actual: Sequence[tuple[NDArray[np.uint8], float, int]],
    labels: tuple[str, ...],
    size: tuple[int, int],
) -> Masks:
    """Build `Masks` from full-size masks.

    Args:
        actual: (mask, score, class) each; masks are uint8 (H, W) of 0 and 1, none empty; scores are
            clipped to 0..1.
        labels: class names.
        size: (height, width) of the source image.
    """
    boxes = np.array([_around(mask) for mask, _, _ in actual], np.int32).reshape(-1, 4)
    crops = tuple(
        np.ascontiguousarray(mask[top:bottom, left:right])
        for (mask, _, _), (left, top, right, bottom) in zip(actual, boxes.tolist(), strict=True)
    )
    scores = np.clip(np.array([score for _, score, _ in actual], np.float32), 0, 1)
    classes = np.array([class_id for _, _, class_id in actual], np.int32)
    detections = Detections(boxes.astype(np.float32), scores, classes, labels)
    return Masks(detections, boxes[:, :2].copy(), crops, size)


def _around(mask: NDArray[np.uint8]) -> tuple[int, int, int, int]:
    """Bounding box of a mask: left, top, right, bottom, the last two exclusive."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
