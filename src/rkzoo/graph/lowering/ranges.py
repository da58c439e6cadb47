"""INT8 ranges of a network's inner tensors that lose least, found from what calibrates it.

RKNN-Toolkit2's `normal` takes the smallest and the largest number that it saw, so one rare number
makes every step of a tensor coarse. Here each tensor gets the range whose 256 steps have the least
squared error over its own numbers. What an activation reads is judged by what comes out of it: a
SiLU makes nothing of numbers below -8.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from rkzoo.graph.onnx.view import GraphView, graph_view
from rkzoo.ort import BoundedSession

Array = NDArray[Any]
Range = tuple[str, float, float]

_SAMPLES = 4000  # numbers of each tensor and picture
_BINS = 4096  # a step of INT8 is 16 of them, or more
_BYTES = 1 << 28  # of tensors that one run keeps
# What is cut off moves a sum always one way, and what is rounded both ways.
_CLIPPED = 4.0
_SHRINK = np.linspace(0.3, 1.0, 36)  # of each end
# Operators whose result the NPU stores with a range of its own.
_STORED = frozenset({"Conv", "ConvTranspose", "Add", "Sub", "Mul", "Concat", "AveragePool"})
# Operators whose result holds the numbers of their first input.
_MOVED = frozenset({"Split", "MaxPool", "Resize", "Reshape", "Transpose", "Slice", "Flatten"})
# Activations that a table of numbers computes: the tensor before is stored, too. Those that only
# cut numbers off (Relu, Clip, LeakyRelu) are a part of the convolution.
_TABLES = frozenset(
    {"Sigmoid", "Tanh", "HardSwish", "HardSigmoid", "Elu", "Gelu", "Softplus", "Mish"}
)
_CUTS = frozenset({"Relu", "Clip", "LeakyRelu", "PRelu"})


@dataclass
class _Seen:
    """What was seen of a tensor: samples (in pairs with those of what it becomes), and its ends."""

    low: float = 0.0
    high: float = 0.0
    samples: list[Array] = field(default_factory=list)

    def add(self, values: Array, places: Array) -> None:
        self.low = min(self.low, float(values.min()))
        self.high = max(self.high, float(values.max()))
        self.samples.append(values.reshape(-1)[places])


def least_error_ranges(
    model: onnx.ModelProto, samples: Iterable[Mapping[str, Array]]
) -> tuple[Range, ...]:
    """Ranges for the toolkit's table.

    Args:
        model: The graph as the toolkit takes it, of fixed shapes.
        samples: What calibrates it: float arrays by input, each of one sample.

    Returns:
        (tensor, smallest, largest) of the inner tensors whose range was found; outputs of the graph
        are not among them, since what they mean is not known here.

    Raises:
        RkzooError: ONNX Runtime cannot run the graph.
    """
    view = graph_view(model)
    ends = {output.name for output in model.graph.output}
    becomes = {
        name: result
        for node in model.graph.node
        for name in node.output
        if (result := _activation(name, view)) is not None
    }
    wanted = [
        name
        for node in model.graph.node
        for name in node.output
        if name not in ends
        and node.op_type in (*_STORED, *_TABLES, *_CUTS)
        and not _is_inside(name, view)
    ]
    if not wanted:
        return ()
    seen = _observe(model, [*wanted, *becomes.values()], samples)
    found: dict[str, tuple[float, float]] = {}
    for name in wanted:
        if name not in seen or seen[name].high <= seen[name].low:
            continue
        after = seen.get(becomes.get(name, ""))
        found[name] = least_error(
            np.concatenate(seen[name].samples),
            (seen[name].low, seen[name].high),
            np.concatenate(after.samples) if after else None,
        )
    for node in model.graph.node:  # in their order, so that a chain of them is followed
        if node.op_type in _MOVED and node.input[0] in found:
            found.update((name, found[node.input[0]]) for name in node.output if name not in ends)
    return tuple((name, *found[name]) for name in found)


def least_error(
    values: Array, ends: tuple[float, float], after: Array | None = None
) -> tuple[float, float]:
    """The range with the least squared error of `values` in 256 steps.

    Args:
        values: Samples of a tensor, (N,).
        ends: Its smallest and largest number, 0 between them.
        after: What an activation makes of each of `values`, (N,); then its error counts.

    Returns:
        Smallest and largest number, within `ends`.
    """
    low, high = ends
    counts, edges = np.histogram(values, _BINS, (low, high))
    kept = np.flatnonzero(counts)
    centres, weights = (edges[kept] + edges[kept + 1]) / 2, counts[kept]
    order = np.argsort(values, kind="stable")
    at, becomes = (values[order], after[order]) if after is not None else (centres, centres)
    goal = np.interp(centres, at, becomes)

    def best(lows: Array, highs: Array) -> tuple[float, float]:
        lows, highs = np.broadcast_arrays(lows[:, None], highs[:, None])
        step = np.maximum((highs - lows) / 255, 1e-30)
        zero = np.rint(-lows / step)
        stored = (np.clip(np.rint(centres / step) + zero, 0, 255) - zero) * step
        error = np.square(np.interp(stored, at, becomes) - goal)
        error = np.where((centres < lows) | (centres > highs), _CLIPPED * error, error) @ weights
        chosen = int(np.argmin(error))
        return float(lows[chosen, 0]), float(highs[chosen, 0])

    for _ in range(2):  # one end at a time
        low, high = best(np.array([low]), ends[1] * _SHRINK)
        low, high = best(ends[0] * _SHRINK, np.array([high]))
    return low, high


def _activation(name: str, view: GraphView) -> str | None:
    """The tensor that an activation makes of `name` alone, where nothing else reads it."""
    readers = view.consumers.get(name, [])
    kinds = sorted(node.op_type for node in readers)
    if kinds == ["Mul", "Sigmoid"]:
        product = next(node for node in readers if node.op_type == "Mul")
        gate = next(node for node in readers if node.op_type == "Sigmoid")
        if set(product.input) == {name, gate.output[0]}:
            return str(product.output[0])
    if len(kinds) == 1 and kinds[0] in _TABLES:
        return str(readers[0].output[0])
    return None


def _is_inside(name: str, view: GraphView) -> bool:
    """Whether a tensor never leaves the unit that makes it: the gate of a SiLU, and what is cut off
    at once."""
    maker, readers = view.producers[name], view.consumers.get(name, [])
    if len(readers) != 1:
        return False
    reader = readers[0]
    if maker.op_type == "Sigmoid" and reader.op_type == "Mul":
        return maker.input[0] in reader.input
    return maker.op_type not in _CUTS and reader.op_type in _CUTS


def _observe(
    model: onnx.ModelProto, names: Sequence[str], samples: Iterable[Mapping[str, Array]]
) -> dict[str, _Seen]:
    """Runs the graph with `names` as further outputs. Tensors of one shape are sampled at the same
    places, so those of an activation's two sides are pairs."""
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    there = {output.name for output in watched.graph.output}
    watched.graph.output.extend(
        onnx.ValueInfoProto(name=name) for name in dict.fromkeys(names) if name not in there
    )
    session = BoundedSession(
        watched.SerializeToString(),
        what="The graph",
        fix="Use --algorithm normal.",
    )
    seen: dict[str, _Seen] = {}
    endless: set[str] = set()  # not finite in some sample: left out, so that pairs stay pairs
    groups: list[list[str]] = [list(dict.fromkeys(names))]
    for number, feeds in enumerate(samples):
        sizes: dict[str, int] = {}
        for group in groups:
            for name, values in zip(group, session.run(feeds, group), strict=True):
                if not isinstance(values, np.ndarray) or values.dtype != np.float32:
                    continue
                if not values.size:
                    continue
                if not np.isfinite(values).all():
                    endless.add(name)
                    continue
                places = np.random.default_rng((number, values.size)).integers(
                    0, values.size, min(_SAMPLES, values.size)
                )
                seen.setdefault(name, _Seen()).add(values, places)
                sizes[name] = values.nbytes
        if not number:
            groups = _groups(sizes)  # of what is of use
    return {name: numbers for name, numbers in seen.items() if name not in endless}


def _groups(sizes: Mapping[str, int]) -> list[list[str]]:
    """The tensors in parts of at most _BYTES."""
    groups: list[list[str]] = []
    held = 0
    for name, size in sizes.items():
        if not groups or held + size > _BYTES:
            groups.append([])
            held = 0
        groups[-1].append(name)
        held += size
    return groups
