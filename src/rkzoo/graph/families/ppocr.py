"""The three networks of PP-OCR, given as files: one finds lines of text, one tells which way up
they are, one reads them. Told by their ends, which are the same from version 2 to 6."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec
import onnx

from rkzoo.contract.inputs import ImageInput
from rkzoo.contract.model import Contract
from rkzoo.contract.text import TextClsHead, TextDetHead, TextRecHead, characters
from rkzoo.graph.families.classifier import MEAN, STD
from rkzoo.graph.families.recognition import ImageSource, Recognition
from rkzoo.graph.onnx.read import metadata
from rkzoo.graph.onnx.view import GraphView, attributes, constant_value, declared

_NO_DETECTOR = "it does not end in a map of 0..1 by two transposed convolutions of 2x2"
_NO_RECOGNIZER = "it does not end in a softmax over the characters of each step, 1xTxC"
_NO_ANGLE = "it does not end in the scores of two angles of a line of text"
_GREY = (127.5, 127.5, 127.5)
# What does not change the meaning of an end, in some exports and not in others.
_BETWEEN = frozenset({"Identity", "Cast", "Add", "BatchNormalization", "Dropout"})
_DETECTOR = ["Sigmoid", "ConvTranspose", "Relu", "ConvTranspose", "Relu", "Conv"]
_DETECTOR_SIZE, _LINE_SIZE, _ANGLE_SIZE = (640, 640), (48, 320), (48, 192)
# PP-OCRv5's angle classifier, which knows plain pixels of 0..1 best (zoo/cards/ppocr-v5-cls.yaml).
_PLAIN_ANGLE = (80, 160)
_FEWEST_CHARACTERS = 11

Shape = tuple[int, ...]


class _Graph:
    """The end of a graph whose sizes are not known yet."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self._makers = {name: node for node in model.graph.node for name in node.output}
        self._weights: Mapping[str, Shape] = {
            t.name: tuple(t.dims) for t in model.graph.initializer
        }

    def weight(self, node: onnx.NodeProto | None, index: int = 1) -> Shape:
        """The shape of an input that is a constant; empty for any other."""
        if node is None or len(node.input) <= index:
            return ()
        name = node.input[index]
        maker = self._makers.get(name)
        if maker is not None and maker.op_type == "Constant":
            value = constant_value(maker)
            return () if value is None else tuple(value.shape)
        return self._weights.get(name, ())

    def back(self, name: str) -> Iterator[onnx.NodeProto]:
        """The nodes before a tensor, along their first input that flows."""
        while (node := self._makers.get(name)) is not None:
            yield node
            flowing = (i for i in node.input if i in self._makers and not self._constant(i))
            name = next(flowing, "")

    def _constant(self, name: str) -> bool:
        maker = self._makers.get(name)
        return name in self._weights or (maker is not None and maker.op_type == "Constant")

    def inputs(self, node: onnx.NodeProto) -> list[str]:
        return [name for name in node.input if not self._constant(name)]

    def is_of_lines(self) -> bool:
        """Whether it shrinks the height of its picture more than the width, as only networks
        for lines of text do."""
        strides = (
            attributes(node).get("strides", [1, 1])
            for node in self.model.graph.node
            if node.op_type in ("Conv", "MaxPool", "AveragePool")
        )
        return any(len(stride) == 2 and stride[0] > stride[1] for stride in strides)


def usual_size(model: onnx.ModelProto) -> tuple[int, int] | None:
    """(height, width) at which PP-OCR's networks are used, where the graph leaves it free; None
    for another network."""
    graph = _Graph(model)
    outputs = model.graph.output
    if len(outputs) != 1:
        return None
    name = outputs[0].name
    usual = _DETECTOR_SIZE if _finds(graph, name) else None
    if usual is None and graph.is_of_lines():
        usual = (
            _LINE_SIZE if _characters(graph, name) else _ANGLE_SIZE if _turns(graph, name) else None
        )
    if usual is None:
        return None
    fed = {tensor.name for tensor in model.graph.initializer}
    picture = next((info for info in model.graph.input if info.name not in fed), None)
    shape = declared(picture) if picture is not None else None
    height, width = shape[2:] if shape is not None and len(shape) == 4 else (None, None)
    return height or usual[0], width or usual[1]


def _finds(graph: _Graph, name: str) -> bool:
    """Whether a map comes from the head of differentiable binarisation
    (https://arxiv.org/abs/1911.08947), alone or averaged with a finer one of the servers'."""
    node = next((n for n in graph.back(name) if n.op_type not in ("Identity", "Cast")), None)
    if node is not None and node.op_type in ("Mul", "Div"):
        node = next((n for n in graph.back(graph.inputs(node)[0]) if n.op_type == "Add"), None)
        return node is not None and any(_finds(graph, text) for text in graph.inputs(node))
    end = []
    for node in graph.back(name):
        if node.op_type not in _BETWEEN:
            end.append(node)
        if len(end) == len(_DETECTOR):
            break
    if [node.op_type for node in end] != _DETECTOR:
        return False
    last, first, before = (graph.weight(end[i]) for i in (1, 3, 5))
    kernels = [attributes(end[i]).get("strides") for i in (1, 3)]
    return (
        len(last) == len(first) == len(before) == 4
        and kernels == [[2, 2], [2, 2]]
        and last[1:] == (1, 2, 2)
        and first[0] == first[1] == last[0] == before[0]
        and before[1] == 4 * before[0]
    )


