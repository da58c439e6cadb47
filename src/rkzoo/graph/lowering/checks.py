"""Pre-conversion checks of an ONNX graph."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rkzoo.checks import Check
from rkzoo.contract.detect import DetectHead
from rkzoo.contract.model import BoxHead, Head
from rkzoo.contract.text import TextClsHead, TextRecHead
from rkzoo.errors import RkzooError
from rkzoo.graph.families.recognition import Recognition
from rkzoo.graph.onnx.opset import MAX_OPSET
from rkzoo.graph.onnx.summary import GraphSummary
from rkzoo.graph.onnx.view import captured_by

if TYPE_CHECKING:
    import onnx

# Measured with RKNN-Toolkit2 2.5.0: the first fail the build, the second run on the CPU.
_REFUSED = ("If", "Loop", "Scan", "NonZero", "NonMaxSuppression", "Unique")
_ON_CPU = ("TopK",)
_INTEGER = re.compile(r"QLinear\w+|ConvInteger|MatMulInteger")


END_BEFORE = "end the model before it, with the `outputs` of a card (rkzoo card new)."
NO_SIGMOID = "The scores leave the graph without a sigmoid; rkzoo applies it itself."


def bare_scores(recognition: Recognition) -> bool:
    """Whether the scores leave the graph, as the user exported it, before their sigmoid."""
    head = (recognition.uncut or recognition.contract).head
    return isinstance(head, DetectHead) and not head.activated


@dataclass(frozen=True)
class QuantizationInfo:
    """How a graph is quantized, by quantization-aware training or afterwards.

    Attributes:
        integer: Its integer operators (QLinearConv); empty for float operators between
            QuantizeLinear and DequantizeLinear.
        read_inside: Graph outputs that nodes of the graph consume too.
    """

    integer: tuple[str, ...]
    read_inside: tuple[str, ...]


def quantization_info(model: onnx.ModelProto) -> QuantizationInfo | None:
    """Detect how a graph is quantized.

    A graph counts as quantized when it quantizes activations, not when only its weights are stored
    as integers.

    Returns:
        The kind of quantization; None for a float model.
    """
    nodes = model.graph.node
    stored = {tensor.name for tensor in model.graph.initializer}
    rounded = any(
        node.op_type == "QuantizeLinear" and node.input[0] not in stored for node in nodes
    )
    integer = tuple(
        dict.fromkeys(node.op_type for node in nodes if _INTEGER.fullmatch(node.op_type))
    )
    if not rounded and not integer:
        return None
    read = {name for node in nodes for name in node.input}
    inside = tuple(output.name for output in model.graph.output if output.name in read)
    return QuantizationInfo(integer, inside)


def is_quantised(model: onnx.ModelProto) -> bool:
    """Whether a graph carries its own scales (QDQ nodes or integer operators)."""
    return quantization_info(model) is not None


@dataclass(frozen=True)
class Stop:
    """Something in a graph that stands in the way of a right .rknn. `operator` is refused by the
    toolkit, made by the node `where`; or None where the output `where` depends on no input, which
    the toolkit drops. `outputs` are the tensors at which a graph without it could end."""

    where: str
    operator: str | None
    outputs: tuple[str, ...]


def _peeps(node: onnx.NodeProto) -> bool:
    """Whether it is an LSTM with peepholes or coupled gates, on which the toolkit crashes; of few
    steps they are rewritten (`rewrites/recurrent.py`)."""
    coupled = any(given.name == "input_forget" and given.i for given in node.attribute)
    return node.op_type == "LSTM" and (coupled or any(node.input[7:8]))


def stops(model: onnx.ModelProto) -> tuple[Stop, ...]:
    """What the toolkit refuses in a graph, the first node of each operator, or leaves out of it."""
    graph = model.graph
    stored = {tensor.name for tensor in graph.initializer}
    flowing = {info.name for info in graph.input} - stored
    behind: set[str] = set()  # made by what is refused, or of that
    ends: dict[str, None] = {}
    found: list[tuple[str, str | None]] = []
    for node in graph.node:
        reads = dict.fromkeys((*node.input, *sorted(captured_by(node))))
        if flowing & reads.keys():
            flowing.update(node.output)
        refused = node.op_type in _REFUSED or _peeps(node)
        if refused or behind & reads.keys():
            behind.update(node.output)
            ends |= dict.fromkeys(name for name in reads if name in flowing - behind)
        if refused and all(node.op_type != operator for _, operator in found):
            found.append((node.name or node.output[0], node.op_type))
    inputs = {info.name for info in graph.input}
    names = [info.name for info in graph.output]
    found += [(name, None) for name in names if name not in flowing | behind]
    whole = [name for name in names if name in flowing - behind]
    outputs = tuple(dict.fromkeys(name for name in (*whole, *ends) if name not in inputs))
    return tuple(Stop(where, operator, outputs) for where, operator in found)


def graph_checks(
    summary: GraphSummary,
    recognition: Recognition | None,
    unknown: RkzooError | None = None,
    card: str = "",
    named: int = 0,
    plain: Sequence[str] = (),
) -> list[Check]:
    """Check whether an ONNX graph can be converted and its outputs decoded.

    Args:
        summary: Facts about the graph.
        recognition: The recognized head; None when unknown.
        unknown: Why the graph cannot be used.
        card: Name of the card that describes this very file; "" for none.
        named: Number of class names in the file's metadata.
        plain: What is to be said where its outputs stay plain tensors.

    Returns:
        The checks, in the order of display.
    """
    text = " ".join(text[0].upper() + text[1:] for text in plain)
    head = [Check("warn", text)] if plain else _head(recognition, unknown, card, named)
    return [
        *head,
        *_opset(summary, recognition, bool(plain)),
        *_inputs(summary, recognition, card, bool(plain)),
        *_operators(summary, recognition),
    ]


def _head(
    recognition: Recognition | None, unknown: RkzooError | None, card: str, named: int
) -> Iterator[Check]:
    if recognition is None and card:
        yield Check("ok", f"This is the file of the card {card}, which describes its outputs.")
        return
    if recognition is None:
        why = f" {unknown.why} {unknown.fix}" if unknown else ""
        what = unknown.what if unknown else "The head was not recognised."
        yield Check("fail", f"{what}{why}")
        return
    boxes = " as boxes" if isinstance(recognition.contract.head, BoxHead) else ""
    yield Check("ok", f"The head is known, so its outputs can be decoded{boxes}.")
    for sentence in recognition.assumed:
        yield Check("warn", sentence)
    if recognition.form == "stock" and not isinstance(recognition.contract.head, DetectHead):
        yield Check(
            "ok",
            "What follows the scores and boxes of the queries is cut off by convert, after "
            "verifying that the result is equal.",
        )
    elif recognition.form == "stock":
        yield Check(
            "ok",
            "Boxes and scores share one output here, which INT8 cannot hold; convert cuts the "
            "head off, after verifying that the result is equal.",
        )
    if not recognition.anchors_known:
        yield Check(
            "warn",
            "The file does not hold its anchors: the defaults of its family are assumed. Give "
            "those of your training with --anchors.",
        )
    if bare_scores(recognition):
        yield Check("ok", NO_SIGMOID)
    yield from _labels(recognition, card, named)


def _labels(recognition: Recognition, card: str, named: int) -> Iterator[Check]:
    head = recognition.contract.head
    if recognition.contract.texts:
        yield Check("ok", "Its classes are given with --prompt.")
    elif recognition.contract.labels:
        yield Check("ok", f"Each of the {len(recognition.contract.labels)} classes has its name.")
    elif named and isinstance(head, BoxHead):
        yield Check(
            "warn",
            f"The file names {named} classes but its head has {head.classes}: the names are "
            "ignored. Give the right ones with --labels FILE.",
        )
    elif isinstance(head, TextRecHead):
        yield Check(
            "warn",
            f"The file does not hold its {head.classes} characters: where they are not those of a "
            "PP-OCR of the zoo, give its dictionary with --labels FILE.",
        )
    elif not card and _has_classes_to_name(head):
        yield Check("warn", "The file names no classes: give them with --labels FILE.")


def _has_classes_to_name(head: Head) -> bool:
    """Not of faces, of a page's angle, nor where there are no classes."""
    if isinstance(head, TextClsHead) or (isinstance(head, DetectHead) and head.faces):
        return False
    return hasattr(head, "classes")


