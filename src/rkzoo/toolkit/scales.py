"""Check for output scales that are too coarse for scores."""

from __future__ import annotations

from collections.abc import Sequence

from rkzoo.contract.inputs import TensorSpec
from rkzoo.toolkit.logscan import Finding

_SCORES = ("score", "score_sum", "decoded")
# With fewer distinct scores between 0 and 1 than this, no threshold works.
_STEPS = 8


def check_scales(outputs: Sequence[TensorSpec], roles: Sequence[str]) -> tuple[Finding, ...]:
    """Find quantized outputs whose scores in 0..1 (nearly) all round to 0.

    Args:
        outputs: The outputs of the built model.
        roles: Role of each (contract.HeadOutput.role); "" for scores before their sigmoid, which
            are not in 0..1. Outputs without a scale, and roles without scores, are skipped.
    """
    found = []
    for output, role in zip(outputs, roles, strict=True):
        if role not in _SCORES or output.scale is None or output.scale * _STEPS <= 1.0:
            continue
        steps = round(1.0 / output.scale)
        left = f"only {steps + 1} different scores remain" if steps else "every score becomes 0"
        found.append(
            Finding(
                "collapsed-scale",
                f"The output {output.name} is stored in steps of {output.scale:.3g}, so of scores"
                f" between 0 and 1 {left}; build the model with its head cut, where scores"
                " have a scale of their own.",
                f"scale {output.scale:.6g}, zero point {output.zero_point}",
            )
        )
    return tuple(found)
