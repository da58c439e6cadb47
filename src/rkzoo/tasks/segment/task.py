"""Instance segmentation."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rkzoo.tasks.detect.postprocess import Candidates
from rkzoo.tasks.detect.task import HeadTask, promised
from rkzoo.tasks.segment.result import Masks
from rkzoo.vision.letterbox import Letterbox
from rkzoo.vision.masks import mask_crops


class Segmenter(HeadTask[Masks]):
    """Instance segmenter. Construct once, call once per image."""

    def answer(self, outputs: list[NDArray[Any]], kept: Candidates, letterbox: Letterbox) -> Masks:
        boxes = self.boxes(kept, letterbox)
        plane = promised(self.decoder.prototypes, "mask prototypes")
        coefficients = promised(
            self.decoder.extras(outputs, kept).coefficients, "mask coefficients"
        )
        corners, crops = mask_crops(
            plane.maps(outputs),
            np.ascontiguousarray(coefficients),
            boxes.xyxy,
            letterbox,
            plane.spec.scale,
            plane.spec.zero_point,
        )
        return Masks(boxes, corners, crops, letterbox.source)
