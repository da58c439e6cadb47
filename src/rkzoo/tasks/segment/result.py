"""Instance masks: boxes, and for each a crop as large as it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rkzoo.tasks.detect.result import Detections

if TYPE_CHECKING:
    import supervision


@dataclass(frozen=True, slots=True)
class Masks:
    """Objects with their masks, in source-image pixels, best first.

    `boxes` as a detector gives them; `crops`, one uint8 (h, w) of 0 and 1 for each box;
    `corners` (N, 2) int32 x, y of their top left pixels; `size` (height, width) of the picture.
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

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, index: slice | NDArray[Any]) -> Masks:
        chosen = tuple(self.crops[i] for i in np.arange(len(self))[index])
        return Masks(self.boxes[index], self.corners[index], chosen, self.size)

    def areas(self) -> NDArray[np.intp]:
        """(N,) pixels in each mask."""
        return np.array([np.count_nonzero(crop) for crop in self.crops], np.intp)

    def dense(self) -> NDArray[np.bool_]:
        """(N, H, W): all masks at picture size, which takes N times the picture's memory."""
        from rkzoo.vision.masks import dense

        return dense(self.corners, self.crops, self.size)

    def to_json(self) -> list[dict[str, Any]]:
        """The records of the boxes, and with each `area` in pixels and `polygons`: its outer
        contours as x1, y1, x2, y2, ..."""
        from rkzoo.vision.masks import outlines

        masks = zip(self.areas().tolist(), self.corners, self.crops, strict=True)
        return [
            record | {"area": area, "polygons": outlines(corner, crop)}
            for record, (area, corner, crop) in zip(self.boxes.to_json(), masks, strict=True)
        ]

    def to_supervision(self) -> supervision.Detections:
        """The same as supervision.Detections with its masks (N, H, W)."""
        found = self.boxes.to_supervision()
        found.mask = self.dense()
        return found

    def draw(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A copy of the BGR picture with masks, boxes, names and scores."""
        from rkzoo.vision.draw import boxes, masks

        found = self.boxes.to_supervision()
        painted = masks(image, self.boxes.class_id, self.corners, self.crops)
        return boxes(painted, found, self.boxes.captions())

    def lines(self) -> list[str]:
        """What a terminal shows: one line an object."""
        return [
            f"{line}  {area} px"
            for line, area in zip(self.boxes.lines(), self.areas().tolist(), strict=True)
        ]
