"""Planning of a comparison: one plan per dtype, and the images."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from rkzoo.contract.model import TensorsHead
from rkzoo.errors import RkzooError
from rkzoo.files import os_errors_explained
from rkzoo.progress import ProgressReporter, readable
from rkzoo.session import Array
from rkzoo.tasks.registry import validate_options
from rkzoo.tasks.tensors.feed import as_given, input_specs
from rkzoo.toolkit.builds import BuildInputs
from rkzoo.toolkit.recipe import Dtype, Recipe
from rkzoo.vision.image import expand, read
from rkzoo.workflow.comparison.diagnosis import ON_BOARD, Runtime
from rkzoo.workflow.comparison.result import ComparedImage
from rkzoo.workflow.inference.inputs import of_plan
from rkzoo.workflow.inference.plan import ModelPart, Plan, check_pictures, part, plan
from rkzoo.workflow.inference.simulator_backend import SimulatorBackend
from rkzoo.workflow.request.calibration import CalibrationImages, choose, samples
from rkzoo.workflow.request.model_name import is_pipeline
from rkzoo.workflow.request.models import find_model
from rkzoo.workflow.request.pipeline_file import is_pipeline_file
from rkzoo.workflow.request.request import PathName, Request
from rkzoo.workflow.request.samples import ARRAYS
from rkzoo.workflow.request.sidecar import read_sidecar

PICTURES = 3  # calibration images used where none are given
MOST = 16  # maximum number of images
_QUANTISED: tuple[Dtype, ...] = ("int8", "w4a16")
_HALF: dict[str, Any] = {
    "dtype": "fp16",
    "algorithm": "normal",
    "method": "channel",
    "auto_hybrid": False,
    "float_layers": (),
}


def check_named(images: Sequence[PathName]) -> None:
    """Check that the named files exist and pictures among them can be read, before anything is
    built. Raises RkzooError where none can."""
    names = [Path(os.fspath(image)) for image in images if "=" not in os.fspath(image)]
    files = expand([str(name) for name in names if not name.is_dir()])
    pictures = [file for file in files if file.suffix.lower() not in ARRAYS][:MOST]
    for number, file in enumerate(pictures, 1):
        try:
            read(file)
        except RkzooError:
            if number == len(pictures):
                raise
        else:
            return


def given_pictures(
    images: Sequence[PathName], planned: Plan, report: ProgressReporter
) -> tuple[ComparedImage, ...]:
    """Read the given images or samples, at most MOST. Raises RkzooError."""
    if not images:
        return ()
    input_kind = of_plan(planned)
    expanded = input_kind.expand([os.fspath(image) for image in images])
    if len(expanded) > MOST:
        report.note(f"The first {MOST} of {len(expanded)} {input_kind.several} are compared.")
    return tuple(
        _named(input_kind.file(source), shown)
        for source, shown in readable(expanded[:MOST], input_kind.read, input_kind.file, report)
    )


def _named(path: Path | None, image: Any) -> ComparedImage:
    return ComparedImage(path.name if path else "sample", image, path)


def plans(
    model: str, request: Request, report: ProgressReporter
) -> tuple[dict[Runtime, Plan], list[str]]:
    """A plan for each runtime, float first, and what was left out."""
    skipped: list[str] = []
    dtype = request.dtype
    base = _base(model, replace(request, runtime="simulator", on=None), skipped, report)
    check_pictures(base, "compare")
    plans: dict[Runtime, Plan] = {"onnx": replace(base, label="onnx")}
    recipes = [part.build.recipe for part in base.parts.values() if part.build]
    if any(recipe.quantised for recipe in recipes):
        skipped.append("float16: the model came quantised, with INT8 scales of its own.")
    elif dtype != "int8":
        plans["fp16"] = replace(base, parts={r: _half(p) for r, p in base.parts.items()})
    else:
        skipped.append("float16: only INT8 was asked for.")
    own = _own(recipes)
    if dtype != "fp16" and own != "fp16":
        plans[own] = base
    return plans, skipped


def _own(recipes: Sequence[Recipe]) -> Dtype:
    """The number format of a model, or the coarsest of its parts'."""
    kinds = {recipe.dtype for recipe in recipes}
    return next((kind for kind in _QUANTISED if kind in kinds), "fp16")


def is_built(model: str) -> bool:
    """Whether a model is a .rknn or a pipeline of them, which runs as it is."""
    return Path(model).suffix.lower() == ".rknn" or is_pipeline_file(model)


