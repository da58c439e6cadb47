"""Checks of a built .rknn, usable on a board without ONNX."""

from __future__ import annotations

from collections.abc import Iterator

from rkzoo.checks import Check
from rkzoo.contract.custom_operator import MARK
from rkzoo.graph.rknn.reader import RknnFile

# Boxes of 0..640 on one INT8 scale have a scale of 640 / 255; scores of 0..1 alone 1 / 255.
_COARSE = 0.5


def rknn_checks(file: RknnFile) -> list[Check]:
    """Check a built .rknn: operators on the CPU, and outputs whose INT8 scale is too coarse for
    scores.
    """
    return [*_placement(file), *_scales(file)]


def _placement(file: RknnFile) -> Iterator[Check]:
    left = file.cpu_operators
    if not left:
        yield Check("ok", "Every operator runs on the NPU.")
        return
    kinds = sorted({operator.type for operator in left})
    yield Check("warn", f"{len(left)} operators run on the CPU: {', '.join(kinds)}.")
    custom = [kind for kind in kinds if kind.startswith(MARK)]
    if custom:
        yield Check(
            "warn",
            f"Custom operators: {', '.join(custom)}. The NPU's library does not compute them: on a "
            "board ONNX Runtime does (pip install onnxruntime), from the .json beside this file.",
        )


def _scales(file: RknnFile) -> Iterator[Check]:
    coarse = False
    for spec in file.outputs:
        mixed = len(spec.shape) == 3 and spec.shape[1] > 4 and spec.shape[2] > spec.shape[1]
        if mixed and spec.scale is not None and spec.scale > _COARSE:
            coarse = True
            yield Check(
                "fail",
                f"Output {spec.name} moves in steps of {spec.scale:.3g}: if boxes and scores "
                "share it, every score in 0..1 is lost. Convert again without --no-cut.",
            )
    if file.quantised and not coarse:
        yield Check("ok", "Each output has an INT8 scale of its own.")
