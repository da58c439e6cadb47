"""Factory of the text and license plate reading pipeline."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from rkzoo.contract.faces import FaceHead
from rkzoo.contract.model import Contract
from rkzoo.contract.text import PlateHead
from rkzoo.session import Session
from rkzoo.tasks.detect.task import DetectOptions
from rkzoo.tasks.plate.detect import PlateDetector, as_lines
from rkzoo.tasks.plate.task import PlateReader
from rkzoo.tasks.text.classify_angle import AngleClassifier
from rkzoo.tasks.text.detect_text import TextBoxes, TextDetector
from rkzoo.tasks.text.page import PageOptions, PageReader
from rkzoo.tasks.text.quads import Image
from rkzoo.tasks.text.read_line import LineReader, RecognizedText


def page_reader(
    parts: Mapping[str, tuple[Contract, Session]],
    page: PageOptions | None = None,
    options: DetectOptions | None = None,
) -> PageReader:
    """Create the pipeline of detector, recognizer and optional orientation classifier.

    Args:
        parts: contract and session by role: det, rec and optionally cls.
        page: thresholds of reading.
        options: thresholds of a license plate detector.
    """
    cls = AngleClassifier(*parts["cls"]) if "cls" in parts else None
    contract, session = parts["det"]
    finder: Callable[[Image], TextBoxes]
    if isinstance(contract.head, FaceHead):
        finder = PlateDetector(contract, session, options)
    else:
        finder = TextDetector(contract, session)
    contract, session = parts["rec"]
    reader: Callable[[Sequence[Image]], list[RecognizedText]]
    if isinstance(contract.head, PlateHead):
        reader = partial(as_lines, PlateReader(contract, session))
    else:
        reader = LineReader(contract, session)
    return PageReader(finder, reader, cls, page or PageOptions())
