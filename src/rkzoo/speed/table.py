"""What the compiler says of one build: its table of layers, memory and file size."""

from __future__ import annotations

from rkzoo.contract.schema_base import Strict
from rkzoo.toolkit.logscan import LayerCost
from rkzoo.toolkit.process import BuildReport
from rkzoo.toolkit.recipe import Dtype

ENDS = ("InputOperator", "OutputOperator")


class CostTable(Strict, frozen=True):
    """A build's costs, small enough to keep. `size` of the .rknn, `weights` and `internal`
    (working memory on the chip) in bytes; None where the compiler did not tell."""

    soc: str
    dtype: Dtype
    toolkit: str
    size: int
    weights: int | None
    internal: int | None
    layers: tuple[LayerCost, ...]

    @property
    def work(self) -> tuple[LayerCost, ...]:
        """The layers without the marks of the model's two ends."""
        return tuple(layer for layer in self.layers if layer.op not in ENDS)


def cost_table(report: BuildReport, dtype: Dtype) -> CostTable:
    return CostTable(
        soc=report.soc,
        dtype=dtype,
        toolkit=report.toolkit,
        size=report.size,
        weights=report.weights,
        internal=report.internal,
        layers=report.layers,
    )
