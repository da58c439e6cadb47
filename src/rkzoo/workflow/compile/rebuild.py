"""What a .rknn was built from, made again when the cache has forgotten it."""

from __future__ import annotations

from pathlib import Path

import msgspec

from rkzoo.contract.audio import StackedFeatures
from rkzoo.contract.detect import DetectHead
from rkzoo.contract.faces import FaceHead
from rkzoo.contract.model import Contract, TensorsHead
from rkzoo.errors import RkzooError
from rkzoo.progress import SILENT, ProgressReporter
from rkzoo.toolkit import builds
from rkzoo.toolkit.builds import BuildInputs
from rkzoo.toolkit.recipe import Sidecar
from rkzoo.workflow.compile.prepare import prepare
from rkzoo.workflow.compile.text_calibration import MADE
from rkzoo.workflow.request import calibration as calib
from rkzoo.workflow.request.options import Fit, fit_of
from rkzoo.workflow.request.quantization import QuantizationConfig
from rkzoo.workflow.request.request import Request
from rkzoo.workflow.request.resolve import resolve
from rkzoo.workflow.request.resolved import ResolvedModel
from rkzoo.workflow.request.split import split_models


def rebuild(sidecar: Sidecar, path: Path, report: ProgressReporter = SILENT) -> BuildInputs:
    """Prepares the build of the .rknn `path` anew from its source file and calibration pictures.
    Raises RkzooError where they are gone or have changed."""
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
    picture = contract.picture
    tensors = isinstance(contract.head, TensorsHead)
    unfitted: Fit | None = "none" if tensors else None
    ready = _part(sidecar, report) or resolve(
        sidecar.source.card or str(source),
        Request(
            size=picture.size if picture else None,
            labels=contract.labels or None,
            anchors=_anchors(contract, from_card=bool(sidecar.source.card)),
            color=picture.color if picture else None,
            mean=picture.mean if picture else None,
            std=picture.std if picture else None,
            fit=fit_of(picture) if picture else unfitted,
            raw=tensors,
            shapes={other.name: other.shape for other in contract.others} if tensors else None,
        ),
        report=report,
    )
    if ready.source.sha256 != sidecar.source.sha256:
        raise RkzooError(
            f"{path.name} does not belong to {source} any more.",
            "That file has changed since the conversion.",
            "Convert it again.",
        )
    ready = ready.quantised(
        QuantizationConfig(
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
        batch=recipe.batch,
        sizes=recipe.sizes,
    )
    inputs = builds.find(prepared.key)
    if inputs is None or prepared.calibration.sha256 != sidecar.calibration.sha256:
        raise RkzooError(
            f"{path.name} cannot be built again as it was.",
            "The calibration pictures have changed since the conversion.",
            "Convert the model again.",
        )
    return inputs


def _part(sidecar: Sidecar, report: ProgressReporter) -> ResolvedModel | None:
    """The part of a file that was split, at the length that it was built for."""
    if not sidecar.source.part:
        return None
    of = sidecar.contract
    rows = next(other.shape[1] for other in of.others if other.name == "mask")
    usual = StackedFeatures()
    request = Request(
        labels=of.labels or None, shapes={"speech": (1, rows, usual.bins * usual.stack)}
    )
    whole = resolve(sidecar.source.card or sidecar.source.file, request, report=report)
    return next(part for part in split_models(whole) if part.source.part == sidecar.source.part)


def _anchors(contract: Contract, *, from_card: bool) -> list[tuple[float, float]] | None:
    head = contract.head
    if isinstance(head, FaceHead) and not from_card:
        sides = [side for level in head.anchors for side in level]
        return list(zip(sides[::2], sides[1::2], strict=True))
    if not isinstance(head, DetectHead) or not head.anchors:
        return None
    return [pair for level in head.anchors for pair in level]
