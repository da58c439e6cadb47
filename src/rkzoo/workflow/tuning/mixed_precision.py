"""Which layers of an INT8 model hurt most for what they would cost in float."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from rkzoo.files import cache_dir, package_digest, write_text
from rkzoo.graph.onnx.read import load_structure
from rkzoo.progress import SILENT, Reporter
from rkzoo.toolkit.analysis import LayerError
from rkzoo.toolkit.builds import BuildInputs
from rkzoo.toolkit.logscan import LayerCost
from rkzoo.toolkit.process import ToolkitProcess
from rkzoo.toolkit.tensors import QuantisedTensor

if TYPE_CHECKING:
    import onnx

_PICTURES = 2  # each costs the toolkit's comparison 25 s for yolov8n


@dataclass(frozen=True)
class Layer:
    """One layer of the NPU: its tensors, the `damage` that INT8 does in it (1 - cosine with
    float, this layer alone quantised) and its `cycles`."""

    tensors: tuple[str, ...]
    damage: float
    cycles: float


def layers_of(
    process: ToolkitProcess, build: BuildInputs, report: Reporter = SILENT
) -> tuple[Layer, ...]:
    """All layers, in the graph's order.

    Kept in the cache: it takes the toolkit a minute or two. Raises RkzooError.
    """
    place = cache_dir("layers", package_digest()[:32]) / f"{build.onnx.parent.name}.json"
    if place.is_file():
        try:
            return msgspec.json.decode(place.read_bytes(), type=tuple[Layer, ...])
        except (OSError, msgspec.MsgspecError):
            pass  # damaged: found again
    errors = process.analyse(build, _pictures(build))
    costs = process.build_for_simulation(build).layers
    tensors = process.quantised_tensors(build)
    graph = load_structure(build.onnx)
    found = judged(tensors, errors, costs, graph)
    write_text(place, msgspec.json.encode(found).decode())
    return found


def judged(
    tensors: Sequence[QuantisedTensor],
    errors: Sequence[LayerError],
    costs: Sequence[LayerCost],
    graph: onnx.ModelProto,
) -> tuple[Layer, ...]:
    """The layers with their damage and cost. A layer that the compiler's table does not show,
    or shows without cycles, counts as the cheapest that has some."""
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
        if tensor.op  # an input is no layer
    }
    return tuple(layers.values())


def ranked(layers: Sequence[Layer]) -> tuple[Layer, ...]:
    """Those with a damage, first those that lose most for each cycle they take."""
    hurt = [layer for layer in layers if layer.damage > 0]
    return tuple(sorted(hurt, key=lambda layer: -layer.damage / layer.cycles))


def branches(
    layers: Sequence[Layer], graph: onnx.ModelProto, roles: Mapping[str, str]
) -> dict[str, tuple[Layer, ...]]:
    """The layers that serve outputs of one role alone, by that role, the shortest branch first;
    `roles` names each output's. A network where they are all of one role has none."""
    serves = {name: {role} for name, role in roles.items()}
    for node in reversed(graph.graph.node):
        reached = set().union(*(serves.get(name, set()) for name in node.output))
        for name in node.input:
            serves[name] = serves.get(name, set()) | reached
    found: dict[str, list[Layer]] = {}
    if len(set(roles.values())) > 1:
        for layer in layers:
            reached = set().union(*(serves.get(name, set()) for name in layer.tensors))
            if len(reached) == 1:
                found.setdefault(reached.pop(), []).append(layer)
    return {role: tuple(kept) for role, kept in sorted(found.items(), key=lambda one: len(one[1]))}


def _damage(error: LayerError) -> float:
    if error.all_zero:
        return 1.0
    return 0.0 if error.cosine_single is None else max(0.0, 1.0 - error.cosine_single)


def cycles(process: ToolkitProcess, build: BuildInputs) -> float:
    """What the compiler expects the model to cost, in NPU cycles of the simulated chip."""
    return total(process.build_for_simulation(build).layers)


def total(layers: Sequence[LayerCost]) -> float:
    """The sum of the compiler's table. Layers without cycles count by their memory traffic, at
    the rate of those that have some."""
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
