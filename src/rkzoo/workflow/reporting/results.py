"""What was measured and tried, as data: the records of results/*.yaml, read and written.

Light, so that `rkzoo info` can tell of them without what measures them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
import yaml

from rkzoo.contract.schema_base import Strict
from rkzoo.errors import RkzooError
from rkzoo.files import explained, write_text
from rkzoo.workflow.request.quantization import Quantise

_LARGEST = 8 << 20

Weights = Literal["of the card", "another export", "no card"]


class Run(Strict, frozen=True):
    """One line of the list of runs: `model` a file below the assets, or `card` a name."""

    name: str
    data: str
    model: str = ""
    card: str = ""
    limit: int | None = None


class Row(Strict, frozen=True):
    """One model, measured. Values in the metric's unit, drops in points (hundredths of a share,
    or %). `original` is float, `int8` what convert gives without further ado, `tuned` what
    `rkzoo tune` found with `how`. `truth` says whether the float model's own answers took the
    place of known ones, `stages` what the search was limited to (nothing where empty)."""

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
    how: Quantise
    change: str
    calibration: str
    runtime: Literal["simulator", "board"]
    toolkit: str
    rkzoo: str
    date: str
    stages: tuple[str, ...] = ()


class Trial(Strict, frozen=True):
    """One chip. Where `converts` is False, `why` tells, and the rest may be empty.

    `bytes` of the .rknn, `weights` and `internal` (working memory) in bytes, `on_cpu` the
    operators that fall to the processor, one for each layer; `fits` says whether the memory
    inside the chip is enough ("" where its memory is beside it). `ms`, `low`, `high` are the
    estimate of `rkzoo estimate`, None where nothing calibrates it; `cpu_unpriced` layers on the
    processor are not in it.
    """

    converts: bool
    dtype: Literal["", "int8", "fp16"] = ""
    why: str = ""
    bytes: int | None = None
    weights: int | None = None
    internal: int | None = None
    on_cpu: tuple[str, ...] = ()
    fits: Literal["", "yes", "tight", "no"] = ""
    ms: float | None = None
    low: float | None = None
    high: float | None = None
    cpu_unpriced: int = 0


class Support(Strict, frozen=True):
    """One model. `untried` says why it could not be tried, `problem` what is wrong with the model
    itself, whatever the chip; `chips` are those that were tried.

    `weights` tells whose file it was: that `of the card`, `another export` that lies below the
    assets under the card's name, or that of a model without a card. `size` is (height, width),
    `cut` whether a head was cut off and proved equal.
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
    chips: dict[str, Trial] = msgspec.field(default_factory=dict)


def read_runs(path: Path) -> list[Run]:
    """Raises RkzooError when the list is missing or broken."""
    runs: list[Run] = _read(path, list[Run], "list of runs")
    return runs


def read_rows(path: Path) -> list[Row]:
    """The rows measured so far; none where there is no file. Raises RkzooError."""
    rows: list[Row] = _read(path, list[Row], "table of results") if path.exists() else []
    return rows


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    text = yaml.safe_dump(msgspec.to_builtins(list(rows)), sort_keys=False, allow_unicode=True)
    write_text(path, "# Written by rkzoo report accuracy; not by hand.\n" + text)


def read_support(path: Path) -> list[Support]:
    """The rows so far; none where there is no file. Raises RkzooError for a broken one."""
    rows: list[Support] = _read(path, list[Support], "table of support") if path.exists() else []
    return rows


def write_support(path: Path, rows: Sequence[Support]) -> None:
    told = [_lean(row) for row in rows]
    write_text(
        path,
        "# Written by rkzoo report support; not by hand.\n"
        + yaml.safe_dump(told, sort_keys=False, allow_unicode=True, width=100),
    )


def _lean(row: Support) -> dict[str, Any]:
    """Without the fields that have their default value."""
    told = _said(row)
    chips = {soc: _said(trial) for soc, trial in row.chips.items()}
    return told | {"chips": chips} if chips else {k: v for k, v in told.items() if k != "chips"}


def _said(record: msgspec.Struct) -> dict[str, Any]:
    told = msgspec.to_builtins(record)
    usual = {field.encode_name: field.default for field in msgspec.structs.fields(record)}
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in told.items()
        if value != usual[name]
    }


def _read(path: Path, kind: Any, what: str) -> Any:
    try:
        with explained(f"{path} is no {what}."):
            if path.stat().st_size > _LARGEST:
                raise ValueError("it is too large")
            text = path.read_text("utf-8")
        return msgspec.convert(yaml.load(text, yaml.CSafeLoader) or [], kind)
    except (ValueError, yaml.YAMLError, msgspec.ValidationError) as error:
        why = " ".join(str(error).split())[:300]
        raise RkzooError(f"{path} is no {what}.", f"{why}.", "Mend it, or give another.") from error
