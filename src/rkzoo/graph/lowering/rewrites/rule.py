"""What a rewrite is, and the tool that its rules write with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from rkzoo.graph.onnx.summary import opset
from rkzoo.graph.onnx.view import MAX_IR, Array, GraphView, captured_by, run

Apply = Callable[[GraphView], "Counter[str]"]
"""Rewrites the model of a view in place, and says how many operators of each type went."""


@dataclass(frozen=True)
class Rewrite:
    """Operators in other ones that give the same numbers.

    Attributes:
        name: What it is called in reports.
        operators: ONNX operators that it looks at; a model without them is left alone.
        form: What they become, as words after "rewritten as".
        why: What the toolkit does with them otherwise, as a sentence's second half.
        apply: Does it. A tensor that keeps its name must keep its numbers.
        chips: Chips that it helps; empty for all.
        slack: How far its outputs may differ, as a share of their range, where the graph itself
            loses more digits than the new nodes; 0 for what holds for all.
    """

    name: str
    operators: tuple[str, ...]
    form: str
    why: str
    apply: Apply
    chips: tuple[str, ...] = ()
    slack: float = 0.0

    def helps(self, socs: Sequence[str] | None) -> bool:
        """Whether it helps on each of these chips; None for any chip."""
        return not self.chips or socs is None or set(socs) <= set(self.chips)


_SHAPING = ("Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity")


# Bytes of constants that one rewrite may add to a model: matrices of a graph that nobody means.
_MOST_ADDED = 1 << 28


class Writer:
    """Nodes and constants in place of one node, with names that nothing else has; `added` bytes of
    constants."""

    def __init__(self, view: GraphView, node: onnx.NodeProto) -> None:
        self.view = view
        self.nodes: list[onnx.NodeProto] = []
        self._stem = f"{next(name for name in node.output if name)}_rewritten"
        self._count = self.added = 0

    @property
    def opset(self) -> int:
        """The version of ONNX's operators that the model is written for."""
        return opset(self.view.model)

    def shape(self, name: str) -> tuple[int, ...] | None:
        """The shape of a tensor of the model; None unless every dimension is known."""
        return self.view.shape(name)

    def value(self, name: str) -> Array | None:
        """What is stored under a name; None for what is computed."""
        return self.view.constant(name) if name else None

    def constant(self, value: Array | float) -> str:
        """A stored float32."""
        return self._stored(np.asarray(value, np.float32))

    def whole(self, values: Sequence[int] | Array) -> str:
        """A stored row of int64."""
        return self._stored(np.array(values, np.int64))

    def index(self, value: int) -> str:
        """A stored int64 without dimensions."""
        return self._stored(np.array(value, np.int64))

    def is_read(self, name: str) -> bool:
        """Whether a node or the user reads a tensor."""
        graph = self.view.model.graph
        if any(info.name == name for info in graph.output) or self.view.consumers.get(name):
            return True
        return any(name in captured_by(node) for node in graph.node)

    def add(self, operator: str, *inputs: str, to: str = "", **provided: Any) -> str:
        """A node with one output, which it names."""
        text = to or self._name()
        self.nodes.append(helper.make_node(operator, inputs, [text], text, **provided))
        return text

    def unshaped(self, name: str) -> str:
        """The tensor that another one was reshaped from."""
        makers = self.view.producers
        while name in makers and makers[name].op_type in _SHAPING:
            name = makers[name].input[0]
        return name

    def reshape(self, name: str, shape: Sequence[int], to: str = "") -> str:
        """A tensor in another shape, of the tensor that it was reshaped from itself."""
        source = self.unshaped(name)
        if self.shape(source) == tuple(shape) and not to:
            return source
        return self.add("Reshape", source, self.whole(shape), to=to)

    def call(self, made: str, name: str) -> None:
        """Gives what the last node made a name of the model."""
        last = self.nodes[-1]
        if list(last.output) == [made]:
            last.output[0] = last.name = name
        else:
            self.add("Identity", made, to=name)

    def is_float(self, name: str) -> bool:
        """Whether a tensor holds float32."""
        return self.view.dtypes.get(name) == onnx.TensorProto.FLOAT

    def alone(self, node: onnx.NodeProto, *values: Array) -> Array:
        """What a node gives in ONNX Runtime for other inputs; those left out are empty arrays.

        Raises:
            RkzooError: ONNX Runtime refuses it.
        """
        names = [f"input_{place}" if value.size else "" for place, value in enumerate(values)]
        copy = onnx.NodeProto.FromString(node.SerializeToString())
        del copy.input[:], copy.output[:]
        copy.input.extend(names)
        copy.output.append("output")
        stored = [
            numpy_helper.from_array(value, name)
            for name, value in zip(names, values, strict=True)
            if name
        ]
        info = onnx.ValueInfoProto(name="output")
        part = helper.make_graph([copy], "alone", [], [info], stored)
        model = helper.make_model(part, opset_imports=self.view.model.opset_import)
        model.ir_version = MAX_IR
        return np.asarray(run(model, {})[0])

    def copy(self, node: onnx.NodeProto) -> onnx.NodeProto:
        """A copy of a node of the model, to be changed."""
        self.nodes.append(onnx.NodeProto.FromString(node.SerializeToString()))
        return self.nodes[-1]

    def _stored(self, array: Array) -> str:
        name = self._name()
        self.added += array.nbytes
        self.view.model.graph.initializer.append(numpy_helper.from_array(array, name))
        return name

    def _name(self) -> str:
        self._count += 1
        return f"{self._stem}_{self._count}"


Rule = Callable[[onnx.NodeProto, Writer], bool]
"""Writes other nodes in place of one, which makes the same outputs; False where it does not."""


def each(operators: Sequence[str], rule: Rule) -> Apply:
    """A rewrite that looks at one node at a time."""

    def apply(view: GraphView) -> Counter[str]:
        graph = view.model.graph
        done: Counter[str] = Counter()
        kept: list[onnx.NodeProto] = []
        added = 0
        for node in graph.node:
            ours = node.op_type in operators and node.domain in ("", "ai.onnx")
            if ours and added < _MOST_ADDED:
                writer = Writer(view, node)
                if _written(rule, node, writer):
                    added += writer.added
                    done[node.op_type] += 1
                    kept.extend(writer.nodes)
                    continue
            kept.append(node)
        if done:
            replace_nodes(graph, kept)
        return done

    return apply


# What Python and numpy say of attributes that are missing, places beyond a tensor and the like.
_DAMAGED = (LookupError, ValueError, TypeError, ArithmeticError)


def _written(rule: Rule, node: onnx.NodeProto, writer: Writer) -> bool:
    """Whether a rule wrote in place of a node. A node that is damaged stays as it is: what is wrong
    with it ONNX Runtime and the toolkit say."""
    try:
        return rule(node, writer)
    except _DAMAGED:
        return False


def replace_nodes(graph: onnx.GraphProto, nodes: Sequence[onnx.NodeProto]) -> None:
    """Gives a graph other nodes, its own among them."""
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)
    # What is declared of inner tensors is not trusted, and would be wrong of new ones.
    del graph.value_info[:]
