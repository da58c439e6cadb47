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

from rkzoo.graph import rknn
from rkzoo.progress import SILENT
from rkzoo.runtime.simulator import SimulatorSession
from rkzoo.toolkit import builds
from rkzoo.toolkit.builds import BuildInputs
from rkzoo.toolkit.environment import ToolkitEnv
from rkzoo.toolkit.process import SIMULATED_SOC, ToolkitProcess
from rkzoo.toolkit.recipe import Recipe
from rkzoo.workflow import calibration
from rkzoo.workflow.convert import custom_string, prepare
from rkzoo.workflow.resolve import resolve

SETS = 2
"""Inputs of each model, with the simulator's answer."""


@dataclass(frozen=True)
class Built:
    """`rknn`: the file, for RK3588. `inputs` as a session takes them and `outputs` as the
    simulator gives them (codes where they are quantised, NCHW): SETS of each."""

    name: str
    rknn: Path
    inputs: tuple[tuple[Array, ...], ...]
    outputs: tuple[tuple[Array, ...], ...]


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
            made.append((entry.name, _build(entry, inputs, process, folder)))
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


def _build(entry: Entry, inputs: BuildInputs, process: ToolkitProcess, folder: Path) -> Built:
    report = process.build_for_simulation(inputs)
    file = folder / f"{entry.name}.rknn"
    file.write_bytes(report.rknn.read_bytes())
    session = SimulatorSession(process, inputs.recipe.inputs, rknn.read(file).outputs)
    fed = tuple(
        tuple(samples(plan, 1, seed=10 * number + i) for i, plan in enumerate(inputs.recipe.inputs))
        for number in range(1, SETS + 1)
    )
    found = tuple(tuple(session.run(arrays)) for arrays in fed)
    return Built(entry.name, file, fed, found)


def as_json(value: Any) -> str:
    return json.dumps(msgspec.to_builtins(value))
