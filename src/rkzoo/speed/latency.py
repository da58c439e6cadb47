"""From the compiler's table of layers to milliseconds, by a model fitted to the vendor's figures.

The time of a layer is a sum of terms, each a number of the table times a coefficient of the
chip; the time of a model is the sum of its layers, for an NPU works through them one by one.
Coefficients, points and errors are in latency.yaml, written by scripts/fit_latency.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import resources

import msgspec

from rkzoo.contract.schema_base import Strict
from rkzoo.soc.chips import chips, same_family
from rkzoo.speed.table import CostTable
from rkzoo.toolkit.logscan import LayerCost

_WIDTHS = {"INT8": 1, "UINT8": 1, "FLOAT16": 2, "INT16": 2, "FLOAT": 4, "INT32": 4, "INT64": 8}
_RELABELS = ("Reshape", "Transpose")  # on the CPU, these are next to nothing


def _on_cpu(layer: LayerCost) -> bool:
    return layer.target == "CPU" and layer.op not in _RELABELS


def _swish(layer: LayerCost) -> float:
    """Values that leave a layer through x * sigmoid(x), which costs time beside its cycles."""
    return math.prod(layer.output_shape) / 1e6 if "Swish" in layer.op else 0.0


def _width(layer: LayerCost) -> float:
    """Bytes of a value: by the traffic, for the column of types is that of the first input, which
    may be a constant beside the tensor that counts; 0 for what only gets another name."""
    values = sum(map(math.prod, layer.input_shape))
    if not values or not layer.rw_kb:
        return 0.0
    return min(max(layer.rw_kb * 1024 / values, 1.0), _WIDTHS.get(layer.dtype, 1))


def _written(layer: LayerCost) -> float:
    """Bytes that a layer writes."""
    return math.prod(layer.output_shape) * _width(layer) if layer.output_shape else 0.0


def _moved(layer: LayerCost) -> float:
    """Megabytes in and out of a layer that has no cycles: joining, splitting, adding, scaling up.

    By its shapes, for the compiler's own figure may hold constants too, which stream in by far
    faster (17 MB in one joining layer of RetinaFace on rk3588).
    """
    if layer.cycles_total or _on_cpu(layer):
        return 0.0
    read = sum(map(math.prod, layer.input_shape)) * _width(layer)
    return (min(read, layer.rw_kb * 1024) + _written(layer)) / 1e6


TERMS: dict[str, Callable[[LayerCost], float]] = {
    "cycles": lambda layer: layer.cycles_total / 1e6,
    "moved": _moved,
    "layers": lambda layer: 0.0 if _on_cpu(layer) else 0.01,
    "swish": _swish,
    "cpu": lambda layer: layer.rw_kb * 1024 / 1e6 if _on_cpu(layer) else 0.0,
}
"""Million cycles; MB in and out of layers without cycles; hundreds of layers; million values
through a swish; MB read by layers that run on the processor."""


class Point(Strict, frozen=True):
    """A network of the published table. `left_out` and `family_left_out` are what the model says
    when it was fitted without this network, and without its whole family. Milliseconds."""

    network: str
    published: float
    left_out: float
    family_left_out: float
    terms: dict[str, float]


class ChipModel(Strict, frozen=True):
    """`coefficients` in ms for one unit of each term. The true time is meant to lie between `low`
    and `high` times the estimate for nine new models in ten; the interval is as wide as the errors
    of families left out. It held `coverage` of the points left out alone, and `family_coverage`
    of those left out with their family, by an interval made without them. Errors are shares of
    the published time, of points that were left out of the fit."""

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


class LatencyModel(Strict, frozen=True):
    """latency.yaml. `source` names the published figures, `sha256` their file."""

    toolkit: str
    date: str
    source: str
    sha256: str
    chips: dict[str, ChipModel]
    format: int = 1


@dataclass(frozen=True)
class Latency:
    """What a model is expected to take, inference alone, on one NPU core at full clock.

    Milliseconds; `ms`, `low` and `high` are None where the chip has no published figure to
    calibrate with. `cycles` in millions and `bound` in ms (None where the clock is not known):
    those of its convolutions, at the NPU's highest clock, and it takes longer than that.
    `layers` is the expected time of each layer of the table's `work`, or its cycles in ms for an
    uncalibrated chip. `unpriced` counts layers on the processor whose time is not in `ms`,
    for no published figure of the chip tells it.
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
    import yaml

    text = resources.files("rkzoo.speed").joinpath("latency.yaml").read_text("utf-8")
    return msgspec.convert(yaml.load(text, yaml.CSafeLoader), LatencyModel)


def totals(table: CostTable) -> dict[str, float]:
    """The terms of a whole model."""
    work = table.work
    return {name: math.fsum(map(term, work)) for name, term in TERMS.items()}


def chip_model(table: CostTable) -> ChipModel | None:
    """The fitted model that holds for a build, if there is one: INT8, and a chip, or one of its
    family, with published figures."""
    if table.dtype != "int8":
        return None
    found = [m for soc, m in latency_model().chips.items() if same_family(soc, table.soc)]
    return found[0] if found else None


def latency(table: CostTable, model: ChipModel | None = None) -> Latency:
    """What to expect of a build; `model` replaces the one that latency.yaml has."""
    model = model or chip_model(table)
    work = table.work
    cycles = math.fsum(layer.cycles_total for layer in work) / 1e6
    clock = chips()[table.soc].npu_max_hz if table.soc in chips() else None
    bound = cycles * 1e9 / clock if clock else None
    if model is None:
        each = tuple(layer.cycles_total / 1e6 * (1e9 / clock if clock else 1.0) for layer in work)
        return Latency(None, None, None, cycles, bound, each, sum(map(_on_cpu, work)))
    layers = tuple(_milliseconds(layer, model) for layer in work)
    ms = math.fsum(layers)
    unpriced = 0 if model.coefficients.get("cpu") else sum(map(_on_cpu, work))
    return Latency(ms, ms * model.low, ms * model.high, cycles, bound, layers, unpriced)


def _milliseconds(layer: LayerCost, model: ChipModel) -> float:
    return math.fsum(c * TERMS[name](layer) for name, c in model.coefficients.items())


def cpu_layers(table: CostTable) -> tuple[LayerCost, ...]:
    """The layers that fall to the processor, those that only relabel a tensor apart."""
    return tuple(layer for layer in table.work if _on_cpu(layer))


def traffic(table: CostTable) -> float:
    """Megabytes that a frame moves to and from memory: what each layer reads, which is all that
    the compiler's column RW counts (by its rows), and what it writes, by its shape."""
    return math.fsum(layer.rw_kb * 1024 + _written(layer) for layer in table.work) / 1e6
