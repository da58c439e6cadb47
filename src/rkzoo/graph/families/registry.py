"""Registry of the head recognizers; a family is recognized by graph structure and shapes alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import msgspec
import onnx

from rkzoo.contract.inputs import ArrayInput, ImageInput
from rkzoo.contract.model import Contract
from rkzoo.errors import RkzooError
from rkzoo.graph import literal
from rkzoo.graph.families import (
    anomaly,
    classifier,
    depth,
    lprnet,
    paraformer,
    ppocr,
    queries,
    raw_levels,
    restore,
    retinaface,
    rtmo,
    semantic,
    speech,
    top_down_pose,
    vector,
    yolo_world,
    yolov5_decoded,
    yolov5_raw,
    yolov6_ppyoloe,
    yolov8,
    yolov8_rockchip,
    yolox,
    yunet,
)
from rkzoo.graph.families.recognition import (
    Form,
    HeadTensor,
    ImageSource,
    Recogniser,
    Recognition,
    SecondPart,
    UnknownHead,
)
from rkzoo.graph.onnx.fold_prompts import texts_to_convolution
from rkzoo.graph.onnx.input_preprocessing import InputPreprocessing, input_preprocessing
from rkzoo.graph.onnx.joined_outputs import joined_outputs
from rkzoo.graph.onnx.read import metadata
from rkzoo.graph.onnx.rewrite import picture_as_floats
from rkzoo.graph.onnx.summary import TensorInfo, tensors
from rkzoo.graph.onnx.unrounded import is_rounded, unrounded
from rkzoo.graph.onnx.view import GraphView, attributes, declared, is_half, is_scale, prepared
from rkzoo.ort import looking

__all__ = ["RECOGNISERS", "Form", "HeadTensor", "Recognition", "recognise"]

# A new family is one more line: its description for messages, and its recognizer.
RECOGNISERS: tuple[tuple[str, Recogniser], ...] = (
    ("a stock export of YOLOv8 to YOLO26", yolov8.upstream),
    ("a YOLO without anchors in Rockchip's form", yolov8_rockchip.rockchip),
    ("a YOLOv5 or YOLOv7 with its boxes decoded", yolov5_decoded.upstream),
    ("a YOLOv5 or YOLOv7 with one output a level", yolov5_raw.heads),
    ("a YOLOv5-seg in Rockchip's form", yolov5_raw.masks),
    ("a YOLOX", yolox.upstream),
    ("a YOLOX in Rockchip's 3-output form", yolox.rockchip),
    ("a YOLOv6", yolov6_ppyoloe.yolov6),
    ("a PP-YOLOE", yolov6_ppyoloe.ppyoloe),
    ("a NanoDet, PicoDet, RTMDet or YOLO-face before decoding", raw_levels.undecoded),
    ("a YuNet", yunet.undecoded),
    ("a text detector of PP-OCR", ppocr.detector),
    ("a text recognizer of PP-OCR", ppocr.recognizer),
    ("a text angle classifier of PP-OCR", ppocr.angle),
    ("a classifier", classifier.classifier),
    ("an embedding or a regression", vector.vector),
    ("a pose of one person", top_down_pose.top_down_pose),
    ("a depth estimator", depth.depth),
    ("a segmentation into classes", semantic.semantic),
    ("a super-resolution or restoration", restore.restore),
    ("an anomaly detector", anomaly.anomaly),
    ("an LPRNet", lprnet.lprnet),
    ("a RetinaFace", retinaface.retinaface),
    ("a DETR", queries.queries),
    ("an RTMO", rtmo.cells_of_people),
)
# Open-vocabulary models, with text embeddings as a second input.
PROMPTED: tuple[tuple[str, Recogniser], ...] = (
    ("a YOLO-World in Rockchip's form", yolo_world.rockchip),
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
    (True, 2): ("a classifier", "a RetinaFace"),
    (True, 3): ("a RetinaFace", *_STOCK),
    (True, 4): _LEVELS,
    (True, 5): ("a YOLOv5 or YOLOv7 with one output a level",),
}
# Reasons that tell a whole kind of head apart, before anything is looked at closely.
_OTHER_KIND = ("level ends in", "branches of their own")
# Any size will do to recognize a graph with a dynamic one.
_TRIAL = (640, 640)
_MAX_SIDE = 16384
_ROUNDED = "The graph is quantised; its head was looked at without the rounding."
_BEHIND = (
    "Behind the NMS inside, a classifier makes the key points of each person: both are taken off, "
    "and the classifier stays on the processor; tried apart it gave what it gave inside."
)
_FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)


@looking()
def recognise(
    model: onnx.ModelProto, size: tuple[int, int] | None = None, labels: Sequence[str] = ()
) -> Recognition:
    """Recognize the family, export form and contract of a graph.

    Args:
        model: The model.
        size: (height, width) in pixels for a graph with a dynamic input size; None for the size in
            the exporter's metadata, or the usual one of its family.
        labels: Class names that the user gives in place of the file's; as many as an output has
            values make it a classifier's.

    Returns:
        The recognized head.

    Raises:
        RkzooError: No recognizer knows the graph, it contains NMS, or its input size remains
            unknown.
    """
    suppressing = _suppressing(model)
    if suppressing:
        raise _suppresses(suppressing)
    noted = _noted_size(model)
    front = input_preprocessing(model, size or noted)
    model = picture_as_floats(model, size or noted)
    name, shape, others = _inputs(model)
    fixed = _fixed_size(shape)
    requested = fixed or size or noted or ppocr.usual_size(model)
    channels = shape[1] or 3
    sizes = {other.name: other.shape for other in others}
    shapes = {name: (1, channels, *(requested or _TRIAL)), **sizes}
    plain = unrounded(model)
    view = texts_to_convolution(prepared(plain, shapes))
    picture = ImageSource(
        image=ImageInput(size=requested or _TRIAL),
        labels=tuple(labels) or file_labels(model),
        others=others,
        pixels_known=front is not None and front.pixels is not None,
        channels=channels,
    )
    reasons: dict[str, str] = {}
    for title, recogniser in PROMPTED if others else RECOGNISERS:
        answer = recogniser(view, picture)
        if isinstance(answer, Recognition):
            if requested is None:
                raise _size_open()
            if is_rounded(model):
                answer = replace(answer, evidence=(*answer.evidence, _ROUNDED))
            return _with_size_evidence(_with_front(answer, front), model, fixed, size)
        if answer:
            reasons[title] = answer
    nearest = _nearest(view, reasons)
    raise _unrecognised(
        model, [f"it is not {nearest} because {reasons[nearest]}"] if nearest else []
    )


def recognise_arranged(
    model: onnx.ModelProto, size: tuple[int, int] | None = None, labels: Sequence[str] = ()
) -> tuple[onnx.ModelProto, Recognition]:
    """As `recognise`; where no family knows the graph, with its outputs in the usual arrangement.

    Returns:
        The graph whose outputs the recognition describes, `model` itself where it can be, and
        the recognition.

    Raises:
        RkzooError: As `recognise`.
    """
    whole = _split(model, size)
    if whole is not None:
        network, second = whole
        found = recognise(network, size, labels)
        return network, replace(found, second=second, evidence=(*found.evidence, _BEHIND))
    try:
        return model, recognise(model, size, labels)
    except UnknownHead:
        spoken = speech.sensevoice(model) or paraformer.paraformer(model)
        if spoken is not None:
            return spoken
        joined = joined_outputs(model)
        if joined is None:
            raise
        try:
            return joined, recognise(joined, size, labels)
        except UnknownHead:
            pass  # the reason of the file itself is the one to be told
        raise


@looking()
def _split(
    model: onnx.ModelProto, size: tuple[int, int] | None
) -> tuple[onnx.ModelProto, SecondPart] | None:
    """A graph with NMS inside and a network of its own behind it, taken apart."""
    if not _suppressing(model):
        return None
    noted = size or _noted_size(model)
    model = picture_as_floats(model, noted)
    name, shape, others = _inputs(model)
    fixed = _fixed_size(shape) or noted
    if others or fixed is None:
        return None
    return rtmo.split(model, name, (1, shape[1] or 3, *fixed))


def _nearest(view: GraphView, reasons: Mapping[str, str]) -> str:
    """Of the families that a graph is not, the one that it is most like: by its outputs, then by
    how far it was followed."""
    outputs = [view.shapes.get(output.name) or () for output in view.model.graph.output]
    usual = _USUAL.get((len(outputs) > 1, len(outputs[0])), ()) if outputs else ()
    likely = [title for title in usual if title in reasons] or list(reasons)
    close = [t for t in likely if not any(text in reasons[t] for text in _OTHER_KIND)]
    return next(iter(close or likely), "")


def _inputs(
    model: onnx.ModelProto,
) -> tuple[str, tuple[int | None, ...], tuple[ArrayInput, ...]]:
    """Name and shape of the image input, and the text inputs, if any."""
    fed = [info for info in graph_inputs(model) if not is_scale(info)]
    inputs = {info.name: declared(info) for info in fed}
    pictures = {
        name: shape
        for name, shape in inputs.items()
        if shape is not None and len(shape) == 4 and shape[1] in (1, 3, 4, None)
        if shape[1] in (None, *_convolved(model, name, shape[1]))
    }
    if len(inputs) > 2 or (len(inputs) == 2 and len(pictures) != 1):
        raise _unrecognised(model, [f"it has {len(inputs)} inputs and not one picture"])
    if not pictures:
        raise _unrecognised(model, ["its input is not a picture of 1x3xHxW, or of 1 or 4 channels"])
    ((name, shape),) = pictures.items()
    if shape[0] not in (1, None):
        raise _unrecognised(
            model, [f"it is fixed to {shape[0]} pictures at a time; export it with a batch of 1"]
        )
    return name, shape, tuple(_texts(model, info) for info in fed if info.name != name)


def _convolved(model: onnx.ModelProto, name: str, usual: int | None) -> set[int | None]:
    """Input channels of the convolutions that read an input; `usual` where none does."""
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    readers = [n for n in model.graph.node if n.op_type == "Conv" and n.input[0] == name]
    known = [(n, weights[n.input[1]]) for n in readers if n.input[1] in weights]
    return {w.dims[1] * attributes(n).get("group", 1) for n, w in known} or {usual}


def _texts(model: onnx.ModelProto, info: onnx.ValueInfoProto) -> ArrayInput:
    """A text embedding input, 1 x slots x width, of a float type. Raises RkzooError otherwise."""
    shape, kind = declared(info), info.type.tensor_type.elem_type
    if shape is None or len(shape) != 3 or shape[0] not in (1, None) or kind not in _FLOATS:
        raise _unrecognised(
            model, [f"its input {info.name} is neither a picture nor embeddings of texts"]
        )
    _, slots, width = shape
    if slots is None or width is None:
        raise RkzooError(
            f"The input {info.name} has a dynamic number of texts.",
            "The NPU needs a fixed number.",
            "Export the model with a fixed number of texts, for instance 1x80x512.",
        )
    return ArrayInput(name=info.name, shape=(1, slots, width), role="texts")


def graph_inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """Inputs without weights, which old files list among the inputs too."""
    weights = {tensor.name for tensor in model.graph.initializer}
    return [info for info in model.graph.input if info.name not in weights]


def _fixed_size(shape: Sequence[int | None]) -> tuple[int, int] | None:
    height, width = shape[2:]
    return (height, width) if height and width else None


def _noted_size(model: onnx.ModelProto) -> tuple[int, int] | None:
    """The input size in Ultralytics' metadata, where imgsz is [height, width]."""
    value = literal.parse(metadata(model).get("imgsz", ""), limit=100)
    if not isinstance(value, list) or len(value) != 2:
        return None
    good = all(isinstance(side, int) and 1 <= side <= _MAX_SIDE for side in value)
    return (value[0], value[1]) if good else None


