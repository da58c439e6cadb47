"""Anomaly detectors as anomalib exports them: a map over the picture and a score."""

from __future__ import annotations

import math

import msgspec
import onnx
from onnx import TensorProto

from rkzoo.contract.anomaly import AnomalyHead
from rkzoo.contract.inputs import ArrayInput, ImageInput
from rkzoo.contract.model import Contract
from rkzoo.graph.families.classifier import MEAN, STD
from rkzoo.graph.families.recognition import ImageSource, Recognition
from rkzoo.graph.onnx.subgraph import part
from rkzoo.graph.onnx.view import GraphView, prepared

_NONE = "its outputs are not one map of the picture's size, one score, and marks of both"


def anomaly(view: GraphView, picture: ImageSource) -> Recognition | str:
    """Recognise an anomaly detector by its outputs: one map of the picture's size and one number,
    and besides them only truth values (anomalib's pred_mask and pred_label)."""
    names = [output.name for output in view.model.graph.output]
    if not 2 <= len(names) <= 4:
        return ""
    floats = [name for name in names if view.dtypes.get(name) == TensorProto.FLOAT]
    others = [name for name in names if name not in floats]
    if any(view.dtypes.get(name) != TensorProto.BOOL for name in others) or len(floats) != 2:
        return _NONE
    sides = [side for side in picture.image.size if side != 1]
    maps = [n for n in floats if [s for s in view.shape(n) or () if s != 1] == sides]
    scores = [n for n in floats if math.prod(view.shape(n) or (0,)) == 1]
    if len(maps) != 1 or len(scores) != 1:
        return _NONE
    head = AnomalyHead(map=maps[0], score=scores[0])
    image = msgspec.structs.replace(picture.image, fit="stretch")
    meaning = (
        f"A map over the picture and one number are taken for anomalies, above {head.threshold:g} "
        "as anomalib scales them; another threshold needs a card with head: {kind: anomaly, map: "
        f"{head.map}, score: {head.score}, threshold: ...}}."
    )
    assumed: tuple[str, ...] = (meaning,)
    if not picture.pixels_known and picture.channels == 3:
        image = msgspec.structs.replace(image, mean=MEAN, std=STD)
        assumed += (
            "How it was trained is not in the file: RGB, ImageNet's mean and std, are taken. Give "
            "others with --color, --mean and --std.",
        )
    return Recognition(
        family="anomaly",
        form="whole",
        contract=Contract(family="anomaly", picture=image, head=head),
        head_tensors=(),
        evidence=assumed,
        assumed=assumed,
    )


def without_marks(model: onnx.ModelProto, head: AnomalyHead, image: ImageInput) -> onnx.ModelProto:
    """The graph with the outputs that are read, without truth values, which the NPU has none of."""
    if {output.name for output in model.graph.output} == set(head.outputs):
        return model
    names = {tensor.name for tensor in model.graph.initializer}
    source = next(info.name for info in model.graph.input if info.name not in names)
    shape = (1, image.channels, *image.size)
    view = prepared(model, {source: shape})
    return part(view.model, [ArrayInput(name=source, shape=shape)], list(head.outputs))
