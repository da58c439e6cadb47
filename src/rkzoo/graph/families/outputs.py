"""Names and roles of the outputs of a cut head."""

from __future__ import annotations

from collections.abc import Sequence

from rkzoo.contract.detect import HeadOutput
from rkzoo.graph.families.recognition import Tap


def cut_outputs(taps: Sequence[Tap], strides: Sequence[int]) -> tuple[HeadOutput, ...]:
    """Names (`box_8`), roles and levels of the outputs of a cut.

    Args:
        taps: The exposed tensors, in order.
        strides: Stride in pixels by level.
    """
    return tuple(
        HeadOutput(
            name=tap.role if tap.role == "prototypes" else f"{tap.role}_{strides[tap.level]}",
            role=tap.role,
            level=tap.level,
        )
        for tap in taps
    )