def file_labels(model: onnx.ModelProto) -> tuple[str, ...]:
    """Class names in the metadata: Ultralytics' ({0: 'person', ...}), or RapidAI's, one per line
    under `character`.

    Returns:
        The names, empty where the file has none. Their number may differ from the head's classes.
    """
    notes = metadata(model)
    if "names" not in notes and "character" in notes:
        return tuple(notes["character"].split())
    value = literal.parse(notes.get("names", ""), limit=1_000_000)
    if isinstance(value, dict) and set(value) == set(range(len(value))):
        value = [value[index] for index in range(len(value))]
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        return ()
    return tuple(value)


def _with_front(recognition: Recognition, front: InputPreprocessing | None) -> Recognition:
    """The recognition with the picture as this very graph takes it."""
    if front is None:
        return recognition
    text_lines = front.said()

    def fed(contract: Contract) -> Contract:
        return msgspec.structs.replace(contract, picture=front.fed(contract.input))

    return replace(
        recognition,
        contract=fed(recognition.contract),
        uncut=fed(recognition.uncut) if recognition.uncut is not None else None,
        evidence=(*recognition.evidence, *text_lines),
        seen=text_lines,
    )


def _with_size_evidence(
    recognition: Recognition,
    model: onnx.ModelProto,
    fixed: tuple[int, int] | None,
    size: tuple[int, int] | None,
) -> Recognition:
    height, width = recognition.contract.input.size
    if fixed:
        origin = "fixed in the graph"
        if size and size != fixed:
            origin += f", so {size[0]}x{size[1]} needs a new export"
    else:
        origin = "chosen, the graph's is dynamic" if size else "from the exporter's metadata"
        if not size and not _noted_size(model):
            origin = "the usual one of its family, the graph's is dynamic"
    sentences = [f"The input is {height}x{width} (height x width): {origin}."]
    if is_half(model):
        sentences.append("The weights are float16; they are converted to float32 for the cut.")
    if recognition.contract.labels:
        sentences.append(f"The file names its {len(recognition.contract.labels)} classes.")
    return replace(recognition, evidence=(*recognition.evidence, *sentences))


