"""Faces in a picture, and whose they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rkzoo.contract.detect import DetectHead
from rkzoo.contract.faces import CentreFaceHead, FaceHead, FaceRecognitionHead
from rkzoo.contract.model import Contract
from rkzoo.contract.vector import VectorHead
from rkzoo.errors import RkzooError
from rkzoo.session import Session
from rkzoo.tasks.detect.result import Detections
from rkzoo.tasks.detect.task import DetectOptions
from rkzoo.tasks.face.align import align
from rkzoo.tasks.face.known import KnownFaces, known_faces
from rkzoo.tasks.face.result import Faces, RecognizedFaces
from rkzoo.tasks.face.task import FaceDetector
from rkzoo.tasks.face.yolo import YoloFaceDetector
from rkzoo.tasks.spec import TaskOptions, TaskParts
from rkzoo.tasks.vector.task import Measurer, unit

Image = NDArray[np.uint8]
UNKNOWN = "unknown"
USUAL = DetectOptions(confidence=0.5)
_SURE = 0.8  # of the best score of a picture
"""Thresholds where none are given: what is hardly a face has no embedding worth comparing."""


class FaceRecognizer:
    """Finds faces, aligns each by its five points and compares its embedding with known ones.
    Construct once, call once per image.

    Args:
        detector: BGR picture to faces.
        recognizer: An aligned face, BGR, to its embedding.
        threshold: Cosine from which on two faces are one person's.
        known: Faces with names; None to give embeddings only.
    """

    def __init__(
        self,
        detector: Callable[[Image], Faces],
        recognizer: Measurer,
        threshold: float,
        known: KnownFaces | None = None,
    ) -> None:
        self._detector, self._recognizer = detector, recognizer
        self._threshold, self._known = threshold, known
        width = recognizer.head.size
        if known is not None and known.embeddings.shape[1] != width:
            raise RkzooError(
                "The known faces are of another model.",
                f"Their embeddings have {known.embeddings.shape[1]} numbers, this model's {width}.",
                code=1,
            )

    def __call__(self, image: Image) -> RecognizedFaces:
        """BGR (H, W, 3) to its faces, best first."""
        faces = self._detector(image)
        embeddings = embedded(self._recognizer, image, faces)
        if self._known is None:
            return RecognizedFaces(faces.boxes, faces.points, embeddings)
        person, cosine = self._known.nearest(embeddings)
        labels = (*self._known.persons, UNKNOWN)
        class_id = np.where(cosine >= self._threshold, person, len(labels) - 1).astype(np.int32)
        boxes = Detections(faces.boxes.xyxy, faces.boxes.score, class_id, labels)
        return RecognizedFaces(boxes, faces.points, embeddings, cosine)


def embedded(recognizer: Measurer, image: Image, faces: Faces) -> NDArray[np.float32]:
    """Embeddings (N, D) of length 1 of the faces of a BGR picture, aligned one at a time."""
    rows = np.empty((len(faces), recognizer.head.size), np.float32)
    face = np.empty((*recognizer.contract.input.size, 3), np.uint8)
    for row, points in zip(rows, faces.points, strict=True):
        align(image, points, face)
        row[:] = unit(recognizer(face).values)
    return rows


def face_recognizer(parts: TaskParts, options: TaskOptions) -> FaceRecognizer:
    """Opens the pipeline, and reads the known faces. Raises RkzooError for parts of another kind,
    and for known faces that cannot be read."""
    if not isinstance(parts.head, FaceRecognitionHead):
        raise RkzooError("This recognises no faces.", code=1)
    contract, session = _part(parts.parts, "detector")
    recognizer = Measurer(*_part(parts.parts, "recognizer"))
    _check_recognizer(recognizer.contract)
    detector = face_detector(contract, session, options.detect or USUAL)
    known = None
    if options.known is not None:
        # What is known does not depend on the threshold of the day.
        usual = face_detector(contract, session, USUAL)

        def embed(image: Image) -> NDArray[np.float32]:
            faces = usual(image)
            return embedded(recognizer, image, faces[_main_first(faces)])

        known = known_faces(Path(options.known), embed, parts.digest(), parts.report)
    return FaceRecognizer(detector, recognizer, parts.head.threshold, known)


def _main_first(faces: Faces) -> NDArray[np.intp]:
    """The largest of the sure faces first. What is found with a much lower score than the best is
    seldom a face, however large: a hand, a shirt."""
    x1, y1, x2, y2 = faces.xyxy.T
    sure = faces.scores >= _SURE * faces.scores.max(initial=0)
    return np.lexsort((-(x2 - x1) * (y2 - y1), ~sure))


def face_detector(
    contract: Contract, session: Session, options: DetectOptions | None = None
) -> Callable[[Image], Faces]:
    """A detector of faces with five points, of any family. Raises RkzooError for another model."""
    head = contract.head
    if isinstance(head, DetectHead) and head.faces:
        return YoloFaceDetector(contract, session, options)
    if isinstance(head, FaceHead | CentreFaceHead):
        return FaceDetector(contract, session, options)
    raise RkzooError(
        f"{contract.family} finds no faces with five points.",
        "Faces are aligned by eyes, nose and mouth before they are compared.",
        "Name a detector of faces for the role detector, for example yunet.",
    )


def _part(parts: Mapping[str, tuple[Contract, Session]], role: str) -> tuple[Contract, Session]:
    if role not in parts:
        raise RkzooError(
            f"The pipeline has no {role}.",
            f"It has {', '.join(sorted(parts))}.",
            "A pipeline of faces has a detector and a recognizer.",
        )
    return parts[role]


def _check_recognizer(contract: Contract) -> None:
    head, size = contract.head, contract.input.size
    if not isinstance(head, VectorHead) or not head.embedding or size[0] != size[1]:
        raise RkzooError(
            f"{contract.family} recognises no faces.",
            "A recognizer answers a square picture of an aligned face with an embedding.",
            "Name one for the role recognizer, for example sface.",
        )
