"""Output scales that cannot carry what the output means: too coarse, or ended too low."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rkzoo.contract.inputs import TensorSpec
from rkzoo.toolkit.logscan import Finding

_SCORES = ("score", "score_sum", "decoded")
# These alone hold nothing but scores.
_ONLY_SCORES = ("score", "score_sum", "objectness")
# Fewer different scores between 0 and 1 than this, and no threshold can work.
_STEPS = 8
# A score that ends lower loses more than a twentieth.
_CEILING = 0.95
# Calibration pictures that show the object have a score above this somewhere.
_SEEN = 0.5


def check_scales(outputs: Sequence[TensorSpec], roles: Sequence[str]) -> tuple[Finding, ...]:
    """Find quantized outputs whose scores in 0..1 (nearly) all round to 0, or whose INT8 codes end
    far below 1.

    Args:
        outputs: The outputs of the built model.
        roles: Role of each (contract.HeadOutput.role); "" for scores before their sigmoid, which
            are not in 0..1. Outputs without a scale, and roles without scores, are skipped.
    """
    pairs = list(zip(outputs, roles, strict=True))
    coarse = [_too_coarse(output) for output, role in pairs if role in _SCORES]
    low = [_too_low(output) for output, role in pairs if role in _ONLY_SCORES]
    return tuple(finding for finding in (*coarse, *low) if finding)


def _too_coarse(output: TensorSpec) -> Finding | None:
    if output.scale is None or output.scale * _STEPS <= 1.0:
        return None
    steps = round(1.0 / output.scale)
    left = f"only {steps + 1} different scores remain" if steps else "every score becomes 0"
    return Finding(
        "collapsed-scale",
        f"The output {output.name} is stored in steps of {output.scale:.3g}, so of scores"
        f" between 0 and 1 {left}; build the model with its tail cut off, where scores"
        " have a scale of their own.",
        _evidence(output),
    )


def _too_low(output: TensorSpec) -> Finding | None:
    top = ceiling(output)
    if top is None or top >= _CEILING:
        return None
    return Finding(
        "low-ceiling",
        f"No score of the output {output.name} can pass {top:.2f}, for its INT8 codes end there:"
        " no calibration picture showed a higher one. Convert the model again with pictures of"
        " what it looks for (--calib), or with the algorithm `normal`, under which rkzoo sets the"
        " range itself.",
        _evidence(output),
    )


def ceiling(output: TensorSpec) -> float | None:
    """The highest number that an INT8 output can hold; None of another kind."""
    if output.scale is None or output.dtype != "int8":
        return None
    return (127 - (output.zero_point or 0)) * output.scale


def unseen_scores(seen: Mapping[str, float]) -> tuple[Finding, ...]:
    """A finding where calibration saw no score worth the name. `seen`: the highest number of each
    output that holds scores, whose range was set to 0..1 all the same."""
    top = max(seen.values(), default=1.0)
    if top >= _SEEN:
        return ()
    return (
        Finding(
            "low-ceiling",
            f"No calibration picture gave a score above {top:.2f}, so they likely do not show what"
            " the model looks for: the range of its scores was set to 0..1, but the other ranges"
            " come from these pictures. Give pictures of what it looks for (--calib).",
            ", ".join(f"{name} {value:.3g}" for name, value in seen.items()),
        ),
    )


def _evidence(output: TensorSpec) -> str:
    return f"scale {output.scale:.6g}, zero point {output.zero_point}"
