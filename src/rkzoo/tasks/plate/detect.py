"""License plate detection by corners, and reading of detected plates."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rkzoo.tasks.detect.result import Detections
from rkzoo.tasks.face.task import KeypointTask
from rkzoo.tasks.plate.task import PlateReader
from rkzoo.tasks.text.detect_text import TextBoxes
from rkzoo.tasks.text.quads import Image, from_top_left
from rkzoo.tasks.text.read_line import RecognizedText


class PlateDetector(KeypointTask[TextBoxes]):
    """License plate detector with the interface of a text detector. The four corners rectify a
    plate seen at an angle.
    """

    count = 4

    def answer(self, boxes: Detections, points: NDArray[np.float32]) -> TextBoxes:
        return TextBoxes(from_top_left(points), boxes.score)


def as_lines(reader: PlateReader, plates: Sequence[Image]) -> list[RecognizedText]:
    """Adapt a PlateReader to the interface of a text line recognizer.

    Args:
        reader: the plate reader.
        plates: rectified plates, BGR (h, w, 3).
    """
    read = map(reader.read, plates)
    return [RecognizedText(text, score, len(text)) for text, score in read]
