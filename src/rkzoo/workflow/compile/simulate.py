"""Simulator sessions: a build that stays alive and answers.

A saved .rknn cannot be simulated, so the model is built again from what `convert` kept.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec

from rkzoo.contract.detect import DetectHead
from rkzoo.contract.faces import FaceHead
from rkzoo.contract.model import Contract
from rkzoo.errors import RkzooError
from rkzoo.graph.rknn import reader as rknn
from rkzoo.progress import SILENT, Reporter
from rkzoo.runtime.simulator import SimulatorSession
from rkzoo.toolkit import builds, environment
from rkzoo.toolkit.builds import BuildInputs
from rkzoo.toolkit.process import SIMULATED_SOC, ToolkitProcess
from rkzoo.toolkit.recipe import Dtype, Sidecar
from rkzoo.workflow.compile.prepare import prepare
from rkzoo.workflow.compile.text_calibration import MADE
from rkzoo.workflow.request import calibration as calib
from rkzoo.workflow.request.quantization import Quantise
from rkzoo.workflow.request.resolve import AS_IS, Feed, Resolved, resolve
from rkzoo.workflow.request.sidecar import read_sidecar


def open_rknn(path: Path, *, report: Reporter = SILENT) -> tuple[Contract, SimulatorSession]:
    """The model of a .rknn that rkzoo made, on the simulator."""
    contract, inputs = rknn_inputs(path, report=report)
    return contract, simulate(inputs, report)


def rknn_inputs(path: Path, *, report: Reporter = SILENT) -> tuple[Contract, BuildInputs]:
    """What a .rknn that rkzoo made was built from. Raises RkzooError when that is lost."""
    sidecar = read_sidecar(path)
    inputs = builds.find(sidecar.build) or _again(sidecar, path, report)
    return sidecar.contract, replace(inputs, recipe=sidecar.recipe)


def _again(sidecar: Sidecar, path: Path, report: Reporter) -> BuildInputs:
    """Prepares the build anew from the source file and the calibration pictures."""
    source = Path(sidecar.source.file)
    if not source.exists() and not sidecar.source.card:
        raise RkzooError(
            f"{path.name} cannot be simulated any more.",
            f"The model it was made from is gone from {source}, and from the cache.",
            "Put it back there, or convert it again.",
        )
    files = [name for name in sidecar.calibration.files if name != MADE]
    gone = [name for name in files if not Path(name).exists()]
    if gone:
        raise RkzooError(
            f"{path.name} cannot be simulated any more.",
            f"{len(gone)} calibration pictures are gone, {gone[0]} for one, and the copy in the "
            "cache too.",
            "Put them back, or convert the model again.",
        )
    contract, recipe = sidecar.contract, sidecar.recipe
    if contract.texts and recipe.dtype == "int8":
        raise RkzooError(
            f"{path.name} cannot be simulated any more.",
            "The embeddings that it was calibrated with were kept in the cache, which has "
            "forgotten them.",
            "Convert the model again.",
        )
    ready = resolve(
        sidecar.source.card or str(source),
        size=contract.picture.size if contract.picture else None,
        labels=contract.labels or None,
        anchors=_anchors(contract, from_card=bool(sidecar.source.card)),
        feed=_feed(contract),
        report=report,
    )
    if ready.source.sha256 != sidecar.source.sha256:
        raise RkzooError(
            f"{path.name} does not belong to {source} any more.",
            "That file has changed since the conversion.",
            "Convert it again.",
        )
    ready = ready.quantised(
        Quantise(
            head=sidecar.head,
            algorithm=recipe.algorithm,
            method=recipe.method,
            auto_hybrid=recipe.auto_hybrid,
            float_layers=recipe.float_layers,
        )
    )
    # Names may be assumed differently by now, and change no number.
    if msgspec.structs.replace(ready.contract, labels=contract.labels) != contract:
        raise RkzooError(
            f"{path.name} cannot be built again as it was.",
            f"It was made by rkzoo {sidecar.rkzoo}, which described the model differently.",
            "Convert the model again.",
        )
    pictures = calib.from_files([Path(name) for name in files]) if files else None
    prepared = prepare(
        ready,
        [recipe.soc],
        recipe.dtype,
        pictures,
        recipe.toolkit,
        report,
    )
    inputs = builds.find(prepared.key)
    if inputs is None or prepared.calibration.sha256 != sidecar.calibration.sha256:
        raise RkzooError(
            f"{path.name} cannot be built again as it was.",
            "The calibration pictures have changed since the conversion.",
            "Convert the model again.",
        )
    return inputs


def _feed(contract: Contract) -> Feed:
    picture = contract.picture
    return Feed(picture.color, picture.mean, picture.std) if picture else AS_IS


def _anchors(contract: Contract, *, from_card: bool) -> list[tuple[float, float]] | None:
    head = contract.head
    if isinstance(head, FaceHead) and not from_card:
        sides = [side for level in head.anchors for side in level]
        return list(zip(sides[::2], sides[1::2], strict=True))
    if not isinstance(head, DetectHead) or not head.anchors:
        return None
    return [pair for level in head.anchors for pair in level]


def open_simulator(
    ready: Resolved,
    *,
    pictures: calib.Pictures | None = None,
    dtype: str | None = None,
    toolkit: str | None = None,
    report: Reporter = SILENT,
) -> SimulatorSession:
    """A resolved model on the simulator, without writing a .rknn."""
    inputs = simulator_inputs(ready, pictures=pictures, dtype=dtype, toolkit=toolkit, report=report)
    return simulate(inputs, report)


def simulator_inputs(
    ready: Resolved,
    *,
    pictures: calib.Pictures | None = None,
    dtype: str | None = None,
    toolkit: str | None = None,
    report: Reporter = SILENT,
) -> BuildInputs:
    """What the simulator needs to build a resolved model, checked and kept in the cache."""
    chosen: Dtype = dtype or ready.dtypes[0]  # type: ignore[assignment]
    prepared = prepare(ready, [SIMULATED_SOC], chosen, pictures, toolkit, report)
    inputs = builds.find(prepared.key)
    if inputs is None:
        raise RkzooError("The inputs of the build have gone from the cache.", "", "Run it again.")
    return inputs


def simulate(inputs: BuildInputs, report: Reporter = SILENT) -> SimulatorSession:
    """Builds a model that stays alive and answers."""
    env = environment.ensure(inputs.recipe.toolkit, report=report)
    process = ToolkitProcess(env, report=report)
    try:
        return simulate_in(process, inputs)
    except BaseException:
        process.close()
        raise


def simulate_in(process: ToolkitProcess, inputs: BuildInputs) -> SimulatorSession:
    """As `simulate`, in a process that is there; it answers until the next build in it. To close
    the session is to close the process."""
    built = process.build_for_simulation(inputs)
    return SimulatorSession(process, inputs.recipe.inputs, rknn.read(built.rknn).outputs)
