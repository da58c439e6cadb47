"""The tail of a graph: everything after the last convolution of each branch.

The tail has no weights, only arithmetic, so it can be run alone on chosen values. What it computes
is found from its outputs, whatever operators the exporter used.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from rkzoo.graph.onnx.view import Array, GraphView, run, submodel
from rkzoo.ort import MOST_NUMBERS, too_large

_WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM", "GRU", "RNN"})
_SUPPRESSING = frozenset({"NonMaxSuppression"})
_PICKING = frozenset({"TopK"})


@dataclass(frozen=True)
class Branch:
    """The tensor where a branch of the head leaves its last weights, or a part of it: `channels`
    says which, where one convolution makes several things; `shape` is that of the part."""

    name: str
    shape: tuple[int, ...]
    channels: tuple[int, ...] = ()

    def part(self, first: int, stop: int) -> Branch:
        """The channels from `first` to before `stop`."""
        requested = self.channels[first:stop] or tuple(range(first, stop))
        return Branch(self.name, (self.shape[0], len(requested), *self.shape[2:]), requested)

    def of(self, values: Mapping[str, Array]) -> Array:
        """(C, cells): its numbers among those of all branches."""
        flat: Array = values[self.name][0].reshape(values[self.name].shape[1], -1)
        return flat[list(self.channels)] if self.channels else flat


@dataclass(frozen=True)
class HeadPostprocessing:
    """The graph's `outputs` as a function of its `branches`. `picks`: it contains a top-k
    selection.
    """

    branches: tuple[Branch, ...]
    outputs: tuple[str, ...]
    picks: bool
    _seen: GraphView
    _nodes: tuple[onnx.NodeProto, ...]

    def __call__(self, values: Mapping[str, Array]) -> list[Array]:
        """Run the tail.

        Args:
            values: float32 values of all branches by name.

        Returns:
            The outputs, in order.

        Raises:
            RkzooError: The tail cannot be run.
        """
        computed = [name for name in self.outputs if name not in values]
        answers: dict[str, Array] = dict(values)
        if computed:
            part = submodel(self._seen, self._nodes, values, computed)
            answers |= dict(zip(computed, run(part, values), strict=True))
        return [answers[name] for name in self.outputs]


def head_postprocessing(
    view: GraphView, outputs: Sequence[str], *, picking: bool = False
) -> HeadPostprocessing | str:
    """Find the tail of a graph.

    Args:
        view: The graph.
        outputs: Names of the outputs to start from.
        picking: Allow TopK inside, as in YOLOv10 and YOLO26.

    Returns:
        The tail; a reason where there is none.
    """
    key = (*outputs, picking)
    if key not in view.tails:
        view.tails[key] = _head_postprocessing(view, outputs, picking)
    found: HeadPostprocessing | str = view.tails[key]
    return found


def _head_postprocessing(
    view: GraphView, outputs: Sequence[str], picking: bool
) -> HeadPostprocessing | str:
    refused = _SUPPRESSING if picking else _SUPPRESSING | _PICKING
    picks = False
    branches: dict[str, None] = {}
    inside: set[str] = set()
    todo = list(outputs)
    while todo:
        name = todo.pop()
        if not name or name in inside or name in branches or name in view.initializers:
            continue
        node = view.producers.get(name)
        if node is None:
            return "an output does not come from any convolution"
        picks = picks or node.op_type in _PICKING
        if node.op_type in refused:
            return (
                f"it selects its results inside the graph ({node.op_type}), "
                "which the NPU cannot do; export it without NMS and without end-to-end mode"
            )
        if _is_weighted(view, node) or _adds_bias(view, node):
            branches[name] = None
        else:
            inside.update(node.output)
            todo.extend(node.input)
    shapes = {name: view.shape(name) for name in branches}
    unknown = [name for name, shape in shapes.items() if shape is None]
    if unknown:
        return f"the size of {unknown[0]} inside the graph cannot be inferred"
    large = [name for name, shape in shapes.items() if math.prod(shape or ()) > MOST_NUMBERS]
    if large:
        raise too_large(f"{large[0]} inside the graph", MOST_NUMBERS * 4)
    return HeadPostprocessing(
        branches=tuple(Branch(name, shape) for name, shape in shapes.items() if shape),
        outputs=tuple(outputs),
        picks=picks,
        _seen=view,
        _nodes=tuple(n for n in view.model.graph.node if not inside.isdisjoint(n.output)),
    )


def _is_weighted(view: GraphView, node: onnx.NodeProto) -> bool:
    """Whether a node has trained weights; a DFL's constant kernel 0, 1, 2, ... does not count."""
    if node.op_type not in _WEIGHTED:
        return False
    weights = [view.constant(name) for name in node.input[:2]]
    fixed = [w for w in weights if w is not None]
    return not any(_is_fixed(w) for w in fixed)


def _is_fixed(weights: Array) -> bool:
    flat = weights.ravel()
    if flat.size < 2 or flat.dtype.kind != "f":
        return False
    steps, ones = np.arange(flat.size, dtype=flat.dtype), np.ones_like(flat)
    return np.array_equal(flat, steps) or np.array_equal(flat, ones)


def _adds_bias(view: GraphView, node: onnx.NodeProto) -> bool:
    """Whether a node adds a convolution's bias that the exporter left as a separate Add."""
    if node.op_type != "Add":
        return False
    added = [name for name in node.input if not view.is_constant(name)]
    before = view.producers.get(added[0]) if len(added) == 1 else None
    return before is not None and before.op_type == "Conv" and _is_weighted(view, before)
