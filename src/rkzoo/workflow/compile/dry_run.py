"""What `convert` would build: everything settled and checked, nothing built or written."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rkzoo.files import require_space
from rkzoo.graph.lowering.rewrites.rewriting import AppliedRewrite
from rkzoo.graph.lowering.verify import EquivalenceReport
from rkzoo.json_values import to_json_value
from rkzoo.progress import SILENT, ProgressReporter
from rkzoo.soc.chips import resolve as chip_name
from rkzoo.toolkit import environment
from rkzoo.toolkit.recipe import Dtype
from rkzoo.workflow.compile.convert import check_chips, check_target, on_processor, output_names
from rkzoo.workflow.compile.golden import check_count
from rkzoo.workflow.compile.prepare import Prepared, prepare
from rkzoo.workflow.request.model_name import card_of
from rkzoo.workflow.request.models import find_models
from rkzoo.workflow.request.request import Request

_BYTES: dict[Dtype, float] = {"int8": 1, "fp16": 2, "w4a16": 0.5}


@dataclass(frozen=True)
class SettledConversion:
    """One model that would be built.

    Attributes:
        name: what it is called.
        head: what is done with its head: whole, or cut and how equal.
        outputs: names of the graph's outputs.
        dtype: the number format.
        sizes: (height, width) of each size of the picture that it would take; empty for a model
            without one.
        batch: how many samples it would take at once.
        calibration: how many samples calibrate it.
        toolkit: version of RKNN-Toolkit2.
        installed: whether that has an environment here already.
        weight_bytes: the weights alone in that number format; the .rknn is larger.
        cache_bytes: what the cache would keep of the inputs of the build.
        files: the .rknn by chip.
        proof: how equal the cut is to the uncut graph; None where nothing is cut.
        rewritten: operators that become others for the toolkit.
    """

    name: str
    head: str
    outputs: tuple[str, ...]
    dtype: Dtype
    sizes: tuple[tuple[int, int], ...]
    batch: int
    calibration: int
    toolkit: str
    installed: bool
    weight_bytes: int
    cache_bytes: int
    files: dict[str, Path]
    proof: EquivalenceReport | None
    rewritten: tuple[AppliedRewrite, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        files = {soc: str(file) for soc, file in self.files.items()}
        document: dict[str, Any] = to_json_value({**vars(self), "files": files})
        return document


def dry_run(
    model: str,
    socs: Sequence[str],
    request: Request,
    *,
    output: str | os.PathLike[str] | None = None,
    golden: int = 0,
    report: ProgressReporter = SILENT,
) -> list[SettledConversion]:
    """Everything that `convert` does before it builds, with the same arguments; only the weights
    of a card are fetched. Raises RkzooError for what `convert` would refuse before the build."""
    check_count(golden)
    chips = [chip_name(name) for name in socs]
    if card := card_of(model):
        check_chips(card, chips)
    target = Path(output) if output else None
    check_target(model, target)
    models = find_models(model, request, report, to_run=False)
    settled = []
    for _, ready in models:
        if ready.cpu:
            on_processor(ready, models, report)
            continue
        dtype: Dtype = models.dtype_of(ready, request.dtype) or ready.dtypes[0]  # type: ignore[assignment]
        prepared = prepare(
            ready,
            chips,
            dtype,
            request.pictures,
            request.toolkit,
            report,
            count=request.calibration_count,
            batch=request.batch,
            sizes=request.sizes,
            memory=request.memory,
            keep=False,
        )
        files = output_names(ready.name, chips, dtype, target)
        room = len(chips) * prepared.parameters
        require_space(next(iter(files)).parent, room, "The .rknn")
        settled.append(_settled(prepared, dict(zip(chips, files, strict=True))))
    return settled


def _settled(prepared: Prepared, files: dict[str, Path]) -> SettledConversion:
    recipe, proof, picture = prepared.recipe, prepared.proof, prepared.ready.contract.picture
    head = "whole"
    if proof is not None:
        head = f"cut, equal to the whole: {proof.words}"
    installed = any(env.version == recipe.toolkit for env in environment.installed())
    unfit = None if installed else environment.unavailable(recipe.toolkit)
    if unfit is not None:
        raise unfit
    return SettledConversion(
        name=prepared.ready.name,
        head=head,
        outputs=prepared.outputs,
        dtype=recipe.dtype,
        sizes=recipe.sizes or ((picture.size,) if picture else ()),
        batch=recipe.batch,
        calibration=prepared.samples,
        toolkit=recipe.toolkit,
        installed=installed,
        weight_bytes=round(prepared.parameters * _BYTES[recipe.dtype]),
        cache_bytes=prepared.size,
        files=files,
        proof=proof,
        rewritten=prepared.rewritten,
    )
