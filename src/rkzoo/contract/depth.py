"""Heads of depth estimation models."""

from __future__ import annotations

from rkzoo.contract.schema_base import StrictStruct


class DepthHead(StrictStruct, frozen=True, tag="depth", tag_field="kind"):
    """Monocular relative depth, the first output of the graph: 1x1xhxw or 1xhxw of any size, up to
    an unknown scale and shift.

    `inverse`: larger is nearer (1 / depth, as in MiDaS and Depth Anything); otherwise larger is
    farther away.

    https://arxiv.org/abs/1907.01341
    """

    inverse: bool = True

    @property
    def larger(self) -> str:
        """What larger values mean, for messages."""
        return "nearer" if self.inverse else "farther away"
