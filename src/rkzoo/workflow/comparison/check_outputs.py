"""Comparison of one output of a board with the simulator's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from rkzoo.accuracy.metric import cosine
from rkzoo.checks import Level
from rkzoo.contract.inputs import TensorSpec
from rkzoo.runtime.simulator import quantised
from rkzoo.session import Array, dequantise
from rkzoo.soc.machine import Machine
from rkzoo.workflow.comparison.diagnosis import GOOD

KNOWN_SHARE, KNOWN_CODES = 0.84, 5
"""The one public comparison of the simulator with a real RK3588 found 84 to 92 % of output codes
equal and a largest difference of 5 codes. A lower share is unusual, but no proof of a fault."""
KNOWN = (
    "The one public comparison with a real RK3588 found 84 to 92 % of output codes equal and a"
    " largest difference of 5; the simulator is no exact model of the chip."
)
MEASURED = "board"
STAND_IN = "stand-in: not measured on a board"
ELSEWHERE = "not measured on a board"


def board_label(stand_in: bool, machine: Machine) -> str:
    """The label of an NPU's figures: a board's are those of Rockchip's library on a Rockchip board
    alone."""
    if stand_in:
        return STAND_IN
    return MEASURED if machine.board else ELSEWHERE


FAIL_COSINE = 0.95
"""Differences of 5 of 256 codes keep the cosine well above this; wrong layouts, missing inputs and
unwritten memory do not."""


@dataclass(frozen=True)
class OutputCheck:
    """One output over all golden inputs.

    Attributes:
        equal: share of equal codes in 0..1, of an integer output.
        codes: largest difference in codes, of an integer output.
        within: share of values within one float16 step, of a float output.
        difference: largest difference in value; None where values are missing or not finite.
        cosine: cosine similarity of the worst input; None likewise.
        level: severity.
        why: reason of `level`.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    equal: float | None
    codes: int | None
    within: float | None
    difference: float | None
    cosine: float | None
    level: Level
    why: str = ""


def check_output(
    golden: TensorSpec, expected: Sequence[Array], board: TensorSpec, actual: Sequence[Array]
) -> OutputCheck:
    """Compare the outputs of all inputs.

    Args:
        golden, board: specs of the output in both sessions.
        expected, actual: one array per input, as returned by the sessions, in the graph's layout.
    """
    none = OutputCheck(golden.name, board.shape, board.dtype, None, None, None, None, None, "fail")
    pairs = [(a.reshape(-1), b.reshape(-1)) for a, b in zip(expected, actual, strict=True)]
    if any(a.size != b.size for a, b in pairs):
        why = f"the board gives {list(board.shape)} where the model has {list(golden.shape)}"
        return replace(none, why=why)
    if golden.scale is not None and board.scale is None:
        # rknn-toolkit-lite2 dequantizes integer outputs.
        pairs, board = [(a, quantised(b, golden)) for a, b in pairs], golden
    values = [(dequantise(a, golden), dequantise(b, board)) for a, b in pairs]
    if any((np.isfinite(a) & ~np.isfinite(b)).any() for a, b in values):
        return replace(none, why="it holds numbers that are not finite")
    # Ignore float16 overflows, which are infinite in the simulator too.
    values = [(a[kept], b[kept]) for a, b in values for kept in [np.isfinite(a)]]
    check = replace(
        none,
        difference=max(float(np.abs(a - b).max(initial=0.0)) for a, b in values),
        cosine=min(cosine(a, b) or 0.0 for a, b in values),
    )
    if golden.scale is None or board.scale is None:
        near = sum(int(_near(a, b).sum()) for a, b in values)
        return _judged_floats(replace(check, within=near / max(sum(a.size for a, _ in values), 1)))
    if not _same_scale(golden, board):
        board_scale, golden_scale = (
            f"{spec.scale:g} and {spec.zero_point}" for spec in (board, golden)
        )
        return replace(
            check, why=f"the library tells scale and zero point {board_scale}, not {golden_scale}"
        )
    equal = sum(int((a == b).sum()) for a, b in pairs) / max(sum(a.size for a, _ in pairs), 1)
    apart = (np.abs(a.astype(np.int64) - b.astype(np.int64)).max(initial=0) for a, b in pairs)
    return _judged_codes(replace(check, equal=equal, codes=int(max(apart))))


def _same_scale(tensor_spec: TensorSpec, other: TensorSpec) -> bool:
    alike = np.isclose(tensor_spec.scale or 0.0, other.scale or 0.0, rtol=1e-5, atol=0)
    return bool(alike) and tensor_spec.zero_point == other.zero_point


def _near(expected: Array, actual: Array) -> Array:
    """Which values are within one float16 step of each other."""
    largest = np.finfo(np.float16).max
    step = np.spacing(np.minimum(np.abs(expected), largest).astype(np.float16))
    return np.asarray(np.abs(expected - actual) <= np.nan_to_num(step, posinf=largest))


def _judged_codes(check: OutputCheck) -> OutputCheck:
    equal, codes = check.equal or 0.0, check.codes or 0
    if equal >= KNOWN_SHARE and codes <= KNOWN_CODES:
        return replace(check, level="ok")
    why = f"{equal:.1%} of codes are equal, and the largest difference is {codes}"
    # Scores that are mostly 0 have a low cosine by rounding alone.
    bad = (check.cosine or 0.0) < FAIL_COSINE and codes > KNOWN_CODES
    return replace(check, level="fail" if bad else "warn", why=why)


def _judged_floats(check: OutputCheck) -> OutputCheck:
    similarity = check.cosine or 0.0
    if similarity >= GOOD:
        return replace(check, level="ok")
    level: Level = "fail" if similarity < FAIL_COSINE else "warn"
    return replace(check, level=level, why=f"its cosine with the simulator's is {similarity:.4f}")
