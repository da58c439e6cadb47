"""How far one output tensor is from the same tensor in float."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rkzoo.contract.inputs import TensorSpec
from rkzoo.session import dequantise

Array = NDArray[Any]


@dataclass(frozen=True)
class OutputFigures:
    """One output of one runtime against float, over all pictures.

    `cosine` of the worst picture (1 is equal; None where a number is not finite), the largest
    absolute `difference` and the mean one; `low` and `high` are the range of this runtime's
    numbers, `float_low` and `float_high` of the float ones. Of an integer output, which has a
    `scale` and a `zero_point`: the shares of codes in 0..1 that stand at the lowest and the
    highest code (`at_low`, `at_high`; an end that means 0 does not count) and that mean 0
    (`zeros`), the share of float numbers that lie outside what the codes can say (`clipped`), and
    how many `codes` occur. `transposed`: the cosine when the channels are taken to be last in one
    of the two (None where they cannot be).
    `count` numbers were compared. `part` is the role in a pipeline.
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
        return self.cosine is not None


def cosine(a: Array, b: Array) -> float | None:
    """Between two arrays of one size, taken as vectors; two of zeros only are equal, and None
    where a number is not finite."""
    one, other = (np.asarray(x, np.float64).reshape(-1) for x in (a, b))
    lengths = float(np.linalg.norm(one)), float(np.linalg.norm(other))
    if not np.isfinite(lengths).all():
        return None
    if 0.0 in lengths:
        return float(lengths[0] == lengths[1])
    return float(np.clip(one @ other / (lengths[0] * lengths[1]), -1.0, 1.0))


def figures(
    wanted: Array, array: Array, spec: TensorSpec, *, name: str = "", role: str = "", part: str = ""
) -> OutputFigures:
    """`array`, as the session that `spec` belongs to returns it, against the float `wanted`.

    Two arrays of different shape are compared number by number where they hold as many.
    Numbers that are not there at all make a cosine of None.
    """
    values = dequantise(array, spec)
    reference = np.asarray(wanted, np.float32)
    if values.size != reference.size:
        cos, apart, mean = None, float("inf"), float("inf")
    else:
        cos = cosine(reference, values)
        with np.errstate(invalid="ignore"):
            gap = np.abs(reference.reshape(-1) - values.reshape(-1))
        apart = float(gap.max(initial=0.0))
        mean = float(gap.mean(dtype=np.float64)) if gap.size else 0.0
    found = OutputFigures(
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
    return found if spec.scale is None else _coded(found, array, reference, spec)


def _least(values: Array) -> float:
    return float(values.min()) if values.size else 0.0


def _coded(found: OutputFigures, array: Array, reference: Array, spec: TensorSpec) -> OutputFigures:
    limits, scale = np.iinfo(array.dtype), float(spec.scale or 1.0)
    # Half a step outside is rounded to the last code as any number is to its own.
    low, high = ((end - spec.zero_point) * scale for end in (limits.min, limits.max))
    outside = (reference < low - scale / 2) | (reference > high + scale / 2)
    size = max(array.size, 1)

    def at(end: int) -> float:
        return int(np.count_nonzero(array == end)) / size * (end != spec.zero_point)

    return replace(
        found,
        scale=scale,
        zero_point=spec.zero_point,
        at_low=at(limits.min),
        at_high=at(limits.max),
        zeros=int(np.count_nonzero(array == spec.zero_point)) / size,
        clipped=int(np.count_nonzero(outside)) / max(reference.size, 1),
        codes=len(np.unique(array)),
    )


def _other_layout(wanted: Array, values: Array) -> float | None:
    """The cosine with the channels last in `values`, or first where `wanted` has them last."""
    if wanted.size != values.size or wanted.ndim not in (3, 4) or values.ndim != wanted.ndim:
        return None
    shape = wanted.shape
    if 1 in (shape[1], int(np.prod(shape[2:]))):
        return None  # the same numbers in the same order
    last = values.reshape((shape[0], *shape[2:], shape[1]))
    first = values.reshape((shape[0], shape[-1], *shape[1:-1]))
    found = [
        cosine(wanted, np.moveaxis(last, -1, 1)),
        cosine(wanted, np.moveaxis(first, 1, -1)),
    ]
    return max((one for one in found if one is not None), default=None)


def over_pictures(rows: Sequence[OutputFigures]) -> OutputFigures:
    """The figures of one output in several pictures as one."""
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
