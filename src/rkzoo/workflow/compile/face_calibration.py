"""Aligned faces to calibrate a recognizer of faces with, cut from pictures with people."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from rkzoo.errors import RkzooError
from rkzoo.progress import SILENT, ProgressReporter
from rkzoo.runtime.onnx import OnnxSession
from rkzoo.tasks.face.align import aligned
from rkzoo.tasks.face.recognize import USUAL, face_detector
from rkzoo.vision.letterbox import with_channels
from rkzoo.workflow.request import calibration as calib
from rkzoo.workflow.request.resolve import resolve
from rkzoo.zoo.catalogue import cards
from rkzoo.zoo.schema import Card

Image = NDArray[np.uint8]
MOST = 200
"""Faces taken; more change the ranges little."""
_ALIGNED = 160
"""Pixels: square pictures up to this side are taken for aligned faces already."""


def pipeline_of(part: str) -> Card | None:
    """The pipeline whose recognizer of faces the card `part` is."""
    pipelines = (card for card in cards() if card.task == "face-recognition")
    return next((card for card in pipelines if card.pipeline.get("recognizer") == part), None)


def for_recognizer(
    pipeline: Card, pictures: calib.CalibrationImages, report: ProgressReporter = SILENT
) -> calib.CalibrationImages:
    """The faces that the pipeline's float detector finds on pictures, aligned; pictures that are
    aligned faces already stay as they are.

    Raises:
        RkzooError: No picture shows a face.
    """
    shapes = [image.shape[:2] for image in pictures.load()]
    if all(height == width <= _ALIGNED for height, width in shapes):
        return pictures
    opaque = (with_channels(picture, 3) for picture in pictures.load())
    faces = list(_faces_on(opaque, len(pictures), pipeline, report))
    if not faces:
        raise RkzooError(
            "The calibration pictures show no face.",
            "A recognizer of faces is calibrated with the faces that are found on them.",
            "Give pictures of people, or faces of 112x112 pixels that are aligned already.",
        )
    step = -(-len(faces) // MOST)
    return calib.from_arrays(faces[::step], pictures.names)


def _faces_on(
    pictures: Iterable[Image], count: int, pipeline: Card, report: ProgressReporter
) -> Iterator[Image]:
    ready = resolve(pipeline.pipeline["detector"], report=report)
    with OnnxSession(ready.graph().SerializeToString(), ready.contract.input) as session:
        detector = face_detector(ready.contract, session, USUAL)
        with report.task("Finding faces", count, unit="pictures") as bar:
            for done, picture in enumerate(pictures, 1):
                yield from aligned(picture, detector(picture).points)
                bar.update(done)
