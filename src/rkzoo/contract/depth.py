"""Head of models that tell how far away each pixel is."""

from __future__ import annotations

from rkzoo.contract.schema_base import Strict


class DepthHead(Strict, frozen=True, tag="depth", tag_field="kind"):
    """Relative depth from one picture, the first output of the graph: 1x1xhxw or 1xhxw of any
    size, up to a scale and a shift that are not known.

    `inverse`: larger is nearer (what is 1 / depth, as MiDaS and Depth Anything give); else
    larger is farther away.

    https://arxiv.org/abs/1907.01341
    """

    inverse: bool = True

    @property
    def larger(self) -> str:
        """What a larger number stands for."""
        return "nearer" if self.inverse else "farther away"
