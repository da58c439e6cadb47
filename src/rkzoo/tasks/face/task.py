"""Detection of faces, or of license plates, with keypoints."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from rkzoo.contract.faces import CentreFaceHead, FaceHead
from rkzoo.contract.model import Contract
from rkzoo.errors import RkzooError
from rkzoo.session import Session
from rkzoo.tasks.detect.result import Detections
from rkzoo.tasks.detect.task import DetectOptions
from rkzoo.tasks.face.postprocess import CentreFaceDecoder, FaceDecoder
from rkzoo.tasks.face.result import Faces
from rkzoo.tasks.image_task import ImageTask
from rkzoo.vision.letterbox import Letterbox
from rkzoo.vision.nms import nms

R = TypeVar("R")


class KeypointTask(ImageTask[R]):
    """Base class of detectors with `count` keypoints per box. Construct once, call once per
    image.
    """

    count: int

    def __init__(
        self, contract: Contract, session: Session, options: DetectOptions | None = None
    ) -> None:
        super().__init__(contract, session)
        self.options = options or DetectOptions()
        self.decoder = self._decoder()

    def _decoder(self) -> FaceDecoder | CentreFaceDecoder:
        head, size, specs = self.contract.head, self.contract.input.size, self.session.outputs
        if isinstance(head, FaceHead) and head.points == self.count:
            return FaceDecoder(head, size, specs)
        if isinstance(head, CentreFaceHead) and self.count == 5:
            return CentreFaceDecoder(head, size, specs)
        raise RkzooError(f"{self.contract.family} finds nothing with {self.count} points.", code=1)

    def postprocess(self, outputs: Sequence[NDArray[Any]], letterbox: Letterbox) -> R:
        """Convert raw output tensors to the result, in source-image pixels."""
        options = self.options
        candidates = self.decoder.candidates(outputs, options.confidence)
        result = np.zeros(len(candidates.score), np.int32)
        kept = nms(candidates.boxes, candidates.score, result, options.iou, options.limit)
        best = candidates[kept]
        points = letterbox.to_source(best.points.reshape(-1, 2)).reshape(best.points.shape)
        boxes = letterbox.boxes_to_source(best.boxes)
        return self.answer(
            Detections(boxes, best.score, result[kept], self.contract.labels), points
        )

    @abstractmethod
    def answer(self, boxes: Detections, points: NDArray[np.float32]) -> R:
        """Build the result of boxes, best first, and points (N, count, 2) in source-image
        pixels.
        """


class FaceDetector(KeypointTask[Faces]):
    """Face detector, RetinaFace or CenterFace."""

    count = 5

    def answer(self, boxes: Detections, points: NDArray[np.float32]) -> Faces:
        return Faces(boxes, points)
