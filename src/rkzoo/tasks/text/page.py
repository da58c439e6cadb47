"""Text recognition (OCR) pipeline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from rkzoo.errors import RkzooError
from rkzoo.tasks.text.classify_angle import AngleClassifier
from rkzoo.tasks.text.detect_text import TextBoxes
from rkzoo.tasks.text.quads import Image, crop
from rkzoo.tasks.text.read_line import LineReader, RecognizedText
from rkzoo.tasks.text.reading_order import reading_order
from rkzoo.tasks.text.result import TextLines


@dataclass(frozen=True)
class PageOptions:
    """Options of OCR. `confidence`: recognition threshold in 0..1, below which lines are
    dropped.
    """

    confidence: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.confidence <= 1:
            raise RkzooError(
                f"confidence is {self.confidence}.", "It must lie in 0..1.", "Give e.g. --conf 0.5."
            )


@dataclass(frozen=True)
class PageReader:
    """OCR pipeline: a detector of lines (or plates), an optional orientation classifier and a
    recognizer. Called with a BGR image, uint8 (H, W, 3), of any size.
    """

    detector: Callable[[Image], TextBoxes]
    reader: Callable[[Sequence[Image]], list[RecognizedText]]
    classifier: AngleClassifier | None = None
    options: PageOptions = field(default_factory=PageOptions)

    def __call__(self, image: Image) -> TextLines:
        return self.read(image, self.detector(image))

    def read(self, image: Image, boxes: TextBoxes) -> TextLines:
        """Recognize text in known boxes."""
        if not len(boxes):
            return TextLines.none()
        lines = [crop(image, quad) for quad in boxes.quads]
        angles = np.zeros(len(lines), np.int32)
        if self.classifier is not None:
            angles = self.classifier(lines)
        readings = self.reader(turned(lines, angles))
        scores = np.array([reading.score for reading in readings], np.float32)
        texts = tuple(reading.text for reading in readings)
        text_lines = TextLines(boxes.quads, texts, scores, boxes.scores, angles)
        has_text = np.array([bool(text.strip()) for text in texts])
        text_lines = text_lines[(scores >= self.options.confidence) & has_text]
        return text_lines[reading_order(text_lines.quads, text_lines.angles)]


def turned(lines: Sequence[Image], angles: Sequence[int] | np.ndarray) -> list[Image]:
    """Rotate lines whose angle is 180 degrees."""
    return [
        np.asarray(cv2.rotate(line, cv2.ROTATE_180), np.uint8) if angle == 180 else line
        for line, angle in zip(lines, angles, strict=True)
    ]


@dataclass(frozen=True)
class SingleLine:
    """Recognizes an image of one text line, without detection or threshold."""

    reader: LineReader

    def __call__(self, image: Image) -> TextLines:
        height, width = image.shape[:2]
        reading = self.reader([image])[0]
        corners = [[0, 0], [width, 0], [width, height], [0, height]]
        return TextLines(
            np.array([corners], np.float32),
            (reading.text,),
            np.array([reading.score], np.float32),
            np.ones(1, np.float32),
            np.zeros(1, np.int32),
        )
