"""A .rknn for one chip, built once and kept: what a board at the other end of a cable is sent."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

from rkzoo.files import cache_dir, locked, package_digest
from rkzoo.kept import drop, intact, kept_folder, seal
from rkzoo.progress import SILENT, ProgressReporter
from rkzoo.toolkit.recipe import Dtype
from rkzoo.workflow.compile.convert import convert_resolved, custom_string
from rkzoo.workflow.compile.prepare import prepare
from rkzoo.workflow.request.request import Request
from rkzoo.workflow.request.resolved import ResolvedModel


def kept_rknn(
    ready: ResolvedModel, soc: str, request: Request, report: ProgressReporter = SILENT
) -> Path:
    """The .rknn of a model, from the cache where it was built before.

    Args:
        ready: The model.
        soc: The chip.
        request: How it is converted.
        report: Where notes and progress go.

    Returns:
        The file, in the cache, with its sidecar beside it.

    Raises:
        RkzooError: It cannot be built.
    """
    dtype: Dtype = request.dtype or ready.dtypes[0]  # type: ignore[assignment]
    request = replace(request, dtype=dtype)
    prepared = prepare(
        ready,
        [soc],
        dtype,
        request.pictures,
        request.toolkit,
        report,
        count=request.calibration_count,
        batch=request.batch,
        sizes=request.sizes,
    )
    parts = (prepared.key, soc, dtype, custom_string(ready.contract), package_digest())
    key = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]
    with locked(cache_dir("locks") / f"rknn-{key}"):
        target = cache_dir("rknn") / key / f"{ready.name}-{soc}-{dtype}.rknn"
        if not intact(target.parent, report):
            folder = kept_folder("rknn", key)
            try:
                convert_resolved(ready, [soc], request, output=target, report=report)
                seal(folder)
            except BaseException:
                drop(folder)
                raise
    return target
