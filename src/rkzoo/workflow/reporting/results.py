"""Records of results/*.yaml: accuracy, chip support and runs.

Without heavy imports, so that `rkzoo info` can show them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
import yaml

from rkzoo.contract.schema_base import StrictStruct
from rkzoo.errors import RkzooError
from rkzoo.files import os_errors_explained, read_text, write_text
from rkzoo.workflow.request.quantization import QuantizationConfig

_LARGEST = 8 << 20

Weights = Literal["of the card", "another export", "no card", "structure only"]


class AccuracyRun(StrictStruct, frozen=True):
    """One entry of the list of runs: `model` a file below the assets, or `card` a card's name;
    `title` says in words what the data is; `more` is further data that no recipe has seen."""

    name: str
    data: str
    title: str = ""
    model: str = ""
    card: str = ""
    limit: int | None = None
    more: str = ""


Ends = tuple[float, float] | None
"""Ends of a 95 % interval."""


class AccuracyPart(StrictStruct, frozen=True):
    """As a row, on other pictures: each half of the row's, and further ones. `name` says which."""

    name: str
    images: int
    original: float
    int8: float
    int8_drop: float
    tuned: float
    tuned_drop: float
    int8_interval: Ends = None
    tuned_interval: Ends = None


class AccuracyRow(StrictStruct, frozen=True):
    """Accuracy of one model.

    Attributes:
        original, int8, tuned: metric in float, in INT8 with `--plain`, and in INT8 by default:
            with `how`, the recipe of the card; in the metric's unit.
        int8_drop, tuned_drop: drops in points (hundredths of a fraction, or %).
        portable, portable_drop: as `tuned`, without layers in float16: what another export of the
            network gets. None where the recipe has no such layers, or it was not measured.
        cost: compiler cycles of `tuned`, as a multiple of those of plain INT8; None where it is
            as fast.
        change: what the recipe changes.
        command, plain_command: commands that give `tuned` and `int8`, below the assets.
        int8_interval, tuned_interval: ends of the drops' 95 % intervals, by a paired bootstrap over
            the pictures.
        gain, gain_interval: points that `tuned` is above `int8`, on the same pictures.
        parts: the figures on each half of the pictures, and on further ones.
        truth: whether the float model's results served as ground truth.
        stages: stages that the search was limited to; empty for all.
    """

    model: str
    sha256: str
    dataset: str
    truth: Literal["known", "float model"]
    images: int
    protocol: str
    metric: str
    unit: str
    original: float
    int8: float
    int8_drop: float
    tuned: float
    tuned_drop: float
    how: QuantizationConfig
    change: str
    calibration: str
    runtime: Literal["simulator", "board"]
    toolkit: str
    rkzoo: str
    date: str
    stages: tuple[str, ...] = ()
    portable: float | None = None
    portable_drop: float | None = None
    cost: float | None = None
    command: str = ""
    plain_command: str = ""
    int8_interval: Ends = None
    tuned_interval: Ends = None
    gain: float | None = None
    gain_interval: Ends = None
    parts: tuple[AccuracyPart, ...] = ()


class SupportTrial(StrictStruct, frozen=True):
    """Build of a model for one chip. Where `converts` is False, `why` gives the reason and the rest
    may be empty.

    Attributes:
        bytes, weights, internal: .rknn file, weights and working memory, in bytes.
        on_cpu: operators that run on the CPU, one per layer.
        fits: whether the in-package memory suffices ("" where the memory is external).
        ms, low, high: result of `rkzoo estimate`; None where uncalibrated.
        bound: ms that it takes at least, where uncalibrated and the chip's clock is known.
        cpu_unpriced: CPU layers that are not in `ms`.
    """

    converts: bool
    dtype: Literal["", "int8", "fp16", "w4a16"] = ""
    why: str = ""
    bytes: int | None = None
    weights: int | None = None
    internal: int | None = None
    on_cpu: tuple[str, ...] = ()
    fits: Literal["", "yes", "tight", "no"] = ""
    ms: float | None = None
    low: float | None = None
    high: float | None = None
    bound: float | None = None
    cpu_unpriced: int = 0


