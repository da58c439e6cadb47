"""A YOLO whose one class has five points is taken for one of faces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import msgspec

from rkzoo.contract.detect import DetectHead
from rkzoo.contract.model import Contract
from rkzoo.graph.families.recognition import Recognition

_POINTS = 5
_ASSUMED = (
    "One class with five points is taken for a face with eyes, nose and the corners of the mouth."
)


def with_faces(recognition: Recognition, labels: Sequence[str]) -> Recognition:
    """`found`, as a model of faces where it can be one: one class that the file calls so or does
    not name, and five points."""
    head = recognition.contract.head
    named = [label.lower() for label in labels]
    if not isinstance(head, DetectHead) or (head.classes, head.keypoints) != (1, _POINTS):
        return recognition
    if named and named != ["face"]:
        return recognition
    family = recognition.family.replace("-pose", "-face")
    return replace(
        recognition,
        family=family,
        contract=_of_faces(recognition.contract, family),
        uncut=_of_faces(recognition.uncut, family) if recognition.uncut else None,
        assumed=recognition.assumed if named else (*recognition.assumed, _ASSUMED),
    )


def _of_faces(contract: Contract, family: str) -> Contract:
    head = msgspec.structs.replace(contract.head, faces=True)
    return msgspec.structs.replace(contract, family=family, head=head)
