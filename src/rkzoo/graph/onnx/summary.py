"""Summary of any ONNX graph: inputs, outputs, operators, parameters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import onnx
from onnx import TensorProto, helper

from rkzoo.graph.onnx.read import metadata


@dataclass(frozen=True)
class TensorInfo:
    """An input or output as the file declares it.

    Attributes:
        name: Its name.
        dtype: numpy name of its type.
        shape: Its dimensions; a dynamic one as its name, or "?". ("?",) where no shape is declared.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]

    @property
    def dynamic(self) -> bool:
        """Whether any dimension is dynamic."""
        return any(isinstance(size, str) for size in self.shape)


@dataclass(frozen=True)
class GraphSummary:
    """Facts about a graph that do not depend on its task.

    Attributes:
        opset: Version of ONNX's own operator set.
        ir_version: IR version.
        producer: Name and version of the exporter.
        inputs: Its inputs, without weights.
        outputs: Its outputs.
        parameters: Number of parameters.
        parameter_bytes: Their size in the file, in bytes.
        operators: (type, count), most frequent first; prefixed by the domain for non-ONNX ones.
        domains: (name, version) of all other operator sets.
        metadata: (key, text) of the exporter's metadata.
    """

    opset: int
    ir_version: int
    producer: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    parameters: int
    parameter_bytes: int
    operators: tuple[tuple[str, int], ...]
    domains: tuple[tuple[str, int], ...]
    metadata: tuple[tuple[str, str], ...]

    @property
    def dynamic(self) -> tuple[str, ...]:
        """Names of the dynamic dimensions of the inputs, "?" for one without a name."""
        free = [size for t in self.inputs for size in t.shape if isinstance(size, str)]
        return tuple(dict.fromkeys(free))


def summarise(model: onnx.ModelProto) -> GraphSummary:
    """Summarize a graph."""
    graph = model.graph
    weights = {tensor.name for tensor in graph.initializer}
    opsets = {entry.domain or "": entry.version for entry in model.opset_import}
    stored = [*graph.initializer, *_constants(graph)]
    counts = Counter(
        node.op_type if _is_standard(node.domain) else f"{node.domain}.{node.op_type}"
        for node in graph.node
    )
    return GraphSummary(
        opset=opset(model),
        ir_version=model.ir_version,
        producer=" ".join(part for part in (model.producer_name, model.producer_version) if part),
        inputs=tensors(info for info in graph.input if info.name not in weights),
        outputs=tensors(graph.output),
        parameters=sum(_count(tensor) for tensor in stored),
        parameter_bytes=sum(_count(tensor) * _width(tensor.data_type) for tensor in stored),
        operators=tuple(counts.most_common()),
        domains=tuple((d, v) for d, v in opsets.items() if not _is_standard(d)),
        metadata=tuple(metadata(model).items()),
    )


def opset(model: onnx.ModelProto) -> int:
    """The version of ONNX's own operator set; 0 when the file names none."""
    versions = [entry.version for entry in model.opset_import if _is_standard(entry.domain)]
    return max(versions, default=0)


def tensors(infos: Iterable[onnx.ValueInfoProto]) -> tuple[TensorInfo, ...]:
    """Name, dtype and shape of inputs or outputs as declared."""
    return tuple(
        TensorInfo(info.name, dtype_name(info.type.tensor_type.elem_type), _shape(info))
        for info in infos
    )


def dtype_name(code: int) -> str:
    """numpy name of an ONNX dtype code ("float32" for 1); "unknown" for an invalid code."""
    try:
        return str(helper.tensor_dtype_to_np_dtype(code))
    except (KeyError, ValueError):
        return "unknown"


def _shape(info: onnx.ValueInfoProto) -> tuple[int | str, ...]:
    if not info.type.tensor_type.HasField("shape"):
        return ("?",)
    dims = info.type.tensor_type.shape.dim
    return tuple(d.dim_value if d.dim_value > 0 else (d.dim_param or "?") for d in dims)


def _constants(graph: onnx.GraphProto) -> list[TensorProto]:
    return [
        attribute.t
        for node in graph.node
        if node.op_type == "Constant"
        for attribute in node.attribute
        if attribute.name == "value"
    ]


def _count(tensor: TensorProto) -> int:
    total = 1
    for size in tensor.dims:
        total *= max(size, 0)
    return total


def _width(code: int) -> int:
    try:
        return int(helper.tensor_dtype_to_np_dtype(code).itemsize)
    except (KeyError, ValueError):
        return 0


def _is_standard(domain: str) -> bool:
    return domain in ("", "ai.onnx")
