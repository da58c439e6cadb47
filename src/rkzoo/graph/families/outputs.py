"""What the outputs of a cut head are called and mean."""

from __future__ import annotations

from collections.abc import Sequence

from rkzoo.contract.detect import HeadOutput
from rkzoo.graph.families.recognition import Tap


def cut_outputs(taps: Sequence[Tap], strides: Sequence[int]) -> tuple[HeadOutput, ...]:
    """What the cut's outputs are called and mean."""
    return tuple(
        HeadOutput(
            name=tap.role if tap.role == "prototypes" else f"{tap.role}_{strides[tap.level]}",
            role=tap.role,
            level=tap.level,
        )
        for tap in taps
    )
