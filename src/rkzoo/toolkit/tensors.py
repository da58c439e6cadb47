"""Quantized tensors of a model: names and scales from the toolkit's quantization table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from rkzoo.errors import RkzooError

# All scalars stay text: a tensor may be called 460, on or 1e5.
_Loader: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)

_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul", "exGemm", "exMatMul")
# Activations that the NPU computes at the end of a convolution, without a layer of their own.
_ACTIVATIONS = (
    "Relu",
    "Clip",
    "LeakyRelu",
    "PRelu",
    "Sigmoid",
    "HardSigmoid",
    "HardSwish",
    "Elu",
    "Tanh",
    "exSwish",
    "exGelu",
    "exSoftplus",
    "exMish",
)


@dataclass(frozen=True)
class QuantisedTensor:
    """A tensor that is INT8 in the built model.

    Attributes:
        name: Its name.
        op: Type of the layer that produces it, "" for an input.
        scale: value = (q - zero_point) * scale, q in -128..127. Of a constant with per-channel
            scales, the coarsest.
        zero_point: See `scale`.
        low: Lower end of the calibrated range.
        high: Upper end.
        sources: The tensors it is computed from.
        layer: All tensors of its fused NPU layer (a convolution and its activation); name them all
            in `Recipe.float_layers` to have that layer in float16 without conversions in between.
    """

    name: str
    op: str
    scale: float
    zero_point: int
    low: float
    high: float
    sources: tuple[str, ...]
    layer: tuple[str, ...]


@dataclass(frozen=True)
class Node:
    """A node of the toolkit's optimized graph."""

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def read_tensors(config: str, nodes: Sequence[Node]) -> tuple[QuantisedTensor, ...]:
    """Parse a `.quantization.cfg`.

    Args:
        config: Its text.
        nodes: The optimized graph, which gives the order.

    Returns:
        The INT8 tensors.

    Raises:
        RkzooError: The text is not such a file.
    """
    try:
        parameters = yaml.load(config, Loader=_Loader)["quantize_parameters"]
        entries = {
            name: entry
            for name, entry in parameters.items()
            if entry["dtype"] == "int8" and entry["scale"]
        }
        maker = {name: node for node in nodes for name in node.outputs}
        layers = _layers(nodes)
        order = dict.fromkeys(name for node in nodes for name in node.outputs if name in entries)
        return tuple(
            _tensor(name, entries[name], maker.get(name), layers.get(name, (name,)), entries)
            for name in dict.fromkeys([*(name for name in entries if name not in order), *order])
        )
    except (yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise RkzooError(
            "The toolkit's list of quantised tensors cannot be read.",
            f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
            "Try another toolkit version.",
            code=1,
        ) from error


def _tensor(
    name: str,
    entry: Mapping[str, Any],
    maker: Node | None,
    layer: tuple[str, ...],
    known: Mapping[str, Any],
) -> QuantisedTensor:
    scales = [float(value) for value in entry["scale"]]
    at = scales.index(max(scales))
    return QuantisedTensor(
        name=name,
        op="" if maker is None or maker.op == "exDataConvert" else maker.op,
        scale=scales[at],
        zero_point=int(entry["zero_point"][at]),
        low=float(entry["min"][at]),
        high=float(entry["max"][at]),
        sources=tuple(source for source in maker.inputs if source in known) if maker else (),
        layer=tuple(text for text in layer if text in known),
    )


def _layers(nodes: Sequence[Node]) -> dict[str, tuple[str, ...]]:
    """For each tensor of a fused layer, all of its tensors."""
    return {name: pair for pair in _fused(nodes) for name in pair}


def _fused(nodes: Sequence[Node]) -> Iterator[tuple[str, str]]:
    readers: dict[str, list[Node]] = {}
    for node in nodes:
        for name in node.inputs:
            readers.setdefault(name, []).append(node)
    for node in nodes:
        if node.op not in _WEIGHTED:
            continue
        behind = readers.get(node.outputs[0], [])
        if len(behind) == 1 and behind[0].op in _ACTIVATIONS:
            yield node.outputs[0], behind[0].outputs[0]