def _suppressing(model: onnx.ModelProto) -> str:
    """The NMS operator inside the graph, of ONNX or TensorRT; "" for none."""
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
        "The graph takes images of any size, but the NPU needs a fixed one.",
        "Give it with --size HxW, for instance --size 640x640.",
    )


def _unrecognised(model: onnx.ModelProto, reasons: Sequence[str]) -> UnknownHead:
    inputs = ", ".join(_named(t) for t in tensors(graph_inputs(model)))
    outputs = ", ".join(_named(t) for t in tensors(model.graph.output))
    makers = {name: node.op_type for node in model.graph.node for name in node.output}
    last = dict.fromkeys(makers.get(output.name, "nothing") for output in model.graph.output)
    return UnknownHead(
        "The head of this model is not one that rkzoo knows.",
        f"It takes {inputs} and gives {outputs}, made by {'; '.join((', '.join(last), *reasons))}.",
        "rkzoo recognises YOLOv5 to YOLO26 (boxes, masks, key points, rotated boxes), YOLOX, "
        "PP-YOLOE and YOLO-World, in the stock export and in Rockchip's form, PicoDet, NanoDet, "
        "RTMDet, YOLO-face, YuNet, RT-DETR, D-FINE, RF-DETR and their kin, poses of one person "
        "(RTMPose, ViTPose, HRNet) and of all (RTMO), classifiers, embeddings, segmentations, "
        "depth (DPT, MiDaS, Depth Anything), super-resolution, anomaly maps, PP-OCR, LPRNet, "
        "RetinaFace, SenseVoice and Paraformer; for other models see rkzoo list.",
    )


def _named(tensor: TensorInfo) -> str:
    return f"{tensor.name} {'x'.join(str(d) for d in tensor.shape) or 'scalar'}"
