"""YuNet recogniser: faces with five points, https://doi.org/10.1007/s11633-023-1423-y.

Each level ends in four branches: box (4 channels: offset and log size in cells), class and
objectness (1 each, after a sigmoid) and five points (10, in cells from the corner of the cell). A
score is the square root of class times objectness. The file of OpenCV's zoo gives them undecoded in
twelve tensors 1xNxC; what is made of them is written in OpenCV's FaceDetectorYN
(modules/objdetect/src/face_detect.cpp), which feeds BGR pixels of 0..255 as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from rkzoo.contract.detect import DecodedOutput, DetectHead, HeadOutput
from rkzoo.contract.inputs import ImageInput
from rkzoo.contract.model import Contract
from rkzoo.graph.families.branches import (
    SCORE_SLACK,
    Float,
    cells,
    group_by_size,
    probe,
    sigmoid,
    strides_of,
    wrong_count,
)
from rkzoo.graph.families.head_postprocessing import Branch, head_postprocessing
from rkzoo.graph.families.outputs import cut_outputs
from rkzoo.graph.families.recognition import HeadTensor, ImageSource, Recognition, Role
from rkzoo.graph.onnx.view import Array, GraphView
from rkzoo.ort import CannotRun

FAMILY = "yunet"
_CHANNELS = (1, 1, 4, 10)
_POINTS = 5
_FEEDING = (
    "Assumed, since the file does not say: BGR pixels of 0..255, placed top left and padded with "
    "0, as OpenCV feeds YuNet. Say otherwise with --color, --mean and --std."
)


def undecoded(view: GraphView, picture: ImageSource) -> Recognition | str:
    """Recognise the four branches of each level, each in an output of its own: 1xNxC rows or a map
    1xCxhxw. Class and objectness are factors of one product, so which is which does not matter."""
    outputs = [output.name for output in view.model.graph.output]
    if len(outputs) < len(_CHANNELS) or len(outputs) % len(_CHANNELS):
        return ""
    end = head_postprocessing(view, outputs)
    groups = end if isinstance(end, str) else group_by_size(end)
    if isinstance(end, str) or isinstance(groups, str):
        return str(groups)
    for group in groups:
        reason = wrong_count(group, (len(_CHANNELS),), "four: box, class, objectness, points")
        if not reason and tuple(sorted(branch.shape[1] for branch in group)) != _CHANNELS:
            channels = ", ".join(str(branch.shape[1]) for branch in group)
            reason = f"its branches have {channels} channels, where YuNet's have 1, 1, 4 and 10"
        if reason:
            return reason
    if len(outputs) != len(groups) * len(_CHANNELS):
        return f"it has {len(outputs)} outputs for {len(groups)} levels of four branches"
    strides = strides_of(groups, picture)
    if isinstance(strides, str):
        return strides
    values = probe(end.branches, seed=0)
    try:
        answers = end(values)
    except CannotRun as error:
        return f"the end of the graph cannot be run alone ({error.why})"
    levels = [_roles(group) for group in groups]
    found = [
        (index, HeadOutput(name=outputs[index], role=role, level=level))
        for level, roles in enumerate(levels)
        for role, branch in roles.items()
        for index in _holding(answers, branch, values, role)
    ]
    if sorted(index for index, _ in found) != list(range(len(outputs))):
        return (
            "its outputs are not box and points as they are, class and objectness after a sigmoid"
        )
    taps = tuple(
        HeadTensor(branch.name, role, level, branch.shape, sigmoid=role in _SIGMOID)
        for level, roles in enumerate(levels)
        for role, branch in roles.items()
    )
    head = DetectHead(
        outputs=cut_outputs(taps, strides),
        classes=1,
        reg_max=1,
        strides=tuple(strides),
        coding="exponent",
        objectness="geometric",
        keypoints=_POINTS,
        keypoint_values=2,
        faces=True,
    )
    named = tuple(output for _, output in sorted(found, key=lambda pair: pair[0]))
    uncut = msgspec.structs.replace(
        head, outputs=named, decoded=DecodedOutput(rows_last=False, raw=True)
    )
    total = sum(cells(group[0]) for group in groups)
    return Recognition(
        family=FAMILY,
        form="stock",
        contract=_contract(head, picture),
        uncut=_contract(uncut, picture),
        head_tensors=taps,
        evidence=(
            f"{len(groups)} levels (stride {', '.join(map(str, strides))}), {total} cells with a "
            "box, a class, an objectness and five points, not decoded.",
            "The score is the square root of class times objectness, as YuNet has it.",
        ),
        assumed=(_FEEDING,),
    )


_SIGMOID = frozenset({"score", "objectness"})


def _roles(group: Sequence[Branch]) -> dict[Role, Branch]:
    """The four branches of a level by role, in the order in which a cut exposes them."""
    first, second = (branch for branch in group if branch.shape[1] == 1)
    by_width = {branch.shape[1]: branch for branch in group}
    return {"box": by_width[4], "objectness": first, "score": second, "keypoints": by_width[10]}


def _holding(
    answers: Sequence[Array], branch: Branch, values: Mapping[str, Array], role: str
) -> list[int]:
    """Indices of the outputs that are this branch."""
    raw = branch.of(values)
    expected = sigmoid(raw) if role in _SIGMOID else np.asarray(raw, np.float64)
    return [index for index, answer in enumerate(answers) if _is(answer, branch, expected)]


def _is(answer: Array, branch: Branch, expected: Float) -> bool:
    """Whether an output is these numbers (C, cells), as a map or as one row a cell."""
    if answer.shape == branch.shape:
        flat = answer[0].reshape(branch.shape[1], -1)
    elif answer.shape == (1, cells(branch), branch.shape[1]):
        flat = answer[0].T
    else:
        return False
    return bool(np.allclose(flat, expected, rtol=0, atol=SCORE_SLACK))


def _contract(head: DetectHead, picture: ImageSource) -> Contract:
    image = ImageInput(
        size=picture.image.size, color="BGR", std=(1.0, 1.0, 1.0), pad=0, place="top-left"
    )
    labels = picture.labels if len(picture.labels) == 1 else ()
    return Contract(family=FAMILY, picture=image, head=head, labels=labels)
