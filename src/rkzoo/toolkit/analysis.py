"""Accuracy analysis: parser of the toolkit's layer-by-layer comparison with the float model."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from rkzoo.toolkit.logs import strip_colors


@dataclass(frozen=True)
class LayerError:
    """Error of one tensor of the simulated model against the float model.

    Attributes:
        op: Type of the layer that produces it.
        tensor: Its name after the toolkit's optimizations, as `Recipe.float_layers` takes it.
        cosine_entire: Cosine similarity with all layers before it simulated too, so that errors
            accumulate; None where the toolkit compared nothing, since the layer is fused with the
            next, or where `all_zero`.
        euclid_entire: Euclidean distance likewise.
        cosine_single: Cosine similarity with only this layer simulated.
        euclid_single: Euclidean distance likewise.
        all_zero: Every value was rounded to 0.
    """

    op: str
    tensor: str
    cosine_entire: float | None
    euclid_entire: float | None
    cosine_single: float | None
    euclid_single: float | None
    all_zero: bool = False


_NUMBER = r"([-+]?(?:\d+\.?\d*(?:[eE][-+]?\d+)?|inf|nan)|q_zero)"
_PAIR = rf"{_NUMBER}\s*\|\s*{_NUMBER}"
_ROW = re.compile(rf"^\[([^\]]+)\]\s+(\S.*?)(?:\s+{_PAIR}(?:\s+{_PAIR})?)?\s*$")


def read_errors(text: str) -> tuple[LayerError, ...]:
    """Parse an `error_analysis.txt`; rows in the graph's order, () where there are none."""
    rows = (_ROW.match(line.rstrip()) for line in strip_colors(text).splitlines())
    return tuple(_error(row) for row in rows if row)


def _error(row: re.Match[str]) -> LayerError:
    op, tensor, *numbers = row.groups()
    cosine, euclid, cosine_single, euclid_single = map(_value, numbers)
    zero = "q_zero" in numbers
    return LayerError(op, tensor, cosine, euclid, cosine_single, euclid_single, zero)


def _value(number: str | None) -> float | None:
    if number is None or number in ("q_zero", "nan"):
        return None
    return float(number)


def worst(tables: Sequence[Sequence[LayerError]]) -> tuple[LayerError, ...]:
    """Merge the tables of several images: the lowest cosine and largest distance of each tensor;
    `all_zero` where every image has it.
    """
    if not tables:
        return ()
    others = [{row.tensor: row for row in table} for table in tables]
    return tuple(
        _worst([table[row.tensor] for table in others if row.tensor in table]) for row in tables[0]
    )


def _worst(rows: Sequence[LayerError]) -> LayerError:
    return replace(
        rows[0],
        cosine_entire=_among(min, [row.cosine_entire for row in rows]),
        euclid_entire=_among(max, [row.euclid_entire for row in rows]),
        cosine_single=_among(min, [row.cosine_single for row in rows]),
        euclid_single=_among(max, [row.euclid_single for row in rows]),
        all_zero=all(row.all_zero for row in rows),
    )


def _among(pick: Callable[[list[float]], float], values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return pick(known) if known else None
