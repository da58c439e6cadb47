"""Distance of an output tensor from the same tensor in float."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rkzoo.accuracy.metric import cosine
from rkzoo.contract.inputs import TensorSpec
from rkzoo.session import dequantise

Array = NDArray[Any]


@dataclass(frozen=True)
class OutputFigures:
    """One output of one backend against float, over all images.

    Attributes:
        name, role, part: name, meaning, and role of the model in a pipeline.
        cosine: cosine similarity of the worst image; None where a value is not finite.
        difference: largest absolute difference.
        low, high, float_low, float_high: value ranges of this backend and of float.
        scale, zero_point: quantization of an integer output.
        at_low, at_high: share of codes at the lowest and highest code (an end that means 0 does not
            count).
        zeros: share of codes that mean 0.
        clipped: share of float values outside the representable range.
        codes: number of distinct codes.
        transposed: cosine similarity with channels last in one of the two; None where that does not
            apply.
        count: number of values compared.
        mean_difference: mean absolute difference.
    """

    name: str
    role: str
    part: str
    cosine: float | None
    difference: float
    low: float
    high: float
    float_low: float
    float_high: float
    scale: float | None = None
    zero_point: int = 0
    at_low: float | None = None
    at_high: float | None = None
    zeros: float | None = None
    clipped: float | None = None
    codes: int | None = None
    transposed: float | None = None
    count: int = 0
    mean_difference: float = 0.0

    @property
    def finite(self) -> bool:
        """Whether all values are finite."""
        return self.cosine is not None


def figures(
    expected: Array,
    array: Array,
    spec: TensorSpec,
    *,
    name: str = "",
    role: str = "",
    part: str = "",
) -> OutputFigures:
    """Compare an output with the float reference.

    Arrays of different shape are compared in order where their sizes match; otherwise the cosine is
    None.

    Args:
        expected: float reference.
        array: output of the session, possibly quantized.
        spec: describes it.
        name, role, part: copied to the result; `name` defaults to the spec's.
    """
    values = dequantise(array, spec)
    reference = np.asarray(expected, np.float32)
    if values.size != reference.size:
        cos, apart, mean = None, float("inf"), float("inf")
    else:
        cos = cosine(reference, values)
        with np.errstate(invalid="ignore"):
            gap = np.abs(reference.reshape(-1) - values.reshape(-1))
        apart = float(gap.max(initial=0.0))
        mean = float(gap.mean(dtype=np.float64)) if gap.size else 0.0
    output_figures = OutputFigures(
        name=name or spec.name,
        role=role,
        part=part,
        cosine=cos,
        difference=apart,
        low=_least(values),
        high=-_least(-values),
        float_low=_least(reference),
        float_high=-_least(-reference),
        transposed=_other_layout(reference, values),
        count=values.size,
        mean_difference=mean,
    )
    return output_figures if spec.scale is None else _coded(output_figures, array, reference, spec)


def _least(values: Array) -> float:
    return float(values.min()) if values.size else 0.0


def _coded(
    output_figures: OutputFigures, array: Array, reference: Array, spec: TensorSpec
) -> OutputFigures:
    limits, scale = np.iinfo(array.dtype), float(spec.scale or 1.0)
    # Up to half a step outside the range a value still rounds to the last code.
    low, high = ((end - spec.zero_point) * scale for end in (limits.min, limits.max))
    outside = (reference < low - scale / 2) | (reference > high + scale / 2)
    size = max(array.size, 1)

    def at(end: int) -> float:
        return int(np.count_nonzero(array == end)) / size * (end != spec.zero_point)

    return replace(
        output_figures,
        scale=scale,
        zero_point=spec.zero_point,
        at_low=at(limits.min),
        at_high=at(limits.max),
        zeros=int(np.count_nonzero(array == spec.zero_point)) / size,
        clipped=int(np.count_nonzero(outside)) / max(reference.size, 1),
        codes=len(np.unique(array)),
    )


def _other_layout(expected: Array, values: Array) -> float | None:
    """Cosine similarity after assuming channels last in `values`, or in `wanted`."""
    if expected.size != values.size or expected.ndim not in (3, 4) or values.ndim != expected.ndim:
        return None
    shape = expected.shape
    if 1 in (shape[1], int(np.prod(shape[2:]))):
        return None  # both layouts have the same order
    last = values.reshape((shape[0], *shape[2:], shape[1]))
    first = values.reshape((shape[0], shape[-1], *shape[1:-1]))
    similarities = [
        cosine(expected, np.moveaxis(last, -1, 1)),
        cosine(expected, np.moveaxis(first, 1, -1)),
    ]
    return max((similarity for similarity in similarities if similarity is not None), default=None)


def over_pictures(rows: Sequence[OutputFigures]) -> OutputFigures:
    """Aggregate one output over several images."""
    first = rows[0]
    cosines = [row.cosine for row in rows]
    total = max(sum(row.count for row in rows), 1)

    def share(name: str) -> float | None:
        if getattr(first, name) is None:
            return None
        return float(sum(getattr(row, name) * row.count for row in rows) / total)

    def least(values: Sequence[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return min(known) if known and len(known) == len(values) else None

    return OutputFigures(
        name=first.name,
        role=first.role,
        part=first.part,
        cosine=least(cosines),
        difference=max(row.difference for row in rows),
        low=min(row.low for row in rows),
        high=max(row.high for row in rows),
        float_low=min(row.float_low for row in rows),
        float_high=max(row.float_high for row in rows),
        scale=first.scale,
        zero_point=first.zero_point,
        at_low=share("at_low"),
        at_high=share("at_high"),
        zeros=share("zeros"),
        clipped=share("clipped"),
        codes=None if first.codes is None else max(row.codes or 0 for row in rows),
        transposed=least([row.transposed for row in rows]),
        count=sum(row.count for row in rows),
        mean_difference=share("mean_difference") or 0.0,
    )
