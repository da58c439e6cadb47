"""Cost table of a build: layers, memory and file size, as reported by the compiler."""

from __future__ import annotations

from rkzoo.contract.schema_base import StrictStruct
from rkzoo.toolkit.logscan import LayerCost
from rkzoo.toolkit.process import BuildReport
from rkzoo.toolkit.recipe import Dtype

ENDS = ("InputOperator", "OutputOperator")


class CostTable(StrictStruct, frozen=True):
    """Costs of a build. `size` of the .rknn, `weights` and `internal` (working memory on the chip)
    in bytes; None where the compiler did not report them.
    """

    soc: str
    dtype: Dtype
    toolkit: str
    size: int
    weights: int | None
    internal: int | None
    layers: tuple[LayerCost, ...]

    @property
    def work(self) -> tuple[LayerCost, ...]:
        """Layers without the input and output markers."""
        return tuple(layer for layer in self.layers if layer.op not in ENDS)


def cost_table(report: BuildReport, dtype: Dtype) -> CostTable:
    """Extract the cost table from a build report."""
    return CostTable(
        soc=report.soc,
        dtype=dtype,
        toolkit=report.toolkit,
        size=report.size,
        weights=report.weights,
        internal=report.internal,
        layers=report.layers,
    )