def _characters(graph: _Graph, name: str) -> int:
    """How many characters a recognizer tells apart; 0 for another network."""
    end = [node for node in graph.back(name) if node.op_type not in _BETWEEN][:3]
    kinds = [node.op_type for node in end]
    if kinds[:2] != ["Softmax", "MatMul"] or kinds[2:] not in (
        ["Transpose"],
        ["Reshape"],
        ["LSTM"],
    ):
        return 0
    weight = graph.weight(end[1])
    return weight[1] if len(weight) == 2 and weight[1] >= _FEWEST_CHARACTERS else 0


def _turns(graph: _Graph, name: str) -> bool:
    end = [node for node in graph.back(name) if node.op_type not in _BETWEEN][:2]
    if [node.op_type for node in end] not in (["Softmax", "MatMul"], ["Softmax", "Gemm"]):
        return False
    return 2 in graph.weight(end[1])


def detector(view: GraphView, picture: ImageSource) -> Recognition | str:
    """Recognises what finds lines of text, by the head of differentiable binarisation."""
    name = _only_output(view)
    shape = view.shape(name) if name else None
    if not name or not _finds(_Graph(view.model), name):
        return _NO_DETECTOR if name else ""
    if shape != (1, 1, *picture.image.size):
        return _NO_DETECTOR
    image = msgspec.structs.replace(
        picture.image, color="BGR", fit="letterbox", place="top-left", pad=0
    )
    return _recognition(
        Contract(family="ppocr-det", picture=_normalised(image, MEAN, STD), head=TextDetHead()),
        "A map of where text stands, as large as the picture, by two transposed convolutions.",
        "As PP-OCR is trained, the picture is taken as BGR, with ImageNet's mean and std in that "
        "order.",
    )


def recognizer(view: GraphView, picture: ImageSource) -> Recognition | str:
    """Recognises what reads a line, by a softmax over the characters of each step."""
    name = _only_output(view)
    shape = view.shape(name) if name else None
    graph = _Graph(view.model)
    if not name or shape is None or len(shape) != 3 or shape[0] != 1 or shape[1] < 2:
        return _NO_RECOGNIZER if name else ""
    if not graph.is_of_lines() or _characters(graph, name) != shape[2]:
        return _NO_RECOGNIZER
    image = msgspec.structs.replace(picture.image, color="BGR", fit="line", pad=127)
    head = TextRecHead(classes=shape[2])
    noted = metadata(view.model).get("character", "").split("\n")
    labels = characters(noted[:-1] if noted[-1:] == [""] else noted, head)
    return _recognition(
        Contract(
            family="ppocr-rec",
            picture=_normalised(image, _GREY, _GREY),
            head=head,
            labels=labels if len(labels) == head.classes else (),
        ),
        f"Scores of {shape[2]} characters in {shape[1]} steps, the first of them the blank.",
        "As PP-OCR is trained, a line of text is taken as BGR, from -1 to 1.",
    )


def angle(view: GraphView, picture: ImageSource) -> Recognition | str:
    """Recognises what tells whether a line is upside down, by its two scores and by how it
    shrinks its picture."""
    name = _only_output(view)
    graph = _Graph(view.model)
    if not name or view.shape(name) != (1, 2):
        return _NO_ANGLE if name else ""
    if not graph.is_of_lines() or not _turns(graph, name):
        return _NO_ANGLE
    plain = picture.image.size == _PLAIN_ANGLE
    image = msgspec.structs.replace(picture.image, color="BGR", fit="line", pad=127)
    if plain:
        image = msgspec.structs.replace(picture.image, fit="stretch")
    else:
        image = _normalised(image, _GREY, _GREY)
    taken = "RGB, from 0 to 1" if plain else "BGR, from -1 to 1"
    return _recognition(
        Contract(family="ppocr-cls", picture=image, head=TextClsHead()),
        "Two scores, upright and upside down, of a network that shrinks the height of its picture "
        "more than the width.",
        f"As PP-OCR is trained, a line of text is taken as {taken}.",
    )


def _only_output(view: GraphView) -> str:
    outputs = view.model.graph.output
    return outputs[0].name if len(outputs) == 1 else ""


def _normalised(
    image: ImageInput, mean: tuple[float, float, float], std: tuple[float, float, float]
) -> ImageInput:
    return msgspec.structs.replace(image, mean=mean, std=std)


def _recognition(contract: Contract, seen: str, assumed: str) -> Recognition:
    return Recognition(
        family=contract.family,
        form="whole",
        contract=contract,
        head_tensors=(),
        evidence=(seen, assumed),
        assumed=(assumed,),
    )
