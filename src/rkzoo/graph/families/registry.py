"""Which family a graph belongs to, from its structure and shapes alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import onnx

from rkzoo.contract.inputs import ArrayInput, ImageInput
from rkzoo.errors import RkzooError
from rkzoo.graph import literal
from rkzoo.graph.families import (
    classifier,
    lprnet,
    retinaface,
    semantic,
    yolo_world,
    yolov5_decoded,
    yolov5_raw,
    yolov6_ppyoloe,
    yolov8,
    yolov8_rockchip,
    yolox,
)
from rkzoo.graph.families.recognition import Form, Picture, Recogniser, Recognition, Tap
from rkzoo.graph.onnx.fold_prompts import texts_to_convolution
from rkzoo.graph.onnx.read import metadata
from rkzoo.graph.onnx.rewrite import TOOK_BYTES, channels_first
from rkzoo.graph.onnx.summary import TensorInfo, tensors
from rkzoo.graph.onnx.view import View, declared, is_half, is_scale, prepared

__all__ = ["RECOGNISERS", "Form", "Recognition", "Tap", "recognise"]

# A new family is one more line here: what it is called in a sentence, and who knows it.
RECOGNISERS: tuple[tuple[str, Recogniser], ...] = (
    ("a stock export of YOLOv8 to YOLO26", yolov8.stock),
    ("a YOLO without anchors in Rockchip's form", yolov8_rockchip.vendor),
    ("a YOLOv5 or YOLOv7 with its boxes decoded", yolov5_decoded.stock),
    ("a YOLOv5 or YOLOv7 with one output a level", yolov5_raw.heads),
    ("a YOLOv5-seg in Rockchip's form", yolov5_raw.masks),
    ("a YOLOX", yolox.stock),
    ("a YOLOX in Rockchip's 3-output form", yolox.vendor),
    ("a YOLOv6", yolov6_ppyoloe.yolov6),
    ("a PP-YOLOE", yolov6_ppyoloe.ppyoloe),
    ("a classifier", classifier.classifier),
    ("a segmentation into classes", semantic.semantic),
    ("an LPRNet", lprnet.lprnet),
    ("a RetinaFace", retinaface.retinaface),
)
# Those that are told in words, by a second input, what to look for.
PROMPTED: tuple[tuple[str, Recogniser], ...] = (
    ("a YOLO-World in Rockchip's form", yolo_world.vendor),
)
# Families by their outputs: whether there are several, and of how many dimensions.
_STOCK = (
    "a stock export of YOLOv8 to YOLO26",
    "a YOLOv5 or YOLOv7 with its boxes decoded",
    "a YOLOX",
    "a YOLOv6",
    "a PP-YOLOE",
)
_LEVELS = (
    "a YOLO without anchors in Rockchip's form",
    "a YOLOv5 or YOLOv7 with one output a level",
    "a YOLOX in Rockchip's 3-output form",
)
_USUAL: dict[tuple[bool, int], tuple[str, ...]] = {
    (False, 2): ("a classifier",),
    (False, 3): _STOCK,
    (False, 4): ("a segmentation into classes",),
    (True, 2): ("a RetinaFace",),
    (True, 3): ("a RetinaFace", *_STOCK),
    (True, 4): _LEVELS,
    (True, 5): ("a YOLOv5 or YOLOv7 with one output a level",),
}
# Reasons that tell a whole kind of head apart, before anything is looked at closely.
_OTHER_KIND = ("level ends in", "branches of their own")
# Any size does to recognise a graph that leaves it free.
_TRIAL = (640, 640)
_MAX_SIDE = 16384
_FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)


def recognise(model: onnx.ModelProto, size: tuple[int, int] | None = None) -> Recognition:
    """The family, form and contract of a graph.

    `size` (height, width) in pixels counts where the graph leaves its input free; without
    it the size that the exporter noted in the file is taken. Raises RkzooError when no
    recogniser knows the graph, saying what was seen, when it suppresses boxes itself, or when
    the size stays open.
    """
    suppressing = _suppressing(model)
    if suppressing:
        raise _suppresses(suppressing)
    model = channels_first(model)
    name, shape, others = _inputs(model)
    fixed = _fixed_size(shape)
    noted = _noted_size(model)
    wanted = fixed or size or noted
    sizes = {other.name: other.shape for other in others}
    shapes = {name: (1, 3, *(wanted or _TRIAL)), **sizes}
    seen = texts_to_convolution(prepared(model, shapes))
    picture = Picture(
        image=ImageInput(size=wanted or _TRIAL, std=_std(seen, name)),
        labels=file_labels(model),
        others=others,
    )
    reasons: dict[str, str] = {}
    for title, recogniser in PROMPTED if others else RECOGNISERS:
        answer = recogniser(seen, picture)
        if isinstance(answer, Recognition):
            if wanted is None:
                raise _size_open()
            divided = picture.image.std == (1.0, 1.0, 1.0)
            return _with_size_evidence(answer, model, fixed, size, divided=divided)
        if answer:
            reasons[title] = answer
    nearest = _nearest(seen, reasons)
    raise _unrecognised(
        model, [f"it is not {nearest} because {reasons[nearest]}"] if nearest else []
    )


def _nearest(seen: View, reasons: Mapping[str, str]) -> str:
    """Of the families that a graph is not, the one that it is most like: by its outputs, then by
    how far it was followed."""
    outputs = [seen.shapes.get(output.name) or () for output in seen.model.graph.output]
    usual = _USUAL.get((len(outputs) > 1, len(outputs[0])), ()) if outputs else ()
    likely = [title for title in usual if title in reasons] or list(reasons)
    close = [t for t in likely if not any(said in reasons[t] for said in _OTHER_KIND)]
    return next(iter(close or likely), "")


def _inputs(
    model: onnx.ModelProto,
) -> tuple[str, tuple[int | None, ...], tuple[ArrayInput, ...]]:
    """Name and shape of the picture, and the texts where there are any."""
    fed = [info for info in fed_inputs(model) if not is_scale(info)]
    inputs = {info.name: declared(info) for info in fed}
    pictures = {
        name: shape
        for name, shape in inputs.items()
        if shape is not None and len(shape) == 4 and shape[1] in (3, None)
    }
    if len(inputs) > 2 or (len(inputs) == 2 and len(pictures) != 1):
        raise _unrecognised(model, [f"it has {len(inputs)} inputs and not one picture"])
    if not pictures:
        raise _unrecognised(model, ["its input is not a picture of 1x3xHxW"])
    ((name, shape),) = pictures.items()
    if shape[0] not in (1, None):
        raise _unrecognised(
            model, [f"it is fixed to {shape[0]} pictures at a time; export it with a batch of 1"]
        )
    return name, shape, tuple(_texts(model, info) for info in fed if info.name != name)


def _texts(model: onnx.ModelProto, info: onnx.ValueInfoProto) -> ArrayInput:
    """Texts are 1 x slots x width, of a float type. Raises RkzooError for any other input."""
    shape, kind = declared(info), info.type.tensor_type.elem_type
    if shape is None or len(shape) != 3 or shape[0] not in (1, None) or kind not in _FLOATS:
        raise _unrecognised(
            model, [f"its input {info.name} is neither a picture nor embeddings of texts"]
        )
    _, slots, width = shape
    if slots is None or width is None:
        raise RkzooError(
            f"The input {info.name} leaves open how many texts it takes.",
            "The NPU needs a number that is fixed.",
            "Export the model with a fixed number of texts, for instance 1x80x512.",
        )
    return ArrayInput(name=info.name, shape=(1, slots, width), role="texts")


def fed_inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """Inputs that are fed; old files list their weights among the inputs too."""
    weights = {tensor.name for tensor in model.graph.initializer}
    return [info for info in model.graph.input if info.name not in weights]


def _fixed_size(shape: Sequence[int | None]) -> tuple[int, int] | None:
    height, width = shape[2:]
    return (height, width) if height and width else None


def _noted_size(model: onnx.ModelProto) -> tuple[int, int] | None:
    """Ultralytics writes imgsz as [height, width]."""
    value = literal.parse(metadata(model).get("imgsz", ""), limit=100)
    if not isinstance(value, list) or len(value) != 2:
        return None
    good = all(isinstance(side, int) and 1 <= side <= _MAX_SIDE for side in value)
    return (value[0], value[1]) if good else None


def file_labels(model: onnx.ModelProto) -> tuple[str, ...]:
    """The class names in the metadata, as Ultralytics writes them: {0: 'person', ...}. Empty
    when they are not there. A head may have another number of classes."""
    value = literal.parse(metadata(model).get("names", ""), limit=1_000_000)
    if isinstance(value, dict) and set(value) == set(range(len(value))):
        value = [value[index] for index in range(len(value))]
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        return ()
    return tuple(value)


def _std(seen: View, name: str) -> tuple[float, float, float]:
    """Divisor of the pixels: 255, or 1 where the graph itself divides by 255 first, or took
    bytes before it was made into ONNX."""
    if TOOK_BYTES in metadata(seen.model):
        return (1.0, 1.0, 1.0)
    for _ in range(3):
        nodes = seen.consumers.get(name, [])
        if len(nodes) != 1 or nodes[0].op_type not in ("Cast", "Identity", "Div", "Mul"):
            break
        node = nodes[0]
        other = seen.constant(node.input[1]) if len(node.input) > 1 else None
        if other is not None and other.size == 1:
            factor = float(other.ravel()[0])
            divisor = factor if node.op_type == "Div" else 1 / factor if factor else 0.0
            return (1.0, 1.0, 1.0) if abs(divisor - 255) < 1.5 else (255.0, 255.0, 255.0)
        name = node.output[0]
    return (255.0, 255.0, 255.0)


def _with_size_evidence(
    found: Recognition,
    model: onnx.ModelProto,
    fixed: tuple[int, int] | None,
    size: tuple[int, int] | None,
    *,
    divided: bool,
) -> Recognition:
    height, width = found.contract.input.size
    if fixed:
        origin = "fixed in the graph"
        if size and size != fixed:
            origin += f", so {size[0]}x{size[1]} cannot be had without a new export"
    else:
        origin = "chosen, the graph leaves it free" if size else "noted by the exporter"
    sentences = [f"The input is {height}x{width} (height x width): {origin}."]
    if divided:
        sentences.append("The graph scales the pixels itself.")
    if is_half(model):
        sentences.append("The weights are in half precision; they are widened for the cut.")
    if found.contract.labels:
        sentences.append(f"The file names its {len(found.contract.labels)} classes.")
    return replace(found, evidence=(*found.evidence, *sentences))


def _suppressing(model: onnx.ModelProto) -> str:
    """The operator that suppresses boxes inside the graph, in ONNX's or TensorRT's words."""
    kinds = (node.op_type for node in model.graph.node)
    return next((k for k in kinds if k == "NonMaxSuppression" or "NMS" in k), "")


def _suppresses(kind: str) -> RkzooError:
    return RkzooError(
        "This model was exported with non-maximum suppression inside.",
        f"Its operator {kind} picks the boxes in the graph, which the NPU cannot do.",
        "Export it again without: nms=False (Ultralytics), no --end2end (YOLOv6, YOLOv7, YOLOX), "
        "exclude_nms=True (PaddleDetection). rkzoo suppresses by itself.",
    )


def _size_open() -> RkzooError:
    return RkzooError(
        "The size of the model's input is open.",
        "The graph takes pictures of any size, but the NPU needs one that is fixed.",
        "Give it with --size HxW, for instance --size 640x640.",
    )


def _unrecognised(model: onnx.ModelProto, reasons: Sequence[str]) -> RkzooError:
    inputs = ", ".join(_named(t) for t in tensors(fed_inputs(model)))
    outputs = ", ".join(_named(t) for t in tensors(model.graph.output))
    makers = {name: node.op_type for node in model.graph.node for name in node.output}
    last = dict.fromkeys(makers.get(output.name, "nothing") for output in model.graph.output)
    return RkzooError(
        "The head of this model is not one that rkzoo knows.",
        f"It takes {inputs} and gives {outputs}, made by {'; '.join((', '.join(last), *reasons))}.",
        "rkzoo recognises YOLOv5 to YOLO26 (boxes, masks, key points, rotated boxes), YOLOX, "
        "PP-YOLOE and YOLO-World, in the stock export and in Rockchip's form, classifiers, "
        "segmentations, LPRNet and RetinaFace; for other models see rkzoo list.",
    )


def _named(tensor: TensorInfo) -> str:
    return f"{tensor.name} {'x'.join(str(d) for d in tensor.shape) or 'scalar'}"
