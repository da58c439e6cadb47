"""A picture in, the corners of its number plates out; and plates read."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rkzoo.tasks.detect.result import Detections
from rkzoo.tasks.face.task import PointTask
from rkzoo.tasks.plate.task import PlateReader
from rkzoo.tasks.text.detect_text import TextBoxes
from rkzoo.tasks.text.quads import Image, from_top_left
from rkzoo.tasks.text.read_line import Reading


class PlateDetector(PointTask[TextBoxes]):
    """Finds number plates as a text detector finds lines, so that what reads lines can read
    them: by their four corners, which straightens a plate that is seen from the side."""

    count = 4

    def answer(self, boxes: Detections, points: NDArray[np.float32]) -> TextBoxes:
        return TextBoxes(from_top_left(points), boxes.score)


def as_lines(reader: PlateReader, plates: Sequence[Image]) -> list[Reading]:
    """What stands on straightened plates, BGR (h, w, 3) each: a PlateReader in the place of a
    reader of lines."""
    read = map(reader.read, plates)
    return [Reading(text, score, len(text)) for text, score in read]