def board_plans(
    model: str, request: Request, simulated: Mapping[Runtime, Plan], report: ProgressReporter
) -> dict[Runtime, Plan]:
    """A plan on the board that `request` names for each number format of the simulator's; what is
    built already has one alone. Raises RkzooError."""
    planned: dict[Runtime, Plan] = {}
    built = is_built(model)
    recipes = [part.built.recipe for part in simulated["onnx"].parts.values()]
    own = _own(recipes)
    for runtime, on_board in ON_BOARD.items():
        if runtime not in simulated or (built and runtime != own):
            continue
        wanted = request if built else replace(request, dtype=runtime)
        planned[on_board] = plan(model, wanted, report)
    return planned


def _base(model: str, request: Request, skipped: list[str], report: ProgressReporter) -> Plan:
    """What is built: INT8 wherever a model can have it."""
    if Path(model).suffix.lower() == ".rknn":
        planned = plan(model, request, report)
        if all(part.build and part.build.recipe.dtype == "fp16" for part in planned.parts.values()):
            skipped.append(f"INT8: {Path(model).name} was built in float16.")
        return planned
    if is_pipeline(model) is not None:
        planned = plan(model, request, report)
        for role, member in planned.parts.items():
            if member.build and member.build.recipe.dtype == "fp16" and request.dtype != "fp16":
                skipped.append(f"INT8 of {role}: its card keeps it in float16.")
        return planned
    ready = find_model(model, request, report)
    validate_options(ready.contract.head, request.given())
    dtype = request.dtype or ("int8" if "int8" in ready.dtypes else ready.dtypes[0])
    if dtype != "int8":
        why = f"its card allows {', '.join(ready.dtypes)} only"
        skipped.append(f"INT8: {f'only {dtype} was asked for' if request.dtype else why}.")
    simulated = part(ready, "simulator", replace(request, dtype=dtype), report)
    return Plan(ready.name, "simulator", {"model": simulated}, ready.contract.head)


def _half(part: ModelPart) -> ModelPart:
    """The same in float16, which needs no calibration."""
    recipe = msgspec.structs.replace(part.built.recipe, **_HALF)
    return replace(
        part, backend=SimulatorBackend(replace(part.built, recipe=recipe, calibration=None))
    )


def recipe_of(planned: Mapping[Runtime, Plan]) -> Recipe:
    return next(iter(planned["onnx"].parts.values())).built.recipe


def own_chip(planned: Mapping[Runtime, Plan]) -> str:
    """Target chip of the build."""
    return recipe_of(planned).soc


def calibration_pictures(
    model: str, request: Request, base: Plan, report: ProgressReporter
) -> tuple[ComparedImage, ...]:
    """The first calibration pictures: the files themselves, or what the model sees of them."""
    path = Path(model)
    files: Sequence[str] = ()
    source = request.pictures
    if source is not None:
        contract = next(iter(base.parts.values())).contract
        source = choose(source, contract, request.calibration_count, report=report)
        files = source.names if len(source.names) == len(source) else ()
    elif path.suffix.lower() == ".rknn":
        files = read_sidecar(path).calibration.files
    first = next(iter(base.parts.values()))
    build = first.built
    if isinstance(first.contract.head, TensorsHead):
        return _samples(source, first)
    there = [Path(name) for name in files if Path(name).is_file()][:PICTURES]
    if there:
        return tuple(_named(file, read(file)) for file in there)
    (stack,) = _calibrated(build, 1)
    order = slice(None, None, -1 if first.contract.input.color == "RGB" else 1)
    return tuple(
        ComparedImage(
            f"calibration picture {number + 1}", np.ascontiguousarray(picture[..., order])
        )
        for number, picture in enumerate(stack)
    )


def _calibrated(build: BuildInputs, inputs: int) -> list[Array]:
    """The first calibration samples of the first `inputs` inputs, a stack each."""
    folder = build.calibration
    if folder is None:
        raise RkzooError(
            "There is no picture to compare on.",
            "Without INT8 there are no calibration pictures to take.",
            "Give some with --image.",
        )
    with os_errors_explained("The calibration pictures cannot be read from the cache."):
        return [
            np.array(np.load(folder / f"calibration-{n}.npy", mmap_mode="r")[:PICTURES])
            for n in range(inputs)
        ]


def _samples(source: CalibrationImages | None, part: ModelPart) -> tuple[ComparedImage, ...]:
    """Calibration samples of a model with plain inputs: those named, or as they are kept."""
    specs = input_specs(part.contract)
    if source is not None:
        read_in = islice(samples(source, part.contract), PICTURES)
        return tuple(ComparedImage(f"sample {n}", sample) for n, sample in enumerate(read_in, 1))
    stacks = _calibrated(part.built, len(specs))
    return tuple(
        ComparedImage(
            f"sample {number + 1}",
            {
                name: as_given(stack[number], spec)
                for (name, spec), stack in zip(specs.items(), stacks, strict=True)
            },
        )
        for number in range(len(stacks[0]))
    )
