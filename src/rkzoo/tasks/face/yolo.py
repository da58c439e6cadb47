"""A picture in, faces out, of a YOLO with five key points."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from rkzoo.tasks.detect.postprocess import Candidates
from rkzoo.tasks.detect.task import HeadTask, promised
from rkzoo.tasks.face.result import Faces
from rkzoo.vision.letterbox import Letterbox


class YoloFaceDetector(HeadTask[Faces]):
    """A YOLOv5-face, YOLOv8-face or their like."""

    def answer(self, outputs: list[NDArray[Any]], kept: Candidates, letterbox: Letterbox) -> Faces:
        points = promised(self.decoder.extras(outputs, kept).keypoints, "key points")[..., :2]
        places = letterbox.to_source(points.reshape(-1, 2)).reshape(points.shape)
        return Faces(self.boxes(kept, letterbox), places)
