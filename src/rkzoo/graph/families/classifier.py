"""Image classifier: outputs 1xC from a last layer that sees the whole image."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from rkzoo.contract.classify import ClassifyHead, ClassOutput
from rkzoo.contract.inputs import ImageInput
from rkzoo.contract.model import Contract
from rkzoo.graph.families.flat_output import FlatOutput, Judged, Meaning, flat_output, judged
from rkzoo.graph.families.recognition import ImageSource, Recognition
from rkzoo.graph.onnx.read import metadata
from rkzoo.graph.onnx.view import GraphView

# ImageNet mean and std, as torchvision and timm train with, in units of 0..255.
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
_CROP = 0.875  # center crop, as a fraction of the short side: the usual value
_MOST_HEADS = 16

_NONE = "it does not end in scores of one number a class, 1xC"


def classifier(view: GraphView, picture: ImageSource) -> Recognition | str:
    """Recognises torchvision's, timm's and Ultralytics' classifiers, and those like them: of
    classes or of labels that do not exclude each other, with one output or one for each of
    several questions."""
    outputs = [output.name for output in view.model.graph.output]
    flat_outputs = [flat for name in outputs if (flat := flat_output(view, name)) is not None]
    if len(flat_outputs) != len(outputs) or len(outputs) > _MOST_HEADS:
        return _NONE if len(outputs) == 1 else ""
    if len(outputs) > 1 and any(name in view.consumers for name in outputs):
        return "one of its outputs is made of another"
    total = sum(flat.count for flat in flat_outputs)
    named = len(picture.labels) in (total, *((2,) if total == 1 else ()))
    classifies = metadata(view.model).get("task") == "classify"
    judgements = [
        judged(flat, flat.count if named else 0, classifies=classifies) for flat in flat_outputs
    ]
    strange = next(
        (judgement for judgement in judgements if judgement.meaning not in ("classes", "labels")),
        None,
    )
    if strange is not None:
        return f"its numbers are no scores of classes but {_OTHER[strange.meaning]}"
    image, assumed = _preprocessing(view, picture)
    doubts = tuple(dict.fromkeys(judgement.doubt for judgement in judgements if judgement.doubt))
    head = _head(flat_outputs, judgements)
    return Recognition(
        family="classifier",
        form="whole",
        contract=Contract(
            family="classifier",
            picture=image,
            head=head,
            labels=picture.labels if named else (),
        ),
        head_tensors=(),
        evidence=(*(map(_output_evidence, flat_outputs, judgements)), *assumed, *doubts),
        assumed=(*assumed, *doubts),
    )


_OTHER: dict[Meaning, str] = {"embedding": "an embedding", "numbers": "measured numbers"}


def _head(flat_outputs: Sequence[FlatOutput], judgements: Sequence[Judged]) -> ClassifyHead:
    outputs = tuple(
        ClassOutput(
            name=flat.name,
            classes=flat.count,
            activated=flat.activated,
            multi_label=judged.meaning == "labels",
        )
        for flat, judged in zip(flat_outputs, judgements, strict=True)
    )
    if len(outputs) > 1:
        return ClassifyHead(classes=sum(output.classes for output in outputs), outputs=outputs)
    (only,) = outputs
    return ClassifyHead(
        classes=only.classes, activated=only.activated, multi_label=only.multi_label
    )


def _output_evidence(flat: FlatOutput, judged: Judged) -> str:
    last = flat.end[0] if flat.end else "pool"
    behind = f", and a {last.lower()} behind it" if last != "pool" else ""
    kind = "labels that do not exclude each other" if judged.meaning == "labels" else "classes"
    if flat.count == 1:
        return f"The output {flat.name} is the score of one class{behind}."
    return (
        f"The output {flat.name} is {flat.count} numbers, scores of {kind}, made by a layer that "
        f"sees the whole picture{behind}."
    )


def _preprocessing(view: GraphView, picture: ImageSource) -> tuple[ImageInput, tuple[str, ...]]:
    """Preprocessing of the image, and sentences on what of it is assumed."""
    image = picture.image
    longest = max(image.size)
    if metadata(view.model).get("task") == "classify":
        # Ultralytics: 0..1, the short side scaled to the input size.
        return msgspec.structs.replace(image, fit="crop", short=longest), ()
    short = round(longest / _CROP)
    fitted = msgspec.structs.replace(image, fit="crop", short=short)
    crop = (
        f"the short side of the image scaled to {short} pixels and the center cropped, as is usual"
    )
    if picture.pixels_known:
        return fitted, (f"How pictures are cut is not in the file: {crop}.",)
    if picture.channels != 3:
        return fitted, (
            f"How it was trained is not in the file: pixels of 0..1, {crop}. Give others with "
            "--mean and --std.",
        )
    text = (
        f"The file does not hold the preprocessing; assumed are RGB, ImageNet's mean and std, "
        f"{crop}. Give others with --color, --mean and --std."
    )
    return msgspec.structs.replace(fitted, mean=MEAN, std=STD), (text,)