class Support(StrictStruct, frozen=True):
    """Chip support of one model.

    Attributes:
        weights: origin of the file: `of the card`, `another export` found under the card's name
            below the assets, a model without a card, or the network's structure alone with
            random weights.
        untried: why it could not be tried.
        problem: a problem of the model itself, independent of the chip.
        size: (height, width).
        cut: whether the head was cut off and verified.
        chips: results by chip, in the first data type of the model that the chip has.
        half: results in float16, of models whose first is another.
        w4a16: results with 4-bit weights and float16 between layers.
    """

    model: str
    task: str
    weights: Weights
    untried: str = ""
    problem: str = ""
    file: str = ""
    sha256: str = ""
    size: tuple[int, int] | None = None
    cut: Literal["", "none", "proved"] = ""
    toolkit: str = ""
    rkzoo: str = ""
    date: str = ""
    chips: dict[str, SupportTrial] = msgspec.field(default_factory=dict)
    half: dict[str, SupportTrial] = msgspec.field(default_factory=dict)
    w4a16: dict[str, SupportTrial] = msgspec.field(default_factory=dict)


def read_runs(path: Path) -> list[AccuracyRun]:
    """Read the list of runs. Raises RkzooError when it is missing or invalid."""
    runs: list[AccuracyRun] = _read(path, list[AccuracyRun], "list of runs")
    return runs


def titles_of(runs: Sequence[AccuracyRun]) -> dict[str, str]:
    """What the data of each run is, in words."""
    return {run.name: run.title for run in runs if run.title}


def read_rows(path: Path) -> list[AccuracyRow]:
    """Read the accuracy rows; empty where there is no file. Raises RkzooError when it is
    invalid.
    """
    rows: list[AccuracyRow] = (
        _read(path, list[AccuracyRow], "table of results") if path.exists() else []
    )
    return rows


def write_rows(path: Path, rows: Sequence[AccuracyRow]) -> None:
    """Write the accuracy rows."""
    text = yaml.safe_dump(msgspec.to_builtins(list(rows)), sort_keys=False, allow_unicode=True)
    write_text(path, "# Written by rkzoo report accuracy; not by hand.\n" + text)


def read_support(path: Path) -> list[Support]:
    """Read the support rows; empty where there is no file. Raises RkzooError when it is invalid."""
    rows: list[Support] = _read(path, list[Support], "table of support") if path.exists() else []
    return rows


def write_support(path: Path, rows: Sequence[Support]) -> None:
    """Write the support rows, without default values."""
    leans = [_lean(row) for row in rows]
    write_text(
        path,
        "# Written by rkzoo report support; not by hand.\n"
        + yaml.safe_dump(leans, sort_keys=False, allow_unicode=True, width=100),
    )


def _lean(row: Support) -> dict[str, Any]:
    """A row without fields that have their default value."""
    document = _without_defaults(row)
    for name in ("chips", "half", "w4a16"):
        trials = {soc: _without_defaults(trial) for soc, trial in getattr(row, name).items()}
        document.pop(name, None)
        document |= {name: trials} if trials else {}
    return document


def _without_defaults(record: msgspec.Struct) -> dict[str, Any]:
    fields = msgspec.to_builtins(record)
    usual = {field.encode_name: field.default for field in msgspec.structs.fields(record)}
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in fields.items()
        if value != usual[name]
    }


def _read(path: Path, kind: Any, what: str) -> Any:
    try:
        with os_errors_explained(f"{path} is no {what}."):
            if path.stat().st_size > _LARGEST:
                raise ValueError("it is too large")
            text = read_text(path)
        return msgspec.convert(yaml.load(text, yaml.CSafeLoader) or [], kind)
    except (ValueError, yaml.YAMLError, msgspec.ValidationError) as error:
        why = " ".join(str(error).split())[:300]
        raise RkzooError(f"{path} is no {what}.", f"{why}.", "Fix it, or give another.") from error
