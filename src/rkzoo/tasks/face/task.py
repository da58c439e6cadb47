"""A picture in, faces out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rkzoo.contract import Contract, FaceHead
from rkzoo.errors import RkzooError
from rkzoo.session import Session
from rkzoo.tasks.detect.result import Detections
from rkzoo.tasks.detect.task import DetectOptions
from rkzoo.tasks.face.decode import FaceDecoder
from rkzoo.tasks.face.result import Faces
from rkzoo.vision.letterbox import Letterbox, fit
from rkzoo.vision.nms import nms


class FaceDetector:
    """A RetinaFace, ready to run; made once, called for every picture."""

    def __init__(
        self, contract: Contract, session: Session, options: DetectOptions | None = None
    ) -> None:
        if not isinstance(contract.head, FaceHead):
            raise RkzooError(f"{contract.family} finds no faces.", code=1)
        self.contract, self.session = contract, session
        self.options = options or DetectOptions()
        self.decoder = FaceDecoder(contract.head, contract.input.size, session.outputs)
        height, width = contract.input.size
        self._canvas = np.empty((1, height, width, 3), np.uint8)

    def preprocess(self, image: NDArray[np.uint8]) -> tuple[list[NDArray[Any]], Letterbox]:
        """BGR (H, W, 3) to the session's inputs. The array is reused by the next call."""
        canvas, letterbox = fit(image, self.contract.input, self._canvas)
        return [canvas], letterbox

    def decode(self, outputs: Sequence[NDArray[Any]], letterbox: Letterbox) -> Faces:
        """The session's raw tensors to faces in source-image pixels."""
        options = self.options
        found = self.decoder.candidates(outputs, options.confidence)
        one = np.zeros(len(found.score), np.int32)
        kept = nms(found.boxes, found.score, one, options.iou, options.limit)
        best = found[kept]
        points = letterbox.to_source(best.points.reshape(-1, 2)).reshape(-1, 5, 2)
        boxes = letterbox.boxes_to_source(best.boxes)
        return Faces(Detections(boxes, best.score, one[kept], self.contract.labels), points)

    def __call__(self, image: NDArray[np.uint8]) -> Faces:
        arrays, letterbox = self.preprocess(image)
        return self.decode(self.session.run(arrays), letterbox)
