"""The tensors of a quantised model, as the toolkit names them and scales them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from rkzoo.errors import RkzooError

# All scalars stay text: a tensor may be called 460, on or 1e5.
_Loader: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)

_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul", "exGemm", "exMatMul")
# What the NPU computes at the end of a convolution, without a layer of its own.
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

    value = (q - zero_point) * scale, q from -128 to 127; `low` and `high` are the range that
    calibration has chosen. (Of a constant with a scale for each channel: the coarsest one.)
    `op` is the kind of layer that makes it, "" for an input; `sources` are the tensors it is
    made from. `layer`: the tensors that the NPU makes in one go (a convolution and its
    activation), this one among them; name them all in `Recipe.float_layers` to have that layer
    in float16 without conversions in between.
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
    """A node of the toolkit's optimised graph."""

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def read_tensors(config: str, nodes: Sequence[Node]) -> tuple[QuantisedTensor, ...]:
    """The INT8 tensors in the text of a `.quantization.cfg`, in the graph's order (`nodes`).

    Raises RkzooError when the text is not such a file.
    """
    try:
        parameters = yaml.load(config, Loader=_Loader)["quantize_parameters"]
        found = {
            name: entry
            for name, entry in parameters.items()
            if entry["dtype"] == "int8" and entry["scale"]
        }
        maker = {name: node for node in nodes for name in node.outputs}
        layers = _layers(nodes)
        order = dict.fromkeys(name for node in nodes for name in node.outputs if name in found)
        return tuple(
            _tensor(name, found[name], maker.get(name), layers.get(name, (name,)), found)
            for name in dict.fromkeys([*(name for name in found if name not in order), *order])
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
        layer=tuple(one for one in layer if one in known),
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
