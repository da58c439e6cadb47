"""Poses of all people of a picture by one network and a classifier of coordinates: RTMO."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rkzoo.contract.model import Contract
from rkzoo.errors import RkzooError
from rkzoo.session import Session, dequantise
from rkzoo.tasks.detect.postprocess import Candidates
from rkzoo.tasks.detect.task import DetectOptions, HeadTask, promised
from rkzoo.tasks.pose.result import Poses
from rkzoo.vision.letterbox import Letterbox


class OneStagePose(HeadTask[Poses]):
    """Finds people, and makes the key points of each of its box, its pose vector and its cell.
    Construct once, call once per image.

    Args:
        contract, session: of the network, a head of `keypoint_values` 1.
        classifier: one person (x1, y1, x2, y2, score; the vector; visibilities; the middle of the
            cell, in pixels of the input) -> 1x1xKx3 x, y, visibility.
        options: thresholds.

    Raises:
        RkzooError: the parts do not belong together.
    """

    def __init__(
        self,
        contract: Contract,
        session: Session,
        classifier: Session,
        options: DetectOptions | None = None,
    ) -> None:
        super().__init__(contract, session, options)
        self._classifier = classifier
        widths = (5, self.head.coefficients, self.head.keypoints, 2)
        if tuple(spec.shape[-1] for spec in classifier.inputs) != widths:
            raise RkzooError(
                "The network and the classifier of coordinates do not belong together.",
                f"The network gives {', '.join(map(str, widths))} numbers of a person, and the "
                f"classifier takes {', '.join(str(s.shape[-1]) for s in classifier.inputs)}.",
                "Convert the model again with rkzoo convert.",
            )

    def answer(self, outputs: list[NDArray[Any]], kept: Candidates, letterbox: Letterbox) -> Poses:
        extras = self.decoder.extras(outputs, kept)
        tables = (
            np.concatenate((kept.boxes, kept.score[:, None]), axis=1),
            promised(extras.coefficients, "pose vectors"),
            promised(extras.keypoints, "visibilities")[..., 0],
            self.decoder.middle_pixels(kept),
        )
        points = np.empty((len(kept), self.head.keypoints, 3), np.float32)
        specs = self._classifier.inputs
        for row in range(len(kept)):
            fed = [
                np.asarray(table[row], np.float32).reshape(spec.shape)
                for table, spec in zip(tables, specs, strict=True)
            ]
            answer = dequantise(self._classifier.run(fed)[0], self._classifier.outputs[0])
            points[row] = answer.reshape(points.shape[1:])
        points[..., :2] = letterbox.to_source(points[..., :2])
        return Poses(self.boxes(kept, letterbox), points)
