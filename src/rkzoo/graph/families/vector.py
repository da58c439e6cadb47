"""Networks that answer a picture with numbers: embeddings, and what was measured."""

from __future__ import annotations

import msgspec

from rkzoo.contract.inputs import ImageInput
from rkzoo.contract.model import Contract
from rkzoo.contract.vector import VectorHead
from rkzoo.graph.families.classifier import MEAN, STD
from rkzoo.graph.families.flat_output import flat_output, judged
from rkzoo.graph.families.recognition import ImageSource, Recognition
from rkzoo.graph.onnx.view import GraphView

_NONE = "it does not end in one row of numbers, 1xN, that are no scores"
_GREY = (127.5, 127.5, 127.5)
_FACE = 160  # pixels: aligned faces are no larger than this
_TALL = 1.5  # height to width: cut-out people


def vector(view: GraphView, picture: ImageSource) -> Recognition | str:
    """Recognises embeddings and measured numbers: one output 1xN that is no classifier's."""
    outputs = view.model.graph.output
    if len(outputs) != 1:
        return ""
    flat = flat_output(view, outputs[0].name)
    if flat is None:
        return _NONE
    judgement = judged(flat, len(picture.labels))
    if judgement.meaning not in ("embedding", "numbers"):
        return _NONE
    embedding = judgement.meaning == "embedding"
    image, assumed = _preprocessing(picture)
    doubt = (judgement.doubt,) if judgement.doubt else ()
    length = ", brought to length 1" if flat.unit else ""
    kind = "an embedding" if embedding else "measured"
    family = "embedding" if embedding else "regression"
    return Recognition(
        family=family,
        form="whole",
        contract=Contract(
            family=family, picture=image, head=VectorHead(size=flat.count, embedding=embedding)
        ),
        head_tensors=(),
        evidence=(f"One output of {flat.count} numbers{length}: {kind}.", *assumed, *doubt),
        assumed=(*assumed, *doubt),
    )


def _preprocessing(picture: ImageSource) -> tuple[ImageInput, tuple[str, ...]]:
    """Preprocessing of the image, by its size, and sentences on what of it is assumed."""
    image = picture.image
    height, width = image.size
    fitted = msgspec.structs.replace(image, fit="stretch")
    if picture.pixels_known:
        return fitted, ()
    if picture.channels != 3:
        usual = "How it was trained is not in the file: pixels of 0..1 are taken."
        return fitted, (f"{usual} Give others with --mean and --std.",)
    face = max(image.size) <= _FACE and height < _TALL * width
    mean, std = (_GREY, _GREY) if face else (MEAN, STD)
    usual = "pixels of -1..1, as for faces" if face else "ImageNet's mean and std"
    text = (
        f"How it was trained is not in the file: RGB, {usual}, the whole picture stretched to "
        f"{height}x{width}. Give others with --color, --mean and --std."
    )
    return msgspec.structs.replace(fitted, mean=mean, std=std), (text,)
