"""Output scales too coarse to carry what the output means."""

from __future__ import annotations

from collections.abc import Sequence

from rkzoo.contract.inputs import TensorSpec
from rkzoo.toolkit.logscan import Finding

_SCORES = ("score", "score_sum", "decoded")
# Fewer different scores between 0 and 1 than this, and no threshold can work.
_STEPS = 8


def check_scales(outputs: Sequence[TensorSpec], roles: Sequence[str]) -> tuple[Finding, ...]:
    """Findings for quantised outputs with scores in 0..1 that (nearly) all round to nothing.

    `roles` belong to `outputs` one by one (contract.HeadOutput.role). An output without a
    scale, and a role that has no scores in it, is left alone; give "" for scores that
    leave the graph before their sigmoid, since those are not between 0 and 1.
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
                f" between 0 and 1 {left}; build the model with its tail cut off, where scores"
                " have a scale of their own.",
                f"scale {output.scale:.6g}, zero point {output.zero_point}",
            )
        )
    return tuple(found)
