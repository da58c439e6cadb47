"""Simulator sessions: a build that stays alive and answers.

A saved .rknn cannot be simulated, so the model is built again from what `convert` kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from rkzoo.contract.model import Contract
from rkzoo.errors import RkzooError
from rkzoo.graph.rknn import reader as rknn
from rkzoo.progress import SILENT, ProgressReporter
from rkzoo.runtime.simulator import SimulatorSession
from rkzoo.toolkit import builds, environment
from rkzoo.toolkit.builds import BuildInputs
from rkzoo.toolkit.process import ToolkitProcess, simulated_soc
from rkzoo.toolkit.recipe import Dtype, InputPlan, Recipe
from rkzoo.workflow.request import calibration as calib
from rkzoo.workflow.request.sidecar import read_sidecar

if TYPE_CHECKING:
    from rkzoo.workflow.request.resolved import ResolvedModel


def open_rknn(
    path: Path, *, report: ProgressReporter = SILENT
) -> tuple[Contract, SimulatorSession]:
    """The model of a .rknn that rkzoo made, on the simulator."""
    contract, inputs = rknn_inputs(path, report=report)
    return contract, simulate(inputs, report)


def rknn_inputs(path: Path, *, report: ProgressReporter = SILENT) -> tuple[Contract, BuildInputs]:
    """What a .rknn that rkzoo made was built from. Raises RkzooError when that is lost."""
    sidecar = read_sidecar(path)
    inputs = builds.find(sidecar.build, report)
    if inputs is None:
        from rkzoo.workflow.compile.rebuild import rebuild

        inputs = rebuild(sidecar, path, report)
    return sidecar.contract, replace(inputs, recipe=sidecar.recipe)


def open_simulator(
    ready: ResolvedModel,
    *,
    pictures: calib.CalibrationImages | None = None,
    dtype: str | None = None,
    toolkit: str | None = None,
    report: ProgressReporter = SILENT,
) -> SimulatorSession:
    """A resolved model on the simulator, without writing a .rknn."""
    inputs = simulator_inputs(ready, pictures=pictures, dtype=dtype, toolkit=toolkit, report=report)
    return simulate(inputs, report)


def simulator_inputs(
    ready: ResolvedModel,
    *,
    pictures: calib.CalibrationImages | None = None,
    dtype: str | None = None,
    toolkit: str | None = None,
    count: int | None = None,
    batch: int = 1,
    sizes: Sequence[tuple[int, int]] = (),
    report: ProgressReporter = SILENT,
) -> BuildInputs:
    """What the simulator needs to build a resolved model, checked and kept in the cache."""
    from rkzoo.workflow.compile.prepare import prepare

    chosen: Dtype = dtype or ready.dtypes[0]  # type: ignore[assignment]
    prepared = prepare(
        ready,
        [simulated_soc(chosen)],
        chosen,
        pictures,
        toolkit,
        report,
        count=count,
        batch=batch,
        sizes=sizes,
    )
    inputs = builds.find(prepared.key)
    if inputs is None:
        raise RkzooError("The inputs of the build have gone from the cache.", "", "Run it again.")
    return inputs


def simulate(
    inputs: BuildInputs, report: ProgressReporter = SILENT, size: tuple[int, int] | None = None
) -> SimulatorSession:
    """Builds a model that stays alive and answers, at `size` where it has several."""
    env = environment.ensure_for(inputs.recipe, report=report)
    process = ToolkitProcess(env, report=report)
    try:
        return simulate_in(process, inputs, size)
    except BaseException:
        process.close()
        raise


def inputs_at(recipe: Recipe, size: tuple[int, int] | None) -> tuple[InputPlan, ...]:
    """The inputs of a build, whose picture has `size` where it was built for several."""
    if not recipe.sizes or size is None:
        return recipe.inputs
    (plan,) = recipe.inputs
    return (msgspec.structs.replace(plan, shape=(*plan.shape[:2], *size)),)


def simulate_in(
    process: ToolkitProcess, inputs: BuildInputs, size: tuple[int, int] | None = None
) -> SimulatorSession:
    """As `simulate`, in a process that is there; it answers until the next build in it. To close
    the session is to close the process."""
    built = process.build_for_simulation(inputs)
    recipe, file = inputs.recipe, rknn.read(built.rknn)
    if not recipe.sizes:
        return SimulatorSession(process, recipe.inputs, file.outputs, recipe.batch)
    (plan,) = inputs_at(recipe, size)
    # In an order of the toolkit's own.
    place = file.shapes[plan.name].index(plan.shape)
    outputs = [
        msgspec.structs.replace(spec, shape=file.shapes[spec.name][place]) for spec in file.outputs
    ]
    return SimulatorSession(process, [plan], outputs, recipe.batch)
