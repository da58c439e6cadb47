"""Latency estimation from the compiler's layer table, fitted to the vendor's published figures.

The time of a layer is a sum of terms, each a number of the table times a coefficient of the chip;
the time of a model is the sum over its layers, which an NPU runs sequentially. Coefficients,
points and errors are in latency.yaml, written by scripts/fit_latency.py.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import resources

import msgspec

from rkzoo.contract.schema_base import StrictStruct
from rkzoo.soc.chips import chips, same_family
from rkzoo.speed.table import CostTable
from rkzoo.toolkit.logscan import LayerCost

_WIDTHS = {"INT8": 1, "UINT8": 1, "FLOAT16": 2, "INT16": 2, "FLOAT": 4, "INT32": 4, "INT64": 8}
_RELABELS = ("Reshape", "Transpose")  # negligible on the CPU


def on_cpu(layer: LayerCost) -> bool:
    return layer.target == "CPU" and layer.op not in _RELABELS


def _is_depthwise(layer: LayerCost) -> bool:
    """A convolution of one filter a channel: weights (1, channels, height, width)."""
    if not layer.cycles_total or len(layer.input_shape) < 2 or "Conv" not in layer.op:
        return False
    weights, output = layer.input_shape[1], layer.output_shape
    return len(output) > 1 and weights[:2] == (1, output[1]) and output[1] > 1


_CURVES = re.compile("ExSwish|exSwish|Gelu")


def _swish(layer: LayerCost) -> float:
    """Million outputs through x * sigmoid(x) or GELU, which costs time besides the cycles."""
    return math.prod(layer.output_shape) / 1e6 if _CURVES.search(layer.op) else 0.0


def _attention(layer: LayerCost) -> float:
    """Million multiplications of an attention that the compiler fuses, and counts no cycles for."""
    if "Attention" not in layer.op:
        return 0.0
    (heads, width, _, queries), (*_, keys) = layer.input_shape[:2]
    return heads * queries * keys * (width + layer.output_shape[1]) / 1e6


def _width(layer: LayerCost) -> float:
    """Bytes per value, by traffic, since the dtype column describes the first input, which may be a
    constant; 0 for layers that only relabel a tensor.
    """
    values = sum(map(math.prod, layer.input_shape))
    if not values or not layer.rw_kb:
        return 0.0
    return min(max(layer.rw_kb * 1024 / values, 1.0), _WIDTHS.get(layer.dtype, 1))


def _written(layer: LayerCost) -> float:
    """Bytes that a layer writes."""
    return math.prod(layer.output_shape) * _width(layer) if layer.output_shape else 0.0


def _moved(layer: LayerCost) -> float:
    """Megabytes read and written by a layer without cycles: concat, split, add, resize.

    Computed from shapes, since the compiler's own figure may include constants, which stream in
    much faster (17 MB in one concat of RetinaFace on rk3588).
    """
    if layer.cycles_total or on_cpu(layer):
        return 0.0
    read = sum(map(math.prod, layer.input_shape)) * _width(layer)
    return (min(read, layer.rw_kb * 1024) + _written(layer)) / 1e6


TERMS: dict[str, Callable[[LayerCost], float]] = {
    "cycles": lambda layer: 0.0 if _is_depthwise(layer) else layer.cycles_total / 1e6,
    "depthwise": lambda layer: layer.cycles_total / 1e6 if _is_depthwise(layer) else 0.0,
    "moved": _moved,
    "layers": lambda layer: 0.0 if on_cpu(layer) else 0.01,
    "swish": _swish,
    "attention": _attention,
    "cpu": lambda layer: math.prod(layer.output_shape) / 1e6 if on_cpu(layer) else 0.0,
}
"""Million cycles, those of depthwise convolutions apart; MB in and out of layers without cycles;
hundreds of layers; million values through a swish; million multiplications of fused attention;
million values that layers on the CPU write, since what they read may be a table of which they take
a row."""


class Point(StrictStruct, frozen=True):
    """A network of the published table, in milliseconds. `left_out` and `family_left_out` are
    estimates of a fit without this network, and without its whole family; `assumes` says how a
    figure that is no time of one run became one.
    """

    network: str
    published: float
    left_out: float
    family_left_out: float
    terms: dict[str, float]
    assumes: str = ""


class ChipModel(StrictStruct, frozen=True):
    """Fitted model of a chip, in one number format.

    Attributes:
        coefficients: ms per unit of each term; a chip's are the same in both formats, since a cycle
            takes as long in either, and a byte, and the start of a layer.
        low, high: factors of the interval that should hold for nine new models in ten; as wide as
            the errors of families left out.
        median_error, mean_error, worst_error, family_median_error: relative to the published time,
            of points left out of the fit.
        coverage, family_coverage: share of the points, left out alone or with their family, inside
            an interval made without them.
        points: the published figures.
    """

    coefficients: dict[str, float]
    low: float
    high: float
    median_error: float
    mean_error: float
    worst_error: float
    family_median_error: float
    coverage: float
    family_coverage: float
    points: tuple[Point, ...]


class LatencyModel(StrictStruct, frozen=True):
    """latency.yaml. `source` names the published figures, `sha256` their file. `chips` are the
    models of INT8, `fp16` those of FP16.
    """

    toolkit: str
    date: str
    source: str
    sha256: str
    chips: dict[str, ChipModel]
    fp16: dict[str, ChipModel]
    format: int = 2

    def of(self, dtype: str) -> dict[str, ChipModel]:
        """Models of a number format by chip; empty where none is fitted."""
        return {"int8": self.chips, "fp16": self.fp16}.get(dtype, {})


@dataclass(frozen=True)
class Latency:
    """Estimated inference latency on one NPU core at its maximum clock, without pre- and
    postprocessing.

    Attributes:
        ms, low, high: milliseconds; None where the chip has no published figures to calibrate with.
        cycles: million cycles of the convolutions.
        bound: lower bound in ms, by those cycles; None where the clock is unknown.
        layers: ms of each layer of the table's `work`; by cycles for an uncalibrated chip.
        unpriced: number of CPU layers that are not in `ms`, since no published figure of the chip
            covers them.
    """

    ms: float | None
    low: float | None
    high: float | None
    cycles: float
    bound: float | None
    layers: tuple[float, ...]
    unpriced: int


@cache
def latency_model() -> LatencyModel:
    """Load latency.yaml."""
    import yaml

    text = resources.files("rkzoo.speed").joinpath("latency.yaml").read_text("utf-8")
    return msgspec.convert(yaml.load(text, yaml.CSafeLoader), LatencyModel)


def totals(table: CostTable) -> dict[str, float]:
    """Terms of a whole model."""
    work = table.work
    return {name: math.fsum(map(term, work)) for name, term in TERMS.items()}


def chip_model(table: CostTable) -> ChipModel | None:
    """Return the fitted model for a build: in INT8 or FP16, on a chip with published figures or one
    of its family; else None.
    """
    models = latency_model().of(table.dtype).items()
    return next((model for soc, model in models if same_family(soc, table.soc)), None)


def latency(table: CostTable, model: ChipModel | None = None) -> Latency:
    """Estimate the latency of a build. `model` replaces the one of latency.yaml."""
    model = model or chip_model(table)
    work = table.work
    cycles = math.fsum(layer.cycles_total for layer in work) / 1e6
    clock = chips()[table.soc].npu_max_hz if table.soc in chips() else None
    bound = cycles * 1e9 / clock if clock else None
    if model is None:
        each = tuple(layer.cycles_total / 1e6 * (1e9 / clock if clock else 1.0) for layer in work)
        return Latency(None, None, None, cycles, bound, each, sum(map(on_cpu, work)))
    layers = tuple(_milliseconds(layer, model) for layer in work)
    ms = math.fsum(layers)
    unpriced = 0 if model.coefficients.get("cpu") else sum(map(on_cpu, work))
    return Latency(ms, ms * model.low, ms * model.high, cycles, bound, layers, unpriced)


def _milliseconds(layer: LayerCost, model: ChipModel) -> float:
    return math.fsum(c * TERMS[name](layer) for name, c in model.coefficients.items())


def cpu_layers(table: CostTable) -> tuple[LayerCost, ...]:
    """Layers that run on the CPU, except those that only relabel a tensor."""
    return tuple(layer for layer in table.work if on_cpu(layer))


def cpu_megabytes(table: CostTable) -> float:
    """Megabytes that the layers on the CPU read."""
    return math.fsum(layer.rw_kb * 1024 for layer in cpu_layers(table)) / 1e6


def cpu_price(soc: str) -> tuple[str, float]:
    """Milliseconds of a million values on the CPU, a megabyte in INT8, and the chip whose published
    speeds say so: the chip itself, else the first that has such layers; ("", 0.0) where none has.
    """
    prices = {
        name: model.coefficients.get("cpu", 0.0) for name, model in latency_model().chips.items()
    }
    own = {name: price for name, price in prices.items() if price and same_family(name, soc)}
    other = {name: price for name, price in prices.items() if price}
    return next(iter((own or other).items()), ("", 0.0))


def traffic(table: CostTable) -> float:
    """Megabytes per frame to and from memory: reads (the compiler's column RW counts only these, by
    its rows) and writes, by shape.
    """
    return math.fsum(layer.rw_kb * 1024 + _written(layer) for layer in table.work) / 1e6
