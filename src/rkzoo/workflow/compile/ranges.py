"""INT8 ranges by rkzoo's own calibration, kept in the cache."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from rkzoo.files import package_digest
from rkzoo.graph.lowering.ranges import Range, least_error_ranges
from rkzoo.kept import keep, kept, kept_folder
from rkzoo.progress import SILENT, ProgressReporter
from rkzoo.toolkit.builds import calibration_digest
from rkzoo.toolkit.recipe import InputPlan, Recipe

if TYPE_CHECKING:
    import onnx

Array = NDArray[Any]

_SAMPLES = 20


def with_own_ranges(
    recipe: Recipe,
    graph: onnx.ModelProto,
    arrays: Sequence[Array],
    report: ProgressReporter = SILENT,
) -> Recipe:
    """A recipe with the ranges that lose least of what calibrates a graph (see
    `least_error_ranges`); as it is, where its algorithm is another.

    Args:
        recipe: The build settings.
        graph: As it goes to the toolkit.
        arrays: What calibrates each of its inputs, stacked: uint8 NHWC for a picture.
        report: Receives progress.

    Raises:
        RkzooError: ONNX Runtime cannot run the graph, or the cache cannot be written.
    """
    if recipe.algorithm != "mse" or not arrays:
        return recipe
    ranges = _found(graph, recipe.inputs, arrays, report)
    return msgspec.structs.replace(recipe, ranges=ranges)


def _found(
    graph: onnx.ModelProto,
    inputs: Sequence[InputPlan],
    arrays: Sequence[Array],
    report: ProgressReporter,
) -> tuple[Range, ...]:
    chosen = np.unique(np.linspace(0, len(arrays[0]) - 1, _SAMPLES).round().astype(int))
    taken = [array[chosen] for array in arrays]
    content = graph.SerializeToString()
    key = hashlib.sha256(content + msgspec.json.encode(list(inputs)))
    key.update(f"{calibration_digest(taken)}{package_digest()}".encode())
    place = kept_folder("ranges", key.hexdigest()[:32]) / "ranges.json"
    known = kept(place, report)
    if known is not None:
        return msgspec.json.decode(known, type=tuple[Range, ...])
    with report.task("Finding INT8 ranges", len(chosen)) as task:

        def feeds() -> Iterator[dict[str, Array]]:
            for number in range(len(chosen)):
                task.update(number, len(chosen))
                yield {
                    plan.name: fed(array[number], plan)
                    for plan, array in zip(inputs, taken, strict=True)
                }

        ranges = least_error_ranges(graph, feeds())
    keep(place, msgspec.json.encode(ranges))
    return ranges


def fed(sample: Array, plan: InputPlan) -> Array:
    """One sample as the graph takes it: a picture (H, W, C) as float32 1xCxHxW, normalised."""
    if not plan.mean:
        return sample.reshape(plan.shape).astype(plan.dtype, copy=False)
    mean, std = (np.asarray(values, np.float32) for values in (plan.mean, plan.std))
    values = (sample.astype(np.float32) - mean) / std
    return np.ascontiguousarray(values.transpose(2, 0, 1)[None])
