"""What to do where the toolkit fails on a model in INT8 or W4A16: told only after it was tried."""

from __future__ import annotations

from dataclasses import replace

import msgspec

from rkzoo.errors import RkzooError
from rkzoo.graph.rknn import reader as rknn
from rkzoo.progress import SILENT, ProgressReporter
from rkzoo.soc.chips import chips
from rkzoo.toolkit import builds
from rkzoo.toolkit.environment import ToolkitEnv
from rkzoo.toolkit.process import ModelRefused, ToolkitProcess
from rkzoo.workflow.compile.native_check import refuse_left_out
from rkzoo.workflow.compile.prepare import Prepared


def with_way_out(
    error: ModelRefused,
    prepared: Prepared,
    soc: str,
    env: ToolkitEnv,
    report: ProgressReporter = SILENT,
) -> RkzooError:
    """The error of a failed build with what was found to help.

    Args:
        error: How the toolkit failed.
        prepared: The build that failed.
        soc: For which chip.
        env: The toolkit.
        report: Where notes go.

    Returns:
        The same error; of a float model in INT8, its remedy says whether FP16 builds.
    """
    recipe, inputs = prepared.recipe, builds.find(prepared.key)
    able = "fp16" in chips()[soc].dtypes and "fp16" in prepared.ready.dtypes
    if recipe.dtype == "fp16" or recipe.quantised or not able or inputs is None:
        return error
    report.note(f"{recipe.dtype.upper()} failed: whether FP16 builds is tried.")
    plain = msgspec.structs.replace(
        recipe,
        soc=soc,
        dtype="fp16",
        algorithm="normal",
        method="channel",
        float_layers=(),
        auto_hybrid=False,
    )
    try:
        with ToolkitProcess(env) as process:
            tried = process.folder / "tried.rknn"
            process.build(replace(inputs, recipe=plain, calibration=None), tried)
            refuse_left_out(rknn.read(tried), prepared.outputs)
    except RkzooError:
        return _again(error, f"FP16 was tried and fails too. {error.fix}")
    return _again(error, "FP16 was tried and builds: use --dtype fp16.")


def _again(error: RkzooError, fix: str) -> RkzooError:
    return RkzooError(error.what, error.why, fix, code=error.code, log=error.log)