def _opset(summary: GraphSummary, recognition: Recognition | None, plain: bool) -> Iterator[Check]:
    if summary.opset <= MAX_OPSET:
        yield Check("ok", f"Opset {summary.opset}; the toolkit reads up to {MAX_OPSET}.")
    elif plain or (recognition is not None and recognition.form in ("stock", "whole")):
        yield Check("warn", f"Opset {summary.opset} is too new; it will be lowered to {MAX_OPSET}.")
    else:
        yield Check(
            "fail",
            f"Opset {summary.opset} is too new, the toolkit reads up to {MAX_OPSET}: "
            "export the model again with opset=17.",
        )


def _inputs(
    summary: GraphSummary, recognition: Recognition | None, card: str, plain: bool
) -> Iterator[Check]:
    if not summary.dynamic:
        yield Check("ok", "All input sizes are fixed.")
    elif card:
        yield Check("ok", "The input size is dynamic, and the card fixes it.")
    elif plain:
        yield Check(
            "warn",
            f"Dimensions of its inputs are dynamic ({', '.join(summary.dynamic)}); they will be "
            "fixed to the shapes above. Choose others with --shape NAME=N,N,... or --size HxW.",
        )
    elif recognition is not None and recognition.contract.picture is None:
        yield Check(
            "warn",
            f"Dimensions of its inputs are dynamic ({', '.join(summary.dynamic)}); they will be "
            "fixed to the shapes above. Choose others with --shape NAME=N,N,...",
        )
    elif recognition is not None:
        height, width = recognition.contract.input.size
        yield Check(
            "warn",
            f"The input size is dynamic ({', '.join(summary.dynamic)}); it will be fixed to "
            f"{height}x{width}. Choose another with --size HxW.",
        )
    else:
        yield Check(
            "warn",
            f"The input size is dynamic ({', '.join(summary.dynamic)}), but the NPU needs a "
            "fixed one: give --size HxW.",
        )


def _operators(summary: GraphSummary, recognition: Recognition | None) -> Iterator[Check]:
    for domain, _ in summary.domains:
        if any(name.startswith(f"{domain}.") for name, _ in summary.operators):
            yield Check(
                "fail",
                f"It uses operators of {domain}, which the toolkit does not support: export it "
                "without them.",
            )
    present = {name for name, _ in summary.operators}
    if recognition is not None and recognition.parts:  # what is left between them is not built
        present = {node.op_type for part in recognition.parts for node in part.model.graph.node}
    # Unsupported operators in the decoding part of an upstream head are removed by the cut.
    cut = recognition is not None and recognition.form == "stock"
    for name in () if cut else _REFUSED:
        if name in present:
            yield Check(
                "fail",
                f"The toolkit refuses the operator {name}: {END_BEFORE}",
            )
    for name in () if cut else _ON_CPU:
        if name in present:
            yield Check("warn", f"The operator {name} will run on the CPU, which is slow.")
