"""Builds the models with the real toolkit, and keeps what its simulator computes of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
from nets import Array, Entry, Net, samples

from rkzoo.graph.rknn import reader as rknn
from rkzoo.progress import SILENT
from rkzoo.runtime.simulator import SimulatorSession
from rkzoo.toolkit import builds
from rkzoo.toolkit.builds import BuildInputs
from rkzoo.toolkit.environment import ToolkitEnv
from rkzoo.toolkit.process import SIMULATED_SOC, ToolkitProcess
from rkzoo.toolkit.recipe import Recipe, Sidecar
from rkzoo.vision.image import read, write
from rkzoo.workflow.compile.convert import custom_string
from rkzoo.workflow.compile.prepare import prepare
from rkzoo.workflow.inference.board import contract_of
from rkzoo.workflow.inference.load import task_with
from rkzoo.workflow.request import calibration
from rkzoo.workflow.request.resolve import resolve

SETS = 2
"""Inputs of each model, with the simulator's answer."""


@dataclass(frozen=True)
class Built:
    """`rknn`: the file, for RK3588, with NAME.npz beside it: `in0_0` is set 0 of the first input
    as a session takes it, `out0_0` what the simulator computed for it (codes where they are
    quantised, NCHW). `found`: what the simulator's outputs mean in the photo that the model is
    shown, which is the last set."""

    entry: Entry
    rknn: Path
    photo: Path | None = None
    found: list[dict[str, Any]] | None = None


class Recorder:
    """A session that keeps what goes in and comes out."""

    def __init__(self, session: SimulatorSession) -> None:
        self.session, self.runs = session, []
        self.label, self.inputs, self.outputs = session.label, session.inputs, session.outputs

    def run(self, arrays: Sequence[Array]) -> list[Array]:
        outputs = self.session.run(arrays)
        self.runs.append(([np.array(array) for array in arrays], outputs))
        return outputs


def build_all(
    entries: Sequence[Entry], assets: Path, pictures: Sequence[Path], env: ToolkitEnv, folder: Path
) -> dict[str, Built]:
    """Each of them once, by two toolkit processes."""
    with ThreadPoolExecutor(2) as pool:
        return dict(
            pair
            for part in pool.map(
                lambda part: _build_some(part, assets, pictures, env, folder),
                (entries[0::2], entries[1::2]),
            )
            for pair in part
        )


def _build_some(
    entries: Sequence[Entry], assets: Path, pictures: Sequence[Path], env: ToolkitEnv, folder: Path
) -> list[tuple[str, Built]]:
    made = []
    with ToolkitProcess(env) as process:
        for entry in entries:
            inputs = _inputs(entry, assets, pictures, folder)
            made.append((entry.name, _build(entry, inputs, process, assets, folder)))
    return made


def _inputs(entry: Entry, assets: Path, pictures: Sequence[Path], folder: Path) -> BuildInputs:
    if entry.net is not None:
        return _told(entry, entry.net(), folder)
    source = str(assets / entry.source) if "/" in entry.source else entry.source
    if entry.graph is not None:
        source = str(folder / f"{entry.name}.onnx")
        onnx.save(entry.graph(), source)
    ready = resolve(source)
    chosen = calibration.from_files(list(pictures)) if entry.dtype == "int8" else None
    prepared = prepare(ready, [SIMULATED_SOC], entry.dtype, chosen, None, SILENT)
    found = builds.find(prepared.key)
    assert found is not None
    beside = Sidecar(
        source=ready.source,
        recipe=prepared.recipe,
        contract=ready.contract,
        calibration=prepared.calibration,
        build=prepared.key,
        rkzoo="tests",
    )
    (folder / f"{entry.name}.rknn.json").write_bytes(msgspec.json.encode(beside))
    return replace(found, recipe=prepared.recipe, custom_string=custom_string(ready.contract))


def _told(entry: Entry, net: Net, folder: Path) -> BuildInputs:
    place = folder / entry.name
    place.mkdir()
    onnx.save(net.graph, place / "model.onnx")
    recipe = Recipe(soc=SIMULATED_SOC, dtype=entry.dtype, inputs=net.inputs)
    if entry.dtype != "int8":
        return BuildInputs(place / "model.onnx", recipe)
    for index, plan in enumerate(net.inputs):
        np.save(place / f"calibration-{index}.npy", samples(plan, 4, seed=index))
    return BuildInputs(place / "model.onnx", recipe, place)


def _build(
    entry: Entry, inputs: BuildInputs, process: ToolkitProcess, assets: Path, folder: Path
) -> Built:
    report = process.build_for_simulation(inputs)
    file = folder / f"{entry.name}.rknn"
    file.write_bytes(report.rknn.read_bytes())
    told = rknn.read(file)
    plans = inputs.recipe.inputs
    session = Recorder(SimulatorSession(process, plans, told.outputs))
    for seed in range(1, SETS + 1):
        session.run([samples(plan, 1, seed=10 * seed + i) for i, plan in enumerate(plans)])
    found, photo = None, None
    if entry.photo:
        contract = contract_of(file)
        answer = task_with(contract, session)  # type: ignore[arg-type]
        photo = assets / "data/images" / entry.photo
        if entry.fitted:
            answer(read(photo))
            (((canvas,), _),) = [session.runs.pop()]
            photo = folder / f"{entry.name}.png"
            order = -1 if contract.input.color == "RGB" else 1
            write(photo, np.ascontiguousarray(canvas[0][..., ::order]))
        found = answer(read(photo)).to_json()
    arrays = {
        f"{side}{number}_{index}": array
        for number, run in enumerate(session.runs)
        for side, ends in zip(("in", "out"), run, strict=True)
        for index, array in enumerate(ends)
    }
    np.savez(folder / f"{entry.name}.npz", **arrays)
    scalings = [told.normalisation.get(spec.name) for spec in told.inputs]
    (folder / f"{entry.name}.scalings.json").write_text(
        json.dumps([one and {"mean": one.mean, "std": one.std} for one in scalings])
    )
    return Built(entry, file, photo, found)
