"""Face detection task specifications."""

from __future__ import annotations

from dataclasses import replace

from rkzoo.contract.faces import CentreFaceHead, FaceHead, FaceRecognitionHead
from rkzoo.tasks.detect.spec import DETECT
from rkzoo.tasks.spec import (
    THRESHOLDS,
    DefaultLabels,
    Task,
    TaskOptions,
    TaskParts,
    TaskSpec,
    identity,
)


def _open(parts: TaskParts, options: TaskOptions) -> Task:
    from rkzoo.tasks.face.task import FaceDetector

    return FaceDetector(*parts.parts["model"], options.detect)


def _open_yolo(parts: TaskParts, options: TaskOptions) -> Task:
    from rkzoo.tasks.face.yolo import YoloFaceDetector

    return YoloFaceDetector(*parts.parts["model"], options.detect)


def _describe(head: FaceHead) -> list[tuple[str, str]]:
    sides = "; ".join(" ".join(f"{side:g}" for side in level) for level in head.anchors)
    what = "faces with five points" if head.points == 5 else "plates with four corners"
    return [("gives", f"{what}, anchors of {sides} pixels")]


def _describe_centre(head: CentreFaceHead) -> list[tuple[str, str]]:
    return [("gives", f"faces with five points, cells of {head.stride} pixels")]


def _open_recognition(parts: TaskParts, options: TaskOptions) -> Task:
    from rkzoo.tasks.face.recognize import face_recognizer

    return face_recognizer(parts, options)


def _describe_recognition(head: FaceRecognitionHead) -> list[tuple[str, str]]:
    return [("gives", f"faces with names; the same person from cosine {head.threshold:g} on")]


FACE = TaskSpec(
    name="face",
    open=_open,
    options=THRESHOLDS,
    describe=_describe,
    default_labels=lambda head: DefaultLabels(("face",)),
    legalize=True,
    to_matchable=identity,
    thresholded=True,
)
CENTRE_FACE = replace(FACE, describe=_describe_centre, default_labels=lambda head: None)
YOLO_FACE = replace(
    DETECT,
    name="face",
    open=_open_yolo,
    options=THRESHOLDS | {"multi_label"},
    default_labels=lambda head: DefaultLabels(("face",)),
)
FACE_RECOGNITION = TaskSpec(
    name="face-recognition",
    open=_open_recognition,
    options=THRESHOLDS | {"known"},
    usage=("PICTURE --known FOLDER",),
    describe=_describe_recognition,
)
