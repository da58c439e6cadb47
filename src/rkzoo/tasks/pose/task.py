"""Pose estimation."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rkzoo.tasks.detect.postprocess import Candidates
from rkzoo.tasks.detect.task import HeadTask, promised
from rkzoo.tasks.pose.result import Poses
from rkzoo.vision.letterbox import Letterbox


class PoseEstimator(HeadTask[Poses]):
    """Pose estimator. Construct once, call once per image."""

    def answer(self, outputs: list[NDArray[Any]], kept: Candidates, letterbox: Letterbox) -> Poses:
        points = promised(self.decoder.extras(outputs, kept).keypoints, "key points")
        keypoints = np.ones((*points.shape[:2], 3), np.float32)
        keypoints[..., : points.shape[2]] = points
        keypoints[..., :2] = letterbox.to_source(points[..., :2])
        return Poses(self.boxes(kept, letterbox), keypoints)
