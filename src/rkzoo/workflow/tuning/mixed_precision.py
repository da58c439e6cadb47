"""Ranking of layers for mixed precision: INT8 damage by cost in float16."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from rkzoo.files import package_digest
from rkzoo.graph.onnx.read import load_structure
from rkzoo.kept import keep, kept, kept_folder
from rkzoo.progress import SILENT, ProgressReporter
from rkzoo.toolkit.analysis import LayerError
from rkzoo.toolkit.builds import BuildInputs
from rkzoo.toolkit.logscan import LayerCost
from rkzoo.toolkit.process import ToolkitProcess
from rkzoo.toolkit.tensors import QuantisedTensor

if TYPE_CHECKING:
    import onnx

_PICTURES = 2  # images; each takes 25 s of the toolkit's analysis for yolov8n


@dataclass(frozen=True)
class Layer:
    """An NPU layer: its tensors, its `damage` by INT8 (1 - cosine similarity to float, with this
    layer alone quantized) and its `cycles`.
    """

    tensors: tuple[str, ...]
    damage: float
    cycles: float


def layers_of(
    process: ToolkitProcess, build: BuildInputs, report: ProgressReporter = SILENT
) -> tuple[Layer, ...]:
    """All layers in graph order, with damage and cost.

    Cached, since the toolkit takes a minute or two. Raises RkzooError.
    """
    place = kept_folder("layers", package_digest()[:32]) / f"{build.onnx.parent.name}.json"
    known = kept(place, report)
    if known is not None:
        return msgspec.json.decode(known, type=tuple[Layer, ...])
    errors = process.analyse(build, _pictures(build))
    costs = process.build_for_simulation(build).layers
    tensors = process.quantised_tensors(build)
    graph = load_structure(build.onnx)
    layers = judged(tensors, errors, costs, graph)
    keep(place, msgspec.json.encode(layers))
    return layers


def judged(
    tensors: Sequence[QuantisedTensor],
    errors: Sequence[LayerError],
    costs: Sequence[LayerCost],
    graph: onnx.ModelProto,
) -> tuple[Layer, ...]:
    """Join damage and cost of layers. A layer without cycles in the compiler's table counts as the
    cheapest one with some.
    """
    damage = {error.tensor: _damage(error) for error in errors}
    node_of = {name: node.name for node in graph.graph.node for name in node.output}
    # The table names a layer "kind:node".
    cycles = {row.name.partition(":")[2]: float(row.cycles_total) for row in costs}
    least = min((value for value in cycles.values() if value > 0), default=1.0)
    layers = {
        tensor.layer: Layer(
            tensor.layer,
            max(damage.get(name, 0.0) for name in tensor.layer),
            max(least, *(cycles.get(node_of.get(name, ""), 0.0) for name in tensor.layer)),
        )
        for tensor in tensors
        if tensor.op  # inputs are not layers
    }
    return tuple(layers.values())


def ranked(layers: Sequence[Layer]) -> tuple[Layer, ...]:
    """Layers with any damage, by descending damage per cycle."""
    hurt = [layer for layer in layers if layer.damage > 0]
    return tuple(sorted(hurt, key=lambda layer: -layer.damage / layer.cycles))


def branches(
    layers: Sequence[Layer], graph: onnx.ModelProto, roles: Mapping[str, str]
) -> dict[str, tuple[Layer, ...]]:
    """Layers that serve outputs of a single role, by role, the shortest branch first. `roles` maps
    output to role; empty where all have the same role.
    """
    serves = {name: {role} for name, role in roles.items()}
    for node in reversed(graph.graph.node):
        reached = set().union(*(serves.get(name, set()) for name in node.output))
        for name in node.input:
            serves[name] = serves.get(name, set()) | reached
    by_role: dict[str, list[Layer]] = {}
    if len(set(roles.values())) > 1:
        for layer in layers:
            reached = set().union(*(serves.get(name, set()) for name in layer.tensors))
            if len(reached) == 1:
                by_role.setdefault(reached.pop(), []).append(layer)
    return {
        role: tuple(kept)
        for role, kept in sorted(by_role.items(), key=lambda values: len(values[1]))
    }


def _damage(error: LayerError) -> float:
    if error.all_zero:
        return 1.0
    return 0.0 if error.cosine_single is None else max(0.0, 1.0 - error.cosine_single)


def cycles(process: ToolkitProcess, build: BuildInputs) -> float:
    """NPU cycles of the model on the simulated chip, as estimated by the compiler."""
    return total(process.build_for_simulation(build).layers)


def total(layers: Sequence[LayerCost]) -> float:
    """Sum of the compiler's table. Layers without cycles count by memory traffic, at the rate of
    the others.
    """
    known = [row for row in layers if row.cycles_total]
    waiting = sum(row.cycles_ddr for row in known)
    rate = waiting / max(sum(row.rw_kb for row in known), 1.0)
    rest = sum(row.rw_kb for row in layers if not row.cycles_total)
    return sum(row.cycles_total for row in known) + rest * rate


def _pictures(build: BuildInputs) -> list[np.ndarray]:
    folder = build.calibration
    if folder is None:
        return []
    stacks = (np.load(path, mmap_mode="r") for path in sorted(folder.glob("calibration-*.npy")))
    return [np.array(stack[:_PICTURES]) for stack in stacks]
