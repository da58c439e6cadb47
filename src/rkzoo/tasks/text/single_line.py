"""A picture that is one line of text already."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rkzoo.tasks.text.quads import Image
from rkzoo.tasks.text.read_line import LineReader
from rkzoo.tasks.text.result import TextLines


@dataclass(frozen=True)
class SingleLine:
    """Reads the whole picture, BGR uint8 (H, W, 3), as one line."""

    reader: LineReader

    def __call__(self, image: Image) -> TextLines:
        (reading,) = self.reader([image])
        if not reading.text:
            return TextLines.none()
        height, width = image.shape[:2]
        quad = np.array([[[0, 0], [width, 0], [width, height], [0, height]]], np.float32)
        one = np.ones(1, np.float32)
        score = np.array([reading.score], np.float32)
        return TextLines(quad, (reading.text,), score, one, np.zeros(1, np.int32))
