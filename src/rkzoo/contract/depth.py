"""Heads of depth estimation models."""

from __future__ import annotations

from rkzoo.contract.schema_base import StrictStruct


class DepthHead(StrictStruct, frozen=True, tag="depth", tag_field="kind"):
    """Monocular depth, the first output of the graph: 1x1xhxw or 1xhxw of any size, up to an
    unknown scale and shift.

    Attributes:
        inverse: Larger is nearer (1 / depth, as in MiDaS and Depth Anything); otherwise larger is
            farther away.
        metric: The values are metres, with no scale or shift to be found; `inverse` is False then.

    https://arxiv.org/abs/1907.01341
    """

    inverse: bool = True
    metric: bool = False

    def __post_init__(self) -> None:
        if self.metric and self.inverse:
            raise ValueError("metres grow with the distance: metric goes with inverse: false")

    @property
    def larger(self) -> str:
        """What larger values mean, for messages."""
        return "nearer" if self.inverse else "farther away"
