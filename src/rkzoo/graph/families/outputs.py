"""Names and roles of the outputs of a cut head."""

from __future__ import annotations

from collections.abc import Sequence

from rkzoo.contract.detect import HeadOutput
from rkzoo.graph.families.recognition import HeadTensor


def cut_outputs(taps: Sequence[HeadTensor], strides: Sequence[int]) -> tuple[HeadOutput, ...]:
    """Names (`box_8`), roles and levels of the outputs of a cut.

    Args:
        taps: The exposed tensors, in order.
        strides: Stride in pixels by level.
    """
    return tuple(
        HeadOutput(
            name=head_tensor.role
            if head_tensor.role == "prototypes"
            else f"{head_tensor.role}_{strides[head_tensor.level]}",
            role=head_tensor.role,
            level=head_tensor.level,
        )
        for head_tensor in taps
    )
