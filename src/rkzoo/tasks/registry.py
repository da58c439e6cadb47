"""Task registry: maps head types to task specifications.

Tasks are imported lazily. A new task is a folder with a `spec.py`, and a line here.
"""

from __future__ import annotations

from collections.abc import Set
from functools import cache
from importlib import import_module

from rkzoo.contract.audio import CtcSpeechHead
from rkzoo.contract.detect import DetectHead
from rkzoo.contract.faces import FaceHead
from rkzoo.contract.model import Head
from rkzoo.errors import RkzooError
from rkzoo.tasks.spec import TaskSpec

PAGE = "text"  # key of a pipeline, which has no head of its own

SPECS: dict[str, str] = {
    "detect": "detect.spec:DETECT",
    "query-detect": "detect.spec:QUERY_DETECT",
    "segment": "segment.spec:SEGMENT",
    "pose": "pose.spec:POSE",
    "top-down-pose": "pose.spec:TOP_DOWN",
    "people-pose": "pose.spec:PEOPLE",
    "one-stage-pose": "pose.spec:ONE_STAGE",
    "obb": "obb.spec:OBB",
    "classify": "classify.spec:CLASSIFY",
    "semantic": "semantic.spec:SEMANTIC",
    "depth": "depth.spec:DEPTH",
    "restore": "restore.spec:RESTORE",
    "anomaly": "anomaly.spec:ANOMALY",
    "vector": "vector.spec:VECTOR",
    "cut-out": "prompt.spec:CUT_OUT",
    "face": "face.spec:FACE",
    "face-centre": "face.spec:CENTRE_FACE",
    "face-yolo": "face.spec:YOLO_FACE",
    "face-recognition": "face.spec:FACE_RECOGNITION",
    "plate": "plate.spec:PLATE",
    "plate-det": "plate.spec:PLATE_DETECT",
    PAGE: "text.spec:PAGE",
    "text-det": "text.spec:DETECT",
    "text-cls": "text.spec:ANGLE",
    "text-rec": "text.spec:LINE",
    "clip": "embed.spec:CLIP",
    "sentence": "embed.spec:SENTENCE",
    "whisper": "speech.spec:WHISPER",
    "moonshine": "speech.spec:MOONSHINE",
    "paraformer": "speech.spec:PARAFORMER",
    "ctc-speech": "speech.spec:CTC",
    "ctc-languages": "speech.spec:CTC_LANGUAGES",
    "transducer": "speech.spec:TRANSDUCER",
    "activity": "sound.spec:ACTIVITY",
    "sound": "sound.spec:CLASSES",
    "voice": "voice.spec:VOICE",
    "translate": "translate.spec:FAIRSEQ",
    "marian": "translate.spec:MARIAN",
    "tensors": "tensors.spec:TENSORS",
}


def spec_of(head: Head | None) -> TaskSpec:
    """Return the task specification of a head; None stands for a pipeline that reads text or
    plates."""
    return _spec(PAGE if head is None else _kind(head))


def _kind(head: Head) -> str:
    """Registry key of a head: its tag, refined by optional outputs."""
    if isinstance(head, DetectHead):
        vectors = head.keypoint_values == 1  # of which another network makes the points
        extras = (
            ("obb", head.rotated),
            ("face-yolo", head.faces),
            ("pose", head.keypoints and not vectors),
            ("segment", head.coefficients and not vectors),
        )
        return next((kind for kind, there in extras if there), "detect")
    if isinstance(head, FaceHead) and head.points == 4:
        return "plate-det"
    if isinstance(head, CtcSpeechHead) and head.languages:
        return "ctc-languages"
    return str(type(head).__struct_config__.tag)


@cache
def _spec(kind: str) -> TaskSpec:
    module, name = SPECS[kind].split(":")
    spec: TaskSpec = getattr(import_module(f"rkzoo.tasks.{module}"), name)
    return spec


# Options that only some tasks use: what the command line calls them, by the request's field.
OPTIONS = {
    "language": "--language",
    "translate": "--translate",
    "speed": "--speed",
    "points": "--point",
    "boxes": "--box",
    "against": "--against",
    "known": "--known",
    "confidence": "--conf",
    "iou": "--iou",
    "max_boxes": "max_boxes",
    "multi_label": "multi_label",
    "classes": "--classes",
}


def validate_options(head: Head | None, provided: Set[str]) -> None:
    """Refuses options that a model with this head does not use.

    Args:
        head: The model's head; None for a pipeline that reads pages of text.
        provided: Names of the request's fields that were given.

    Raises:
        RkzooError: One of them would change nothing.
    """
    used = spec_of(head).options
    for name, option in OPTIONS.items():
        if name in provided and name not in used:
            raise RkzooError(
                f"{option} does not go with this model.",
                "It would change nothing.",
                "Leave it out.",
            )
