"""ONNX graph builder, for networks whose weights are stored in another format."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from rkzoo.graph.onnx.view import Array

_OPSET = 17


def save(model: onnx.ModelProto, path: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write the .onnx; `metadata`, if given, replaces the model's own."""
    if metadata:
        helper.set_model_props(model, dict(metadata))
    onnx.save(model, path)


class GraphWriter:
    """Builds a float32 graph node by node.

    Methods return the name of the tensor they add. `held` maps weight names to arrays; each weight
    is stored once.
    """

    def __init__(self, held: Mapping[str, Array]) -> None:
        self.held = held
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []

    def input(self, name: str, *shape: int, kind: int = TensorProto.FLOAT) -> str:
        """Add a graph input of the given shape."""
        self._inputs.append(helper.make_tensor_value_info(name, kind, shape))
        return name

    def output(self, name: str, *shape: int) -> str:
        """Declare a float32 graph output of the given shape."""
        self._outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
        return name

    def constant(self, value: Array | float, name: str = "") -> str:
        """Add an initializer: integers as they are, everything else as float32."""
        array = np.asarray(value)
        array = array if array.dtype.kind == "i" else array.astype(np.float32)
        name = name or f"constant{len(self._constants)}"
        self._constants[name] = numpy_helper.from_array(np.ascontiguousarray(array), name)
        return name

    def weight(self, name: str) -> str:
        """Add one of the weights `held`."""
        return self.constant(self.held[name], name)

    def node(self, kind: str, *inputs: str, to: str = "", **attributes: Any) -> str:
        """Add a node of type `kind` with one output, called `to` where given."""
        output = to or f"{kind.lower()}{len(self._nodes)}"
        node = helper.make_node(kind, list(inputs), [output], name=output, **attributes)
        self._nodes.append(node)
        return output

    def linear(self, x: str, weight: Array, bias: Array | None, to: str = "") -> str:
        """Add a linear layer with `weight` (outputs, inputs) and `bias` (outputs,), if any."""
        product = self.node("MatMul", x, self.constant(weight.T), to="" if bias is not None else to)
        if bias is None:
            return product
        return self.node("Add", product, self.constant(bias), to=to)

    def gelu(self, x: str, wide: bool = False) -> str:
        """GELU by Erf. It divides by sqrt(2), which the toolkit fuses into one NPU layer. A `wide`
        tensor (3000 long) overflows that layer's registers, so it multiplies instead: its Erf then
        runs on the CPU.
        """
        inner = (
            self.node("Mul", x, self.constant(2**-0.5))
            if wide
            else self.node("Div", x, self.constant(2**0.5))
        )
        share = self.node("Erf", inner)
        return self.node(
            "Mul",
            self.node("Mul", x, self.node("Add", share, self.constant(1.0))),
            self.constant(0.5),
        )

    def model(self, name: str) -> onnx.ModelProto:
        """The finished model; `name` is the graph's."""
        graph = helper.make_graph(
            self._nodes, name, self._inputs, self._outputs, list(self._constants.values())
        )
        opset = [helper.make_opsetid("", _OPSET)]
        return helper.make_model(graph, opset_imports=opset, ir_version=8)
