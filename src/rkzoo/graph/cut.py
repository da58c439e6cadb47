"""Takes the tail off a recognised head.

The uncut tensor holds boxes of 0..640 and scores of 0..1 on one INT8 scale, which leaves
nothing of the scores; each branch on its own has a scale of its own.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import onnx
from onnx import TensorProto, helper

from rkzoo.contract import Contract, DetectHead, HeadOutput
from rkzoo.errors import RkzooError
from rkzoo.graph.recognition import Recognition
from rkzoo.graph.rewrite import scale_after_product
from rkzoo.graph.summary import opset
from rkzoo.graph.view import MAX_IR, View, first_line, prepared

MAX_OPSET = 19


def cut(
    model: onnx.ModelProto, recognition: Recognition, *, sigmoid: bool = True
) -> onnx.ModelProto:
    """The graph up to the branches of its head, as `cut_contract` describes it.

    Outputs, float32: box_8 1x4Mxhxw (raw DFL logits), score_8 1xCxhxw (after the sigmoid,
    or raw with `sigmoid=False`), box_16, score_16, ..., named by stride, finest level
    first. The input is fixed to 1x3xHxW, half precision widened, and everything that only
    the tail needed is gone. `model` is left as it was. Raises RkzooError when the opset is
    above 19 and cannot be lowered.
    """
    seen = prepared(model, static_input(model, recognition))
    scale_after_product(seen)
    head = _head(cut_contract(recognition, sigmoid=sigmoid))
    _rename(seen.model, _names(recognition, head, sigmoid))
    graph = _kept(seen, [_raw_name(output, sigmoid) for output in head.outputs])
    for output, tap in zip(head.outputs, recognition.taps, strict=True):
        if output.role == "score" and sigmoid:
            node = helper.make_node("Sigmoid", [_raw_name(output, sigmoid)], [output.name])
            graph.node.append(node)
        graph.output.append(
            helper.make_tensor_value_info(output.name, TensorProto.FLOAT, tap.shape)
        )
    result = onnx.ModelProto(
        ir_version=min(seen.model.ir_version, MAX_IR), producer_name="rkzoo", graph=graph
    )
    result.opset_import.extend(seen.model.opset_import)
    result.functions.extend(seen.model.functions)
    result.metadata_props.extend(model.metadata_props)
    return _lowered(result)


def whole(model: onnx.ModelProto, recognition: Recognition) -> onnx.ModelProto:
    """The graph with all its outputs, spelled for the toolkit: input fixed, half precision
    widened, attention and opset as in `cut`. `model` is left as it was."""
    seen = prepared(model, static_input(model, recognition))
    scale_after_product(seen)
    seen.model.ir_version = min(seen.model.ir_version, MAX_IR)
    return _lowered(seen.model)


def cut_contract(recognition: Recognition, *, sigmoid: bool = True) -> Contract:
    """What `cut` promises. For a stock graph with its sigmoid it is `recognition.contract`."""
    head = _head(recognition.contract)
    outputs = tuple(
        HeadOutput(name=f"{tap.role}_{head.strides[tap.level]}", role=tap.role, level=tap.level)
        for tap in recognition.taps
    )
    head = msgspec.structs.replace(head, outputs=outputs, activated=sigmoid)
    return msgspec.structs.replace(recognition.contract, head=head)


def _head(contract: Contract) -> DetectHead:
    if not isinstance(contract.head, DetectHead):
        raise RkzooError("Only a detection head can be cut.", f"This is {contract.family}.", code=1)
    return contract.head


def static_input(
    model: onnx.ModelProto, recognition: Recognition
) -> dict[str, tuple[int, int, int, int]]:
    """Name and shape of the only input, for `prepared`."""
    weights = {tensor.name for tensor in model.graph.initializer}
    names = [info.name for info in model.graph.input if info.name not in weights]
    height, width = recognition.contract.input.size
    return {names[0]: (1, 3, height, width)}


def _raw_name(output: HeadOutput, sigmoid: bool) -> str:
    return output.name.replace("score", "logit") if sigmoid else output.name


def _names(recognition: Recognition, head: DetectHead, sigmoid: bool) -> dict[str, str]:
    """Old to new names: the taps become what they mean, and whoever had that name gives way."""
    renamed = {
        tap.name: _raw_name(output, sigmoid)
        for output, tap in zip(head.outputs, recognition.taps, strict=True)
    }
    wanted = {*renamed.values(), *(output.name for output in head.outputs)}
    return {name: f"{name}_inner" for name in wanted} | renamed


def _rename(model: onnx.ModelProto, names: dict[str, str]) -> None:
    graph = model.graph
    for node in graph.node:
        for side in (node.input, node.output):
            for index, name in enumerate(side):
                if name in names:
                    side[index] = names[name]
    for tensor in (*graph.initializer, *graph.input):
        tensor.name = names.get(tensor.name, tensor.name)


def _kept(seen: View, outputs: Iterable[str]) -> onnx.GraphProto:
    """The part of the graph that `outputs` need, without any outputs yet."""
    source = seen.model.graph
    needed = set(outputs)
    nodes = []
    for node in reversed(source.node):
        if not needed.isdisjoint(node.output):
            nodes.append(node)
            needed.update(node.input)
    graph = onnx.GraphProto(name="cut")
    graph.node.extend(reversed(nodes))
    graph.input.extend(info for info in source.input if info.name in needed)
    graph.initializer.extend(tensor for tensor in source.initializer if tensor.name in needed)
    return graph


def _lowered(model: onnx.ModelProto) -> onnx.ModelProto:
    version = opset(model)
    if version <= MAX_OPSET:
        return model
    try:
        lowered = onnx.version_converter.convert_version(model, MAX_OPSET)
    except Exception as error:  # the converter raises RuntimeError and its own
        raise RkzooError(
            f"The model is written for ONNX opset {version}, which is too new.",
            f"The toolkit reads up to {MAX_OPSET}, and it cannot be lowered: {first_line(error)}",
            "Export it again with opset=17.",
        ) from error
    lowered.ir_version = min(lowered.ir_version, MAX_IR)
    return lowered
